// Running a graph with ONNX Runtime.
#pragma once

#include <memory>

#include "bundle.hpp"
#include "session.hpp"

namespace ris {

enum class Device { bundle, cpu, cuda, tensorrt, tensorrt_rtx };

struct RuntimeOptions {
    Device device = Device::bundle;
    int threads = 0;  // of one call on a CPU; 0: ONNX Runtime chooses
};

// Loads every graph of a bundle. Kind::backend where ONNX Runtime lacks the device or cannot load a graph; Kind::bundle
// where the bundle cannot run on the device or a graph is not what the manifest says.
Sessions open_sessions(const Bundle& bundle, const RuntimeOptions& options);

}  // namespace ris
