#include "prompts.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "errors.hpp"
#include "pipeline.hpp"

namespace ris {

namespace {

constexpr std::int64_t foreground = 1, corner = 2, other_corner = 3, padding = -1;  // segment-anything's labels

std::int64_t power(std::int64_t base, std::int64_t exponent) {
    std::int64_t product = 1;
    for (std::int64_t step = 0; step < exponent; ++step) product *= base;
    return product;
}

std::vector<Point> layer_grid(const ProposalSettings& settings, std::int64_t layer) {
    if (!settings.point_grids) {
        return point_grid(settings.points_per_side / power(settings.crop_n_points_downscale_factor, layer));
    }
    std::vector<Point> grid;
    for (const auto& [x, y] : (*settings.point_grids)[static_cast<std::size_t>(layer)]) {
        grid.push_back({static_cast<float>(x), static_cast<float>(y)});
    }
    return grid;
}

void check_inside(const Point& point, Size size, const std::string& name, std::size_t row) {
    if (!std::isfinite(point[0]) || !std::isfinite(point[1])) {
        throw Error(Kind::input, name + " hold NaN or an infinite number in row " + std::to_string(row) +
                                     "; expected pixels. Leave that row out.");
    }
    if (point[0] < 0 || point[1] < 0 || point[0] > static_cast<float>(size.width) ||
        point[1] > static_cast<float>(size.height)) {
        throw Error(Kind::input, name + " of row " + std::to_string(row) +
                                     " lie beyond the image; expected x in [0, " + std::to_string(size.width) +
                                     "] and y in [0, " + std::to_string(size.height) +
                                     "], in pixels. Clip them, or scale them to this image.");
    }
}

}  // namespace

Prompts Prompts::at_points(const std::vector<Point>& points) {
    Prompts prompts;
    prompts.points_each = 2;
    for (const auto& point : points) {
        prompts.points.push_back(point);
        prompts.points.push_back({0, 0});  // segment-anything pads a prompt without a box
        prompts.labels.push_back(foreground);
        prompts.labels.push_back(padding);
    }
    return prompts;
}

Prompts Prompts::chosen(const std::vector<std::size_t>& rows) const {
    Prompts some;
    some.points_each = points_each;
    for (const auto row : rows) {
        for (auto each = static_cast<std::size_t>(points_each), place = row * each; place < (row + 1) * each; ++place) {
            some.points.push_back(points[place]);
            some.labels.push_back(labels[place]);
        }
    }
    return some;
}

std::vector<Crop> generator_crops(const ProposalSettings& settings, Size size) {
    std::vector<Crop> crops;
    const auto shortest = static_cast<double>(std::min(size.height, size.width));
    for (std::int64_t layer = 0; layer <= settings.crop_n_layers; ++layer) {
        const auto grid = layer_grid(settings, layer);
        const auto count = power(2, layer);
        const auto overlap = layer == 0 ? 0
                                        : static_cast<std::int64_t>(settings.crop_overlap_ratio * shortest *
                                                                    (2 / static_cast<double>(count)));
        const auto crop_side = [&](std::int64_t side) {
            return static_cast<std::int64_t>(
                std::ceil(static_cast<double>(overlap * (count - 1) + side) / static_cast<double>(count)));
        };
        const auto crop_width = crop_side(size.width), crop_height = crop_side(size.height);
        for (std::int64_t column = 0; column < count; ++column) {
            for (std::int64_t row = 0; row < count; ++row) {
                const auto x0 = column * (crop_width - overlap), y0 = row * (crop_height - overlap);
                const auto x1 = std::min(x0 + crop_width, size.width), y1 = std::min(y0 + crop_height, size.height);
                if (x0 < x1 && y0 < y1) crops.push_back({{x0, y0, x1, y1}, grid});
            }
        }
    }
    return crops;
}

std::vector<Point> point_grid(std::int64_t points_per_side) {
    const auto tick = [&](std::int64_t index) {
        return static_cast<float>((static_cast<double>(index) + 0.5) / static_cast<double>(points_per_side));
    };
    std::vector<Point> grid;
    for (std::int64_t row = 0; row < points_per_side; ++row) {
        for (std::int64_t column = 0; column < points_per_side; ++column) grid.push_back({tick(column), tick(row)});
    }
    return grid;
}

Prompts read_prompts(const PromptsGiven& given, Size size) {
    const bool has_points = given.points != nullptr && given.points_each > 0, has_boxes = given.boxes != nullptr;
    if (!has_points && given.labels != nullptr) {
        throw Error(Kind::input, "labels are given without points; expected both. A box needs no label.");
    }
    if (given.count == 0 || (!has_points && !has_boxes)) {
        throw Error(Kind::input, "there is no prompt; expected points, boxes or both. Leave all three out to propose "
                                 "freely.");
    }
    Prompts prompts;
    prompts.points_each = static_cast<std::int64_t>((has_points ? given.points_each : 0) + (has_boxes ? 2 : 1));
    for (std::size_t row = 0; row < given.count; ++row) {
        const auto first = row * given.points_each, past = has_points ? first + given.points_each : first;
        for (auto place = first; place < past; ++place) {
            const Point point{given.points[2 * place], given.points[2 * place + 1]};
            check_inside(point, size, "points", row);
            const auto label = given.labels == nullptr ? foreground : given.labels[place];
            if (label != 0 && label != foreground) {
                throw Error(Kind::input, "labels hold " + std::to_string(label) +
                                             "; expected 1 (on the object) and 0 (off it). Give every point one.");
            }
            prompts.points.push_back(point);
            prompts.labels.push_back(label);
        }
        if (!has_boxes) {
            prompts.points.push_back({0, 0});
            prompts.labels.push_back(padding);
            continue;
        }
        const float* box = given.boxes + 4 * row;
        const Point low{box[0], box[1]}, high{box[2], box[3]};
        check_inside(low, size, "boxes", row);
        check_inside(high, size, "boxes", row);
        if (high[0] <= low[0] || high[1] <= low[1]) {
            throw Error(Kind::input, "box " + std::to_string(row) + " has no area; expected x0 < x1 and y0 < y1. " +
                                         "Convert boxes given as x, y, w, h.");
        }
        prompts.points.push_back(low);
        prompts.points.push_back(high);
        prompts.labels.push_back(corner);
        prompts.labels.push_back(other_corner);
    }
    return prompts;
}

}  // namespace ris
