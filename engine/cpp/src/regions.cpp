#include "regions.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace ris {

namespace {

// A part of a run that lies in one column.
struct Piece {
    std::int64_t column, top, bottom;
    bool inside;
};

struct Regions {
    std::vector<std::size_t> region;  // of each piece chosen
    std::vector<std::int64_t> areas;  // of each region
};

std::vector<Piece> cut(const Runs& runs, std::int64_t height) {
    std::vector<Piece> pieces;
    std::int64_t place = 0;
    for (std::size_t index = 0; index < runs.size(); ++index) {
        const auto stop = place + runs[index];
        while (place < stop) {
            const auto column = place / height, top = place % height, bottom = std::min(top + stop - place, height);
            pieces.push_back({column, top, bottom, index % 2 == 1});
            place += bottom - top;
        }
    }
    return pieces;
}

Runs joined(const std::vector<Piece>& pieces, Size size) {
    RunWriter writer(pieces.size());
    for (const auto& piece : pieces) {
        if (piece.inside) writer.add(piece.column * size.height + piece.top, piece.column * size.height + piece.bottom);
    }
    return writer.finish(size.height * size.width);
}

std::size_t root_of(std::vector<std::size_t>& parents, std::size_t piece) {
    while (parents[piece] != piece) {
        parents[piece] = parents[parents[piece]];
        piece = parents[piece];
    }
    return piece;
}

// Labels the regions of pieces, which come in order, by their first piece.
Regions label(const std::vector<Piece>& pieces) {
    std::vector<std::size_t> parents(pieces.size());
    for (std::size_t piece = 0; piece < pieces.size(); ++piece) parents[piece] = piece;
    std::size_t first = 0;  // in the column before, of those that may touch
    for (std::size_t piece = 0; piece < pieces.size(); ++piece) {
        const auto& own = pieces[piece];
        while (pieces[first].column + 1 < own.column ||
               (pieces[first].column + 1 == own.column && pieces[first].bottom < own.top)) {
            ++first;
        }
        for (auto other = first; pieces[other].column + 1 == own.column && pieces[other].top <= own.bottom; ++other) {
            const auto a = root_of(parents, piece), b = root_of(parents, other);
            parents[std::max(a, b)] = std::min(a, b);
        }
    }
    Regions regions;
    regions.region.resize(pieces.size());
    std::vector<std::size_t> numbers(pieces.size());
    for (std::size_t piece = 0; piece < pieces.size(); ++piece) {
        const auto root = root_of(parents, piece);
        if (root == piece) {
            numbers[piece] = regions.areas.size();
            regions.areas.push_back(0);
        }
        regions.region[piece] = numbers[root];
        regions.areas[numbers[root]] += pieces[piece].bottom - pieces[piece].top;
    }
    return regions;
}

// The largest region; of equal ones the first that OpenCV meets, which walks 2 x 2 blocks row by row.
std::size_t largest(const Regions& regions, const std::vector<Piece>& pieces, Size size) {
    std::vector<std::int64_t> first(regions.areas.size(), std::numeric_limits<std::int64_t>::max());
    for (std::size_t piece = 0; piece < pieces.size(); ++piece) {
        const auto block = pieces[piece].top / 2 * size.width + pieces[piece].column / 2;
        first[regions.region[piece]] = std::min(first[regions.region[piece]], block);
    }
    std::size_t best = 0;
    for (std::size_t region = 1; region < first.size(); ++region) {
        if (regions.areas[region] > regions.areas[best] ||
            (regions.areas[region] == regions.areas[best] && first[region] < first[best])) {
            best = region;
        }
    }
    return best;
}

std::vector<Piece> chosen(const std::vector<Piece>& pieces, bool inside) {
    std::vector<Piece> some;
    for (const auto& piece : pieces) {
        if (piece.inside == inside) some.push_back(piece);
    }
    return some;
}

// Gives the pieces of one side, in order, to the other side where their region is marked.
void turn(std::vector<Piece>& pieces, bool inside, const Regions& regions, const std::vector<bool>& marked) {
    std::size_t next = 0;
    for (auto& piece : pieces) {
        if (piece.inside == inside && marked[regions.region[next++]]) piece.inside = !inside;
    }
}

std::vector<bool> small_ones(const Regions& regions, std::int64_t min_area) {
    std::vector<bool> small;
    for (const auto area : regions.areas) small.push_back(area < min_area);
    return small;
}

}  // namespace

bool remove_small_regions(Runs& runs, Size size, std::int64_t min_area) {
    auto pieces = cut(runs, size.height);
    const auto holes = label(chosen(pieces, false));
    const auto small_holes = small_ones(holes, min_area);
    turn(pieces, false, holes, small_holes);
    pieces = cut(joined(pieces, size), size.height);
    const auto inside = chosen(pieces, true);
    const auto islands = label(inside);
    auto small_islands = small_ones(islands, min_area);
    const auto is_small = [](bool small) { return small; };
    const bool found = std::any_of(small_holes.begin(), small_holes.end(), is_small) ||
                       std::any_of(small_islands.begin(), small_islands.end(), is_small);
    if (!small_islands.empty() && std::all_of(small_islands.begin(), small_islands.end(), is_small)) {
        small_islands[largest(islands, inside, size)] = false;
    }
    turn(pieces, true, islands, small_islands);
    runs = joined(pieces, size);
    return found;
}

}  // namespace ris
