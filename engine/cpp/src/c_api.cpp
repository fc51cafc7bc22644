// The C interface: checks what comes in, keeps exceptions inside. The engine is engine.hpp's.
#include "risengine/risengine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "engine.hpp"
#include "errors.hpp"
#include "expression.hpp"
#include "pixels.hpp"
#include "unicode.hpp"

struct ris_engine {
    ris::Engine engine;
};

struct ris_masks {
    std::shared_ptr<const ris::Proposals> proposals;
};

struct ris_image {
    ris::EncodedImage encoded;
    ris_masks masks;
};

namespace {

using ris::Error;
using ris::Kind;

thread_local std::string last_error;

ris_status keep_error(ris_status status, const char* message) noexcept {
    try {
        last_error = message;
    } catch (const std::bad_alloc&) {
        last_error.clear();
    }
    return status;
}

ris_status status_of(Kind kind) noexcept {
    switch (kind) {
        case Kind::input: return RIS_ERROR_INPUT;
        case Kind::bundle: return RIS_ERROR_BUNDLE;
        case Kind::backend: return RIS_ERROR_BACKEND;
        case Kind::buffer_too_small: return RIS_ERROR_BUFFER_TOO_SMALL;
        case Kind::internal: return RIS_ERROR_INTERNAL;
    }
    return RIS_ERROR_INTERNAL;
}

// Runs what a call does; no exception leaves the library.
template <typename Body>
ris_status guarded(Body&& body) noexcept {
    try {
        body();
        return RIS_OK;
    } catch (const Error& error) {
        return keep_error(status_of(error.kind()), error.what());
    } catch (const std::bad_alloc&) {
        return keep_error(RIS_ERROR_OUT_OF_MEMORY, "memory ran out. Pass a smaller image or fewer masks.");
    } catch (const std::exception& error) {
        return keep_error(RIS_ERROR_INTERNAL, error.what());
    } catch (...) {
        return keep_error(RIS_ERROR_INTERNAL, "an exception of unknown type");
    }
}

template <typename T>
T& present(T* pointer, const char* name) {
    if (pointer == nullptr) throw Error(Kind::input, std::string(name) + " is NULL.");
    return *pointer;
}

// An out parameter, emptied until the call succeeds.
template <typename T>
T*& out_parameter(T** out) {
    auto& place = present(out, "out");
    place = nullptr;
    return place;
}

template <typename Options>
const Options& sized(const Options& options, const char* name) {
    if (options.struct_size == sizeof(Options)) return options;
    throw Error(Kind::input, std::string(name) + ".struct_size is " + std::to_string(options.struct_size) +
                                 "; expected " + std::to_string(sizeof(Options)) + ". Fill it with " + name +
                                 "_init, and compile with the header of this library.");
}

// Tells how much is needed; whether there is a buffer to fill.
template <typename T>
bool wants(T* buffer, std::size_t capacity, std::size_t* needed, std::size_t count) {
    if (needed != nullptr) *needed = count;
    if (buffer == nullptr && capacity == 0) return false;
    present(buffer, "buffer");
    if (capacity >= count) return true;
    throw Error(Kind::buffer_too_small, "the buffer holds " + std::to_string(capacity) + " elements; expected " +
                                            std::to_string(count) + ", as `needed` says.");
}

void copy_text(const std::string& text, char* buffer, std::size_t capacity, std::size_t* needed) {
    if (wants(buffer, capacity, needed, text.size() + 1)) std::memcpy(buffer, text.c_str(), text.size() + 1);
}

ris::RuntimeOptions runtime_options(const ris_engine_options& options) {
    if (options.device < RIS_DEVICE_BUNDLE || options.device > RIS_DEVICE_TENSORRT_RTX) {
        throw Error(Kind::input, "device is " + std::to_string(options.device) + "; expected a ris_device.");
    }
    if (options.threads < 0) {
        throw Error(Kind::input, "threads = " + std::to_string(options.threads) + "; expected 0 or more.");
    }
    ris::RuntimeOptions runtime;
    runtime.threads = options.threads;
    switch (options.device) {
        case RIS_DEVICE_CPU: runtime.device = ris::Device::cpu; break;
        case RIS_DEVICE_CUDA: runtime.device = ris::Device::cuda; break;
        case RIS_DEVICE_TENSORRT: runtime.device = ris::Device::tensorrt; break;
        case RIS_DEVICE_TENSORRT_RTX: runtime.device = ris::Device::tensorrt_rtx; break;
        default: runtime.device = ris::Device::bundle;
    }
    return runtime;
}

ris::Overrides overrides_of(const ris_engine_options& options) {
    const auto given = [](double value) { return std::isnan(value) ? std::nullopt : std::optional<double>(value); };
    ris::Overrides overrides;
    overrides.global_weight = given(options.global_weight);
    overrides.sentence_weight = given(options.sentence_weight);
    if (options.points_per_side != 0) overrides.points_per_side = options.points_per_side;
    overrides.pred_iou_thresh = given(options.pred_iou_thresh);
    overrides.stability_score_thresh = given(options.stability_score_thresh);
    return overrides;
}

void fill_defaults(ris_engine_options& options) {
    options = {};
    options.struct_size = sizeof options;
    for (auto* value : {&options.global_weight, &options.sentence_weight, &options.pred_iou_thresh,
                        &options.stability_score_thresh}) {
        *value = std::numeric_limits<double>::quiet_NaN();
    }
}

ris::Pixels read_pixels(const ris_image_view* given) {
    const auto& view = sized(present(given, "ris_image_view"), "ris_image_view");
    if (view.pixels != RIS_RGB && view.pixels != RIS_BGR) {
        throw Error(Kind::input, "pixels is " + std::to_string(view.pixels) + "; expected RIS_RGB or RIS_BGR.");
    }
    return ris::Pixels({view.data, {view.height_px, view.width_px}, view.stride_bytes, view.pixels == RIS_BGR});
}

ris_image* new_image(const ris_engine& engine, const ris::Image& image, ris::Proposals proposals) {
    auto encoded = engine.engine.encode(image, std::move(proposals));
    auto masks = ris_masks{encoded.proposals};
    return new ris_image{std::move(encoded), std::move(masks)};
}

std::size_t pixels_of(const ris::Proposals& proposals) {
    return static_cast<std::size_t>(proposals.size.height * proposals.size.width);
}

void write_mask(const ris::Proposals& proposals, std::size_t index, std::uint8_t* buffer) {
    ris::unpack_runs(proposals.masks[index], proposals.size, buffer);
    std::transform(buffer, buffer + pixels_of(proposals), buffer,
                   [](std::uint8_t inside) { return static_cast<std::uint8_t>(inside * 255); });
}

const ris::Proposals& indexed(const ris_masks* masks, std::size_t index) {
    const auto& proposals = *present(masks, "masks").proposals;
    if (index < proposals.count()) return proposals;
    throw Error(Kind::input, "index is " + std::to_string(index) + "; there are " +
                                 std::to_string(proposals.count()) + " masks, counted from 0.");
}

ris_answer answer_of(const ris::Proposals& proposals, const ris::Answer& found) {
    ris_answer answer{};
    answer.index = found.index;
    answer.score = found.score;
    std::copy(proposals.boxes[found.index].begin(), proposals.boxes[found.index].end(), answer.box_xyxy);
    return answer;
}

}  // namespace

