// Instance mask proposals: segment-anything's automatic mask generator over the bundle's SAM graphs.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "candidates.hpp"
#include "errors.hpp"
#include "nms.hpp"
#include "pipeline.hpp"
#include "prompts.hpp"
#include "regions.hpp"
#include "sam.hpp"

namespace ris {

namespace {

Proposals chosen(Proposals&& all, const std::vector<std::size_t>& rows) {
    Proposals some;
    some.size = all.size;
    for (const auto row : rows) {
        some.add(std::move(all.masks[row]), all.boxes[row], all.scores[row], all.stability_scores[row]);
    }
    return some;
}

// The pixels of a crop, without gaps: the image's own where the crop is the whole of it.
Image cut_out(const Image& image, const Crop& crop, std::vector<std::uint8_t>& copy) {
    const auto size = crop.size();
    if (size.height == image.size.height && size.width == image.size.width) return image;
    const auto row_bytes = static_cast<std::size_t>(3 * size.width);
    copy.resize(row_bytes * static_cast<std::size_t>(size.height));
    for (std::int64_t y = 0; y < size.height; ++y) {
        const auto* row = image.rgb + 3 * ((crop.box[1] + y) * image.size.width + crop.box[0]);
        std::memcpy(copy.data() + static_cast<std::size_t>(y) * row_bytes, row, row_bytes);
    }
    return {size, copy.data()};
}

// Removes small holes and islands, then what has become a duplicate; of two, the one that was changed.
Proposals without_small_regions(Proposals&& proposals, const ProposalSettings& settings) {
    std::vector<float> untouched(proposals.count(), 1);
    for (std::size_t index = 0; index < proposals.count(); ++index) {
        if (!remove_small_regions(proposals.masks[index], proposals.size, settings.min_mask_region_area)) continue;
        proposals.boxes[index] = box_from_runs(proposals.masks[index], proposals.size);
        untouched[index] = 0;
    }
    const auto thresh = std::max(settings.box_nms_thresh, settings.crop_nms_thresh);
    const auto kept = non_maximum_suppression(proposals.boxes, untouched, thresh);
    return chosen(std::move(proposals), kept);
}

}  // namespace

Proposals propose(const Sessions& sessions, const Image& image, const ProposalSettings& settings,
                  std::int64_t sam_image_size_px) {
    Proposals proposals;
    proposals.size = image.size;
    std::vector<float> preference;  // the masks of smaller crops
    std::vector<std::uint8_t> pixels;
    const auto crops = generator_crops(settings, image.size);
    for (const auto& crop : crops) {
        const SamImage sam(sessions, cut_out(image, crop, pixels), sam_image_size_px);
        Candidates candidates(sam, settings, crop, image.size);
        candidates.search();
        auto found = candidates.survivors();
        for (std::size_t index = 0; index < found.count(); ++index) {
            proposals.add(std::move(found.masks[index]), found.boxes[index], found.scores[index],
                          found.stability_scores[index]);
            preference.push_back(1 / static_cast<float>(crop.area_px()));
        }
    }
    if (crops.size() > 1) {
        const auto kept = non_maximum_suppression(proposals.boxes, preference, settings.crop_nms_thresh);
        proposals = chosen(std::move(proposals), kept);
    }
    if (settings.min_mask_region_area > 0) proposals = without_small_regions(std::move(proposals), settings);
    const auto order = falling_order(proposals.scores);
    return chosen(std::move(proposals), order);
}

Proposals read_masks(const std::uint8_t* masks, std::size_t count, Size size, std::int64_t row_stride,
                     std::int64_t mask_stride) {
    Proposals proposals;
    proposals.size = size;
    for (std::size_t index = 0; index < count; ++index) {
        auto runs = pack_mask(masks + static_cast<std::int64_t>(index) * mask_stride, size, row_stride);
        const auto box = box_from_runs(runs, size);
        if (box == Box{0, 0, 0, 0}) {
            throw Error(Kind::input, "mask " + std::to_string(index) +
                                         " is empty; expected at least one pixel. Leave it out.");
        }
        proposals.add(std::move(runs), box, 1, 1);
    }
    return proposals;
}

Proposals propose_at(const Sessions& sessions, const Image& image, const PromptsGiven& prompts,
                     const ProposalSettings& settings, std::int64_t sam_image_size_px) {
    const auto asked = read_prompts(prompts, image.size);
    const SamImage sam(sessions, image, sam_image_size_px);
    Proposals proposals;
    proposals.size = image.size;
    sam.decode_all(asked, settings.points_per_batch, [&](const Decoded& decoded) {
        std::vector<Slot> slots;
        for (std::size_t prompt = 0; prompt < decoded.count(); ++prompt) {
            const auto scores = decoded.scores.begin() + static_cast<std::ptrdiff_t>(prompt * masks_each);
            for (const auto mask : falling_order({scores, scores + masks_each})) slots.push_back({prompt, mask});
        }
        sam.logits(decoded, slots, [&](const Slot& slot, const float* logits) {
            const auto [stability, box] = sam.upsampler().measure(logits, settings.stability_score_offset);
            proposals.add(sam.upsampler().draw(logits, box, 0, 0, image.size), box,
                          decoded.scores[slot.prompt * masks_each + slot.mask], std::isnan(stability) ? 0 : stability);
        });
    });
    return proposals;
}

}  // namespace ris
