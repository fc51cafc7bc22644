// risengine for C++17: the C interface of risengine.h with owners, values and exceptions. Header only; the exceptions
// are thrown on this side, none crosses the library's edge. The thread rules are risengine.h's.
#ifndef RISENGINE_RISENGINE_HPP
#define RISENGINE_RISENGINE_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "risengine/risengine.h"

namespace risengine {

// A call that failed: what was expected, what was found, what to do.
class Error : public std::runtime_error {
public:
    Error(ris_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
    ris_status status() const noexcept { return status_; }

private:
    ris_status status_;
};

inline void check(ris_status status) {
    if (status != RIS_OK) throw Error(status, ris_last_error());
}

// Pixels of the caller's, read during a call. A stride of 0 stands for rows without gaps.
struct ImageView {
    const std::uint8_t* data = nullptr;
    std::int64_t width_px = 0;
    std::int64_t height_px = 0;
    ris_pixels pixels = RIS_RGB;
    std::int64_t stride_bytes = 0;

    ris_image_view c() const {
        ris_image_view view;
        check(ris_image_view_init(&view));
        view.data = data;
        view.width_px = width_px;
        view.height_px = height_px;
        view.stride_bytes = stride_bytes == 0 ? 3 * width_px : stride_bytes;
        view.pixels = pixels;
        return view;
    }
};

// (height, width) bytes in rows: 255 inside, 0 outside.
struct Mask {
    std::int64_t width_px = 0;
    std::int64_t height_px = 0;
    std::vector<std::uint8_t> data;
};

struct Segmentation {
    Mask mask;
    std::array<float, 4> box_xyxy{};  // half-open, in pixels
    float score = 0;                  // similarity of mask and expression
    std::size_t index = 0;            // of the mask among the image's
};

namespace detail {

inline const char* c_str(const std::optional<std::string>& text) { return text ? text->c_str() : nullptr; }

inline std::size_t count(const ris_masks* masks) {
    std::size_t number = 0;
    check(ris_masks_shape(masks, &number, nullptr, nullptr));
    return number;
}

inline Mask blank(const ris_masks* masks) {
    Mask mask;
    check(ris_masks_shape(masks, nullptr, &mask.height_px, &mask.width_px));
    mask.data.resize(static_cast<std::size_t>(mask.height_px * mask.width_px));
    return mask;
}

inline Mask mask(const ris_masks* masks, std::size_t index) {
    auto result = blank(masks);
    check(ris_masks_get(masks, index, result.data.data(), result.data.size(), nullptr));
    return result;
}

inline Segmentation segmentation(Mask mask, const ris_answer& answer) {
    Segmentation result{std::move(mask), {}, answer.score, answer.index};
    for (std::size_t i = 0; i < 4; ++i) result.box_xyxy[i] = answer.box_xyxy[i];
    return result;
}

struct Deleter {
    void operator()(ris_engine* engine) const noexcept { ris_engine_close(engine); }
    void operator()(ris_image* image) const noexcept { ris_image_free(image); }
    void operator()(ris_masks* masks) const noexcept { ris_masks_free(masks); }
};

}  // namespace detail

// The masks that SAM proposes for an image.
class Proposals {
public:
    explicit Proposals(ris_masks* owned) : masks_(owned) {}

    std::size_t size() const { return detail::count(masks_.get()); }
    Mask mask(std::size_t index) const { return detail::mask(masks_.get(), index); }

    std::array<float, 4> box_xyxy(std::size_t index) const {
        std::array<float, 4> box{};
        check(ris_masks_describe(masks_.get(), index, box.data(), nullptr));
        return box;
    }

    float quality(std::size_t index) const {
        float value = 0;
        check(ris_masks_describe(masks_.get(), index, nullptr, &value));
        return value;
    }

private:
    std::unique_ptr<ris_masks, detail::Deleter> masks_;
};

// An image's masks and their features: all that an expression does not change.
class EncodedImage {
public:
    explicit EncodedImage(ris_image* owned) : image_(owned) {}

    std::size_t size() const { return detail::count(ris_image_masks(image_.get())); }
    Mask mask(std::size_t index) const { return detail::mask(ris_image_masks(image_.get()), index); }
    const ris_image* c() const { return image_.get(); }

private:
    std::unique_ptr<ris_image, detail::Deleter> image_;
};

// The bundle's own options, to be changed field by field.
inline ris_engine_options default_options() {
    ris_engine_options options;
    check(ris_engine_options_init(&options));
    return options;
}

class Engine {
public:
    explicit Engine(const std::string& bundle) : Engine(bundle, default_options()) {}

    Engine(const std::string& bundle, const ris_engine_options& options) {
        ris_engine* engine = nullptr;
        check(ris_engine_open(bundle.c_str(), &options, &engine));
        engine_.reset(engine);
    }

    EncodedImage encode_image(const ImageView& view) const {
        const auto pixels = view.c();
        ris_image* image = nullptr;
        check(ris_encode_image(engine_.get(), &pixels, &image));
        return EncodedImage(image);
    }

    // Masks of the caller's: `count` of (height, width) bytes, not 0 inside.
    EncodedImage encode_masks(const ImageView& view, const std::uint8_t* masks, std::size_t count) const {
        const auto pixels = view.c();
        ris_image* image = nullptr;
        check(ris_encode_masks(engine_.get(), &pixels, masks, count, &image));
        return EncodedImage(image);
    }

    Proposals propose(const ImageView& view) const {
        const auto pixels = view.c();
        ris_masks* masks = nullptr;
        check(ris_propose(engine_.get(), &pixels, &masks));
        return Proposals(masks);
    }

    // Without a noun phrase, the library's own rules find one.
    Segmentation segment(const EncodedImage& image, const std::string& text,
                         const std::optional<std::string>& noun_phrase = std::nullopt) const {
        auto mask = detail::blank(ris_image_masks(image.c()));
        ris_answer answer;
        check(ris_segment(engine_.get(), image.c(), text.c_str(), detail::c_str(noun_phrase), &answer,
                          mask.data.data(), mask.data.size(), nullptr));
        return detail::segmentation(std::move(mask), answer);
    }

    // At most `top_k` answers, best first.
    std::vector<Segmentation> rank(const EncodedImage& image, const std::string& text, std::size_t top_k,
                                   const std::optional<std::string>& noun_phrase = std::nullopt) const {
        if (top_k == 0) throw Error(RIS_ERROR_INPUT, "top_k = 0; expected at least 1.");
        // Room for one where there is no mask, so that a bad text is refused there too.
        std::vector<ris_answer> answers(std::max(std::min(top_k, image.size()), std::size_t{1}));
        std::vector<Segmentation> ranked;
        std::size_t found = 0;
        check(ris_rank(engine_.get(), image.c(), text.c_str(), detail::c_str(noun_phrase), answers.data(),
                       answers.size(), &found));
        for (std::size_t i = 0; i < found; ++i) {
            ranked.push_back(detail::segmentation(image.mask(answers[i].index), answers[i]));
        }
        return ranked;
    }

    const ris_engine* c() const { return engine_.get(); }

private:
    std::unique_ptr<ris_engine, detail::Deleter> engine_;
};

}  // namespace risengine

#endif  // RISENGINE_RISENGINE_HPP
