// Any bytes as an expression for the bundle's own tokenizer: read or refused.
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>

#include "errors.hpp"
#include "expression.hpp"
#include "tokenizer.hpp"
#include "unicode.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const ris::Tokenizer tokenizer([] {
        std::ifstream file(RISENGINE_BUNDLE "/tokenizer.json", std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(file), {});
    }());
    const std::string text(reinterpret_cast<const char*>(data), size);
    try {
        tokenizer.encode(ris::from_utf8(text, "text"));
        for (const bool spaced : {false, true}) {
            const auto expression = ris::read_expression(text.c_str(), nullptr, spaced);
            tokenizer.encode(expression.sentence);
            tokenizer.encode(expression.phrase);
        }
    } catch (const ris::Error&) {
    }
    return 0;
}
