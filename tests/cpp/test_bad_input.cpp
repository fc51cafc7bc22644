// What a caller may get wrong is a status and a message, never a crash.
#include "support.hpp"

#include <cmath>
#include <cstring>
#include <limits>

namespace {

// One bundle for all: opening costs more than everything here.
const risengine::Engine& engine() {
    static const risengine::Engine opened(bundle_path);
    return opened;
}

const risengine::EncodedImage& image() {
    static const Picture picture;
    static const auto encoded =
        engine().encode_masks({picture.rgb.data(), picture.width, picture.height}, picture.masks.data(), 2);
    return encoded;
}

ris_status segment(const char* text, const char* noun_phrase = nullptr) {
    return ris_segment(engine().c(), image().c(), text, noun_phrase, nullptr, nullptr, 0, nullptr);
}

ris_status encode(const ris_image_view& view) {
    ris_image* out = nullptr;
    const auto status = ris_encode_image(engine().c(), &view, &out);
    CHECK(out == nullptr);
    return status;
}

}  // namespace

TEST_CASE("handles and pointers of NULL") {
    const Picture picture;
    const auto view = picture.view();
    ris_engine* opened = nullptr;
    ris_image* encoded = nullptr;
    ris_masks* masks = nullptr;
    std::size_t size = 0;
    ris_answer answer;
    check_refused(ris_engine_options_init(nullptr), RIS_ERROR_INPUT, "options is NULL");
    check_refused(ris_image_view_init(nullptr), RIS_ERROR_INPUT, "view is NULL");
    check_refused(ris_engine_open(nullptr, nullptr, &opened), RIS_ERROR_INPUT, "bundle is NULL");
    check_refused(ris_engine_open(bundle_path.c_str(), nullptr, nullptr), RIS_ERROR_INPUT, "out is NULL");
    check_refused(ris_engine_bundle_id(nullptr, nullptr, 0, &size), RIS_ERROR_INPUT, "engine is NULL");
    check_refused(ris_engine_providers(nullptr, nullptr, 0, &size), RIS_ERROR_INPUT, "engine is NULL");
    check_refused(ris_encode_image(nullptr, &view, &encoded), RIS_ERROR_INPUT, "engine is NULL");
    check_refused(ris_encode_image(engine().c(), nullptr, &encoded), RIS_ERROR_INPUT, "ris_image_view is NULL");
    check_refused(ris_encode_image(engine().c(), &view, nullptr), RIS_ERROR_INPUT, "out is NULL");
    check_refused(ris_encode_masks(engine().c(), &view, nullptr, 1, &encoded), RIS_ERROR_INPUT, "masks is NULL");
    check_refused(ris_propose(nullptr, &view, &masks), RIS_ERROR_INPUT, "engine is NULL");
    check_refused(ris_masks_shape(nullptr, &size, nullptr, nullptr), RIS_ERROR_INPUT, "masks is NULL");
    check_refused(ris_masks_get(nullptr, 0, nullptr, 0, &size), RIS_ERROR_INPUT, "masks is NULL");
    check_refused(ris_masks_describe(nullptr, 0, nullptr, nullptr), RIS_ERROR_INPUT, "masks is NULL");
    check_refused(ris_segment(nullptr, image().c(), "the box", nullptr, nullptr, nullptr, 0, nullptr), RIS_ERROR_INPUT,
                  "engine is NULL");
    check_refused(ris_segment(engine().c(), nullptr, "the box", nullptr, nullptr, nullptr, 0, nullptr),
                  RIS_ERROR_INPUT, "image is NULL");
    check_refused(segment(nullptr), RIS_ERROR_INPUT, "text is NULL");
    check_refused(ris_rank(engine().c(), image().c(), "the box", nullptr, nullptr, 1, &size), RIS_ERROR_INPUT,
                  "answers is NULL");
    check_refused(ris_rank(engine().c(), image().c(), "the box", nullptr, &answer, 1, nullptr), RIS_ERROR_INPUT,
                  "count is NULL");
    check_refused(ris_rank(engine().c(), image().c(), "the box", nullptr, &answer, 0, &size), RIS_ERROR_INPUT,
                  "capacity is 0");
    check_refused(ris_noun_phrase(nullptr, nullptr, 0, &size), RIS_ERROR_INPUT, "text is NULL");
    check_refused(ris_tokenize(engine().c(), nullptr, nullptr, 0, &size), RIS_ERROR_INPUT, "text is NULL");
    CHECK(ris_image_masks(nullptr) == nullptr);
    ris_engine_close(nullptr);
    ris_image_free(nullptr);
    ris_masks_free(nullptr);
}

