// From an image's pixels to proposals, features and scores: the part of the engine that knows no file and no text.
//
// All functions are pure but for the sessions' own threads, so any may run on several threads at once. They throw
// Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "masks.hpp"
#include "proposal_settings.hpp"
#include "session.hpp"

namespace ris {

// A picture of the caller's: (height, width, 3) RGB without gaps, which must outlive the call.
struct Image {
    Size size;
    const std::uint8_t* rgb = nullptr;
};

// Candidate masks of one image: N of each.
struct Proposals {
    Size size;
    std::vector<Runs> masks;
    std::vector<Box> boxes;                // tight around each mask
    std::vector<float> scores;             // predicted IoU as SAM states it; 1 for a caller's masks
    std::vector<float> stability_scores;   // IoU of the mask with itself cut at other logits; 1 for a caller's masks

    std::size_t count() const { return masks.size(); }

    void add(Runs mask, const Box& box, float score, float stability_score) {
        masks.push_back(std::move(mask));
        boxes.push_back(box);
        scores.push_back(score);
        stability_scores.push_back(stability_score);
    }
};

// SAM's masks for everything in an image, by falling predicted IoU; none where nothing passes the thresholds.
Proposals propose(const Sessions& sessions, const Image& image, const ProposalSettings& settings,
                  std::int64_t sam_image_size_px);

// Masks of the caller's: `count` masks of height rows of bytes, rows `row_stride` and masks `mask_stride` bytes apart,
// where any value but 0 is the object. Kind::input where one is empty.
Proposals read_masks(const std::uint8_t* masks, std::size_t count, Size size, std::int64_t row_stride,
                     std::int64_t mask_stride);

// A caller's prompts in pixels of the image: P of K points each, or P boxes, or both, each box with its row's points.
struct PromptsGiven {
    std::size_t count = 0;             // P
    std::size_t points_each = 0;       // K; 0 without points
    const float* points = nullptr;     // (P, K, 2) xy
    const std::int64_t* labels = nullptr;  // (P, K): 1 on the object, 0 off it; all 1 without
    const float* boxes = nullptr;      // (P, 4) xyxy
};

// SAM's three masks for each prompt, unfiltered, best first; one may be empty.
Proposals propose_at(const Sessions& sessions, const Image& image, const PromptsGiven& prompts,
                     const ProposalSettings& settings, std::int64_t sam_image_size_px);

// What a mask's description needs beside the mask.
struct Describing {
    float global_weight = 0;         // the share of the global feature
    std::int64_t image_size_px = 0;  // side of the square CLIP input
    std::int64_t views = 1;          // of every mask: HybridGL's encoder takes two
};

// The masks' features, N rows of E; empty for N = 0.
std::vector<float> describe(const Sessions& sessions, const Image& image, const Proposals& proposals,
                            const Describing& describing);

enum class Similarity { cosine, dot };

// The text an expression is compared by: (E,) features of the sentence and of its noun phrase.
struct TextFeatures {
    const float* sentence = nullptr;
    const float* phrase = nullptr;
    std::size_t size = 0;        // E
    double sentence_weight = 0;  // r, the sentence's share
};

// Every mask's score, N of them: the strategy `global_local`, the paper's.
std::vector<float> similarities(const std::vector<float>& features, const TextFeatures& text, Similarity similarity);

// Indexes of the scores from the best down, at most `top_k`; equal scores in their order.
std::vector<std::size_t> best(const std::vector<float>& scores, std::size_t top_k);

}  // namespace ris
