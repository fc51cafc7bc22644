// Bundles that are not what they say are refused.
#include "support.hpp"

#include <openssl/evp.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include <nlohmann/json.hpp>

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write(const fs::path& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
}

std::string sha256(const std::string& data) {
    std::array<unsigned char, 32> bytes{};
    EVP_Digest(data.data(), data.size(), bytes.data(), nullptr, EVP_sha256(), nullptr);
    std::string hex;
    for (const unsigned byte : bytes) {
        hex += "0123456789abcdef"[byte >> 4U];
        hex += "0123456789abcdef"[byte & 15U];
    }
    return hex;
}

// A copy of the bundle that may be damaged.
class Copy {
public:
    Copy() : path_(fs::temp_directory_path() / ("risengine-test-" + std::to_string(getpid()))) {
        fs::remove_all(path_);
        fs::copy(bundle_path, path_);
    }
    ~Copy() { fs::remove_all(path_); }
    Copy(const Copy&) = delete;
    Copy& operator=(const Copy&) = delete;

    fs::path at(const char* name) const { return path_ / name; }

    void change_manifest(const std::function<void(json&)>& change) const {
        auto manifest = json::parse(read(at("manifest.json")));
        change(manifest);
        write(at("manifest.json"), manifest.dump());
    }

    ris_status open(int32_t device = RIS_DEVICE_BUNDLE) const {
        auto options = risengine::default_options();
        options.device = device;
        return open(options);
    }

    ris_status open(const ris_engine_options& options) const {
        ris_engine* engine = nullptr;
        const auto status = ris_engine_open(path_.c_str(), &options, &engine);
        CHECK((engine != nullptr) == (status == RIS_OK));
        ris_engine_close(engine);
        return status;
    }

private:
    fs::path path_;
};

// Of every input with free sizes: 1 to 64.
json profiles_of(const json& graph) {
    auto profiles = json::object();
    for (const auto& input : graph["inputs"]) {
        auto least = input["shape"], largest = input["shape"];
        bool free = false;
        for (std::size_t axis = 0; axis < least.size(); ++axis) {
            if (!least[axis].is_string()) continue;
            least[axis] = 1;
            largest[axis] = 64;
            free = true;
        }
        if (free) profiles[std::string(input["name"])] = {{"least", least}, {"best", least}, {"largest", largest}};
    }
    return profiles;
}

}  // namespace

TEST_CASE("a whole copy opens, and is known by its manifest's hash") {
    const Copy copy;
    CHECK(copy.open() == RIS_OK);
    const risengine::Engine engine(bundle_path);
    std::array<char, 65> id{};
    CHECK(ris_engine_bundle_id(engine.c(), id.data(), id.size(), nullptr) == RIS_OK);
    CHECK(std::string(id.data()) == sha256(read(bundle_path + "/manifest.json")));
}

TEST_CASE("an encoder that has nothing to mix keeps its weight") {
    const Copy copy;
    copy.change_manifest([](json& manifest) {
        manifest["method"]["fusion"] = "l2g";
        manifest["method"]["global_weight"] = 1;
    });
    auto options = risengine::default_options();
    CHECK(copy.open(options) == RIS_OK);
    options.global_weight = 0.5;
    check_refused(copy.open(options), RIS_ERROR_INPUT, "expected 1 with fusion l2g");
}

TEST_CASE("the graph that Python runs on a GPU is left alone") {
    const Copy copy;
    copy.change_manifest([](json& manifest) {
        auto& graphs = manifest["graphs"];
        auto& measurer = graphs["mask_measurer"] = graphs["mask_decoder"];
        measurer["file"] = "mask_measurer.onnx";
        measurer["outputs"][0]["dtype"] = "int32";
    });
    CHECK(copy.open() == RIS_OK);
}

