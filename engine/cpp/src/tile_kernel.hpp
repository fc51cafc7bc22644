// The inner loops of the upsampler: one tile of an image from a window of logits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ris {

inline constexpr std::size_t tile_px = 48;

// How one axis of a tile mixes the logits of its window: pixel p is the sum of weights[p][t] * logit[first[p] + t].
struct TileAxis {
    std::size_t length = 0;  // pixels in the image, at most tile_px
    std::size_t start = 0;   // first logit of the window
    std::size_t window = 0;  // logits
    std::size_t taps = 0;
    std::array<std::size_t, tile_px> first{};
    std::vector<float> weights;  // (tile_px, taps)
};

// A tile's logits, column by column.
using TileValues = std::array<float, tile_px * tile_px>;

struct TileKernel {
    // Computes a tile from its window, rows `stride` apart; pixels beyond the image are -inf. `scratch` holds what
    // `scratch_size` says.
    void (*evaluate)(const TileAxis& rows, const TileAxis& columns, const float* window, std::size_t stride,
                     float* scratch, TileValues& values);

    // Counts the values above a cut-off.
    std::int64_t (*count)(const TileValues& values, float cut_off);

    // Marks values above 0 in their place, and which rows and columns have one.
    void (*draw)(const TileValues& values, std::array<std::uint8_t, tile_px * tile_px>& drawn,
                 std::array<std::uint8_t, tile_px>& rows, std::array<std::uint8_t, tile_px>& columns);
};

// What `evaluate` needs for windows of so many columns.
inline std::size_t scratch_size(std::size_t window) { return window * (tile_px + 1); }

// The fastest for this processor.
const TileKernel& tile_kernel();

// Whether `tile_kernel` rounds a product and a sum once, as the Python runtime's BLAS does on the same processor.
bool fuses_products();

}  // namespace ris
