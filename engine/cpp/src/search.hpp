// Turbo mode's search: which points of a crop are worth asking when only some of them can be.
//
// The first round asks the points whose features differ most, and each later round those that promise the best mask: a
// point's predicted IoU is guessed as the mean of the asked points', weighted by how alike their features are, and is
// discounted for every mask already found on the point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "prompts.hpp"
#include "sam.hpp"

namespace ris {

// Chooses points in rounds; a caller asks each round and tells what came of it.
class PointSearch {
public:
    // `features`: (points, C) of the image at the points, of any length.
    PointSearch(std::vector<float> features, std::size_t points);

    // The points to ask next; none when enough was asked.
    std::vector<std::size_t> next_round() const;

    // Takes in the best predicted IoU of each of some points, and how many of the masks found there cover each point.
    void learn(const std::vector<std::size_t>& points, const std::vector<float>& scores,
               const std::vector<std::int64_t>& covered);

private:
    std::vector<std::size_t> most_unlike(std::size_t count) const;
    float cosine(std::size_t a, std::size_t b) const;

    std::vector<float> features_;
    std::size_t channels_, left_;
    std::vector<bool> asked_;
    std::vector<std::int64_t> covered_;
    std::vector<float> weights_, scores_;  // sums, the scores' of what the weights belong to
};

// The encoded image's features at points in pixels, (P, C), interpolated between the cells' centres.
std::vector<float> point_features(const SamImage& sam, const std::vector<Point>& points);

}  // namespace ris
