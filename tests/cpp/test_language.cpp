// Tokens are Python's; how often the rules' noun phrase is spaCy's.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "errors.hpp"
#include "expression.hpp"
#include "noun_phrase.hpp"
#include "session.hpp"
#include "text_encoder.hpp"
#include "tokenizer.hpp"
#include "unicode.hpp"

namespace {

using nlohmann::json;

std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

const json& language() {
    static const auto content = json::parse(read(RISENGINE_EXPECTED "/language.json"));
    return content;
}

const ris::Tokenizer& tokenizer() {
    static const ris::Tokenizer made(read(RISENGINE_BUNDLE "/tokenizer.json"));
    return made;
}

// Its features are the number of texts in the call and each text's length in tokens.
class CountingSession : public ris::Session {
public:
    explicit CountingSession(std::int64_t most) : most_(most) {}

    ris::Tensors run(const ris::Tensors& feeds) const override {
        const auto& tokens = feeds.at("tokens");
        const auto features = std::make_shared<std::vector<float>>();
        for (std::int64_t row = 0; row < tokens.shape[0]; ++row) {
            const auto* first = tokens.as<std::int64_t>() + row * tokens.shape[1];
            features->push_back(static_cast<float>(tokens.shape[0]));
            features->push_back(static_cast<float>(tokens.shape[1] - std::count(first, first + tokens.shape[1], 0)));
        }
        return {{"features", {ris::Dtype::float32, {tokens.shape[0], 2}, features->data(), features}}};
    }

    std::int64_t largest(const std::string&) const override { return most_; }
    std::vector<std::string> providers() const override { return {}; }

private:
    std::int64_t most_;
};

}  // namespace

TEST_CASE("texts are encoded as many at a time as an engine takes") {
    const auto expression = ris::read_expression("the red mug left of the box", "the red mug", false);
    for (const auto& [most, batch] : std::map<std::int64_t, float>{{0, 2}, {64, 2}, {1, 1}}) {
        const CountingSession session(most);
        const ris::TextEncoder encoder(session, ris::Tokenizer(read(RISENGINE_BUNDLE "/tokenizer.json")), 77);
        const auto [sentence, phrase] = encoder.encode(expression);
        CHECK(sentence == ris::Feature{batch, 9});
        CHECK(phrase == ris::Feature{batch, 5});
    }
}

TEST_CASE("tokens of shipped expressions and of random strings are Python's") {
    int compared = 0;
    for (const auto& sample : language()["tokens"]) {
        const std::string text = sample["text"];
        const std::vector<std::int64_t> ids = sample["ids"];
        CHECK_MESSAGE(tokenizer().encode(ris::from_utf8(text, "text")) == ids, text);
        ++compared;
    }
    CHECK(compared > 2000);
}

TEST_CASE("a long word is merged in reasonable time") {
    const std::string text(1000, 'a');
    CHECK(tokenizer().encode(ris::from_utf8(text, "text")).size() > 2);
}

TEST_CASE("sentences are lowered and spaced as by Python") {
    for (const auto& sample : language()["phrases"]) {
        const std::string text = sample["text"];
        CHECK(ris::to_utf8(ris::read_expression(text.c_str(), nullptr, false).sentence) == sample["sentence"]);
    }
    CHECK(ris::to_utf8(ris::read_expression(" The\tΟΔΟΣ\nİ ", nullptr, false).sentence) == "the οδος i\u0307");
}

TEST_CASE("the rules' noun phrase is mostly spaCy's") {
    std::map<std::string, std::pair<int, int>> agreed;
    for (const auto& sample : language()["phrases"]) {
        const std::string text = sample["text"];
        auto& [same, all] = agreed[sample["kind"]];
        ++all;
        same += ris::to_utf8(ris::read_expression(text.c_str(), nullptr, false).phrase) == sample["phrase"];
    }
    for (const auto& [kind, counts] : agreed) MESSAGE(kind << ": " << counts.first << " of " << counts.second);
    CHECK(agreed["generated"].first >= 0.93 * agreed["generated"].second);
    CHECK(agreed["spoken"].first >= 0.91 * agreed["spoken"].second);
}

TEST_CASE("noun phrases") {
    const auto phrase = [](const char* text) { return ris::to_utf8(ris::read_expression(text, nullptr, false).phrase); };
    CHECK(phrase("The red mug left of the blue box") == "the red mug");
    CHECK(phrase("the left mug") == "the left mug");
    CHECK(phrase("the bowl, please") == "the bowl");
    CHECK(phrase("grab the pink box closest to the camera") == "the pink box");
    CHECK(phrase("left") == "left");
}

TEST_CASE("tokens are spaced as the method's authors do") {
    const auto spaced = [](const char* text) { return ris::to_utf8(ris::read_expression(text, nullptr, true).sentence); };
    CHECK(spaced("the man's hat, please") == "the man 's hat , please");
    CHECK(spaced("the bowl that isn't red") == "the bowl that is n't red");
    CHECK(spaced("the top-left mug") == "the top - left mug");
}

TEST_CASE("characters outside the documented range are refused") {
    const auto kind = [](const std::string& text) {
        try {
            ris::from_utf8(text, "text");
        } catch (const ris::Error& error) {
            return error.kind() == ris::Kind::input;
        }
        return false;
    };
    CHECK(kind("\xED\xA0\x80"));      // a surrogate
    CHECK(kind("\xC0\xAF"));          // an overlong slash
    CHECK(kind("\xF4\x90\x80\x80"));  // past U+10FFFF
    CHECK(kind("mug \xFF"));
    CHECK(kind("\xCD\xB8"));  // U+0378, never assigned
    CHECK_FALSE(kind("日本 🥤"));
}
