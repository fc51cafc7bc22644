// Comparing mask features with a text feature.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "nms.hpp"
#include "pipeline.hpp"

namespace ris {

namespace {

double dot(const float* a, const float* b, std::size_t count) {
    double sum = 0;
    for (std::size_t index = 0; index < count; ++index) sum += double{a[index]} * double{b[index]};
    return sum;
}

}  // namespace

std::vector<float> similarities(const std::vector<float>& features, const TextFeatures& text, Similarity similarity) {
    if (text.size == 0) return {};
    // T = r e(sentence) + (1 - r) e(phrase), the graph's features mixed as they are (Yu, Seo, Son 2023).
    const auto share = static_cast<float>(text.sentence_weight), rest = static_cast<float>(1 - text.sentence_weight);
    std::vector<float> mixed(text.size);
    for (std::size_t index = 0; index < text.size; ++index) {
        mixed[index] = share * text.sentence[index] + rest * text.phrase[index];
    }
    const auto length = similarity == Similarity::cosine ? std::sqrt(dot(mixed.data(), mixed.data(), text.size)) : 1.0;
    std::vector<float> scores;
    for (std::size_t start = 0; start + text.size <= features.size(); start += text.size) {
        scores.push_back(static_cast<float>(dot(features.data() + start, mixed.data(), text.size) / length));
    }
    return scores;
}

std::vector<std::size_t> best(const std::vector<float>& scores, std::size_t top_k) {
    auto order = falling_order(scores);
    order.resize(std::min(order.size(), top_k));
    return order;
}

}  // namespace ris