TEST_CASE("no bundle") {
    ris_engine* engine = nullptr;
    check_refused(ris_engine_open("/nowhere", nullptr, &engine), RIS_ERROR_BUNDLE, "manifest.json not found");
    check_refused(ris_engine_open("", nullptr, &engine), RIS_ERROR_BUNDLE, "manifest.json not found");
    check_refused(ris_engine_open((bundle_path + "/manifest.json").c_str(), nullptr, &engine), RIS_ERROR_BUNDLE,
                  "manifest.json not found");
    check_refused(ris_engine_open(std::string(1 << 20, 'x').c_str(), nullptr, &engine), RIS_ERROR_BUNDLE,
                  "manifest.json not found");
}

TEST_CASE("files that are missing, altered or outside") {
    const Copy copy;
    const auto whole = read(copy.at("text_encoder.onnx"));
    auto altered = whole;
    altered[altered.size() / 2] = static_cast<char>(altered[altered.size() / 2] ^ 1);
    write(copy.at("text_encoder.onnx"), altered);
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "was changed");
    fs::remove(copy.at("text_encoder.onnx"));
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "lacks text_encoder.onnx");
    write(copy.at("text_encoder.onnx"), whole);
    for (const auto* outside : {"../text_encoder.onnx", "/etc/passwd", "a/../../b"}) {
        copy.change_manifest([&](json& manifest) { manifest["graphs"]["text_encoder"]["file"] = outside; });
        check_refused(copy.open(), RIS_ERROR_BUNDLE, "outside the bundle");
    }
}

TEST_CASE("manifests that cannot be used") {
    const Copy copy;
    const auto whole = read(copy.at("manifest.json"));
    const auto refused = [&](const char* words, const std::function<void(json&)>& change) {
        write(copy.at("manifest.json"), whole);
        copy.change_manifest(change);
        check_refused(copy.open(), RIS_ERROR_BUNDLE, words);
    };
    refused("Update risengine", [](json& manifest) { manifest["format_version"] = 4; });
    refused("Rebuild the bundle with", [](json& manifest) { manifest["format_version"] = 2; });
    refused("format_version", [](json& manifest) { manifest.erase("format_version"); });
    refused("whole number", [](json& manifest) { manifest["format_version"] = "3"; });
    refused("mask_decoder", [](json& manifest) { manifest["graphs"].erase("mask_decoder"); });
    refused("sentence_weight", [](json& manifest) { manifest["method"]["sentence_weight"] = 2; });
    refused("similarity", [](json& manifest) { manifest["method"]["similarity"] = "euclid"; });
    refused("points_per_side", [](json& manifest) { manifest["proposals"]["points_per_side"] = 0; });
    refused("nothing to mix", [](json& manifest) { manifest["method"]["fusion"] = "g2l"; });
    refused("fusion", [](json& manifest) { manifest["method"]["fusion"] = "sum"; });
    refused("dtype", [](json& manifest) { manifest["graphs"]["text_encoder"]["inputs"][0]["dtype"] = "int3"; });
    refused("the manifest says", [](json& manifest) { manifest["graphs"]["text_encoder"]["inputs"][0]["name"] = "x"; });
    for (const auto* text : {"", "{", "[]", "null", "\xFF\xFE"}) {
        write(copy.at("manifest.json"), text);
        check_refused(copy.open(), RIS_ERROR_BUNDLE, "manifest.json");
    }
    write(copy.at("manifest.json"), std::string(100000, '['));
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "manifest.json");
}

TEST_CASE("targets that this library does not run") {
    const Copy copy;
    for (const auto device : {RIS_DEVICE_TENSORRT, RIS_DEVICE_TENSORRT_RTX}) {
        check_refused(copy.open(device), RIS_ERROR_BUNDLE, "compiled when a bundle is built");
    }
    copy.change_manifest([](json& manifest) { manifest["target"] = "openvino"; });
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "OpenVINO");
    CHECK(copy.open(RIS_DEVICE_CPU) == RIS_OK);
}

