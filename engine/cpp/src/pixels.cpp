#include "pixels.hpp"

#include <algorithm>
#include <cstddef>
#include <string>

#include "errors.hpp"

namespace ris {
namespace {

constexpr std::int64_t max_pixels = 34'000'000;  // an 8K frame, as in Python
constexpr std::int64_t max_side_px = 16'384;

void check_view(const PixelView& view) {
    const auto [height, width] = view.size;
    const auto sides = std::to_string(width) + " x " + std::to_string(height);
    if (view.data == nullptr) throw Error(Kind::input, "image data is NULL; expected the first row's first pixel.");
    if (height < 1 || width < 1) throw Error(Kind::input, "image is " + sides + "; expected at least 1 x 1.");
    if (height > max_side_px || width > max_side_px || height * width > max_pixels) {
        throw Error(Kind::input, "image is " + sides + "; at most " + std::to_string(max_pixels) +
                                     " pixels in all and " + std::to_string(max_side_px) +
                                     " a side are accepted. Shrink it first.");
    }
    if (view.stride_bytes < 3 * width) {
        throw Error(Kind::input, "stride_bytes is " + std::to_string(view.stride_bytes) + "; expected at least 3 * " +
                                     std::to_string(width) + ", the bytes of a row.");
    }
}

}  // namespace

Pixels::Pixels(const PixelView& view) {
    check_view(view);
    image_.size = view.size;
    image_.rgb = view.data;
    const auto row = 3 * view.size.width;
    if (!view.bgr && view.stride_bytes == row) return;
    copy_.resize(static_cast<std::size_t>(row * view.size.height));
    for (std::int64_t y = 0; y < view.size.height; ++y) {
        const auto* from = view.data + y * view.stride_bytes;
        auto* to = copy_.data() + y * row;
        if (!view.bgr) {
            std::copy_n(from, row, to);
            continue;
        }
        for (std::int64_t x = 0; x < row; x += 3) {
            to[x] = from[x + 2];
            to[x + 1] = from[x + 1];
            to[x + 2] = from[x];
        }
    }
    image_.rgb = copy_.data();
}

}  // namespace ris
