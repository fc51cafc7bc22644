// What test_numeric.py reaches of the library's inside, through ctypes. Graphs are run by the caller's function, so
// that both runtimes can be given the same ones.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "errors.hpp"
#include "nms.hpp"
#include "pipeline.hpp"
#include "regions.hpp"
#include "upsample.hpp"

namespace {

// Runs the graph of a role on `count` feeds; hands outputs back through probe_put.
using RunGraph = void (*)(std::int32_t role, std::int64_t count, const char* const* names, const std::int32_t* dtypes,
                          const std::int64_t* ranks, const std::int64_t* const* shapes, void* const* data,
                          ris::Tensors* outputs);

// The largest size of a dimension that the graph of a role takes; 0 without a bound.
using BoundOf = std::int64_t (*)(std::int32_t role, const char* dimension);

struct Graphs {
    RunGraph run;
    BoundOf bound;
};

class CalledSession : public ris::Session {
public:
    CalledSession(const Graphs& graphs, std::int32_t role) : graphs_(graphs), role_(role) {}

    ris::Tensors run(const ris::Tensors& feeds) const override {
        std::vector<const char*> names;
        std::vector<std::int32_t> dtypes;
        std::vector<std::int64_t> ranks;
        std::vector<const std::int64_t*> shapes;
        std::vector<void*> data;
        for (const auto& [name, feed] : feeds) {
            names.push_back(name.c_str());
            dtypes.push_back(static_cast<std::int32_t>(feed.dtype));
            ranks.push_back(static_cast<std::int64_t>(feed.shape.size()));
            shapes.push_back(feed.shape.data());
            data.push_back(feed.data);
        }
        ris::Tensors outputs;
        graphs_.run(role_, static_cast<std::int64_t>(names.size()), names.data(), dtypes.data(), ranks.data(),
                    shapes.data(), data.data(), &outputs);
        return outputs;
    }

    std::int64_t largest(const std::string& dimension) const override {
        return graphs_.bound(role_, dimension.c_str());
    }

    std::vector<std::string> providers() const override { return {}; }

private:
    Graphs graphs_;
    std::int32_t role_;
};

ris::Sessions called_sessions(const Graphs& graphs) {
    ris::Sessions sessions;
    for (std::size_t role = 0; role < sessions.size(); ++role) {
        sessions[role] = std::make_unique<CalledSession>(graphs, static_cast<std::int32_t>(role));
    }
    return sessions;
}

// Calls make() and writes the message of what it throws.
template <typename Make>
ris::Proposals* guarded(char* message, std::size_t message_size, const Make& make) {
    try {
        return new ris::Proposals(make());
    } catch (const ris::Error& error) {
        std::snprintf(message, message_size, "%s", error.what());
        return nullptr;
    }
}

}  // namespace

extern "C" {

struct ProbeSettings {
    std::int64_t points_per_side, points_per_batch, crop_n_layers, crop_n_points_downscale_factor, min_mask_region_area;
    double pred_iou_thresh, stability_score_thresh, stability_score_offset, box_nms_thresh, crop_nms_thresh,
        crop_overlap_ratio;
    std::int64_t turbo, grids;
    const std::int64_t* grid_sizes;
    const double* grid_points;
};

struct ProbeImage {
    std::int64_t height, width;
    const std::uint8_t* rgb;
};

struct ProbePrompts {
    std::int64_t count, points_each;
    const float* points;
    const std::int64_t* labels;
    const float* boxes;
};

struct ProbeMessage {
    char* text;
    std::int64_t size;
};

}  // extern "C"

namespace {

ris::ProposalSettings settings_of(const ProbeSettings& given) {
    ris::ProposalSettings settings;
    settings.points_per_side = given.points_per_side;
    settings.points_per_batch = given.points_per_batch;
    settings.crop_n_layers = given.crop_n_layers;
    settings.crop_n_points_downscale_factor = given.crop_n_points_downscale_factor;
    settings.min_mask_region_area = given.min_mask_region_area;
    settings.pred_iou_thresh = given.pred_iou_thresh;
    settings.stability_score_thresh = given.stability_score_thresh;
    settings.stability_score_offset = given.stability_score_offset;
    settings.box_nms_thresh = given.box_nms_thresh;
    settings.crop_nms_thresh = given.crop_nms_thresh;
    settings.crop_overlap_ratio = given.crop_overlap_ratio;
    settings.search = given.turbo != 0 ? ris::Search::turbo : ris::Search::exact;
    if (given.grids > 0) settings.point_grids.emplace();
    const double* point = given.grid_points;
    for (std::int64_t grid = 0; grid < given.grids; ++grid) {
        auto& points = settings.point_grids->emplace_back();
        for (std::int64_t index = 0; index < given.grid_sizes[grid]; ++index, point += 2) {
            points.push_back({point[0], point[1]});
        }
    }
    return settings;
}

ris::Image image_of(const ProbeImage& image) { return {{image.height, image.width}, image.rgb}; }

}  // namespace

