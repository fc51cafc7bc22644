#include "candidates.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "nms.hpp"
#include "search.hpp"

namespace ris {

namespace {

constexpr std::size_t held_bytes = std::size_t{1} << 27;  // logits held at once: those of 512 candidates at SAM's sizes
constexpr float crop_edge_px = 20;  // a mask that ends this close to a crop's edge is taken to be cut off by it

// Tells whether a box, in pixels of the crop, ends at no edge of it but the image's.
bool is_whole(const Box& box, const Crop& crop, Size size) {
    const std::array<std::int64_t, 4> image{0, 0, size.width, size.height};
    // segment-anything compares the last pixel's coordinate with the edge past it.
    const std::array<std::int64_t, 4> shift{crop.box[0], crop.box[1], crop.box[0] - 1, crop.box[1] - 1};
    for (std::size_t side = 0; side < box.size(); ++side) {
        const auto end = box[side] + static_cast<float>(shift[side]);
        const bool near_crop = std::abs(end - static_cast<float>(crop.box[side])) <= crop_edge_px;
        const bool near_image = std::abs(end - static_cast<float>(image[side])) <= crop_edge_px;
        if (near_crop && !near_image) return false;
    }
    return true;
}

}  // namespace

Candidates::Candidates(const SamImage& sam, const ProposalSettings& settings, const Crop& crop, Size size)
    : sam_(sam), settings_(settings), crop_(crop), size_(size) {
    room_ = held_bytes / static_cast<std::size_t>(4 * sam.logits_size().height * sam.logits_size().width);
}

void Candidates::search() {
    std::vector<Point> points;
    for (const auto& [x, y] : crop_.grid) {
        points.push_back({x * static_cast<float>(sam_.size().width), y * static_cast<float>(sam_.size().height)});
    }
    const auto prompts = Prompts::at_points(points);
    if (settings_.search == Search::turbo) {
        search_some(points, prompts);
    } else {
        ask(prompts, [](const Decoded&) {}, [](const float*) {});
    }
}

void Candidates::search_some(const std::vector<Point>& points, const Prompts& prompts) {
    PointSearch search(point_features(sam_, points), points.size());
    std::vector<std::size_t> places;
    for (const auto& point : points) places.push_back(sam_.upsampler().nearest(point));
    for (auto round = search.next_round(); !round.empty(); round = search.next_round()) {
        std::vector<float> best_scores;
        std::vector<std::int64_t> covered(points.size(), 0);
        const auto answer = [&](const Decoded& decoded) {
            for (auto scores = decoded.scores.begin(); scores != decoded.scores.end(); scores += masks_each) {
                best_scores.push_back(*std::max_element(scores, scores + masks_each));
            }
        };
        const auto kept = [&](const float* logits) {
            for (std::size_t point = 0; point < places.size(); ++point) {
                covered[point] += logits[places[point]] > 0 ? 1 : 0;
            }
        };
        ask(prompts.chosen(round), answer, kept);
        search.learn(round, best_scores, covered);
    }
}

Proposals Candidates::survivors() const {
    Proposals proposals;
    proposals.size = size_;
    const auto x0 = static_cast<float>(crop_.box[0]), y0 = static_cast<float>(crop_.box[1]);
    for (const auto index : non_maximum_suppression(boxes_, scores_, settings_.box_nms_thresh)) {
        const auto& box = boxes_[index];
        auto mask = index < masks_.size() ? masks_[index] : drawn(index, held_[index - masks_.size()]);
        proposals.add(std::move(mask), {box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0}, scores_[index],
                      stability_scores_[index]);
    }
    return proposals;
}

template <typename Answer, typename Kept>
void Candidates::ask(const Prompts& prompts, const Answer& answer, const Kept& kept) {
    sam_.decode_all(prompts, settings_.points_per_batch, [&](const Decoded& decoded) {
        add(decoded, kept);
        answer(decoded);
        while (held_.size() > room_) {
            masks_.push_back(drawn(masks_.size(), held_.front()));
            held_.pop_front();
        }
    });
}

// By the generator's own tests, in its order.
template <typename Kept>
void Candidates::add(const Decoded& decoded, const Kept& kept) {
    // Like segment-anything, a threshold of 0 keeps everything.
    const auto passes = [](bool above, double threshold) { return above || threshold <= 0; };
    std::vector<Slot> slots;
    for (std::size_t index = 0; index < decoded.scores.size(); ++index) {
        const bool above = decoded.scores[index] > static_cast<float>(settings_.pred_iou_thresh);
        if (passes(above, settings_.pred_iou_thresh)) slots.push_back({index / masks_each, index % masks_each});
    }
    const auto pixels = static_cast<std::size_t>(sam_.logits_size().height * sam_.logits_size().width);
    sam_.logits(decoded, slots, [&](const Slot& slot, const float* logits) {
        const auto [stability, box] = sam_.upsampler().measure(logits, settings_.stability_score_offset);
        const bool stable = stability >= static_cast<float>(settings_.stability_score_thresh);
        // Stock code drops empty masks too, unless the threshold is 0.
        const bool empty = box == Box{0, 0, 0, 0};
        if (!passes(stable, settings_.stability_score_thresh) || empty || !is_whole(box, crop_, size_)) return;
        kept(logits);
        held_.emplace_back(logits, logits + pixels);
        boxes_.push_back(box);
        scores_.push_back(decoded.scores[slot.prompt * masks_each + slot.mask]);
        stability_scores_.push_back(stability);
    });
}

Runs Candidates::drawn(std::size_t index, const std::vector<float>& logits) const {
    return sam_.upsampler().draw(logits.data(), boxes_[index], crop_.box[0], crop_.box[1], size_);
}

}  // namespace ris
