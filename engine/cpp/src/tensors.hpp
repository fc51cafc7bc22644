// Reading what graphs put out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "errors.hpp"
#include "tensor.hpp"

namespace ris {

constexpr std::int64_t any_size = -1;  // of at least 1

inline std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string text;
    for (const auto side : shape) text += (text.empty() ? "" : ", ") + (side < 0 ? "any" : std::to_string(side));
    return "(" + text + ")";
}

// An output of a name, of float32 and a shape, which a bundle's hashes do not vouch for.
inline const Tensor& output(const Tensors& outputs, const std::string& name, const std::vector<std::int64_t>& shape) {
    const auto found = outputs.find(name);
    if (found == outputs.end()) throw Error(Kind::bundle, "output " + name + " is missing. Rebuild the bundle.");
    const auto& tensor = found->second;
    bool fits = tensor.dtype == Dtype::float32 && tensor.shape.size() == shape.size();
    for (std::size_t axis = 0; fits && axis < shape.size(); ++axis) {
        fits = shape[axis] == any_size ? tensor.shape[axis] > 0 : tensor.shape[axis] == shape[axis];
    }
    if (!fits) {
        throw Error(Kind::bundle, "output " + name + " has the shape " + shape_text(tensor.shape) +
                                      "; expected float32 " + shape_text(shape) + ". Rebuild the bundle.");
    }
    return tensor;
}

}  // namespace ris
