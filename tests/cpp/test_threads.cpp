// One engine from many threads, many engines, and encoding on one thread while another asks.
#include "support.hpp"

#include <atomic>
#include <cmath>
#include <memory>
#include <thread>

namespace {

constexpr int threads = 4;

const std::vector<std::string> texts{"the red box", "the blue box", "the box on the left", "a green ball"};

// Runs the same work on several threads at once; doctest cannot count what fails there.
template <typename Work>
void together(Work work) {
    std::atomic<int> failures{0};
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) {
        running.emplace_back([&, i] {
            try {
                if (!work(i)) ++failures;
            } catch (const std::exception&) {
                ++failures;
            }
        });
    }
    for (auto& thread : running) thread.join();
    CHECK(failures == 0);
}

risengine::ImageView view_of(const Picture& picture) { return {picture.rgb.data(), picture.width, picture.height}; }

std::vector<float> scores_of(const risengine::Engine& engine, const risengine::EncodedImage& image) {
    std::vector<float> scores;
    for (const auto& text : texts) scores.push_back(engine.segment(image, text).score);
    return scores;
}

bool close(const std::vector<float>& a, const std::vector<float>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (std::abs(a[i] - b[i]) > 1e-5F) return false;
    }
    return a.size() == b.size();
}

}  // namespace

TEST_CASE("one engine and one image from many threads") {
    const Picture picture;
    const risengine::Engine engine(bundle_path);
    const auto image = engine.encode_masks(view_of(picture), picture.masks.data(), 2);
    const auto expected = scores_of(risengine::Engine(bundle_path), image);
    together([&](int) { return close(scores_of(engine, image), expected); });
}

TEST_CASE("encoding on some threads while others ask") {
    const Picture picture;
    const risengine::Engine engine(bundle_path);
    const auto image = engine.encode_masks(view_of(picture), picture.masks.data(), 2);
    const auto expected = scores_of(engine, image);
    const auto proposed = engine.propose(view_of(picture)).size();
    together([&](int i) {
        if (i % 2 == 0) return close(scores_of(engine, image), expected);
        const auto own = engine.encode_masks(view_of(picture), picture.masks.data(), 2);
        return close(scores_of(engine, own), expected) && engine.propose(view_of(picture)).size() == proposed;
    });
}

TEST_CASE("an engine a thread, and images that outlive them") {
    const Picture picture;
    together([&](int) {
        auto engine = std::make_unique<risengine::Engine>(bundle_path);
        const auto image = engine->encode_masks(view_of(picture), picture.masks.data(), 2);
        const auto expected = scores_of(*engine, image);
        engine.reset();
        const risengine::Engine second(bundle_path);
        return close(scores_of(second, image), expected) && image.mask(1).data.size() == 64 * 48;
    });
}

TEST_CASE("a thread's error is its own") {
    CHECK(ris_image_view_init(nullptr) == RIS_ERROR_INPUT);
    const std::string own = ris_last_error();
    together([&](int) {
        const bool empty = std::string(ris_last_error()).empty();
        std::size_t size = 0;
        return empty && ris_masks_shape(nullptr, &size, nullptr, nullptr) == RIS_ERROR_INPUT &&
               std::string(ris_last_error()) == "masks is NULL.";
    });
    CHECK(own == ris_last_error());
}