const char* ris_version(void) { return RISENGINE_VERSION; }

const char* ris_last_error(void) { return last_error.c_str(); }

ris_status ris_engine_options_init(ris_engine_options* options) {
    return guarded([&] { fill_defaults(present(options, "options")); });
}

ris_status ris_image_view_init(ris_image_view* view) {
    return guarded([&] {
        present(view, "view") = {};
        view->struct_size = sizeof *view;
    });
}

ris_status ris_engine_open(const char* bundle, const ris_engine_options* options, ris_engine** out) {
    return guarded([&] {
        auto& place = out_parameter(out);
        const std::string path = &present(bundle, "bundle");
        ris_engine_options chosen;
        fill_defaults(chosen);
        if (options != nullptr) chosen = sized(*options, "ris_engine_options");
        place = new ris_engine{{path, runtime_options(chosen), overrides_of(chosen)}};
    });
}

void ris_engine_close(ris_engine* engine) { delete engine; }

ris_status ris_engine_bundle_id(const ris_engine* engine, char* buffer, size_t capacity, size_t* needed) {
    return guarded([&] { copy_text(present(engine, "engine").engine.bundle_id(), buffer, capacity, needed); });
}

ris_status ris_engine_providers(const ris_engine* engine, char* buffer, size_t capacity, size_t* needed) {
    return guarded([&] {
        std::string names;
        for (const auto& name : present(engine, "engine").engine.providers()) {
            names += (names.empty() ? "" : ",") + name;
        }
        copy_text(names, buffer, capacity, needed);
    });
}

