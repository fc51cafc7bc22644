// One graph of a bundle, ready to run.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor.hpp"

namespace ris {

// In the manifest's order.
enum class Role { image_encoder, image_projector, point_decoder, mask_decoder, proposal_encoder, text_encoder };
inline constexpr std::size_t role_count = 6;

// Safe to run from several threads at once.
class Session {
public:
    virtual ~Session() = default;

    // Runs the graph; throws Error (errors.hpp) where names, dtypes or shapes are not the manifest's. The outputs own
    // their memory, so that one run's can be the next one's inputs without a copy.
    virtual Tensors run(const Tensors& feeds) const = 0;

    // The largest that a free size of its inputs may be; 0 where there is no bound.
    virtual std::int64_t largest(const std::string& dimension) const = 0;

    // The execution providers that really run it.
    virtual std::vector<std::string> providers() const = 0;
};

using Sessions = std::array<std::unique_ptr<Session>, role_count>;

// At most so many at once, where the graph's own bound is not lower; at least one.
inline std::int64_t bounded(const Session& session, const std::string& dimension, std::int64_t most) {
    const auto bound = session.largest(dimension);
    return std::max(std::int64_t{1}, bound > 0 ? std::min(most, bound) : most);
}

inline const Session& session_of(const Sessions& sessions, Role role) {
    return *sessions[static_cast<std::size_t>(role)];
}

}  // namespace ris
