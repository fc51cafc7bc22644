#include "upsample.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace ris {

namespace {

// One pixel's weights of torch.nn.functional.interpolate(mode="bilinear", align_corners=False) along one axis.
struct Taps {
    std::int64_t low, high;
    float low_weight, high_weight;
};

Taps bilinear(std::int64_t pixel, std::int64_t out_size, std::int64_t in_size) {
    const auto ratio = static_cast<double>(in_size) / static_cast<double>(out_size);
    const auto scaled = (static_cast<double>(pixel) + 0.5) * ratio;
    const auto centre = std::clamp(scaled - 0.5, 0.0, static_cast<double>(in_size - 1));
    const auto low = static_cast<std::int64_t>(std::floor(centre)), high = std::min(low + 1, in_size - 1);
    const auto share = centre - static_cast<double>(low);
    const auto low_weight = static_cast<float>(1 - share), high_weight = static_cast<float>(share);
    if (low == high) return {low, low, low_weight + high_weight, 0};
    return {low, high, low_weight, high_weight};
}

// The weights of a pixel's logits from `first` on.
struct Mixed {
    std::int64_t first;
    std::vector<float> weights;
};

// The product of both resizes for one pixel; the size without padding is rounded in integers as in `image_encoder`.
Mixed mix(std::int64_t pixel, std::int64_t side, std::int64_t inner, std::int64_t low, std::int64_t square) {
    const auto outer = bilinear(pixel, side, inner);
    const Taps parts[] = {bilinear(outer.low, square, low), bilinear(outer.high, square, low)};
    const float shares[] = {outer.low_weight, outer.high_weight};
    const bool fused = fuses_products();
    Mixed mixed{parts[0].low, std::vector<float>(static_cast<std::size_t>(parts[1].high - parts[0].low + 1), 0.0F)};
    const auto add = [&](std::int64_t logit, float weight, float share) {
        auto& sum = mixed.weights[static_cast<std::size_t>(logit - mixed.first)];
        sum = fused ? std::fma(share, weight, sum) : share * weight + sum;
    };
    for (std::size_t part = 0; part < (outer.low == outer.high ? 1U : 2U); ++part) {
        add(parts[part].low, parts[part].low_weight, shares[part]);
        if (parts[part].high != parts[part].low) add(parts[part].high, parts[part].high_weight, shares[part]);
    }
    while (mixed.weights.back() == 0) mixed.weights.pop_back();
    const auto lead = mixed.weights.begin();
    const auto used = std::find_if(lead, mixed.weights.end(), [](float weight) { return weight != 0; });
    mixed.first += used - lead;
    mixed.weights.erase(lead, used);
    return mixed;
}

// Cuts one axis into tiles.
std::vector<TileAxis> cut_axis(std::int64_t side, std::int64_t longest, std::int64_t low, std::int64_t square) {
    const auto inner = std::max(std::int64_t{1}, (2 * side * square + longest) / (2 * longest));
    std::vector<Mixed> pixels;
    std::size_t taps = 0;
    for (std::int64_t pixel = 0; pixel < side; ++pixel) {
        pixels.push_back(mix(pixel, side, inner, low, square));
        taps = std::max(taps, pixels.back().weights.size());
    }
    const auto tile_stop = [&](std::size_t start) { return std::min(start + tile_px, pixels.size()); };
    std::vector<std::int64_t> firsts, lasts;
    std::int64_t window = static_cast<std::int64_t>(taps);
    for (std::size_t start = 0; start < pixels.size(); start += tile_px) {
        std::int64_t first = low, past = 0;
        for (auto pixel = start; pixel < tile_stop(start); ++pixel) {
            first = std::min(first, pixels[pixel].first);
            past = std::max(past, pixels[pixel].first + static_cast<std::int64_t>(pixels[pixel].weights.size()));
        }
        firsts.push_back(first);
        window = std::max(window, past - first);
    }
    std::vector<TileAxis> tiles;
    for (std::size_t start = 0; start < pixels.size(); start += tile_px) {
        TileAxis tile;
        const auto window_start = std::min(firsts[tiles.size()], low - window);
        tile.length = tile_stop(start) - start;
        tile.start = static_cast<std::size_t>(window_start);
        tile.window = static_cast<std::size_t>(window);
        tile.taps = taps;
        tile.weights.assign(tile_px * taps, 0.0F);
        for (std::size_t place = 0; place < tile.length; ++place) {
            const auto& pixel = pixels[start + place];
            const auto wanted = static_cast<std::size_t>(pixel.first - window_start);
            tile.first[place] = std::min(wanted, tile.window - taps);
            std::copy(pixel.weights.begin(), pixel.weights.end(),
                      tile.weights.begin() + static_cast<std::ptrdiff_t>(place * taps + wanted - tile.first[place]));
        }
        tiles.push_back(std::move(tile));
    }
    return tiles;
}

// The box of a mask that is given piece by piece.
class Extent {
public:
    void add(std::size_t x0, std::size_t y0, std::size_t x1, std::size_t y1) {
        x0_ = std::min(x0_, x0);
        y0_ = std::min(y0_, y0);
        x1_ = std::max(x1_, x1);
        y1_ = std::max(y1_, y1);
    }

