// A robot's loop: a frame is encoded once, and any number of expressions are asked of it.
// camera BUNDLE FRAME EXPRESSION... ; the file stands for the camera and is taken as three frames.
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <risengine/risengine.hpp>

#include "pictures.h"

namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 4) throw std::runtime_error("usage: camera BUNDLE FRAME EXPRESSION...");
    int width = 0;
    int height = 0;
    const std::unique_ptr<std::uint8_t, void (*)(void*)> rgb(read_picture(argv[2], &width, &height), std::free);
    if (!rgb) throw std::runtime_error(std::string(argv[2]) + " cannot be read");

    const risengine::Engine engine(argv[1]);
    for (int frame = 0; frame < 3; ++frame) {
        const auto start = Clock::now();
        const auto image = engine.encode_image({rgb.get(), width, height});
        std::cout << "frame " << frame << ": " << image.size() << " masks in " << ms_since(start) << " ms\n";
        for (int i = 3; i < argc; ++i) {
            const auto asked = Clock::now();
            const auto answer = engine.segment(image, argv[i]);
            std::cout << "  " << argv[i] << ": mask " << answer.index << ", score " << answer.score << ", "
                      << ms_since(asked) << " ms\n";
        }
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
