#include "masks.hpp"

#include <algorithm>
#include <cstring>

namespace ris {

namespace {

// Calls piece(column, top, bottom) for the part of every foreground run that lies in one column.
template <typename Piece>
void for_each_piece(const Runs& runs, Size size, const Piece& piece) {
    std::int64_t place = 0;
    for (std::size_t index = 0; index < runs.size(); ++index) {
        const auto stop = place + runs[index];
        if (index % 2 == 1) {
            while (place < stop) {
                const auto column = place / size.height, top = place % size.height;
                const auto bottom = std::min(top + stop - place, size.height);
                piece(column, top, bottom);
                place += bottom - top;
            }
        }
        place = stop;
    }
}

}  // namespace

void unpack_runs(const Runs& runs, Size size, std::uint8_t* mask) {
    std::memset(mask, 0, static_cast<std::size_t>(size.height * size.width));
    std::int64_t left = size.width, right = 0, first = size.height, last = 0;
    // Only the ends of the pieces are written down the columns; the rest is filled row by row, many pixels at a time.
    for_each_piece(runs, size, [&](std::int64_t column, std::int64_t top, std::int64_t bottom) {
        mask[top * size.width + column] ^= 1;
        if (bottom < size.height) mask[bottom * size.width + column] ^= 1;
        left = std::min(left, column);
        right = std::max(right, column + 1);
        first = std::min(first, top);
        last = std::max(last, bottom);
    });
    for (auto y = first + 1; y < std::min(last + 1, size.height); ++y) {
        const std::uint8_t* above = mask + (y - 1) * size.width;
        std::uint8_t* row = mask + y * size.width;
        for (auto x = left; x < right; ++x) row[x] = static_cast<std::uint8_t>(row[x] ^ above[x]);
    }
}

Runs pack_mask(const std::uint8_t* mask, Size size, std::int64_t stride) {
    const auto width = static_cast<std::size_t>(size.width);
    // Where a column's value changes, row by row; a counting sort brings the changes into the columns' order.
    std::vector<std::uint8_t> above(width, 0), changed(width);
    std::vector<std::int64_t> counts(width + 1, 0);
    const auto for_each_change = [&](const auto& change) {
        std::fill(above.begin(), above.end(), std::uint8_t{0});
        for (std::int64_t y = 0; y < size.height; ++y) {
            const std::uint8_t* row = mask + y * stride;
            std::uint8_t any = 0;
            for (std::size_t x = 0; x < width; ++x) {
                const auto value = static_cast<std::uint8_t>(row[x] != 0);
                changed[x] = static_cast<std::uint8_t>(value ^ above[x]);
                any = static_cast<std::uint8_t>(any | changed[x]);
                above[x] = value;
            }
            if (any == 0) continue;
            for (std::size_t x = 0; x < width; ++x) {
                if (changed[x] != 0) change(x, y);
            }
        }
    };
    for_each_change([&](std::size_t x, std::int64_t) { ++counts[x + 1]; });
    for (std::size_t x = 0; x < width; ++x) counts[x + 1] += counts[x];
    std::vector<std::int64_t> rows(static_cast<std::size_t>(counts[width]));
    auto next = counts;
    for_each_change([&](std::size_t x, std::int64_t y) { rows[static_cast<std::size_t>(next[x]++)] = y; });
    RunWriter writer(rows.size() / 2 + 1);
    for (std::size_t x = 0; x < width; ++x) {
        const auto column = static_cast<std::int64_t>(x) * size.height;
        for (auto index = counts[x]; index < counts[x + 1]; index += 2) {
            const auto bottom = index + 1 < counts[x + 1] ? rows[static_cast<std::size_t>(index + 1)] : size.height;
            writer.add(column + rows[static_cast<std::size_t>(index)], column + bottom);
        }
    }
    return writer.finish(size.height * size.width);
}

Box box_from_runs(const Runs& runs, Size size) {
    std::int64_t left = size.width, right = 0, first = size.height, last = 0;
    for_each_piece(runs, size, [&](std::int64_t column, std::int64_t top, std::int64_t bottom) {
        left = std::min(left, column);
        right = std::max(right, column + 1);
        first = std::min(first, top);
        last = std::max(last, bottom);
    });
    if (right == 0) return Box{0, 0, 0, 0};
    return Box{static_cast<float>(left), static_cast<float>(first), static_cast<float>(right),
               static_cast<float>(last)};
}

}  // namespace ris
