#include "ort_session.hpp"

#include <string>
#include <utility>
#include <vector>

#include <onnxruntime_session_options_config_keys.h>

#include "errors.hpp"
#include "feeds.hpp"
#include "ort_api.hpp"
#include "ort_providers.hpp"

namespace ris {
namespace {

// ONNX Runtime's fused sum and norm takes four times as long as its norm alone: a fifth of SAM's point decoder.
constexpr const char* slow_fusions = "SkipLayerNormFusion";
constexpr const char* cpu_provider = "CPUExecutionProvider";

void load_interface() {
    static const OrtApi* const api = [] {
        const auto* found = OrtGetApiBase()->GetApi(ORT_API_VERSION);
        if (found != nullptr) Ort::InitApi(found);
        return found;
    }();
    if (api == nullptr) {
        throw Error(Kind::backend, std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() +
                                       " is too old; risengine was built for 1." + std::to_string(ORT_API_VERSION) +
                                       ". Install that version or a newer one.");
    }
}

ONNXTensorElementDataType element_type(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        case Dtype::float16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
        case Dtype::uint8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
        case Dtype::int64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
        case Dtype::boolean: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
    }
    throw Error(Kind::internal, "unknown dtype");
}

std::size_t element_size(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return 4;
        case Dtype::float16: return 2;
        case Dtype::int64: return 8;
        case Dtype::uint8:
        case Dtype::boolean: return 1;
    }
    throw Error(Kind::internal, "unknown dtype");
}

std::vector<std::string> names_of(const Ort::Session& session, bool inputs) {
    const Ort::AllocatorWithDefaultOptions allocator;
    std::vector<std::string> names;
    const auto count = inputs ? session.GetInputCount() : session.GetOutputCount();
    for (std::size_t i = 0; i < count; ++i) {
        names.emplace_back(inputs ? session.GetInputNameAllocated(i, allocator).get()
                                  : session.GetOutputNameAllocated(i, allocator).get());
    }
    return names;
}

class OrtSession final : public Session {
public:
    OrtSession(std::shared_ptr<Ort::Env> environment, const std::filesystem::path& path, GraphSpec spec,
               const Provider& provider, int threads)
        : environment_(std::move(environment)), spec_(std::move(spec)), providers_{provider.name} {
        if (provider.name != cpu_provider) providers_.emplace_back(cpu_provider);
        try {
            session_ = Ort::Session(*environment_, path.c_str(), session_options(provider, threads));
        } catch (const Ort::Exception& error) {
            throw Error(Kind::backend, std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() +
                                           " cannot load " + path.string() + ": " + error.what() + ". " + remedy());
        }
        check_names(path, "inputs", spec_.inputs, names_of(session_, true));
        check_names(path, "outputs", spec_.outputs, names_of(session_, false));
    }

    Tensors run(const Tensors& feeds) const override {
        check_feeds(spec_, feeds);
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        std::vector<const char*> input_names;
        std::vector<const char*> output_names;
        std::vector<Ort::Value> inputs;
        for (const auto& tensor : spec_.inputs) {
            const auto& feed = feeds.at(tensor.name);
            input_names.push_back(tensor.name.c_str());
            inputs.push_back(Ort::Value::CreateTensor(
                memory, feed.data, static_cast<std::size_t>(feed.count()) * element_size(feed.dtype), feed.shape.data(),
                feed.shape.size(), element_type(feed.dtype)));
        }
        for (const auto& tensor : spec_.outputs) output_names.push_back(tensor.name.c_str());
        try {
            return named(session_.Run(Ort::RunOptions{nullptr}, input_names.data(), inputs.data(), inputs.size(),
                                      output_names.data(), output_names.size()));
        } catch (const Ort::Exception& error) {
            throw Error(Kind::backend, spec_.file.file + " failed: " + error.what() +
                                           ". If memory ran out, pass a smaller image or fewer masks; otherwise "
                                           "rebuild the bundle.");
        }
    }

    std::int64_t largest(const std::string& dimension) const override { return ris::largest(spec_, dimension); }

    std::vector<std::string> providers() const override { return providers_; }

private:
    std::string remedy() const {
        if (!spec_.engine) {
            return "Use the version that the bundle was built with (`risengine inspect` shows it) or a newer one, or "
                   "rebuild the bundle.";
        }
        return spec_.file.file + " was compiled by " + spec_.engine->library + " " + spec_.engine->version +
               " for the GPUs that `risengine inspect` shows: use an ONNX Runtime whose provider has that version, or "
               "rebuild the bundle.";
    }

    static Ort::SessionOptions session_options(const Provider& provider, int threads) {
        Ort::SessionOptions settings;
        settings.SetIntraOpNumThreads(threads);
        settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
        settings.AddConfigEntry(kOrtSessionOptionsDisableSpecifiedOptimizers, slow_fusions);
        provider.add_to(settings);
        return settings;
    }

    static void check_names(const std::filesystem::path& path, const char* kind,
                            const std::vector<TensorSpec>& declared, const std::vector<std::string>& found) {
        std::vector<std::string> names;
        for (const auto& tensor : declared) names.push_back(tensor.name);
        if (names == found) return;
        throw Error(Kind::bundle, path.string() + ": " + kind + " are " + joined(found) + "; the manifest says " +
                                      joined(names) + ". Rebuild the bundle.");
    }

    // The values stay where ONNX Runtime put them; the tensors keep them.
    Tensors named(std::vector<Ort::Value> values) const {
        Tensors outputs;
        for (std::size_t i = 0; i < values.size(); ++i) {
            const auto value = std::make_shared<Ort::Value>(std::move(values[i]));
            const auto shape_and_type = value->GetTensorTypeAndShapeInfo();
            const auto& tensor = spec_.outputs[i];
            if (shape_and_type.GetElementType() != element_type(tensor.dtype)) {
                throw Error(Kind::backend, spec_.file.file + ": output " + tensor.name + " is no " +
                                               dtype_name(tensor.dtype) + ". Rebuild the bundle.");
            }
            outputs[tensor.name] = {tensor.dtype, shape_and_type.GetShape(), value->GetTensorMutableRawData(), value};
        }
        return outputs;
    }

    std::shared_ptr<Ort::Env> environment_;
    GraphSpec spec_;
    std::vector<std::string> providers_;
    // ONNX Runtime's Run is safe from several threads, but its C++ wrapper is not const.
    mutable Ort::Session session_{nullptr};
};

}  // namespace

Sessions open_sessions(const Bundle& bundle, const RuntimeOptions& options) {
    load_interface();
    const auto device = choose_device(bundle, options.device);
    // What goes wrong is returned; a library prints nothing.
    const auto environment = std::make_shared<Ort::Env>(ORT_LOGGING_LEVEL_FATAL, "risengine");
    const auto provider = find_provider(*environment, device);
    const bool runs_engines = device == Device::tensorrt || device == Device::tensorrt_rtx;
    Sessions sessions;
    for (std::size_t i = 0; i < role_count; ++i) {
        const auto role = static_cast<Role>(i);
        const auto& spec = graph_of(bundle.manifest, role);
        if (spec.engine && !runs_engines) {
            throw Error(Kind::bundle, spec.file.file + " is a native engine in a bundle for target " +
                                          bundle.manifest.target + ". Rebuild the bundle.");
        }
        const auto path = spec.engine ? bundle.path / spec.engine->context->file : bundle.graph_path(role);
        sessions[i] = std::make_unique<OrtSession>(environment, path, spec, provider, options.threads);
    }
    return sessions;
}

}  // namespace ris
