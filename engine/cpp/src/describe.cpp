// The features of masks, a few at a time.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "pipeline.hpp"
#include "tensors.hpp"

namespace ris {

namespace {

// What is described in one call, so that memory does not grow with the number of masks.
constexpr std::int64_t masked_pixels = std::int64_t{1} << 25;   // of all masks; the graph holds three floats for each
constexpr std::int64_t cropped_pixels = std::int64_t{64} * 224 * 224;  // of all crops

std::size_t masks_per_call(const Session& encoder, Size size, const Describing& describing) {
    const auto side = std::max(describing.image_size_px, std::int64_t{1});
    const auto crops = cropped_pixels / (side * side) / describing.views;
    return static_cast<std::size_t>(bounded(encoder, "N", std::min(masked_pixels / (size.height * size.width), crops)));
}

}  // namespace

std::vector<float> describe(const Sessions& sessions, const Image& image, const Proposals& proposals,
                            const Describing& describing) {
    const auto size = image.size;
    const auto pixels = static_cast<std::size_t>(size.height * size.width);
    const auto& encoder = session_of(sessions, Role::proposal_encoder);
    const auto step = std::min(masks_per_call(encoder, size, describing), proposals.count());
    // Every byte is written before it is read, so that none need be set first.
    const std::unique_ptr<std::uint8_t[]> masks(new std::uint8_t[step * pixels]);
    std::vector<float> features;
    for (std::size_t start = 0; start < proposals.count(); start += step) {
        const auto count = std::min(step, proposals.count() - start);
        for (std::size_t index = 0; index < count; ++index) {
            unpack_runs(proposals.masks[start + index], size, masks.get() + index * pixels);
        }
        const std::vector<std::int64_t> shape{static_cast<std::int64_t>(count), size.height, size.width};
        const Tensors feeds{
            {"image", Tensor::lent(Dtype::uint8, {size.height, size.width, 3}, image.rgb)},
            {"masks", Tensor::lent(Dtype::boolean, shape, masks.get())},
            {"global_weight", Tensor::lent(Dtype::float32, {}, &describing.global_weight)},
        };
        const auto outputs = encoder.run(feeds);
        const auto& part = output(outputs, "features", {static_cast<std::int64_t>(count), any_size});
        features.insert(features.end(), part.as<float>(), part.as<float>() + part.count());
    }
    return features;
}

}  // namespace ris