TEST_CASE("options that cannot be used") {
    const auto open = [](const ris_engine_options& options) {
        ris_engine* out = nullptr;
        const auto status = ris_engine_open(bundle_path.c_str(), &options, &out);
        CHECK(out == nullptr);
        return status;
    };
    auto options = risengine::default_options();
    for (const std::size_t size : {std::size_t{0}, sizeof options - 1, sizeof options + 8}) {
        options.struct_size = size;
        check_refused(open(options), RIS_ERROR_INPUT, "struct_size");
    }
    options = risengine::default_options();
    options.device = 77;
    check_refused(open(options), RIS_ERROR_INPUT, "ris_device");
    options = risengine::default_options();
    options.threads = -1;
    check_refused(open(options), RIS_ERROR_INPUT, "threads");
    options = risengine::default_options();
    options.global_weight = 1.5;
    check_refused(open(options), RIS_ERROR_INPUT, "global_weight");
    options = risengine::default_options();
    options.points_per_side = -3;
    check_refused(open(options), RIS_ERROR_INPUT, "points_per_side");
    options = risengine::default_options();
    options.pred_iou_thresh = std::numeric_limits<double>::infinity();
    check_refused(open(options), RIS_ERROR_INPUT, "pred_iou_thresh");
}

TEST_CASE("a device that ONNX Runtime lacks") {
    auto options = risengine::default_options();
    options.device = RIS_DEVICE_CUDA;
    ris_engine* out = nullptr;
    const auto status = ris_engine_open(bundle_path.c_str(), &options, &out);
    if (status != RIS_OK) check_refused(status, RIS_ERROR_BACKEND, "CUDAExecutionProvider");
    ris_engine_close(out);
}

TEST_CASE("pictures that cannot be used") {
    const Picture picture;
    auto view = picture.view();
    view.struct_size = 3;
    check_refused(encode(view), RIS_ERROR_INPUT, "struct_size");
    view = picture.view();
    view.data = nullptr;
    check_refused(encode(view), RIS_ERROR_INPUT, "data is NULL");
    for (const std::int64_t side : {std::int64_t{0}, std::int64_t{-5}, std::int64_t{16385},
                                    std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()}) {
        view = picture.view();
        view.width_px = side;
        check_refused(encode(view), RIS_ERROR_INPUT, "image is");
        view = picture.view();
        view.height_px = side;
        check_refused(encode(view), RIS_ERROR_INPUT, "image is");
    }
    view = picture.view();
    view.stride_bytes = 3 * view.width_px - 1;
    check_refused(encode(view), RIS_ERROR_INPUT, "stride_bytes");
    view = picture.view();
    view.pixels = 9;
    check_refused(encode(view), RIS_ERROR_INPUT, "RIS_RGB or RIS_BGR");
}

TEST_CASE("an empty mask of the caller's") {
    auto picture = Picture();
    const auto view = picture.view();
    std::fill(picture.masks.begin(), picture.masks.begin() + picture.width * picture.height, std::uint8_t{0});
    ris_image* out = nullptr;
    check_refused(ris_encode_masks(engine().c(), &view, picture.masks.data(), 2, &out), RIS_ERROR_INPUT, "empty");
    CHECK(out == nullptr);
}

TEST_CASE("texts that cannot be read") {
    check_refused(segment(""), RIS_ERROR_INPUT, "blank");
    check_refused(segment(" \t\n\xC2\xA0"), RIS_ERROR_INPUT, "blank");
    check_refused(segment("the \xFF mug"), RIS_ERROR_INPUT, "UTF-8");
    check_refused(segment("the \xED\xA0\x80 mug"), RIS_ERROR_INPUT, "UTF-8");
    check_refused(segment("the \xC0\xAF mug"), RIS_ERROR_INPUT, "UTF-8");
    check_refused(segment("the mug \xE2\x82"), RIS_ERROR_INPUT, "UTF-8");
    check_refused(segment("the \x07 mug"), RIS_ERROR_INPUT, "U+0007");
    check_refused(segment(std::string(1001, 'a').c_str()), RIS_ERROR_INPUT, "1000");
    check_refused(segment(std::string(1 << 20, 'a').c_str()), RIS_ERROR_INPUT, "1000");
    std::string many;
    for (int i = 0; i < 90; ++i) many += "mug ";
    check_refused(segment(many.c_str()), RIS_ERROR_INPUT, "CLIP tokens");
    check_refused(segment("the mug", ""), RIS_ERROR_INPUT, "noun_phrase is blank");
    check_refused(segment("the mug", "\xFF"), RIS_ERROR_INPUT, "noun_phrase is not valid UTF-8");
    const std::string large(1 << 20, 'b');
    check_refused(ris_tokenize(engine().c(), large.c_str(), nullptr, 0, nullptr), RIS_ERROR_INPUT, "CLIP tokens");
    check_refused(ris_noun_phrase(large.c_str(), nullptr, 0, nullptr), RIS_ERROR_INPUT, "1000");
}

