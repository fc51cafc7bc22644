// A mask decoder's logits at the image's size, computed only where they decide something.
//
// segment-anything resizes logits to its square input, cuts the padding off and resizes to the image, both times with
// two bilinear taps a pixel. Both are linear, so their product is a few taps a pixel and axis. The image is cut into
// tiles: where all the logits that reach a tile lie on one side of a cut-off, so do its pixels, and only the tiles
// left, along the masks' edges, are computed. Sums are taken in the Python runtime's order, so that masks are equal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "masks.hpp"
#include "prompts.hpp"
#include "tile_kernel.hpp"

namespace ris {

// Of the mask `logits > 0` at the image's size.
struct Measured {
    float stability_score;  // IoU of the masks cut at the offset above and below 0; NaN where both are empty
    Box box;
};

// Upsamples the logits of one size of image.
class Upsampler {
public:
    // `logits_size`: of the logits, which cover the padded square of side `sam_image_size_px`.
    Upsampler(Size size, Size logits_size, std::int64_t sam_image_size_px);

    // Measures a mask of (h, w) logits without drawing it.
    Measured measure(const float* logits, double stability_score_offset) const;

    // Draws the mask `logits > 0` into an image of `whole` pixels at (x0, y0); `box` is as measured.
    Runs draw(const float* logits, const Box& box, std::int64_t x0, std::int64_t y0, Size whole) const;

    // The place in (h, w) logits of the one nearest to a point in pixels of the image.
    std::size_t nearest(const Point& point) const;

private:
    enum class Tile : std::uint8_t { empty, mixed, full };

    // Tells which tiles, row by row, lie wholly above `high`, and which have to be computed.
    std::vector<Tile> judge(const float* logits, float low, float high) const;

    void evaluate(const float* logits, std::size_t row, std::size_t column, std::vector<float>& scratch,
                  TileValues& values) const;

    Size size_, logits_size_;
    std::vector<TileAxis> rows_, columns_;
};

}  // namespace ris