ris_status ris_encode_image(const ris_engine* engine, const ris_image_view* view, ris_image** out) {
    return guarded([&] {
        auto& place = out_parameter(out);
        const auto& own = present(engine, "engine");
        const auto pixels = read_pixels(view);
        place = new_image(own, pixels.image(), own.engine.propose(pixels.image()));
    });
}

ris_status ris_encode_masks(const ris_engine* engine, const ris_image_view* view, const uint8_t* masks, size_t count,
                            ris_image** out) {
    return guarded([&] {
        auto& place = out_parameter(out);
        const auto& own = present(engine, "engine");
        const auto pixels = read_pixels(view);
        if (count != 0) present(masks, "masks");
        const auto size = pixels.image().size;
        place = new_image(own, pixels.image(),
                          ris::read_masks(masks, count, size, size.width, size.height * size.width));
    });
}

void ris_image_free(ris_image* image) { delete image; }

const ris_masks* ris_image_masks(const ris_image* image) { return image == nullptr ? nullptr : &image->masks; }

ris_status ris_propose(const ris_engine* engine, const ris_image_view* view, ris_masks** out) {
    return guarded([&] {
        auto& place = out_parameter(out);
        const auto& own = present(engine, "engine");
        const auto pixels = read_pixels(view);
        auto proposals = std::make_shared<const ris::Proposals>(own.engine.propose(pixels.image()));
        place = new ris_masks{std::move(proposals)};
    });
}

void ris_masks_free(ris_masks* masks) { delete masks; }

ris_status ris_masks_shape(const ris_masks* masks, size_t* count, int64_t* height_px, int64_t* width_px) {
    return guarded([&] {
        const auto& proposals = *present(masks, "masks").proposals;
        if (count != nullptr) *count = proposals.count();
        if (height_px != nullptr) *height_px = proposals.size.height;
        if (width_px != nullptr) *width_px = proposals.size.width;
    });
}

ris_status ris_masks_get(const ris_masks* masks, size_t index, uint8_t* buffer, size_t capacity, size_t* needed) {
    return guarded([&] {
        const auto& proposals = indexed(masks, index);
        if (wants(buffer, capacity, needed, pixels_of(proposals))) write_mask(proposals, index, buffer);
    });
}

ris_status ris_masks_describe(const ris_masks* masks, size_t index, float box_xyxy[4], float* quality) {
    return guarded([&] {
        const auto& proposals = indexed(masks, index);
        if (box_xyxy != nullptr) std::copy(proposals.boxes[index].begin(), proposals.boxes[index].end(), box_xyxy);
        if (quality != nullptr) *quality = proposals.scores[index];
    });
}

ris_status ris_segment(const ris_engine* engine, const ris_image* image, const char* text, const char* noun_phrase,
                       ris_answer* answer, uint8_t* mask, size_t capacity, size_t* needed) {
    return guarded([&] {
        const auto& encoded = present(image, "image").encoded;
        const auto& proposals = *encoded.proposals;
        const bool wants_mask = wants(mask, capacity, needed, pixels_of(proposals));
        const auto found = present(engine, "engine").engine.segment(encoded, text, noun_phrase);
        if (answer != nullptr) *answer = answer_of(proposals, found);
        if (wants_mask) write_mask(proposals, found.index, mask);
    });
}

ris_status ris_rank(const ris_engine* engine, const ris_image* image, const char* text, const char* noun_phrase,
                    ris_answer* answers, size_t capacity, size_t* count) {
    return guarded([&] {
        present(count, "count") = 0;
        const auto& encoded = present(image, "image").encoded;
        present(answers, "answers");
        if (capacity == 0) throw Error(Kind::input, "capacity is 0; expected room for at least 1 answer.");
        for (const auto& found : present(engine, "engine").engine.rank(encoded, text, noun_phrase, capacity)) {
            answers[(*count)++] = answer_of(*encoded.proposals, found);
        }
    });
}

ris_status ris_noun_phrase(const char* text, char* buffer, size_t capacity, size_t* needed) {
    return guarded([&] {
        copy_text(ris::to_utf8(ris::read_expression(text, nullptr, false).phrase), buffer, capacity, needed);
    });
}

ris_status ris_tokenize(const ris_engine* engine, const char* text, int64_t* buffer, size_t capacity,
                        size_t* needed) {
    return guarded([&] {
        const auto& encoder = present(engine, "engine").engine.text();
        const auto tokens = encoder.tokenize(ris::from_utf8(&present(text, "text"), "text"));
        if (wants(buffer, capacity, needed, tokens.size())) std::copy(tokens.begin(), tokens.end(), buffer);
    });
}
