#include "nms.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ris {

std::vector<std::size_t> falling_order(const std::vector<float>& values) {
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return values[a] > values[b] || (std::isnan(values[b]) && !std::isnan(values[a]));
    });
    return order;
}

std::vector<std::size_t> non_maximum_suppression(const std::vector<Box>& boxes, const std::vector<float>& scores,
                                                 double iou_thresh) {
    auto left = falling_order(scores);  // not yet judged
    std::vector<float> areas(boxes.size());
    for (std::size_t index = 0; index < boxes.size(); ++index) {
        const auto& box = boxes[index];
        areas[index] = (box[2] - 1 - box[0]) * (box[3] - 1 - box[1]);
    }
    std::vector<std::size_t> kept;
    while (!left.empty()) {
        const auto best = left.front();
        kept.push_back(best);
        const auto dropped = [&](std::size_t other) {
            if (other == best) return true;
            const auto &a = boxes[best], &b = boxes[other];
            const auto width = std::max(std::min(a[2] - 1, b[2] - 1) - std::max(a[0], b[0]), 0.0F);
            const auto height = std::max(std::min(a[3] - 1, b[3] - 1) - std::max(a[1], b[1]), 0.0F);
            const auto intersection = width * height;
            const auto iou = intersection / (areas[best] + areas[other] - intersection);
            return static_cast<double>(iou) > iou_thresh;  // two boxes without area: 0 / 0 suppresses nothing
        };
        left.erase(std::remove_if(left.begin(), left.end(), dropped), left.end());
    }
    return kept;
}

}  // namespace ris
