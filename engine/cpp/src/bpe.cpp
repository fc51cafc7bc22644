#include "bpe.hpp"

#include <cstddef>
#include <functional>
#include <queue>
#include <tuple>
#include <utility>

namespace ris {
namespace {

constexpr std::int64_t most_tokens = std::int64_t{1} << 31U;

using Vocabulary = std::unordered_map<std::string, std::int64_t>;

// GPT-2's alphabet, in which the file spells bytes: printable ones of Latin-1 stand for themselves, the others for the
// letters from U+0100 on.
std::array<std::string, 256> byte_alphabet() {
    std::array<std::string, 256> letters;
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
        const unsigned point = printable ? byte : next++;
        if (point < 0x80) {
            letters[byte] = static_cast<char>(point);
        } else {
            letters[byte] = {static_cast<char>(0xC0U | point >> 6U), static_cast<char>(0x80U | (point & 0x3FU))};
        }
    }
    return letters;
}

Vocabulary read_vocabulary(const JsonValue& value) {
    Vocabulary vocabulary;
    const auto members = value.members();
    vocabulary.reserve(members.size());
    for (const auto& [piece, token] : members) {
        const auto number = token.integer();
        if (number < 0 || number >= most_tokens) token.refuse("token out of range");
        vocabulary.emplace(piece, number);
    }
    return vocabulary;
}

std::int64_t token_of(const Vocabulary& vocabulary, const std::string& piece, const JsonValue& place) {
    const auto found = vocabulary.find(piece);
    if (found == vocabulary.end()) place.refuse("'" + piece + "' is not in the vocabulary");
    return found->second;
}

// `a b`, or ["a", "b"] as later versions of the library write it.
std::pair<std::string, std::string> read_pair(const JsonValue& value) {
    if (!value.is_text()) {
        const auto pieces = value.items();
        if (pieces.size() != 2) value.refuse("expected two pieces");
        return {pieces[0].text(), pieces[1].text()};
    }
    const auto text = value.text();
    const auto space = text.find(' ');
    if (space == std::string::npos) value.refuse("expected two pieces");
    return {text.substr(0, space), text.substr(space + 1)};
}

}  // namespace

BytePairs::BytePairs(const JsonValue& model) {
    model.at("type").choice({"BPE"});
    for (const auto* option : {"dropout", "unk_token", "continuing_subword_prefix"}) {
        if (model.has(option)) model.refuse(std::string(option) + " is set, which CLIP's tokenizer does not use");
    }
    for (const auto* option : {"fuse_unk", "byte_fallback", "ignore_merges"}) {
        if (model.has(option) && model.at(option).boolean()) {
            model.refuse(std::string(option) + " is set, which CLIP's tokenizer does not use");
        }
    }
    const auto vocabulary = read_vocabulary(model.at("vocab"));
    const auto end = model.at("end_of_word_suffix").text();
    const auto letters = byte_alphabet();
    for (std::size_t byte = 0; byte < letters.size(); ++byte) {
        byte_tokens_[byte] = token_of(vocabulary, letters[byte], model);
        last_byte_tokens_[byte] = token_of(vocabulary, letters[byte] + end, model);
    }
    const auto merges = model.at("merges").items();
    merges_.reserve(merges.size());
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
        const auto [left, right] = read_pair(merges[rank]);
        const auto pair = key(token_of(vocabulary, left, merges[rank]), token_of(vocabulary, right, merges[rank]));
        merges_[pair] = {static_cast<std::int64_t>(rank), token_of(vocabulary, left + right, merges[rank])};
    }
}

void BytePairs::encode(std::string_view word, std::vector<std::int64_t>& tokens) const {
    const auto size = word.size();
    constexpr std::int64_t merged_away = -1;
    std::vector<std::int64_t> symbols(size);
    std::vector<std::size_t> next(size);
    std::vector<std::size_t> previous(size);
    for (std::size_t i = 0; i < size; ++i) {
        const auto byte = static_cast<unsigned char>(word[i]);
        symbols[i] = i + 1 == size ? last_byte_tokens_[byte] : byte_tokens_[byte];
        next[i] = i + 1;
        previous[i] = i - 1;  // of the first: never read
    }
    // Rank, place, and the pair that was there when it was queued: the leftmost of the earliest learnt comes first.
    using Candidate = std::tuple<std::int64_t, std::size_t, std::uint64_t>;
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto offer = [&](std::size_t left) {
        if (next[left] >= size) return;
        const auto pair = key(symbols[left], symbols[next[left]]);
        const auto found = merges_.find(pair);
        if (found != merges_.end()) queue.emplace(found->second.rank, left, pair);
    };
    for (std::size_t i = 0; i < size; ++i) offer(i);
    while (!queue.empty()) {
        const auto [rank, left, pair] = queue.top();
        queue.pop();
        if (symbols[left] == merged_away || next[left] >= size) continue;
        const auto right = next[left];
        if (key(symbols[left], symbols[right]) != pair) continue;
        symbols[left] = merges_.at(pair).token;
        symbols[right] = merged_away;
        next[left] = next[right];
        if (next[left] < size) previous[next[left]] = left;
        if (left != 0) offer(previous[left]);
        offer(left);
    }
    for (const auto symbol : symbols) {
        if (symbol != merged_away) tokens.push_back(symbol);
    }
}

}  // namespace ris
