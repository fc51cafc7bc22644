// Which of ONNX Runtime's execution providers runs a bundle.
#pragma once

#include <functional>
#include <string>

#include "bundle.hpp"
#include "ort_api.hpp"
#include "ort_session.hpp"

namespace ris {

struct Provider {
    std::string name;                                     // ONNX Runtime's
    std::function<void(Ort::SessionOptions&)> add_to;     // has a session use it
};

// What a bundle runs on where `wanted` is asked for; Kind::bundle where it cannot, on any machine.
Device choose_device(const Bundle& bundle, Device wanted);

// Kind::backend where ONNX Runtime lacks the device's provider. A provider's plug-in is loaded into the environment,
// which must outlive its sessions.
Provider find_provider(Ort::Env& environment, Device device);

}  // namespace ris
