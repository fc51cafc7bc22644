// Any bytes as a manifest: read or refused.
#include <cstddef>
#include <cstdint>
#include <string>

#include "errors.hpp"
#include "manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        ris::read_manifest({reinterpret_cast<const char*>(data), size});
    } catch (const ris::Error&) {
    }
    return 0;
}
