// A project of its own, built from the installed package: a red disk, found by its name.
#include <risengine/risengine.hpp>

#include <cstdint>
#include <iostream>
#include <vector>

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    constexpr std::int64_t side = 96;
    std::vector<std::uint8_t> rgb(side * side * 3, 200);
    std::vector<std::uint8_t> masks(2 * side * side, 0);
    for (std::int64_t y = 0; y < side; ++y) {
        for (std::int64_t x = 0; x < side; ++x) {
            const auto at = static_cast<std::size_t>(y * side + x);
            const bool disk = (x - 30) * (x - 30) + (y - 40) * (y - 40) < 400;
            if (disk) rgb[3 * at + 1] = rgb[3 * at + 2] = 20;
            masks[at] = disk ? 1 : 0;
            masks[static_cast<std::size_t>(side * side) + at] = disk ? 0 : 1;
        }
    }
    const risengine::Engine engine(argv[1]);
    const auto image = engine.encode_masks({rgb.data(), side, side}, masks.data(), 2);
    const auto answer = engine.segment(image, "the red ball");
    std::cout << "mask " << answer.index << ", score " << answer.score << '\n';
    return answer.mask.data[40 * side + 30] == 255 && answer.box_xyxy[0] > 9 ? 0 : 1;
}
