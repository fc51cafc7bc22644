// Text: UTF-8 in and out, and the rules of Unicode that Python's strings follow. The tables are ICU's.
#pragma once

#include <string>
#include <string_view>

#include <unicode/unistr.h>

namespace ris {

// Reads UTF-8. Kind::input where it is not valid, or holds a character that Unicode 15 does not have: the tables of
// ICU and of the tokenizers library would disagree about it. `name` is what messages call the text.
icu::UnicodeString from_utf8(std::string_view text, const char* name);

std::string to_utf8(const icu::UnicodeString& text);

// What Python's str.isspace and str.split take for white space.
bool is_space(UChar32 character);

// Python's " ".join(text.lower().split()).
icu::UnicodeString lowered_words(const icu::UnicodeString& text);

// Such as "U+0007".
std::string code_point_name(UChar32 character);

}  // namespace ris
