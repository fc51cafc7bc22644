#include "search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "nms.hpp"

namespace ris {

namespace {

// What these are and how they were chosen is told in risengine/generator/search.py.
constexpr double share = 3.0 / 16;
constexpr float sharpness = 0.1F;
constexpr double repeat = 0.02;

std::size_t points_asked(std::size_t count) {
    const auto some = static_cast<std::size_t>(std::ceil(share * static_cast<double>(count)));
    return std::min(count, std::max(static_cast<std::size_t>(SamImage::prompts_per_call), some));
}

float dot(const float* a, const float* b, std::size_t count) {
    double sum = 0;
    for (std::size_t index = 0; index < count; ++index) sum += double{a[index]} * double{b[index]};
    return static_cast<float>(sum);
}

}  // namespace

PointSearch::PointSearch(std::vector<float> features, std::size_t points)
    : features_(std::move(features)),
      channels_(points == 0 ? 0 : features_.size() / points),
      left_(points_asked(points)),
      asked_(points, false),
      covered_(points, 0),
      weights_(points, 0.0F),
      scores_(points, 0.0F) {
    for (std::size_t point = 0; point < points; ++point) {
        float* row = features_.data() + point * channels_;
        const auto norm = std::max(std::sqrt(dot(row, row, channels_)), std::numeric_limits<float>::min());
        for (std::size_t channel = 0; channel < channels_; ++channel) row[channel] /= norm;
    }
}

std::vector<std::size_t> PointSearch::next_round() const {
    // A round is one call's prompts: larger ones learn less often, smaller ones decode more slowly.
    const auto count = std::min(static_cast<std::size_t>(SamImage::prompts_per_call), left_);
    if (count == 0) return {};
    if (std::none_of(asked_.begin(), asked_.end(), [](bool asked) { return asked; })) return most_unlike(count);
    std::vector<double> promise(asked_.size());
    std::vector<std::size_t> order(asked_.size());
    for (std::size_t point = 0; point < promise.size(); ++point) {
        order[point] = point;
        promise[point] = static_cast<double>(scores_[point] / weights_[point]) /
                         (1 + repeat * static_cast<double>(covered_[point]));
        if (asked_[point]) promise[point] = -std::numeric_limits<double>::infinity();
    }
    // A point like none of those asked has no promise, NaN, and comes last.
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return promise[a] > promise[b] || (std::isnan(promise[b]) && !std::isnan(promise[a]));
    });
    order.resize(count);
    return order;
}

void PointSearch::learn(const std::vector<std::size_t>& points, const std::vector<float>& scores,
                        const std::vector<std::int64_t>& covered) {
    for (std::size_t point = 0; point < asked_.size(); ++point) {
        float weights = 0, weighted = 0;
        for (std::size_t index = 0; index < points.size(); ++index) {
            const auto weight = std::exp((cosine(point, points[index]) - 1) / sharpness);
            weights += weight;
            weighted += weight * std::clamp(scores[index], 0.0F, 1.0F);
        }
        weights_[point] += weights;
        scores_[point] += weighted;
        covered_[point] += covered[point];
    }
    for (const auto point : points) asked_[point] = true;
    left_ -= points.size();
}

// Starts at the commonest look and adds, one by one, the point least like those chosen.
std::vector<std::size_t> PointSearch::most_unlike(std::size_t count) const {
    const auto points = asked_.size();
    std::vector<float> mean(channels_, 0.0F), alike(points);
    for (std::size_t place = 0; place < features_.size(); ++place) mean[place % channels_] += features_[place];
    for (auto& value : mean) value /= static_cast<float>(points);
    for (std::size_t point = 0; point < points; ++point) {
        alike[point] = -dot(features_.data() + point * channels_, mean.data(), channels_);
    }
    std::vector<std::size_t> chosen;
    for (std::size_t round = 0; round < count; ++round) {
        chosen.push_back(static_cast<std::size_t>(std::min_element(alike.begin(), alike.end()) - alike.begin()));
        for (std::size_t point = 0; point < points; ++point) {
            const auto value = cosine(point, chosen.back());
            alike[point] = round == 0 ? value : std::max(alike[point], value);
        }
        for (const auto point : chosen) alike[point] = std::numeric_limits<float>::infinity();
    }
    return chosen;
}

float PointSearch::cosine(std::size_t a, std::size_t b) const {
    return dot(features_.data() + a * channels_, features_.data() + b * channels_, channels_);
}

std::vector<float> point_features(const SamImage& sam, const std::vector<Point>& points) {
    const auto [height, width] = sam.grid();
    const auto& cells = sam.image_cells();
    const auto channels = static_cast<std::size_t>(cells.shape[2]);
    const auto longest = static_cast<float>(std::max(sam.size().height, sam.size().width));
    const auto cell = [&](std::int64_t y, std::int64_t x) {
        return cells.as<float>() + static_cast<std::size_t>(y * sam.grid().width + x) * channels;
    };
    struct Place {
        std::int64_t low, high;
        float share;
    };
    const auto place = [&](float at, std::int64_t side) {
        const auto limit = static_cast<float>(side) - 1;
        const auto centre = std::clamp(at * (static_cast<float>(side) / longest) - 0.5F, 0.0F, limit);
        const auto low = static_cast<std::int64_t>(centre);
        return Place{low, std::min(low + 1, side - 1), centre - static_cast<float>(low)};
    };
    std::vector<float> features;
    features.reserve(points.size() * channels);
    for (const auto& point : points) {
        const auto across = place(point[0], width), down = place(point[1], height);
        const float *upper_left = cell(down.low, across.low), *upper_right = cell(down.low, across.high);
        const float *lower_left = cell(down.high, across.low), *lower_right = cell(down.high, across.high);
        for (std::size_t channel = 0; channel < channels; ++channel) {
            const auto upper = upper_left[channel] * (1 - across.share) + upper_right[channel] * across.share;
            const auto lower = lower_left[channel] * (1 - across.share) + lower_right[channel] * across.share;
            features.push_back(upper * (1 - down.share) + lower * down.share);
        }
    }
    return features;
}

}  // namespace ris
