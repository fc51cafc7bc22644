// SAM around one image: the image is encoded once, then any number of prompts are decoded on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "masks.hpp"
#include "pipeline.hpp"
#include "prompts.hpp"
#include "session.hpp"
#include "upsample.hpp"

namespace ris {

inline constexpr std::size_t masks_each = 3;  // of every prompt

// One of the three masks of one prompt.
struct Slot {
    std::size_t prompt, mask;
};

// What the point decoder says about P prompts: three masks each, not yet drawn.
struct Decoded {
    std::vector<float> scores;  // (P, 3), predicted IoUs
    Tensor mask_tokens;         // (P, 3, D)
    Tensor image_features;      // (P, h * w, C)

    std::size_t count() const { return scores.size() / masks_each; }
};

// An encoded image and the decoders to prompt.
class SamImage {
public:
    SamImage(const Sessions& sessions, const Image& image, std::int64_t sam_image_size_px);

    Size size() const { return size_; }
    Size grid() const { return grid_; }
    Size logits_size() const { return {4 * grid_.height, 4 * grid_.width}; }
    const Upsampler& upsampler() const { return upsampler_; }
    const Tensor& image_cells() const;  // (1, h * w, C)

    // Calls answer(decoded) for prompts a few at a time, in their order.
    template <typename Answer>
    void decode_all(const Prompts& prompts, std::int64_t points_per_batch, const Answer& answer) const {
        const auto most = bounded(session_of(sessions_, Role::point_decoder), "P", prompts_per_call);
        const auto step = points_per_batch < most ? points_per_batch : most;
        for (std::int64_t start = 0; start < prompts.count(); start += step) {
            answer(decode(prompts, start, start + step < prompts.count() ? start + step : prompts.count()));
        }
    }

    // Calls use(slot, logits) with the (4h, 4w) logits of some masks, their prompts rising; few are held at a time.
    template <typename Use>
    void logits(const Decoded& decoded, const std::vector<Slot>& slots, const Use& use) const {
        const auto pixels = static_cast<std::size_t>(logits_size().height * logits_size().width);
        const auto step = prompts_per_draw();
        for (std::size_t start = 0, stop = 0; start < slots.size(); start = stop) {
            while (stop < slots.size() && slots[stop].prompt / step == slots[start].prompt / step) {
                ++stop;
            }
            const auto drawn = draw(decoded, slots, start, stop);
            for (auto index = start; index < stop; ++index) {
                use(slots[index], drawn.as<float>() + (index - start) * pixels);
            }
        }
    }

    // Most prompts decoded in one call. More hold more memory, as each carries the image's features through the
    // decoder, and gain little.
    static constexpr std::int64_t prompts_per_call = 8;

private:
    // Prompts whose masks one call computes: what more hold falls out of a CPU's cache.
    static constexpr std::size_t prompts_drawn = 2;

    SamImage(const Sessions& sessions, const Image& image, std::int64_t sam_image_size_px, const Tensor& embedding);

    std::size_t prompts_per_draw() const;
    Decoded decode(const Prompts& prompts, std::int64_t start, std::int64_t stop) const;
    Tensor draw(const Decoded& decoded, const std::vector<Slot>& slots, std::size_t start, std::size_t stop) const;

    const Sessions& sessions_;
    Tensors projections_;  // of the image's embedding, inputs of point_decoder
    Size size_, grid_;
    Upsampler upsampler_;
};

}  // namespace ris
