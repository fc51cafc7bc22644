// Any bytes as a tokenizer file: read or refused; where one is read, it takes a text.
#include <cstddef>
#include <cstdint>
#include <string>

#include "errors.hpp"
#include "tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const ris::Tokenizer tokenizer(std::string(reinterpret_cast<const char*>(data), size));
        tokenizer.encode(icu::UnicodeString(u"the man's \u0130 mugs, 12"));
    } catch (const ris::Error&) {
    }
    return 0;
}