    Box box() const {
        if (x1_ == 0) return Box{0, 0, 0, 0};
        return Box{static_cast<float>(x0_), static_cast<float>(y0_), static_cast<float>(x1_), static_cast<float>(y1_)};
    }

private:
    std::size_t x0_ = std::numeric_limits<std::size_t>::max(), y0_ = x0_, x1_ = 0, y1_ = 0;
};

using Marks = std::array<std::uint8_t, tile_px>;

std::size_t first_marked(const Marks& marks) {
    return static_cast<std::size_t>(std::find(marks.begin(), marks.end(), 1) - marks.begin());
}

std::size_t past_marked(const Marks& marks) {
    return tile_px - static_cast<std::size_t>(std::find(marks.rbegin(), marks.rend(), 1) - marks.rbegin());
}

// Adds the runs of one column to a mask.
void add_column(const std::uint8_t* pixels, std::size_t count, std::int64_t start, RunWriter& writer) {
    const std::uint8_t* place = pixels;
    const std::uint8_t* const end = pixels + count;
    while (place < end) {
        const auto rest = static_cast<std::size_t>(end - place);
        const auto* const first = static_cast<const std::uint8_t*>(std::memchr(place, 1, rest));
        if (first == nullptr) return;
        const auto tail = static_cast<std::size_t>(end - first);
        const auto* past = static_cast<const std::uint8_t*>(std::memchr(first, 0, tail));
        if (past == nullptr) past = end;
        writer.add(start + (first - pixels), start + (past - pixels));
        place = past;
    }
}

}  // namespace

Upsampler::Upsampler(Size size, Size logits_size, std::int64_t sam_image_size_px)
    : size_(size),
      logits_size_(logits_size),
      rows_(cut_axis(size.height, std::max(size.height, size.width), logits_size.height, sam_image_size_px)),
      columns_(cut_axis(size.width, std::max(size.height, size.width), logits_size.width, sam_image_size_px)) {}

Measured Upsampler::measure(const float* logits, double stability_score_offset) const {
    const auto above = static_cast<float>(stability_score_offset), below = -above;
    const auto tiles = judge(logits, std::min(below, 0.0F), std::max(above, 0.0F));
    const auto& kernel = tile_kernel();
    std::vector<float> scratch(scratch_size(columns_[0].window));
    TileValues values;
    std::array<std::uint8_t, tile_px * tile_px> drawn;
    Marks used_rows, used_columns;
    std::int64_t inner = 0, outer = 0;
    Extent extent;
    for (std::size_t row = 0; row < rows_.size(); ++row) {
        for (std::size_t column = 0; column < columns_.size(); ++column) {
            const auto x = column * tile_px, y = row * tile_px;
            const auto tile = tiles[row * columns_.size() + column];
            if (tile == Tile::full) {
                const auto width = columns_[column].length, height = rows_[row].length;
                inner += static_cast<std::int64_t>(width * height);
                outer += static_cast<std::int64_t>(width * height);
                extent.add(x, y, x + width, y + height);
            } else if (tile == Tile::mixed) {
                evaluate(logits, row, column, scratch, values);
                inner += kernel.count(values, above);
                outer += kernel.count(values, below);
                kernel.draw(values, drawn, used_rows, used_columns);
                if (past_marked(used_rows) == 0) continue;
                extent.add(x + first_marked(used_columns), y + first_marked(used_rows), x + past_marked(used_columns),
                           y + past_marked(used_rows));
            }
        }
    }
    return {static_cast<float>(inner) / static_cast<float>(outer), extent.box()};
}