TEST_CASE("buffers that are too small say how large they must be") {
    std::size_t needed = 0;
    std::vector<std::uint8_t> mask(48 * 64, 7);
    ris_answer answer;
    check_refused(ris_segment(engine().c(), image().c(), "the red box", nullptr, &answer, mask.data(), mask.size() - 1,
                              &needed),
                  RIS_ERROR_BUFFER_TOO_SMALL, "3072");
    CHECK(needed == mask.size());
    CHECK(mask[0] == 7);
    CHECK(ris_segment(engine().c(), image().c(), "the red box", nullptr, &answer, mask.data(), needed, nullptr) == RIS_OK);
    check_refused(ris_masks_get(ris_image_masks(image().c()), 0, nullptr, 5, &needed), RIS_ERROR_INPUT, "buffer is NULL");
    CHECK(ris_masks_get(ris_image_masks(image().c()), 0, nullptr, 0, &needed) == RIS_OK);
    CHECK(needed == mask.size());
    check_refused(ris_masks_get(ris_image_masks(image().c()), 2, mask.data(), mask.size(), nullptr), RIS_ERROR_INPUT,
                  "there are 2 masks");
    char text[4];
    check_refused(ris_engine_bundle_id(engine().c(), text, sizeof text, &needed), RIS_ERROR_BUFFER_TOO_SMALL, "65");
    CHECK(needed == 65);
    check_refused(ris_noun_phrase("the red box", text, sizeof text, &needed), RIS_ERROR_BUFFER_TOO_SMALL, "12");
    std::int64_t tokens[2];
    check_refused(ris_tokenize(engine().c(), "the mug", tokens, 2, &needed), RIS_ERROR_BUFFER_TOO_SMALL, "4");
    CHECK(needed == 4);
}

TEST_CASE("an image of other weights is refused") {
    auto options = risengine::default_options();
    options.global_weight = 0.25;
    const risengine::Engine other(bundle_path, options);
    check_refused(ris_segment(other.c(), image().c(), "the box", nullptr, nullptr, nullptr, 0, nullptr),
                  RIS_ERROR_INPUT, "global_weight");
}

TEST_CASE("an image without masks has no answer") {
    const Picture picture;
    const auto bare = engine().encode_masks({picture.rgb.data(), picture.width, picture.height}, nullptr, 0);
    check_refused(ris_segment(engine().c(), bare.c(), "the box", nullptr, nullptr, nullptr, 0, nullptr),
                  RIS_ERROR_INPUT, "no object was found");
    CHECK(engine().rank(bare, "the box", 3).empty());
    ris_answer answer;
    std::size_t count = 9;
    CHECK(ris_rank(engine().c(), bare.c(), "the box", nullptr, &answer, 1, &count) == RIS_OK);
    CHECK(count == 0);
}

TEST_CASE("stride and order of the channels change nothing") {
    const Picture picture;
    const std::int64_t stride = 3 * picture.width + 7;
    std::vector<std::uint8_t> bgr(static_cast<std::size_t>(stride * picture.height), 99);
    for (std::int64_t y = 0; y < picture.height; ++y) {
        for (std::int64_t x = 0; x < 3 * picture.width; ++x) {
            bgr[static_cast<std::size_t>(y * stride + x)] =
                picture.rgb[static_cast<std::size_t>(3 * (y * picture.width + x / 3) + 2 - x % 3)];
        }
    }
    const auto other = engine().encode_masks({bgr.data(), picture.width, picture.height, RIS_BGR, stride},
                                             picture.masks.data(), 2);
    CHECK(engine().segment(other, "the red box").score == engine().segment(image(), "the red box").score);
}

TEST_CASE("the C++ layer throws what the C interface says") {
    try {
        engine().segment(image(), "");
        FAIL("no exception");
    } catch (const risengine::Error& error) {
        CHECK(error.status() == RIS_ERROR_INPUT);
        CHECK(std::strstr(error.what(), "blank") != nullptr);
    }
    const auto ranked = engine().rank(image(), "the blue box", 5);
    REQUIRE(ranked.size() == 2);
    CHECK(ranked[0].score >= ranked[1].score);
    CHECK(std::string(ris_version()) != "");
}
