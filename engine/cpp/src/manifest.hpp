// The facts of a bundle that this library needs, read from manifest.json; engine/risengine/manifest.py writes them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "pipeline.hpp"
#include "proposal_settings.hpp"
#include "session.hpp"

namespace ris {

inline constexpr std::int64_t format_version = 3;

struct FileSpec {
    std::string file;  // relative to the manifest
    std::string sha256;
};

// A size, or the name of one that is free.
using Dimension = std::variant<std::int64_t, std::string>;

struct TensorSpec {
    std::string name;
    Dtype dtype = Dtype::float32;
    std::vector<Dimension> shape;
};

// The shapes that an engine takes for one input, from the least to the largest on every axis.
struct ShapeProfile {
    std::vector<std::int64_t> least;
    std::vector<std::int64_t> largest;
};

// What a graph was compiled by, for a GPU: its file is no ONNX graph then.
struct EngineSpec {
    std::string library;
    std::string version;
    std::map<std::string, ShapeProfile> profiles;  // of the inputs that have free sizes, by name
    std::optional<FileSpec> context;               // ONNX graph by which ONNX Runtime's provider loads the engine
};

struct GraphSpec {
    FileSpec file;
    std::vector<TensorSpec> inputs;
    std::vector<TensorSpec> outputs;
    std::optional<EngineSpec> engine;
};

// The largest that a free size may be; 0 where there is no bound.
std::int64_t largest(const GraphSpec& graph, const std::string& dimension);

struct Method {
    std::int64_t image_size_px = 0;
    double global_weight = 0;    // v
    double sentence_weight = 0;  // r
    Similarity similarity = Similarity::cosine;
    std::string fusion = "none";  // or of HybridGL's encoder, which takes two views of every mask
    bool spaced = false;  // tokens joined by single spaces, as the method's authors feed them to CLIP
};

// Why a method with such a fusion cannot have such a global weight; empty where it can.
std::string misfit(const Method& method);

struct Manifest {
    std::string name;
    std::string target;
    std::array<GraphSpec, role_count> graphs;  // by Role
    FileSpec tokenizer;
    std::int64_t context_length = 0;
    Method method;
    ProposalSettings proposals;
    std::int64_t sam_image_size_px = 0;
    std::vector<FileSpec> files;  // every file it lists
};

inline const GraphSpec& graph_of(const Manifest& manifest, Role role) {
    return manifest.graphs[static_cast<std::size_t>(role)];
}

// Parses and validates; Kind::bundle where it is malformed or of another format version.
Manifest read_manifest(const std::string& text);

const char* dtype_name(Dtype dtype);

}  // namespace ris