TEST_CASE("engines need the provider that reads their context graphs") {
    const Copy copy;
    const std::string content = "one node";
    write(copy.at("engine.context.onnx"), content);
    write(copy.at("engine.layers.json"), content);
    const auto file = [&](const char* name) { return json{{"file", name}, {"sha256", sha256(content)}}; };
    const auto build_for = [&](const char* target, const char* library) {
        copy.change_manifest([&](json& manifest) {
            manifest["target"] = target;
            for (auto& graph : manifest["graphs"]) {
                graph["engine"] = {{"library", library},
                                   {"version", "10.13.3.9"},
                                   {"profiles", profiles_of(graph)},
                                   {"layers", file("engine.layers.json")},
                                   {"context", file("engine.context.onnx")}};
            }
        });
    };
    build_for("tensorrt", "tensorrt");
    check_refused(copy.open(), RIS_ERROR_BACKEND, "expected TensorrtExecutionProvider. Link risengine with");
    check_refused(copy.open(RIS_DEVICE_TENSORRT), RIS_ERROR_BACKEND, "expected TensorrtExecutionProvider");
    for (const auto device : {RIS_DEVICE_CPU, RIS_DEVICE_CUDA, RIS_DEVICE_TENSORRT_RTX}) {
        check_refused(copy.open(device), RIS_ERROR_BUNDLE, "engines run on nothing else");
    }
    build_for("tensorrt-rtx", "tensorrt_rtx");
    for (int times = 0; times < 2; ++times) {
        check_refused(copy.open(), RIS_ERROR_BACKEND, "expected NvTensorRTRTXExecutionProvider");
    }
    const auto whole = read(copy.at("manifest.json"));
    const auto change_engine = [&](const std::function<void(json&)>& change) {
        write(copy.at("manifest.json"), whole);
        copy.change_manifest([&](json& manifest) { change(manifest["graphs"]["text_encoder"]["engine"]); });
    };
    change_engine([](json& engine) { engine.erase("context"); });
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "text_encoder.onnx has no context graph");
    change_engine([](json& engine) { engine["context"]["file"] = "../engine.context.onnx"; });
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "outside the bundle");
    const auto refused = [&](const char* words, const json& least, const json& best, const json& largest) {
        change_engine([&](json& engine) {
            engine["profiles"]["tokens"] = {{"least", least}, {"best", best}, {"largest", largest}};
        });
        check_refused(copy.open(), RIS_ERROR_BUNDLE, words);
    };
    refused("expected 2 sizes", {1}, {1, 77}, {2, 77});
    refused("rising sizes", {0, 77}, {1, 77}, {2, 77});
    refused("rising sizes", {1, 77}, {3, 77}, {2, 77});
    refused("rising sizes", {1, 76}, {1, 77}, {2, 77});
    change_engine([](json& engine) { engine["profiles"].erase("tokens"); });
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "tokens");
    change_engine([](json& engine) { engine["profiles"]["words"] = {{"least", {1}}, {"largest", {2}}}; });
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "expected the name of an input");
    write(copy.at("manifest.json"), whole);
    copy.change_manifest([](json& manifest) { manifest["target"] = "cpu"; });
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "is a native engine in a bundle for target cpu");
    write(copy.at("manifest.json"), whole);
    write(copy.at("engine.context.onnx"), "two nodes");
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "engine.context.onnx was changed");
    fs::remove(copy.at("engine.context.onnx"));
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "lacks engine.context.onnx");
}

TEST_CASE("graphs and tokenizers that cannot be read") {
    const Copy copy;
    const auto put = [&](const char* file, const std::string& content, const std::function<json&(json&)>& place) {
        write(copy.at(file), content);
        copy.change_manifest([&](json& manifest) { place(manifest)["sha256"] = sha256(content); });
    };
    const auto graph = [](json& manifest) -> json& { return manifest["graphs"]["mask_decoder"]; };
    const auto tokenizer = [](json& manifest) -> json& { return manifest["text"]["tokenizer"]; };
    const auto whole = read(copy.at("mask_decoder.onnx"));
    put("mask_decoder.onnx", "no graph", graph);
    check_refused(copy.open(), RIS_ERROR_BACKEND, "cannot load");
    put("mask_decoder.onnx", whole, graph);
    put("tokenizer.json", "{}", tokenizer);
    check_refused(copy.open(), RIS_ERROR_BUNDLE, "tokenizer.json");
}
