// CLIP's tokenizer, read from a bundle's tokenizer.json.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <unicode/regex.h>
#include <unicode/unistr.h>

#include "bpe.hpp"

namespace ris {

class Tokenizer {
public:
    // Parses a Hugging Face tokenizers file as `risengine build` writes it; Kind::bundle for any other.
    explicit Tokenizer(const std::string& json);

    // Tokens of a text, start and end included. Kind::input where a regular expression takes too long for it.
    std::vector<std::int64_t> encode(const icu::UnicodeString& text) const;

private:
    struct Compose {};
    struct Lower {};
    struct Replace {
        std::shared_ptr<const icu::RegexPattern> pattern;
        icu::UnicodeString replacement;
    };
    using Step = std::variant<Compose, Lower, Replace>;

    explicit Tokenizer(const nlohmann::json& document);

    void read_steps(const JsonValue& normalizer);
    void read_words(const JsonValue& pre_tokenizer);
    void read_ends(const JsonValue& post_processor);

    BytePairs pairs_;
    std::vector<Step> steps_;
    std::shared_ptr<const icu::RegexPattern> words_;
    std::vector<std::int64_t> start_;
    std::vector<std::int64_t> end_;
};

}  // namespace ris
