#include "noun_phrase.hpp"

#include <unicode/uchar.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "unicode.hpp"

namespace ris {
namespace {

using Words = std::vector<icu::UnicodeString>;

// They end a noun phrase wherever they stand after its first word.
constexpr std::array<std::string_view, 52> enders{
    "about", "above",  "across", "after",   "against", "along",  "among",    "and",   "around", "at",     "away",
    "before", "behind", "below", "beneath", "beside",  "besides", "between", "by",    "down",   "for",    "from",
    "has",   "in",     "inside", "into",    "is",      "isn't",  "near",     "next",  "of",     "off",    "on",
    "onto",  "opposite", "or",   "over",    "past",    "please", "that",     "that's", "through", "to",   "toward",
    "towards", "under", "underneath", "up", "where",   "which",  "who",      "with"};

// They end it where a preposition or an article follows: "the mug left of the box", but "the left mug".
constexpr std::array<std::string_view, 17> sides{"closer", "closest", "farther", "farthest", "further", "furthest",
                                                 "hidden", "left",    "nearer",  "nearest",  "right",   "close",
                                                 "far",    "sitting", "lying",   "standing", "placed"};
constexpr std::array<std::string_view, 11> followers{"of",   "to",  "from", "the",    "behind", "next",
                                                     "away", "in", "on",   "beside", "at"};

// They ask for the target and are no part of it: "grab the pink box".
constexpr std::array<std::string_view, 9> requests{"grab", "pick", "take", "get", "find", "show", "give", "bring",
                                                   "segment"};

template <std::size_t N>
bool holds(const std::array<std::string_view, N>& words, const icu::UnicodeString& word) {
    return std::find(words.begin(), words.end(), to_utf8(word)) != words.end();
}

Words split(const icu::UnicodeString& sentence) {
    Words words;
    std::int32_t start = 0;
    while (start < sentence.length()) {
        auto end = sentence.indexOf(u' ', start);
        if (end < 0) end = sentence.length();
        if (end > start) words.emplace_back(sentence, start, end - start);
        start = end + 1;
    }
    return words;
}

icu::UnicodeString join(const Words& words) {
    icu::UnicodeString all;
    for (const auto& word : words) {
        if (!all.isEmpty()) all.append(u' ');
        all.append(word);
    }
    return all;
}

bool ends_here(const Words& words, std::size_t at) {
    if (holds(enders, words[at])) return true;
    if (!holds(sides, words[at])) return false;
    return at + 1 == words.size() ? false : holds(followers, words[at + 1]);
}

bool is_punctuation(UChar32 character) {
    return u_ispunct(character) != 0 && character != U'-' && character != U'_' && character != U'\'' &&
           character != U'\u2019';
}

std::vector<icu::UnicodeString> contractions() {
    return {u"'s", u"'re", u"'ve", u"'ll", u"'d", u"'m", u"n't", u"\u2019s", u"n\u2019t", u"'"};
}

void append_spaced(icu::UnicodeString word, Words& tokens) {
    Words after;
    while (word.countChar32() > 1 && is_punctuation(word.char32At(0))) {
        const auto size = word.moveIndex32(0, 1);
        tokens.emplace_back(word, 0, size);
        word.remove(0, size);
    }
    while (word.countChar32() > 1 && is_punctuation(word.char32At(word.length() - 1))) {
        const auto start = word.moveIndex32(word.length(), -1);
        after.emplace_back(word, start);
        word.truncate(start);
    }
    for (const auto& ending : contractions()) {
        if (word.length() <= ending.length() || !word.endsWith(ending)) continue;
        after.emplace_back(ending);
        word.truncate(word.length() - ending.length());
        break;
    }
    // A hyphen between letters is a word of its own.
    std::int32_t start = 0;
    for (std::int32_t i = 1; i + 1 < word.length(); ++i) {
        if (word[i] != u'-' || u_isalpha(word.char32At(i - 1)) == 0 || u_isalpha(word.char32At(i + 1)) == 0) continue;
        tokens.emplace_back(word, start, i - start);
        tokens.emplace_back(u"-");
        start = i + 1;
    }
    tokens.emplace_back(word, start);
    tokens.insert(tokens.end(), after.rbegin(), after.rend());
}

}  // namespace

icu::UnicodeString noun_phrase(const icu::UnicodeString& sentence) {
    const auto words = split(sentence);
    std::size_t first = 0;
    if (words.size() > 1 && holds(requests, words[0])) first = words.size() > 2 && words[1] == u"me" ? 2 : 1;
    Words phrase;
    for (auto at = first; at < words.size(); ++at) {
        if (at > first && ends_here(words, at)) break;
        auto word = words[at];
        const bool last = word.countChar32() > 1 && is_punctuation(word.char32At(word.length() - 1));
        while (word.countChar32() > 1 && is_punctuation(word.char32At(word.length() - 1))) {
            word.truncate(word.moveIndex32(word.length(), -1));
        }
        phrase.push_back(word);
        if (last) break;
    }
    return join(phrase);
}

icu::UnicodeString spaced_tokens(const icu::UnicodeString& sentence) {
    Words tokens;
    for (const auto& word : split(sentence)) append_spaced(word, tokens);
    return join(tokens);
}

}  // namespace ris
