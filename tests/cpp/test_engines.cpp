// What an engine was compiled for bounds what it is given, before ONNX Runtime sees it.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "errors.hpp"
#include "feeds.hpp"
#include "manifest.hpp"

namespace {

ris::GraphSpec encoder() {
    ris::GraphSpec graph;
    graph.file.file = "proposal_encoder.plan";
    graph.inputs = {{"image", ris::Dtype::uint8, {"H", "W", std::int64_t{3}}},
                    {"masks", ris::Dtype::boolean, {"N", "H", "W"}},
                    {"weight", ris::Dtype::float32, {}}};
    graph.engine = ris::EngineSpec{"tensorrt", "10.13.3.9", {}, {}};
    graph.engine->profiles = {{"image", {{1, 1, 3}, {8, 16, 3}}}, {"masks", {{2, 1, 1}, {5, 8, 12}}}};
    return graph;
}

std::string refusal(const ris::GraphSpec& graph, std::int64_t masks, std::int64_t height) {
    const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(masks * height * 4 * 3));
    const float weight = 1;
    const ris::Tensors feeds{
        {"image", ris::Tensor::lent(ris::Dtype::uint8, {height, 4, 3}, pixels.data())},
        {"masks", ris::Tensor::lent(ris::Dtype::boolean, {masks, height, 4}, pixels.data())},
        {"weight", ris::Tensor::lent(ris::Dtype::float32, {}, &weight)},
    };
    try {
        ris::check_feeds(graph, feeds);
    } catch (const ris::Error& error) {
        CHECK(error.kind() == ris::Kind::backend);
        return error.what();
    }
    return "";
}

}  // namespace

TEST_CASE("the least of the inputs' bounds is the dimension's") {
    auto graph = encoder();
    CHECK(ris::largest(graph, "N") == 5);
    CHECK(ris::largest(graph, "W") == 12);
    CHECK(ris::largest(graph, "Q") == 0);
    graph.engine.reset();
    CHECK(ris::largest(graph, "N") == 0);
}

TEST_CASE("less or more than an engine was compiled for is refused") {
    auto graph = encoder();
    CHECK(refusal(graph, 2, 8).empty());
    CHECK(refusal(graph, 5, 8).empty());
    const auto few = refusal(graph, 1, 8), many = refusal(graph, 6, 8), high = refusal(graph, 2, 9);
    CHECK(many.find("input masks is bool (6, 8, 4); the engine was compiled for sizes from 2 to 5 on axis 0") !=
          std::string::npos);
    CHECK(few.find("from 2 to 5 on axis 0") != std::string::npos);
    CHECK(high.find("input image is uint8 (9, 4, 3); the engine was compiled for sizes from 1 to 8 on axis 0") !=
          std::string::npos);
    CHECK(high.find("--profile") != std::string::npos);
    graph.engine.reset();
    CHECK(refusal(graph, 6, 9).empty());
}
