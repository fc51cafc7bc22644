// Reading what graphs put out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "errors.hpp"
#include "tensor.hpp"

namespace ris {

// An output of a name, of float32 and so many dimensions.
inline const Tensor& output(const Tensors& outputs, const std::string& name, std::size_t dimensions) {
    const auto found = outputs.find(name);
    if (found == outputs.end() || found->second.dtype != Dtype::float32 || found->second.shape.size() != dimensions) {
        throw Error(Kind::bundle, "output " + name + " is missing or no float32 array of " +
                                      std::to_string(dimensions) + " dimensions. Rebuild the bundle.");
    }
    return found->second;
}

}  // namespace ris
