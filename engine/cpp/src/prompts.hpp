// Prompts for SAM: where the automatic generator asks, and what a caller asks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "masks.hpp"
#include "proposal_settings.hpp"

namespace ris {

struct PromptsGiven;

using Point = std::array<float, 2>;  // xy

// P prompts of K points each, in pixels.
struct Prompts {
    std::int64_t points_each = 0;      // K
    std::vector<Point> points;         // (P, K)
    std::vector<std::int64_t> labels;  // (P, K): 1 foreground, 0 background, 2 and 3 a box's corners, -1 padding

    std::int64_t count() const {
        return points_each == 0 ? 0 : static_cast<std::int64_t>(points.size()) / points_each;
    }

    static Prompts at_points(const std::vector<Point>& points);

    Prompts chosen(const std::vector<std::size_t>& rows) const;
};

// A part of the image that is prompted by itself.
struct Crop {
    std::array<std::int64_t, 4> box;  // half-open xyxy in pixels
    std::vector<Point> grid;          // xy as shares of the crop's width and height

    Size size() const { return {box[3] - box[1], box[2] - box[0]}; }
    std::int64_t area_px() const { return size().height * size().width; }
};

// The parts of an image that the automatic generator prompts, the whole image first; crops without a pixel are left
// out.
std::vector<Crop> generator_crops(const ProposalSettings& settings, Size size);

// A regular grid of points in the unit square, row by row, half a cell away from the edges.
std::vector<Point> point_grid(std::int64_t points_per_side);

// Checks a caller's prompts; Kind::input where they do not fit the image.
Prompts read_prompts(const PromptsGiven& given, Size size);

}  // namespace ris
