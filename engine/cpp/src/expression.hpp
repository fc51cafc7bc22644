// An expression, checked and read: what the text encoder is given.
#pragma once

#include <string>

#include <unicode/unistr.h>

namespace ris {

inline constexpr int max_characters = 1000;

struct Expression {
    icu::UnicodeString sentence;
    icu::UnicodeString phrase;  // the target noun phrase
};

// Reads UTF-8. `noun_phrase` may be null: then rules find it. `spaced`: the method's (manifest.hpp). Kind::input where a
// text is blank, too long, no UTF-8, or contains control characters.
Expression read_expression(const char* text, const char* noun_phrase, bool spaced);

}  // namespace ris
