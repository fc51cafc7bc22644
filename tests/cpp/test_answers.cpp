// The answers are Python's: the same masks proposed and the same one chosen, on the shipped tabletop scenes.
#include "support.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

namespace {

using nlohmann::json;

const std::string folder = RISENGINE_EXPECTED;

std::vector<std::uint8_t> read_bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// COCO's run lengths, down the columns.
risengine::Mask read_runs(const json& runs, std::int64_t width, std::int64_t height) {
    risengine::Mask mask{width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(width * height), 0)};
    std::int64_t at = 0;
    bool inside = false;
    for (const std::int64_t run : runs) {
        for (std::int64_t i = 0; i < run && inside; ++i) {
            mask.data[static_cast<std::size_t>((at + i) % height * width + (at + i) / height)] = 255;
        }
        at += run;
        inside = !inside;
    }
    return mask;
}

double iou(const risengine::Mask& a, const risengine::Mask& b) {
    std::size_t both = 0;
    std::size_t any = 0;
    for (std::size_t i = 0; i < a.data.size(); ++i) {
        both += a.data[i] != 0 && b.data[i] != 0;
        any += a.data[i] != 0 || b.data[i] != 0;
    }
    return any == 0 ? 1 : static_cast<double>(both) / static_cast<double>(any);
}

}  // namespace

TEST_CASE("the shipped scenes are answered as by Python") {
    std::ifstream file(folder + "/answers.json");
    const auto expected = json::parse(file);
    auto options = risengine::default_options();
    options.threads = 1;
    const risengine::Engine engine(bundle_path, options);
    int asked = 0;
    int same = 0;
    int proposed = 0;
    double lowest_iou = 1;
    double largest_difference = 0;
    for (const auto& scene : expected["scenes"]) {
        const auto rgb = read_bytes(folder + "/" + scene["pixels"].get<std::string>());
        const std::int64_t width = scene["width"];
        const std::int64_t height = scene["height"];
        REQUIRE(rgb.size() == static_cast<std::size_t>(3 * width * height));
        const auto image = engine.encode_image({rgb.data(), width, height});
        REQUIRE(image.size() == scene["masks"].size());
        std::vector<risengine::Mask> masks;
        for (const auto& runs : scene["masks"]) {
            masks.push_back(read_runs(runs, width, height));
            lowest_iou = std::min(lowest_iou, iou(masks.back(), image.mask(masks.size() - 1)));
            ++proposed;
        }
        for (const auto& expression : scene["expressions"]) {
            const auto answer = engine.segment(image, expression["text"], expression["phrase"].get<std::string>());
            const auto& wanted = masks[expression["index"].get<std::size_t>()];
            ++asked;
            if (iou(answer.mask, wanted) < 0.99) continue;
            ++same;
            const auto& box = scene["boxes"][expression["index"].get<std::size_t>()];
            for (std::size_t side = 0; side < 4; ++side) CHECK(answer.box_xyxy[side] == box[side].get<float>());
            largest_difference = std::max(largest_difference, std::abs(answer.score - expression["score"].get<double>()));
        }
    }
    MESSAGE(same << " of " << asked << " answers are Python's, their scores within " << largest_difference << "; of "
                 << proposed << " proposals the lowest IoU is " << lowest_iou);
    CHECK(asked > 0);
    CHECK(same >= 0.99 * asked);
    CHECK(lowest_iou >= 0.99);
    CHECK(largest_difference < 1e-3);
}
