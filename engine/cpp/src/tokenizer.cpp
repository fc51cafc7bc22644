#include "tokenizer.hpp"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <utility>

#include "errors.hpp"
#include "unicode.hpp"

namespace ris {
namespace {

// ICU's unit is some thousand steps of its matcher. CLIP's expressions need one for a thousand characters.
constexpr std::int32_t time_limit = 1000;

constexpr UChar32 capital_i_with_dot = 0x130;  // the one letter that becomes two whatever stands beside it
constexpr UChar32 combining_dot = 0x307;

void require_done(UErrorCode status) {
    if (U_SUCCESS(status)) return;
    throw Error(Kind::input, std::string("text cannot be split into words (") + u_errorName(status) + "). Shorten it.");
}

std::shared_ptr<const icu::RegexPattern> read_pattern(const JsonValue& value) {
    const auto regex = value.at("Regex").text();
    auto status = U_ZERO_ERROR;
    UParseError place;
    std::shared_ptr<const icu::RegexPattern> pattern(
        icu::RegexPattern::compile(icu::UnicodeString::fromUTF8(regex), 0, place, status));
    if (U_FAILURE(status)) value.refuse(std::string("ICU cannot read the expression (") + u_errorName(status) + ")");
    return pattern;
}

std::unique_ptr<icu::RegexMatcher> matcher_of(const icu::RegexPattern& pattern, const icu::UnicodeString& text) {
    auto status = U_ZERO_ERROR;
    std::unique_ptr<icu::RegexMatcher> matcher(pattern.matcher(text, status));
    require_done(status);
    matcher->setTimeLimit(time_limit, status);
    require_done(status);
    return matcher;
}

bool next_match(icu::RegexMatcher& matcher, std::int32_t& start, std::int32_t& end) {
    auto status = U_ZERO_ERROR;
    const bool found = matcher.find(status) != 0;
    require_done(status);
    if (!found) return false;
    start = matcher.start(status);
    end = matcher.end(status);
    require_done(status);
    return true;
}

icu::UnicodeString composed(const icu::UnicodeString& text) {
    auto status = U_ZERO_ERROR;
    const auto* rules = icu::Normalizer2::getNFCInstance(status);
    if (U_FAILURE(status)) throw Error(Kind::internal, "ICU has no table of NFC. Install its data.");
    auto result = rules->normalize(text, status);
    require_done(status);
    return result;
}

icu::UnicodeString replaced(const icu::UnicodeString& text, const icu::RegexPattern& pattern,
                            const icu::UnicodeString& replacement) {
    const auto matcher = matcher_of(pattern, text);
    icu::UnicodeString result;
    std::int32_t done = 0;
    std::int32_t start = 0;
    std::int32_t end = 0;
    while (next_match(*matcher, start, end)) {
        result.append(text, done, start - done).append(replacement);
        done = end;
    }
    return result.append(text, done, text.length() - done);
}

// Each letter by itself, as the tokenizers library does.
icu::UnicodeString lowered(const icu::UnicodeString& text) {
    icu::UnicodeString result;
    for (std::int32_t i = 0; i < text.length(); i = text.moveIndex32(i, 1)) {
        const auto character = text.char32At(i);
        if (character == capital_i_with_dot) {
            result.append(UChar32{'i'}).append(combining_dot);
        } else {
            result.append(u_tolower(character));
        }
    }
    return result;
}

void require_absent(const JsonValue& root, const char* option) {
    if (root.has(option)) root.refuse(std::string(option) + " is set, which CLIP's tokenizer does not use");
}

}  // namespace

Tokenizer::Tokenizer(const std::string& json) : Tokenizer(parse_json(json, "tokenizer.json")) {}

Tokenizer::Tokenizer(const nlohmann::json& document)
    : pairs_(JsonValue(document, "tokenizer.json:").at("model")) {
    const JsonValue root(document, "tokenizer.json:");
    require_absent(root, "truncation");
    require_absent(root, "padding");
    if (!root.at("added_tokens").items().empty()) root.refuse("added_tokens are given, which CLIP's tokenizer has not");
    read_steps(root.at("normalizer"));
    read_words(root.at("pre_tokenizer"));
    read_ends(root.at("post_processor"));
}

void Tokenizer::read_steps(const JsonValue& normalizer) {
    normalizer.at("type").choice({"Sequence"});
    for (const auto& step : normalizer.at("normalizers").items()) {
        const auto type = step.at("type").choice({"NFC", "Lowercase", "Replace"});
        if (type == "NFC") {
            steps_.emplace_back(Compose{});
        } else if (type == "Lowercase") {
            steps_.emplace_back(Lower{});
        } else {
            const auto content = step.at("content").text();
            steps_.emplace_back(Replace{read_pattern(step.at("pattern")), icu::UnicodeString::fromUTF8(content)});
        }
    }
}

void Tokenizer::read_words(const JsonValue& pre_tokenizer) {
    pre_tokenizer.at("type").choice({"Sequence"});
    const auto parts = pre_tokenizer.at("pretokenizers").items();
    if (parts.size() != 2) pre_tokenizer.refuse("expected Split and ByteLevel");
    const auto& split = parts[0];
    const auto& bytes = parts[1];
    split.at("type").choice({"Split"});
    split.at("behavior").choice({"Removed"});
    if (!split.at("invert").boolean()) split.refuse("expected the words, got what is between them");
    bytes.at("type").choice({"ByteLevel"});
    if (bytes.at("add_prefix_space").boolean() || bytes.at("use_regex").boolean()) {
        bytes.refuse("expected neither a prefix space nor an expression of its own");
    }
    words_ = read_pattern(split.at("pattern"));
}

void Tokenizer::read_ends(const JsonValue& post_processor) {
    post_processor.at("type").choice({"TemplateProcessing"});
    const auto known = post_processor.at("special_tokens");
    bool after_text = false;
    for (const auto& part : post_processor.at("single").items()) {
        if (part.has("Sequence")) {
            after_text = true;
            continue;
        }
        const auto name = part.at("SpecialToken").at("id").text();
        for (const auto& token : known.at(name).at("ids").items()) {
            (after_text ? end_ : start_).push_back(token.integer());
        }
    }
    if (!after_text) post_processor.refuse("has no place for the text");
}

std::vector<std::int64_t> Tokenizer::encode(const icu::UnicodeString& text) const {
    auto clean = text;
    for (const auto& step : steps_) {
        if (std::holds_alternative<Compose>(step)) {
            clean = composed(clean);
        } else if (std::holds_alternative<Lower>(step)) {
            clean = lowered(clean);
        } else {
            const auto& [pattern, replacement] = std::get<Replace>(step);
            clean = replaced(clean, *pattern, replacement);
        }
    }
    auto tokens = start_;
    const auto matcher = matcher_of(*words_, clean);
    std::int32_t start = 0;
    std::int32_t end = 0;
    while (next_match(*matcher, start, end)) {
        pairs_.encode(to_utf8(clean.tempSubStringBetween(start, end)), tokens);
    }
    tokens.insert(tokens.end(), end_.begin(), end_.end());
    return tokens;
}

}  // namespace ris
