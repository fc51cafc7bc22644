#include "manifest.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "errors.hpp"
#include "json.hpp"

namespace ris {
namespace {

constexpr std::array<const char*, role_count> role_names{"image_encoder", "image_projector",  "point_decoder",
                                                         "mask_decoder",  "proposal_encoder", "text_encoder"};
constexpr std::array<Dtype, 5> dtypes{Dtype::float32, Dtype::float16, Dtype::uint8, Dtype::int64, Dtype::boolean};

FileSpec read_file(const JsonValue& value) {
    return {value.at("file").text(), value.at("sha256").text()};
}

TensorSpec read_tensor(const JsonValue& value) {
    TensorSpec tensor;
    tensor.name = value.at("name").text();
    const auto dtype = value.at("dtype").text();
    bool known = false;
    for (const auto candidate : dtypes) {
        if (dtype != dtype_name(candidate)) continue;
        tensor.dtype = candidate;
        known = true;
    }
    if (!known) value.refuse("unknown dtype '" + dtype + "'");
    for (const auto& side : value.at("shape").items()) {
        if (side.is_text()) {
            tensor.shape.emplace_back(side.text());
        } else {
            tensor.shape.emplace_back(side.integer());
        }
    }
    return tensor;
}

std::vector<std::int64_t> read_shape(const JsonValue& value, std::size_t sides) {
    std::vector<std::int64_t> shape;
    for (const auto& side : value.items()) shape.push_back(side.integer());
    if (shape.size() != sides) value.refuse("expected " + std::to_string(sides) + " sizes");
    return shape;
}

bool is_dynamic(const TensorSpec& tensor) {
    return std::any_of(tensor.shape.begin(), tensor.shape.end(), [](const Dimension& side) { return side.index() == 1; });
}

ShapeProfile read_profile(const JsonValue& value, const TensorSpec& tensor) {
    const auto sides = tensor.shape.size();
    const auto best = read_shape(value.at("best"), sides);
    const ShapeProfile profile{read_shape(value.at("least"), sides), read_shape(value.at("largest"), sides)};
    for (std::size_t axis = 0; axis < sides; ++axis) {
        const auto least = profile.least[axis], largest = profile.largest[axis];
        const auto* fixed = std::get_if<std::int64_t>(&tensor.shape[axis]);
        const bool rising = 1 <= least && least <= best[axis] && best[axis] <= largest;
        if (!rising || (fixed != nullptr && (least != *fixed || largest != *fixed))) {
            value.refuse("expected rising sizes from 1 on of the input's shape");
        }
    }
    return profile;
}

EngineSpec read_engine(const JsonValue& value, const std::vector<TensorSpec>& inputs, std::vector<FileSpec>& files) {
    EngineSpec engine;
    engine.library = value.at("library").choice({"tensorrt", "tensorrt_rtx"});
    engine.version = value.at("version").text();
    const auto profiles = value.at("profiles");
    for (const auto& tensor : inputs) {
        if (is_dynamic(tensor)) engine.profiles[tensor.name] = read_profile(profiles.at(tensor.name.c_str()), tensor);
    }
    for (const auto& [name, profile] : profiles.members()) {
        if (engine.profiles.count(name) == 0) profile.refuse("expected the name of an input with free sizes");
    }
    files.push_back(read_file(value.at("layers")));
    if (value.has("context")) {
        engine.context = read_file(value.at("context"));
        files.push_back(*engine.context);
    }
    return engine;
}

GraphSpec read_graph(const JsonValue& value, std::vector<FileSpec>& files) {
    GraphSpec graph;
    graph.file = read_file(value);
    files.push_back(graph.file);
    for (const auto& tensor : value.at("inputs").items()) graph.inputs.push_back(read_tensor(tensor));
    for (const auto& tensor : value.at("outputs").items()) graph.outputs.push_back(read_tensor(tensor));
    if (value.has("external")) {
        for (const auto& file : value.at("external").items()) files.push_back(read_file(file));
    }
    if (value.has("engine")) graph.engine = read_engine(value.at("engine"), graph.inputs, files);
    return graph;
}

double read_share(const JsonValue& value) {
    const auto share = value.number();
    if (!(share >= 0 && share <= 1)) value.refuse("expected a share in [0, 1]");
    return share;
}

std::int64_t read_side(const JsonValue& value) {
    const auto side = value.integer();
    if (side < 1 || side > 65536) value.refuse("expected 1 to 65536");
    return side;
}

Method read_method(const JsonValue& value) {
    Method method;
    method.image_size_px = read_side(value.at("image_size_px"));
    method.global_weight = read_share(value.at("global_weight"));
    method.sentence_weight = read_share(value.at("sentence_weight"));
    method.similarity =
        value.at("similarity").choice({"cosine", "dot"}) == "cosine" ? Similarity::cosine : Similarity::dot;
    if (value.has("fusion")) method.fusion = value.at("fusion").choice({"none", "g2l", "l2g", "both"});
    method.spaced = value.at("tokenisation").choice({"spaced", "plain"}) == "spaced";
    if (const auto reason = misfit(method); !reason.empty()) value.refuse(reason);
    return method;
}

std::vector<std::vector<std::array<double, 2>>> read_grids(const JsonValue& value) {
    std::vector<std::vector<std::array<double, 2>>> grids;
    for (const auto& grid : value.items()) {
        auto& points = grids.emplace_back();
        for (const auto& point : grid.items()) {
            const auto numbers = point.items();
            if (numbers.size() != 2) point.refuse("expected x and y");
            points.push_back({numbers[0].number(), numbers[1].number()});
        }
    }
    return grids;
}

ProposalSettings read_proposals(const JsonValue& value) {
    ProposalSettings settings;
    const auto integer = [&](const char* name, std::int64_t& field) {
        if (value.has(name)) field = value.at(name).integer();
    };
    const auto number = [&](const char* name, double& field) {
        if (value.has(name)) field = value.at(name).number();
    };
    integer("points_per_side", settings.points_per_side);
    integer("points_per_batch", settings.points_per_batch);
    number("pred_iou_thresh", settings.pred_iou_thresh);
    number("stability_score_thresh", settings.stability_score_thresh);
    number("stability_score_offset", settings.stability_score_offset);
    number("box_nms_thresh", settings.box_nms_thresh);
    integer("crop_n_layers", settings.crop_n_layers);
    number("crop_nms_thresh", settings.crop_nms_thresh);
    number("crop_overlap_ratio", settings.crop_overlap_ratio);
    integer("crop_n_points_downscale_factor", settings.crop_n_points_downscale_factor);
    if (value.has("point_grids")) settings.point_grids = read_grids(value.at("point_grids"));
    integer("min_mask_region_area", settings.min_mask_region_area);
    if (value.has("search") && value.at("search").choice({"exact", "turbo"}) == "turbo") {
        settings.search = Search::turbo;
    }
    try {
        check(settings);
    } catch (const Error& error) {
        value.refuse(error.what());
    }
    return settings;
}

void check_version(const JsonValue& root) {
    const auto version = root.at("format_version").integer();
    if (version == format_version) return;
    throw Error(Kind::bundle,
                "bundle format version " + std::to_string(version) + "; this risengine reads " +
                    std::to_string(format_version) + ". " +
                    (version > format_version ? "Update risengine." : "Rebuild the bundle with `risengine build`."));
}

}  // namespace

std::int64_t largest(const GraphSpec& graph, const std::string& dimension) {
    std::int64_t bound = 0;
    if (!graph.engine) return bound;
    for (const auto& tensor : graph.inputs) {
        const auto profile = graph.engine->profiles.find(tensor.name);
        if (profile == graph.engine->profiles.end()) continue;
        for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
            if (tensor.shape[axis] != Dimension(dimension)) continue;
            const auto size = profile->second.largest[axis];
            bound = bound == 0 ? size : std::min(bound, size);
        }
    }
    return bound;
}

