#include "sam.hpp"

#include <algorithm>
#include <string>

#include "tensors.hpp"

namespace ris {

namespace {

constexpr std::int64_t masks_per_prompt = masks_each;

Tensor embed(const Sessions& sessions, const Image& image) {
    const auto pixels = Tensor::lent(Dtype::uint8, {image.size.height, image.size.width, 3}, image.rgb);
    return output(session_of(sessions, Role::image_encoder).run({{"image", pixels}}), "image_embedding",
                  {1, any_size, any_size, any_size});
}

}  // namespace

SamImage::SamImage(const Sessions& sessions, const Image& image, std::int64_t sam_image_size_px)
    : SamImage(sessions, image, sam_image_size_px, embed(sessions, image)) {}

SamImage::SamImage(const Sessions& sessions, const Image& image, std::int64_t sam_image_size_px,
                   const Tensor& embedding)
    : sessions_(sessions),
      projections_(session_of(sessions, Role::image_projector).run({{"image_embedding", embedding}})),
      size_(image.size),
      grid_{embedding.shape[2], embedding.shape[3]},
      upsampler_(size_, {4 * grid_.height, 4 * grid_.width}, sam_image_size_px) {}

const Tensor& SamImage::image_cells() const {
    return output(projections_, "image_cells", {1, grid_.height * grid_.width, any_size});
}

Decoded SamImage::decode(const Prompts& prompts, std::int64_t start, std::int64_t stop) const {
    const std::int64_t size[] = {size_.height, size_.width};
    const auto count = stop - start, each = prompts.points_each;
    const auto offset = static_cast<std::size_t>(start * each);
    auto feeds = projections_;
    feeds["image_size"] = Tensor::lent(Dtype::int64, {2}, size);
    feeds["points"] = Tensor::lent(Dtype::float32, {count, each, 2}, prompts.points[offset].data());
    feeds["labels"] = Tensor::lent(Dtype::int64, {count, each}, prompts.labels.data() + offset);
    const auto outputs = session_of(sessions_, Role::point_decoder).run(feeds);
    const auto& scores = output(outputs, "iou_predictions", {count, masks_per_prompt});
    return {{scores.as<float>(), scores.as<float>() + scores.count()},
            output(outputs, "mask_tokens", {count, masks_per_prompt, any_size}),
            output(outputs, "image_features", {count, any_size, any_size})};
}

std::size_t SamImage::prompts_per_draw() const {
    const auto& decoder = session_of(sessions_, Role::mask_decoder);
    const auto masks = bounded(decoder, "M", masks_per_prompt * static_cast<std::int64_t>(prompts_drawn));
    const auto prompts = std::min(bounded(decoder, "Q", prompts_drawn), masks / masks_per_prompt);
    return static_cast<std::size_t>(std::max(std::int64_t{1}, prompts));
}

Tensor SamImage::draw(const Decoded& decoded, const std::vector<Slot>& slots, std::size_t start,
                      std::size_t stop) const {
    const auto token_size = static_cast<std::size_t>(decoded.mask_tokens.shape[2]);
    const auto first = slots[start].prompt;
    std::vector<float> tokens;
    std::vector<std::int64_t> prompt_index;
    for (auto index = start; index < stop; ++index) {
        const auto row = slots[index].prompt * masks_each + slots[index].mask;
        const float* token = decoded.mask_tokens.as<float>() + row * token_size;
        tokens.insert(tokens.end(), token, token + token_size);
        prompt_index.push_back(static_cast<std::int64_t>(slots[index].prompt - first));
    }
    // The prompts are neighbours, so their features need no copy.
    auto features = decoded.image_features;
    const auto row_size = static_cast<std::size_t>(features.shape[1] * features.shape[2]);
    features.shape[0] = prompt_index.back() + 1;
    features.data = static_cast<float*>(features.data) + first * row_size;
    const auto count = static_cast<std::int64_t>(stop - start);
    const Tensors feeds{
        {"image_features", features},
        {"mask_tokens", Tensor::lent(Dtype::float32, {count, decoded.mask_tokens.shape[2]}, tokens.data())},
        {"prompt_index", Tensor::lent(Dtype::int64, {count}, prompt_index.data())},
    };
    return output(session_of(sessions_, Role::mask_decoder).run(feeds), "logits",
                  {count, logits_size().height, logits_size().width});
}

}  // namespace ris
