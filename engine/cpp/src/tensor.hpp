// Arrays that enter and leave graphs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ris {

enum class Dtype { float32, float16, uint8, int64, boolean };

// A C-contiguous array, which `owner` keeps alive; without an owner it is the caller's and must outlive the call.
struct Tensor {
    Dtype dtype = Dtype::float32;
    std::vector<std::int64_t> shape;
    void* data = nullptr;
    std::shared_ptr<void> owner;

    std::int64_t count() const {
        std::int64_t product = 1;
        for (const auto side : shape) product *= side;
        return product;
    }

    template <typename T>
    const T* as() const {
        return static_cast<const T*>(data);
    }

    // Lends an array for the time of a call; graphs only read their inputs.
    template <typename T>
    static Tensor lent(Dtype dtype, std::vector<std::int64_t> shape, const T* data) {
        return Tensor{dtype, std::move(shape), const_cast<T*>(data), nullptr};
    }
};

using Tensors = std::map<std::string, Tensor>;

}  // namespace ris
