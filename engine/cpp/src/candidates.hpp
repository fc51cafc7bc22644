// The automatic generator's search of one crop: which masks pass, in memory that hardly grows with the grid.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

#include "pipeline.hpp"
#include "prompts.hpp"
#include "sam.hpp"

namespace ris {

// The masks of one crop that pass the thresholds.
//
// A mask is best drawn once it is known to survive, so its logits are held. When there is no more room for them the
// oldest masks are drawn all the same: run lengths take a hundredth of the logits' memory.
class Candidates {
public:
    // `size`: of the whole image. All that is passed must outlive the candidates.
    Candidates(const SamImage& sam, const ProposalSettings& settings, const Crop& crop, Size size);

    // Asks the crop's points, or in turbo mode those worth it.
    void search();

    // The masks that box NMS keeps, in pixels of the image and by falling predicted IoU.
    Proposals survivors() const;

private:
    // Keeps the good masks of a batch; calls kept(logits) for each.
    template <typename Kept>
    void add(const Decoded& decoded, const Kept& kept);

    template <typename Answer, typename Kept>
    void ask(const Prompts& prompts, const Answer& answer, const Kept& kept);

    void search_some(const std::vector<Point>& points, const Prompts& prompts);

    Runs drawn(std::size_t index, const std::vector<float>& logits) const;

    const SamImage& sam_;
    const ProposalSettings& settings_;
    const Crop& crop_;
    Size size_;
    std::size_t room_;                        // logits that may be held
    std::deque<std::vector<float>> held_;     // of the newest candidates, oldest first
    std::vector<Runs> masks_;                 // of all before those
    std::vector<Box> boxes_;                  // in pixels of the crop
    std::vector<float> scores_, stability_scores_;
};

}  // namespace ris
