// A caller's picture in memory, as the pipeline takes it.
#pragma once

#include <cstdint>
#include <vector>

#include "pipeline.hpp"

namespace ris {

struct PixelView {
    const std::uint8_t* data = nullptr;
    Size size;
    std::int64_t stride_bytes = 0;
    bool bgr = false;
};

// RGB without gaps: the caller's own memory where it is that already, a copy where it is not.
class Pixels {
public:
    // Kind::input where the view cannot be used. The view's memory must outlive this object.
    explicit Pixels(const PixelView& view);

    const Image& image() const { return image_; }

private:
    std::vector<std::uint8_t> copy_;
    Image image_;
};

}  // namespace ris
