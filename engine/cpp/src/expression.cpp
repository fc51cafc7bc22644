#include "expression.hpp"

#include <unicode/uchar.h>

#include <cstddef>
#include <cstring>
#include <string_view>

#include "errors.hpp"
#include "noun_phrase.hpp"
#include "unicode.hpp"

namespace ris {
namespace {

constexpr std::size_t most_bytes = std::size_t{4} * max_characters;  // of that many characters in UTF-8

[[noreturn]] void refuse(const char* name, const std::string& problem) {
    throw Error(Kind::input, std::string(name) + " " + problem);
}

icu::UnicodeString read(const char* text, const char* name) {
    const auto limit = " characters; at most " + std::to_string(max_characters) + " are accepted. Shorten it.";
    const std::string_view bytes(text);
    if (bytes.size() > most_bytes) refuse(name, "has more than " + std::to_string(max_characters) + limit);
    const auto given = from_utf8(bytes, name);
    const auto count = given.countChar32();
    if (count > max_characters) refuse(name, "has " + std::to_string(count) + limit);
    for (std::int32_t i = 0; i < given.length(); i = given.moveIndex32(i, 1)) {
        const auto character = given.char32At(i);
        if (u_charType(character) == U_CONTROL_CHAR && !is_space(character)) {
            refuse(name, "contains the control character " + code_point_name(character) + ". Remove it.");
        }
    }
    auto words = lowered_words(given);
    if (words.isEmpty()) refuse(name, "is blank; expected one such as 'the red mug'.");
    return words;
}

}  // namespace

Expression read_expression(const char* text, const char* phrase, bool spaced) {
    Expression expression;
    if (text == nullptr) throw Error(Kind::input, "text is NULL; expected one such as 'the red mug'.");
    expression.sentence = read(text, "text");
    expression.phrase = phrase == nullptr ? noun_phrase(expression.sentence) : read(phrase, "noun_phrase");
    if (spaced) {
        expression.sentence = spaced_tokens(expression.sentence);
        expression.phrase = spaced_tokens(expression.phrase);
    }
    return expression;
}

}  // namespace ris
