#include "text_encoder.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "errors.hpp"
#include "tensors.hpp"
#include "unicode.hpp"

namespace ris {
namespace {

constexpr std::size_t most_cached = 4096;

}  // namespace

TextEncoder::TextEncoder(const Session& session, Tokenizer tokenizer, std::int64_t context_length)
    : session_(session), tokenizer_(std::move(tokenizer)), context_length_(context_length) {}

std::vector<std::int64_t> TextEncoder::tokenize(const icu::UnicodeString& text) const {
    auto tokens = tokenizer_.encode(text);
    if (static_cast<std::int64_t>(tokens.size()) > context_length_) {
        throw Error(Kind::input, "text has " + std::to_string(tokens.size()) +
                                     " CLIP tokens with start and end; at most " + std::to_string(context_length_) +
                                     " fit. Shorten it.");
    }
    return tokens;
}

std::pair<Feature, Feature> TextEncoder::encode(const Expression& expression) const {
    Feature sentence;
    Feature phrase;
    const auto sentence_text = to_utf8(expression.sentence);
    const auto phrase_text = to_utf8(expression.phrase);
    std::vector<icu::UnicodeString> fresh;
    const bool knows_sentence = recall(sentence_text, sentence);
    const bool knows_phrase = recall(phrase_text, phrase);
    if (!knows_sentence) fresh.push_back(expression.sentence);
    if (!knows_phrase && (phrase_text != sentence_text || knows_sentence)) fresh.push_back(expression.phrase);
    if (!fresh.empty()) {
        const auto features = run(fresh);
        if (!knows_sentence) sentence = features.front();
        if (!knows_phrase) phrase = features.back();
    }
    return {std::move(sentence), std::move(phrase)};
}

bool TextEncoder::recall(const std::string& text, Feature& feature) const {
    const std::lock_guard<std::mutex> hold(lock_);
    const auto found = cache_.find(text);
    if (found != cache_.end()) feature = found->second;
    return found != cache_.end();
}

// New strings run as one batch, where the graph takes so many.
std::vector<Feature> TextEncoder::run(const std::vector<icu::UnicodeString>& texts) const {
    const auto most = static_cast<std::size_t>(bounded(session_, "T", static_cast<std::int64_t>(texts.size())));
    std::vector<Feature> features;
    for (auto start = texts.begin(); start != texts.end();) {
        const auto stop = start + std::min(static_cast<std::ptrdiff_t>(most), texts.end() - start);
        for (auto& feature : run_batch({start, stop})) features.push_back(std::move(feature));
        start = stop;
    }
    const std::lock_guard<std::mutex> hold(lock_);
    if (cache_.size() + texts.size() > most_cached) cache_.clear();
    for (std::size_t row = 0; row < texts.size(); ++row) cache_[to_utf8(texts[row])] = features[row];
    return features;
}

std::vector<Feature> TextEncoder::run_batch(const std::vector<icu::UnicodeString>& texts) const {
    const auto length = static_cast<std::size_t>(context_length_);
    std::vector<std::int64_t> tokens(texts.size() * length);
    for (std::size_t row = 0; row < texts.size(); ++row) {
        const auto own = tokenize(texts[row]);
        std::copy(own.begin(), own.end(), tokens.begin() + static_cast<std::ptrdiff_t>(row * length));
    }
    Tensors feeds;
    feeds["tokens"] = Tensor::lent(Dtype::int64, {static_cast<std::int64_t>(texts.size()), context_length_}, tokens.data());
    const auto outputs = session_.run(feeds);
    const auto& found = output(outputs, "features", {static_cast<std::int64_t>(texts.size()), any_size});
    const auto size = static_cast<std::size_t>(found.shape[1]);
    const auto* values = found.as<float>();
    std::vector<Feature> features;
    for (std::size_t row = 0; row < texts.size(); ++row) {
        features.emplace_back(values + row * size, values + (row + 1) * size);
    }
    return features;
}

}  // namespace ris
