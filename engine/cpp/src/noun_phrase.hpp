// English by a few rules on words, where the Python runtime has spaCy. tests/cpp measures how often they agree.
#pragma once

#include <unicode/unistr.h>

namespace ris {

// The words at the head of an expression that name its target: up to the first word that begins a place, a relation or
// a clause; all of it where nothing does. `sentence` is of lowered words with single spaces.
icu::UnicodeString noun_phrase(const icu::UnicodeString& sentence);

// The sentence with punctuation and contractions set apart, near to spaCy's tokens joined by spaces.
icu::UnicodeString spaced_tokens(const icu::UnicodeString& sentence);

}  // namespace ris
