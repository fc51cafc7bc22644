// Strings become text features: tokens, then the text_encoder graph.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "expression.hpp"
#include "session.hpp"
#include "tokenizer.hpp"

namespace ris {

using Feature = std::vector<float>;

// Remembers the features of recent strings. Safe to use from several threads.
class TextEncoder {
public:
    // `session` is text_encoder's and must outlive this object.
    TextEncoder(const Session& session, Tokenizer tokenizer, std::int64_t context_length);

    // The features of a sentence and of its phrase.
    std::pair<Feature, Feature> encode(const Expression& expression) const;

    // Tokens of a text, start and end included; Kind::input where there are more than the context holds.
    std::vector<std::int64_t> tokenize(const icu::UnicodeString& text) const;

private:
    bool recall(const std::string& text, Feature& feature) const;
    std::vector<Feature> run_batch(const std::vector<icu::UnicodeString>& texts) const;
    std::vector<Feature> run(const std::vector<icu::UnicodeString>& texts) const;

    const Session& session_;
    Tokenizer tokenizer_;
    std::int64_t context_length_;
    mutable std::mutex lock_;
    mutable std::unordered_map<std::string, Feature> cache_;
};

}  // namespace ris