Runs Upsampler::draw(const float* logits, const Box& box, std::int64_t x0, std::int64_t y0, Size whole) const {
    const auto tiles = judge(logits, 0, 0);
    const auto& kernel = tile_kernel();
    std::vector<float> scratch(scratch_size(columns_[0].window));
    TileValues values;
    std::array<std::uint8_t, tile_px * tile_px> drawn;
    Marks used_rows, used_columns;
    // The mask is drawn one column of tiles at a time, its pixels down the columns, between its first and last row.
    const auto left = static_cast<std::size_t>(box[0]), right = static_cast<std::size_t>(box[2]);
    const auto first_row = static_cast<std::size_t>(box[1]) / tile_px;
    const auto past_row = (static_cast<std::size_t>(box[3]) + tile_px - 1) / tile_px;
    const auto height = (past_row - first_row) * tile_px;
    std::vector<std::uint8_t> canvas(height * tile_px);
    RunWriter writer(right - left);
    for (std::size_t column = left / tile_px; column * tile_px < right; ++column) {
        for (auto row = first_row; row < past_row; ++row) {
            const auto tile = tiles[row * columns_.size() + column];
            if (tile == Tile::mixed) {
                evaluate(logits, row, column, scratch, values);
                kernel.draw(values, drawn, used_rows, used_columns);
            } else {
                drawn.fill(tile == Tile::full ? 1 : 0);
            }
            std::uint8_t* place = canvas.data() + (row - first_row) * tile_px;
            for (std::size_t x = 0; x < tile_px; ++x) {
                std::memcpy(place + x * height, drawn.data() + x * tile_px, tile_px);
            }
        }
        const auto rows = std::min(height, static_cast<std::size_t>(size_.height) - first_row * tile_px);
        for (std::size_t x = 0; x < columns_[column].length; ++x) {
            const auto image_x = static_cast<std::int64_t>(column * tile_px + x) + x0;
            const auto image_y = static_cast<std::int64_t>(first_row * tile_px) + y0;
            add_column(canvas.data() + x * height, rows, image_x * whole.height + image_y, writer);
        }
    }
    return writer.finish(whole.height * whole.width);
}

std::size_t Upsampler::nearest(const Point& point) const {
    const auto longest = std::max(size_.height, size_.width);
    const auto place = [&](float at, std::int64_t side, std::int64_t logits) {
        // Beyond the image is padding. In integers: a rounded product could point past the logits.
        const auto limit = (side * logits + longest - 1) / longest - 1;
        const auto share = static_cast<double>(logits) / static_cast<double>(longest);
        return std::min(static_cast<std::int64_t>(static_cast<double>(at) * share), limit);
    };
    const auto row = place(point[1], size_.height, logits_size_.height);
    const auto column = place(point[0], size_.width, logits_size_.width);
    return static_cast<std::size_t>(row * logits_size_.width + column);
}

std::vector<Upsampler::Tile> Upsampler::judge(const float* logits, float low, float high) const {
    const auto width = static_cast<std::size_t>(logits_size_.width);
    std::vector<Tile> tiles;
    tiles.reserve(rows_.size() * columns_.size());
    std::vector<std::int32_t> all_above(width), any_above(width);
    for (const auto& row : rows_) {
        std::fill(all_above.begin(), all_above.end(), 1);
        std::fill(any_above.begin(), any_above.end(), 0);
        for (std::size_t y = row.start; y < row.start + row.window; ++y) {
            const float* values = logits + y * width;
            for (std::size_t x = 0; x < width; ++x) {
                all_above[x] &= values[x] > high ? 1 : 0;
                any_above[x] |= values[x] > low ? 1 : 0;
            }
        }
        for (const auto& column : columns_) {
            bool full = true, reached = false;
            for (std::size_t x = column.start; x < column.start + column.window; ++x) {
                full = full && all_above[x] != 0;
                reached = reached || any_above[x] != 0;
            }
            tiles.push_back(full ? Tile::full : reached ? Tile::mixed : Tile::empty);
        }
    }
    return tiles;
}

void Upsampler::evaluate(const float* logits, std::size_t row, std::size_t column, std::vector<float>& scratch,
                         TileValues& values) const {
    const auto width = static_cast<std::size_t>(logits_size_.width);
    const float* window = logits + rows_[row].start * width + columns_[column].start;
    tile_kernel().evaluate(rows_[row], columns_[column], window, width, scratch.data(), values);
}

}  // namespace ris
