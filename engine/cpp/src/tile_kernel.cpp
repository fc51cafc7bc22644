#include "tile_kernel.hpp"

#include <algorithm>
#include <limits>

// Built twice on x86-64, and chosen when it runs: a build for all processors may not assume AVX2 and FMA.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define RIS_TWO_KERNELS 1
#define RIS_WIDE __attribute__((target("avx2,fma")))
#else
#define RIS_TWO_KERNELS 0
#endif
#if defined(__GNUC__) || defined(__clang__)
#define RIS_INLINE inline __attribute__((always_inline))
#else
#define RIS_INLINE inline
#endif

namespace ris {

namespace {

#if defined(__aarch64__) || defined(__FMA__)
constexpr bool always_fused = true;
#else
constexpr bool always_fused = false;
#endif

template <bool fused>
RIS_INLINE float multiply_add(float a, float b, float sum) {
    if constexpr (fused) {
        return __builtin_fmaf(a, b, sum);
    } else {
        return a * b + sum;
    }
}

template <bool fused>
RIS_INLINE void evaluate(const TileAxis& rows, const TileAxis& columns, const float* window, std::size_t stride,
                         float* scratch, TileValues& values) {
    const auto width = columns.window;
    float* mixed = scratch;           // one row of the tile, of `width` logits
    float* turned = scratch + width;  // all of them, column by column
    for (std::size_t y = 0; y < rows.length; ++y) {
        const float* weights = rows.weights.data() + y * rows.taps;
        const float* logits = window + rows.first[y] * stride;
        for (std::size_t x = 0; x < width; ++x) mixed[x] = weights[0] * logits[x];
        for (std::size_t tap = 1; tap < rows.taps; ++tap) {
            const float weight = weights[tap];
            const float* row = logits + tap * stride;
            for (std::size_t x = 0; x < width; ++x) mixed[x] = multiply_add<fused>(weight, row[x], mixed[x]);
        }
        for (std::size_t x = 0; x < width; ++x) turned[x * tile_px + y] = mixed[x];
    }
    for (std::size_t x = 0; x < width; ++x) {
        for (std::size_t y = rows.length; y < tile_px; ++y) turned[x * tile_px + y] = 0;
    }
    for (std::size_t x = 0; x < columns.length; ++x) {
        const float* weights = columns.weights.data() + x * columns.taps;
        const float* column = turned + columns.first[x] * tile_px;
        float sums[tile_px];
        for (std::size_t y = 0; y < tile_px; ++y) sums[y] = weights[0] * column[y];
        for (std::size_t tap = 1; tap < columns.taps; ++tap) {
            const float weight = weights[tap];
            const float* next = column + tap * tile_px;
            for (std::size_t y = 0; y < tile_px; ++y) sums[y] = multiply_add<fused>(weight, next[y], sums[y]);
        }
        float* out = values.data() + x * tile_px;
        for (std::size_t y = 0; y < tile_px; ++y) out[y] = sums[y];
        for (std::size_t y = rows.length; y < tile_px; ++y) out[y] = -std::numeric_limits<float>::infinity();
    }
    std::fill(values.data() + columns.length * tile_px, values.data() + values.size(),
              -std::numeric_limits<float>::infinity());
}

RIS_INLINE std::int64_t count(const TileValues& values, float cut_off) {
    std::int32_t above = 0;
    for (std::size_t place = 0; place < values.size(); ++place) above += values[place] > cut_off ? 1 : 0;
    return above;
}

RIS_INLINE void draw(const TileValues& values, std::array<std::uint8_t, tile_px * tile_px>& drawn,
                     std::array<std::uint8_t, tile_px>& rows, std::array<std::uint8_t, tile_px>& columns) {
    rows.fill(0);
    for (std::size_t place = 0; place < values.size(); ++place) drawn[place] = values[place] > 0 ? 1 : 0;
    for (std::size_t x = 0; x < tile_px; ++x) {
        const std::uint8_t* column = drawn.data() + x * tile_px;
        std::uint8_t any = 0;
        for (std::size_t y = 0; y < tile_px; ++y) {
            rows[y] = static_cast<std::uint8_t>(rows[y] | column[y]);
            any = static_cast<std::uint8_t>(any | column[y]);
        }
        columns[x] = any;
    }
}

void evaluate_plain(const TileAxis& rows, const TileAxis& columns, const float* window, std::size_t stride,
                    float* scratch, TileValues& values) {
    evaluate<always_fused>(rows, columns, window, stride, scratch, values);
}

std::int64_t count_plain(const TileValues& values, float cut_off) { return count(values, cut_off); }

void draw_plain(const TileValues& values, std::array<std::uint8_t, tile_px * tile_px>& drawn,
                std::array<std::uint8_t, tile_px>& rows, std::array<std::uint8_t, tile_px>& columns) {
    draw(values, drawn, rows, columns);
}

constexpr TileKernel plain{evaluate_plain, count_plain, draw_plain};

#if RIS_TWO_KERNELS
RIS_WIDE void evaluate_wide(const TileAxis& rows, const TileAxis& columns, const float* window, std::size_t stride,
                            float* scratch, TileValues& values) {
    evaluate<true>(rows, columns, window, stride, scratch, values);
}

RIS_WIDE std::int64_t count_wide(const TileValues& values, float cut_off) { return count(values, cut_off); }

RIS_WIDE void draw_wide(const TileValues& values, std::array<std::uint8_t, tile_px * tile_px>& drawn,
                        std::array<std::uint8_t, tile_px>& rows, std::array<std::uint8_t, tile_px>& columns) {
    draw(values, drawn, rows, columns);
}

constexpr TileKernel wide{evaluate_wide, count_wide, draw_wide};

bool runs_wide() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

}  // namespace

const TileKernel& tile_kernel() {
#if RIS_TWO_KERNELS
    return runs_wide() ? wide : plain;
#else
    return plain;
#endif
}

bool fuses_products() {
#if RIS_TWO_KERNELS
    return always_fused || runs_wide();
#else
    return always_fused;
#endif
}

}  // namespace ris
