// Byte-pair encoding: the bytes of a word become tokens by merging pairs in the order in which they were learnt.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "json.hpp"

namespace ris {

class BytePairs {
public:
    // Reads the `model` of a Hugging Face tokenizers file. Kind::bundle where it is none of CLIP's kind.
    explicit BytePairs(const JsonValue& model);

    // Appends the tokens of one word.
    void encode(std::string_view word, std::vector<std::int64_t>& tokens) const;

private:
    struct Merge {
        std::int64_t rank = 0;
        std::int64_t token = 0;
    };

    static std::uint64_t key(std::int64_t left, std::int64_t right) {
        return static_cast<std::uint64_t>(left) << 32U | static_cast<std::uint64_t>(right);
    }

    std::array<std::int64_t, 256> byte_tokens_{};
    std::array<std::int64_t, 256> last_byte_tokens_{};  // of a byte that ends its word
    std::unordered_map<std::uint64_t, Merge> merges_;
};

}  // namespace ris
