#include "unicode.hpp"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/ustring.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>

#include "errors.hpp"

namespace ris {
namespace {

constexpr std::uint8_t newest_unicode = 15;

void check_character(UChar32 character, const char* name) {
    UVersionInfo version;
    u_charAge(character, version);
    if (version[0] != 0 && version[0] <= newest_unicode) return;
    throw Error(Kind::input, std::string(name) + " contains " + code_point_name(character) +
                                 ", no character of Unicode " + std::to_string(newest_unicode) + ". Remove it.");
}

}  // namespace

std::string code_point_name(UChar32 character) {
    std::string digits;
    for (auto rest = static_cast<std::uint32_t>(character); rest != 0 || digits.size() < 4; rest >>= 4U) {
        digits.insert(digits.begin(), "0123456789ABCDEF"[rest & 15U]);
    }
    return "U+" + digits;
}

icu::UnicodeString from_utf8(std::string_view text, const char* name) {
    if (text.size() >= std::numeric_limits<std::int32_t>::max()) {
        throw Error(Kind::input, std::string(name) + " has " + std::to_string(text.size()) + " bytes. Shorten it.");
    }
    const auto size = static_cast<std::int32_t>(text.size());
    icu::UnicodeString result;
    auto status = U_ZERO_ERROR;
    std::int32_t units = 0;
    // A text has at most as many UTF-16 units as bytes of UTF-8.
    auto* const buffer = result.getBuffer(size + 1);
    if (buffer == nullptr) throw std::bad_alloc();
    u_strFromUTF8(buffer, size + 1, &units, text.data(), size, &status);
    result.releaseBuffer(U_FAILURE(status) ? 0 : units);
    if (U_FAILURE(status)) {
        throw Error(Kind::input, std::string(name) + " is not valid UTF-8. Encode it as UTF-8.");
    }
    for (std::int32_t i = 0; i < result.length(); i = result.moveIndex32(i, 1)) check_character(result.char32At(i), name);
    return result;
}

std::string to_utf8(const icu::UnicodeString& text) {
    std::string result;
    return text.toUTF8String(result);
}

bool is_space(UChar32 character) {
    const bool control = (character >= 9 && character <= 13) || (character >= 0x1C && character <= 0x1F);
    return control || character == 0x85 || u_charType(character) == U_SPACE_SEPARATOR || character == 0x2028 ||
           character == 0x2029;
}

icu::UnicodeString lowered_words(const icu::UnicodeString& text) {
    auto lowered = text;
    lowered.toLower(icu::Locale::getRoot());
    icu::UnicodeString result;
    bool between = false;
    for (std::int32_t i = 0; i < lowered.length(); i = lowered.moveIndex32(i, 1)) {
        const auto character = lowered.char32At(i);
        if (is_space(character)) {
            between = !result.isEmpty();
            continue;
        }
        if (between) result.append(u' ');
        between = false;
        result.append(character);
    }
    return result;
}

}  // namespace ris