extern "C" {

void probe_put(ris::Tensors* outputs, const char* name, const float* data, std::int64_t rank,
               const std::int64_t* shape) {
    ris::Tensor tensor{ris::Dtype::float32, {shape, shape + rank}, nullptr, nullptr};
    const auto values = std::make_shared<std::vector<float>>(data, data + tensor.count());
    tensor.data = values->data();
    tensor.owner = values;
    (*outputs)[name] = tensor;
}

ris::Proposals* probe_propose(const Graphs* graphs, const ProbeImage* image, const ProbeSettings* settings,
                              std::int64_t side_px, const ProbeMessage* message) {
    return guarded(message->text, static_cast<std::size_t>(message->size), [&] {
        const auto chosen = settings_of(*settings);
        ris::check(chosen);
        return ris::propose(called_sessions(*graphs), image_of(*image), chosen, side_px);
    });
}

ris::Proposals* probe_propose_at(const Graphs* graphs, const ProbeImage* image, const ProbePrompts* prompts,
                                 const ProbeSettings* settings, std::int64_t side_px, const ProbeMessage* message) {
    return guarded(message->text, static_cast<std::size_t>(message->size), [&] {
        const ris::PromptsGiven given{static_cast<std::size_t>(prompts->count),
                                      static_cast<std::size_t>(prompts->points_each), prompts->points, prompts->labels,
                                      prompts->boxes};
        return ris::propose_at(called_sessions(*graphs), image_of(*image), given, settings_of(*settings), side_px);
    });
}

ris::Proposals* probe_read_masks(const std::uint8_t* masks, std::int64_t count, std::int64_t height,
                                 std::int64_t width, std::int64_t row_stride, std::int64_t mask_stride,
                                 const ProbeMessage* message) {
    return guarded(message->text, static_cast<std::size_t>(message->size), [&] {
        return ris::read_masks(masks, static_cast<std::size_t>(count), {height, width}, row_stride, mask_stride);
    });
}

std::int64_t probe_count(const ris::Proposals* proposals) { return static_cast<std::int64_t>(proposals->count()); }

std::int64_t probe_runs(const ris::Proposals* proposals, std::int64_t index) {
    return static_cast<std::int64_t>(proposals->masks[static_cast<std::size_t>(index)].size());
}

// `facts`: x0, y0, x1, y1, predicted IoU, stability score.
void probe_read(const ris::Proposals* proposals, std::int64_t index, std::uint8_t* mask, float* facts,
                std::int64_t* runs) {
    const auto row = static_cast<std::size_t>(index);
    ris::unpack_runs(proposals->masks[row], proposals->size, mask);
    std::copy(proposals->boxes[row].begin(), proposals->boxes[row].end(), facts);
    facts[4] = proposals->scores[row];
    facts[5] = proposals->stability_scores[row];
    std::copy(proposals->masks[row].begin(), proposals->masks[row].end(), runs);
}

void probe_free(ris::Proposals* proposals) { delete proposals; }

// Writes at most `capacity` floats and returns how many there are.
std::int64_t probe_describe(const Graphs* graphs, const ProbeImage* image, const ris::Proposals* proposals,
                            float global_weight, std::int64_t image_size_px, std::int64_t views, float* features,
                            std::int64_t capacity) {
    const auto found =
        ris::describe(called_sessions(*graphs), image_of(*image), *proposals, {global_weight, image_size_px, views});
    std::copy_n(found.begin(), std::min(found.size(), static_cast<std::size_t>(capacity)), features);
    return static_cast<std::int64_t>(found.size());
}

// (count, h, w) logits to (count,) stability scores, (count, 4) boxes and (count, H, W) masks.
void probe_upsample(std::int64_t count, const std::int64_t* sizes, const float* logits, double offset,
                    float* stability_scores, float* boxes, std::uint8_t* masks) {
    const ris::Size size{sizes[0], sizes[1]};
    const ris::Upsampler upsampler(size, {sizes[2], sizes[3]}, sizes[4]);
    for (std::int64_t index = 0; index < count; ++index, logits += sizes[2] * sizes[3]) {
        const auto [stability, box] = upsampler.measure(logits, offset);
        stability_scores[index] = stability;
        std::copy(box.begin(), box.end(), boxes + 4 * index);
        ris::unpack_runs(upsampler.draw(logits, box, 0, 0, size), size, masks + index * size.height * size.width);
    }
}

std::int64_t probe_nms(std::int64_t count, const float* boxes, const float* scores, double iou_thresh,
                       std::int64_t* kept) {
    std::vector<ris::Box> all(static_cast<std::size_t>(count));
    if (count > 0) std::memcpy(all.data(), boxes, all.size() * sizeof(ris::Box));
    const auto found = ris::non_maximum_suppression(all, {scores, scores + count}, iou_thresh);
    std::copy(found.begin(), found.end(), kept);
    return static_cast<std::int64_t>(found.size());
}

std::int64_t probe_regions(std::uint8_t* mask, std::int64_t height, std::int64_t width, std::int64_t min_area) {
    const ris::Size size{height, width};
    auto runs = ris::pack_mask(mask, size, width);
    const bool changed = ris::remove_small_regions(runs, size, min_area);
    ris::unpack_runs(runs, size, mask);
    return changed ? 1 : 0;
}

void probe_scores(std::int64_t count, std::int64_t size, const float* features, const float* sentence,
                  const float* phrase, double sentence_weight, std::int64_t cosine, float* scores,
                  std::int64_t* order) {
    const ris::TextFeatures text{sentence, phrase, static_cast<std::size_t>(size), sentence_weight};
    const auto found = ris::similarities({features, features + count * size}, text,
                                         cosine != 0 ? ris::Similarity::cosine : ris::Similarity::dot);
    std::copy(found.begin(), found.end(), scores);
    const auto best = ris::best(found, found.size());
    std::copy(best.begin(), best.end(), order);
}

}  // extern "C"
