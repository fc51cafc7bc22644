// What the tests of the library share: its C interface with owners, and pictures.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "risengine/risengine.hpp"

inline const std::string bundle_path = RISENGINE_BUNDLE;

// A call must fail with a status and say why.
inline void check_refused(ris_status actual, ris_status expected, const std::string& words) {
    CHECK(actual == expected);
    const std::string message = ris_last_error();
    CHECK_MESSAGE(message.find(words) != std::string::npos, "'" << message << "' lacks '" << words << "'");
}

// A gray table with a red and a blue box.
struct Picture {
    std::int64_t width = 64;
    std::int64_t height = 48;
    std::vector<std::uint8_t> rgb = std::vector<std::uint8_t>(64 * 48 * 3, 150);
    std::vector<std::uint8_t> masks = std::vector<std::uint8_t>(2 * 64 * 48, 0);

    Picture() {
        fill(0, 8, 24);
        fill(1, 36, 52);
    }

    ris_image_view view() const { return risengine::ImageView{rgb.data(), width, height}.c(); }

private:
    void fill(std::size_t box, std::int64_t left, std::int64_t right) {
        for (std::int64_t y = 12; y < 36; ++y) {
            for (std::int64_t x = left; x < right; ++x) {
                const auto at = static_cast<std::size_t>(y * width + x);
                for (std::size_t channel = 0; channel < 3; ++channel) {
                    rgb[3 * at + channel] = channel == 2 * box ? 220 : 20;
                }
                masks[box * static_cast<std::size_t>(width * height) + at] = 1;
            }
        }
    }
};