std::string misfit(const Method& method) {
    const bool mixes = method.fusion != "g2l" && method.fusion != "l2g";
    if (mixes || method.global_weight == (method.fusion == "l2g" ? 1 : 0)) return "";
    return "global_weight = " + std::to_string(method.global_weight) + "; expected " +
           (method.fusion == "l2g" ? "1" : "0") + " with fusion " + method.fusion +
           ", which has nothing to mix. Leave it out, or build a bundle with --fusion both.";
}

const char* dtype_name(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return "float32";
        case Dtype::float16: return "float16";
        case Dtype::uint8: return "uint8";
        case Dtype::int64: return "int64";
        case Dtype::boolean: return "bool";
    }
    return "unknown";
}

Manifest read_manifest(const std::string& text) {
    const auto document = parse_json(text, "manifest.json");
    const JsonValue root(document, "manifest.json:");
    check_version(root);
    Manifest manifest;
    manifest.name = root.at("name").text();
    root.at("precision").choice({"fp32", "fp16"});
    manifest.target = root.at("target").choice({"cpu", "cuda", "openvino", "tensorrt", "tensorrt-rtx"});
    const auto graphs = root.at("graphs");
    for (std::size_t role = 0; role < role_count; ++role) {
        manifest.graphs[role] = read_graph(graphs.at(role_names[role]), manifest.files);
    }
    manifest.tokenizer = read_file(root.at("text").at("tokenizer"));
    manifest.files.push_back(manifest.tokenizer);
    manifest.context_length = read_side(root.at("text").at("context_length"));
    manifest.method = read_method(root.at("method"));
    manifest.proposals = read_proposals(root.at("proposals"));
    manifest.sam_image_size_px = read_side(root.at("sam_image_size_px"));
    manifest.files.push_back(read_file(root.at("vectors")));
    return manifest;
}

}  // namespace ris
