// One graph of a bundle, ready to run.
#pragma once

#include <array>
#include <cstddef>
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

    // The execution providers that really run it.
    virtual std::vector<std::string> providers() const = 0;
};

using Sessions = std::array<std::unique_ptr<Session>, role_count>;

inline const Session& session_of(const Sessions& sessions, Role role) {
    return *sessions[static_cast<std::size_t>(role)];
}

}  // namespace ris
