#include "engine.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include "errors.hpp"

namespace ris {
namespace {

Method overridden(Method method, const Overrides& overrides) {
    const auto set = [](const char* name, const std::optional<double>& value, double& field) {
        if (!value) return;
        if (!(*value >= 0 && *value <= 1)) {
            throw Error(Kind::input, std::string(name) + " = " + std::to_string(*value) +
                                         "; expected a share in [0, 1], or NaN for the bundle's.");
        }
        field = *value;
    };
    set("global_weight", overrides.global_weight, method.global_weight);
    set("sentence_weight", overrides.sentence_weight, method.sentence_weight);
    if (const auto reason = misfit(method); !reason.empty()) throw Error(Kind::input, reason);
    return method;
}

ProposalSettings overridden(ProposalSettings settings, const Overrides& overrides) {
    settings.points_per_side = overrides.points_per_side.value_or(settings.points_per_side);
    settings.pred_iou_thresh = overrides.pred_iou_thresh.value_or(settings.pred_iou_thresh);
    settings.stability_score_thresh = overrides.stability_score_thresh.value_or(settings.stability_score_thresh);
    check(settings);
    return settings;
}

Tokenizer read_tokenizer(const Bundle& bundle) {
    const auto path = bundle.path / bundle.manifest.tokenizer.file;
    std::ifstream file(path, std::ios::binary);
    const std::string json{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw Error(Kind::bundle, path.string() + " cannot be read. Check its permissions.");
    return Tokenizer(json);
}

}  // namespace

Engine::Engine(const std::string& bundle, const RuntimeOptions& options, const Overrides& overrides)
    : bundle_(open_bundle(bundle)),
      method_(overridden(bundle_.manifest.method, overrides)),
      settings_(overridden(bundle_.manifest.proposals, overrides)),
      sessions_(open_sessions(bundle_, options)),
      text_(session_of(sessions_, Role::text_encoder), read_tokenizer(bundle_), bundle_.manifest.context_length) {}

Proposals Engine::propose(const Image& image) const {
    return ris::propose(sessions_, image, settings_, bundle_.manifest.sam_image_size_px);
}

EncodedImage Engine::encode(const Image& image, Proposals proposals) const {
    const Describing describing{static_cast<float>(method_.global_weight), method_.image_size_px,
                                method_.fusion == "none" ? 1 : 2};
    EncodedImage encoded;
    encoded.features = describe(sessions_, image, proposals, describing);
    encoded.proposals = std::make_shared<const Proposals>(std::move(proposals));
    encoded.bundle_id = bundle_.id;
    encoded.global_weight = method_.global_weight;
    return encoded;
}

std::vector<Answer> Engine::rank(const EncodedImage& image, const char* text, const char* noun_phrase,
                                 std::size_t top_k) const {
    const auto expression = read_expression(text, noun_phrase, method_.spaced);
    check_encoded(image);
    const auto [sentence, phrase] = text_.encode(expression);
    if (image.proposals->count() == 0) return {};
    if (image.features.size() != image.proposals->count() * sentence.size()) {
        throw Error(Kind::bundle, "masks have features of " +
                                      std::to_string(image.features.size() / image.proposals->count()) +
                                      " numbers, texts of " + std::to_string(sentence.size()) +
                                      "; expected as many. Rebuild the bundle.");
    }
    const TextFeatures features{sentence.data(), phrase.data(), sentence.size(), method_.sentence_weight};
    const auto scores = similarities(image.features, features, method_.similarity);
    std::vector<Answer> answers;
    for (const auto index : best(scores, top_k)) answers.push_back({index, scores[index]});
    return answers;
}

Answer Engine::segment(const EncodedImage& image, const char* text, const char* noun_phrase) const {
    const auto answers = rank(image, text, noun_phrase, 1);
    if (!answers.empty()) return answers.front();
    throw Error(Kind::input, "no object was found in the image: 0 masks at pred_iou_thresh " +
                                 std::to_string(settings_.pred_iou_thresh) + " and stability_score_thresh " +
                                 std::to_string(settings_.stability_score_thresh) +
                                 ". Open the engine with lower ones, or pass masks of your own.");
}

std::vector<std::string> Engine::providers() const {
    std::vector<std::string> names;
    for (const auto& session : sessions_) {
        for (const auto& name : session->providers()) {
            if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
        }
    }
    return names;
}

void Engine::check_encoded(const EncodedImage& image) const {
    if (image.bundle_id != bundle_.id) {
        throw Error(Kind::input, "image was encoded by bundle " + image.bundle_id.substr(0, 12) +
                                     ", this engine runs " + bundle_.id.substr(0, 12) +
                                     ". Encode it again with this engine.");
    }
    if (image.global_weight != method_.global_weight) {
        throw Error(Kind::input, "image was encoded with global_weight " + std::to_string(image.global_weight) +
                                     ", this engine mixes with " + std::to_string(method_.global_weight) +
                                     ". Encode it again with this engine.");
    }
}

}  // namespace ris
