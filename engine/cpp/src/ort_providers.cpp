#include "ort_providers.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "errors.hpp"

namespace ris {
namespace {

constexpr const char* rtx_provider = "NvTensorRTRTXExecutionProvider";
#if ORT_API_VERSION >= 23
constexpr const char* rtx_library = "libonnxruntime_providers_nv_tensorrt_rtx.so";
#endif

const char* provider_name(Device device) {
    switch (device) {
        case Device::cuda: return "CUDAExecutionProvider";
        case Device::tensorrt: return "TensorrtExecutionProvider";
        case Device::tensorrt_rtx: return rtx_provider;
        default: return "CPUExecutionProvider";
    }
}

const char* target_name(Device device) {
    switch (device) {
        case Device::cuda: return "cuda";
        case Device::tensorrt: return "tensorrt";
        case Device::tensorrt_rtx: return "tensorrt-rtx";
        default: return "cpu";
    }
}

Error lacking(const std::string& provider, const std::string& remedy) {
    return Error(Kind::backend, std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() + " has " +
                                    joined(Ort::GetAvailableProviders()) + "; expected " + provider + ". " + remedy);
}

// Every engine of a bundle must have a context graph, by which a provider loads it.
void check_contexts(const Bundle& bundle) {
    for (const auto& spec : bundle.manifest.graphs) {
        if (spec.engine && spec.engine->context) continue;
        throw Error(Kind::bundle, "bundle " + bundle.path.string() + " is built for target " + bundle.manifest.target +
                                      ", and " + spec.file.file + " has no context graph, by which the C++ library " +
                                      "runs native engines. Rebuild it, with --target cpu or cuda if it is to run " +
                                      "anywhere, or use the Python runtime.");
    }
}

#if ORT_API_VERSION >= 23

std::vector<Ort::ConstEpDevice> devices_of(const Ort::Env& environment, const char* provider) {
    std::vector<Ort::ConstEpDevice> found;
    for (const auto& device : environment.GetEpDevices()) {
        if (std::string(device.EpName()) == provider) found.push_back(device);
    }
    return found;
}

// NVIDIA's plug-in, which lies beside ONNX Runtime's own library: that is where a bare name is looked for.
Provider find_plugin(Ort::Env& environment) {
    auto devices = devices_of(environment, rtx_provider);
    std::string problem = "finds no GPU that it runs on";
    if (devices.empty()) {
        try {
            environment.RegisterExecutionProviderLibrary(rtx_provider, rtx_library);
        } catch (const Ort::Exception& error) {
            const std::string reason = error.what();
            if (reason.find("already registered") == std::string::npos) problem = "does not load: " + reason;
        }
        devices = devices_of(environment, rtx_provider);
    }
    if (devices.empty()) {
        throw lacking(rtx_provider, "Its plug-in " + problem + ". Put " + rtx_library + " of " +
                                        "onnxruntime-ep-nv-tensorrt-rtx and the libraries it comes with beside ONNX " +
                                        "Runtime's library, and look at `nvidia-smi`.");
    }
    devices.resize(1);
    return {rtx_provider, [&environment, devices](Ort::SessionOptions& options) {
                options.AppendExecutionProvider_V2(environment, devices, Ort::KeyValuePairs{});
            }};
}

#else

Provider find_plugin(Ort::Env&) {
    throw lacking(rtx_provider, "risengine was built with the headers of ONNX Runtime 1." +
                                    std::to_string(ORT_API_VERSION) +
                                    ", which know no plug-ins; build it with those of 1.23 or newer.");
}

#endif

}  // namespace

Device choose_device(const Bundle& bundle, Device wanted) {
    const auto& target = bundle.manifest.target;
    if (target == "tensorrt" || target == "tensorrt-rtx") {
        const auto own = target == "tensorrt" ? Device::tensorrt : Device::tensorrt_rtx;
        if (wanted != Device::bundle && wanted != own) {
            throw Error(Kind::bundle, "bundle " + bundle.path.string() + " is built for target " + target +
                                          ", whose engines run on nothing else; the device is " +
                                          target_name(wanted) + ". Rebuild it with --target " + target_name(wanted) +
                                          ", or open it without a device.");
        }
        check_contexts(bundle);
        return own;
    }
    if (wanted == Device::tensorrt || wanted == Device::tensorrt_rtx) {
        throw Error(Kind::bundle, "bundle " + bundle.path.string() + " is built for target " + target + "; " +
                                      target_name(wanted) + " runs engines, which are compiled when a bundle is " +
                                      "built. Rebuild it with --target " + target_name(wanted) +
                                      ", or open it without a device.");
    }
    if (wanted == Device::bundle && target == "openvino") {
        throw Error(Kind::bundle, "bundle " + bundle.path.string() + " is built for OpenVINO, which the C++ library "
                                   "does not run. Ask for the CPU, which runs the same graphs, or use the Python "
                                   "runtime.");
    }
    return wanted != Device::bundle ? wanted : target == "cuda" ? Device::cuda : Device::cpu;
}

Provider find_provider(Ort::Env& environment, Device device) {
    const std::string name = provider_name(device);
    const auto available = Ort::GetAvailableProviders();
    if (std::find(available.begin(), available.end(), name) == available.end()) {
        if (device == Device::tensorrt_rtx) return find_plugin(environment);
        throw lacking(name, "Link risengine with ONNX Runtime's GPU release.");
    }
    switch (device) {
        case Device::cuda:
            return {name, [](Ort::SessionOptions& options) {
                        OrtCUDAProviderOptionsV2* made = nullptr;
                        Ort::ThrowOnError(Ort::GetApi().CreateCUDAProviderOptions(&made));
                        const std::unique_ptr<OrtCUDAProviderOptionsV2, void (*)(OrtCUDAProviderOptionsV2*)> cuda(
                            made, [](OrtCUDAProviderOptionsV2* held) { Ort::GetApi().ReleaseCUDAProviderOptions(held); });
                        // ONNX Runtime's default rounds fp32 products to 10 bits; fp16 is there for speed.
                        const char* name_of_option = "use_tf32";
                        const char* value = "0";
                        Ort::ThrowOnError(
                            Ort::GetApi().UpdateCUDAProviderOptions(cuda.get(), &name_of_option, &value, 1));
                        options.AppendExecutionProvider_CUDA_V2(*cuda);
                    }};
        case Device::tensorrt:
            return {name, [](Ort::SessionOptions& options) {
                        options.AppendExecutionProvider_TensorRT(OrtTensorRTProviderOptions{});
                    }};
        case Device::tensorrt_rtx:
            return {name, [name](Ort::SessionOptions& options) { options.AppendExecutionProvider(name); }};
        default: return {name, [](Ort::SessionOptions&) {}};
    }
}

}  // namespace ris
