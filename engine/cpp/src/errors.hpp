// What goes wrong, in the words of a status and a message: expected, actual, remedy.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace ris {

// The kinds of the Python runtime: BundleError, BackendError, InputError; and a caller's buffer that is too small.
enum class Kind { input, bundle, backend, buffer_too_small, internal };

class Error : public std::runtime_error {
public:
    Error(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
    Kind kind() const noexcept { return kind_; }

private:
    Kind kind_;
};

// Names in a message.
inline std::string joined(const std::vector<std::string>& names) {
    std::string all;
    for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
    return all;
}

}  // namespace ris
