// ONNX Runtime's interface, asked for when the first bundle is opened and not when this library is loaded, so that one
// that is too old is an error and no crash.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
