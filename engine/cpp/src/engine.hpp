// The engine: the only part that knows the whole path from image and expression to mask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "ort_session.hpp"
#include "pipeline.hpp"
#include "text_encoder.hpp"

namespace ris {

// What the user of a bundle may set anew without building it again.
struct Overrides {
    std::optional<double> global_weight;
    std::optional<double> sentence_weight;
    std::optional<std::int64_t> points_per_side;
    std::optional<double> pred_iou_thresh;
    std::optional<double> stability_score_thresh;
};

// All that an expression does not change.
struct EncodedImage {
    std::shared_ptr<const Proposals> proposals;
    std::vector<float> features;  // (N, E)
    std::string bundle_id;
    double global_weight = 0;
};

struct Answer {
    std::size_t index = 0;
    float score = 0;
};

// One bundle, ready to answer. Nothing but its cache of texts changes after it is made.
class Engine {
public:
    Engine(const std::string& bundle, const RuntimeOptions& options, const Overrides& overrides);

    Proposals propose(const Image& image) const;
    EncodedImage encode(const Image& image, Proposals proposals) const;

    // The answers closest to an expression, best first; none where the image has no masks.
    std::vector<Answer> rank(const EncodedImage& image, const char* text, const char* noun_phrase,
                             std::size_t top_k) const;

    // The best answer; Kind::input where the image has no masks.
    Answer segment(const EncodedImage& image, const char* text, const char* noun_phrase) const;

    const std::string& bundle_id() const { return bundle_.id; }
    std::vector<std::string> providers() const;
    const TextEncoder& text() const { return text_; }

private:
    void check_encoded(const EncodedImage& image) const;

    Bundle bundle_;
    Method method_;
    ProposalSettings settings_;
    Sessions sessions_;
    TextEncoder text_;
};

}  // namespace ris
