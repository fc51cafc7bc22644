// Segments what an expression names: segment_cpp BUNDLE IMAGE EXPRESSION MASK.png
#include <cstdlib>
#include <iostream>
#include <memory>
#include <risengine/risengine.hpp>

#include "pictures.h"

int main(int argc, char** argv) try {
    if (argc != 5) throw std::runtime_error("usage: segment_cpp BUNDLE IMAGE EXPRESSION MASK.png");
    int width = 0;
    int height = 0;
    const std::unique_ptr<std::uint8_t, void (*)(void*)> rgb(read_picture(argv[2], &width, &height), std::free);
    if (!rgb) throw std::runtime_error(std::string(argv[2]) + " cannot be read");

    const risengine::Engine engine(argv[1]);
    const auto image = engine.encode_image({rgb.get(), width, height});
    const auto answer = engine.segment(image, argv[3]);
    std::cout << "mask " << answer.index << " of " << image.size() << ", score " << answer.score << '\n';
    return write_mask(argv[4], answer.mask.data.data(), width, height) != 0 ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
