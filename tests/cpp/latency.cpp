// The C interface at work for risbench.speed.native, which times it beside the Python runtime: opens a bundle, answers once,
// says so, and then does what each line of standard input asks, "encode", "peak" or an expression, answering with
// milliseconds or bytes.
#include <risengine/risengine.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace {

void check(ris_status status) {
    if (status == RIS_OK) return;
    std::cerr << ris_last_error() << '\n';
    std::exit(1);
}

template <typename Call>
double milliseconds(const Call& call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// Highest resident memory of the process, in bytes; 0 where the system does not say.
long long peak_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.rfind("VmHWM:", 0) == 0) return 1024 * std::atoll(line.c_str() + 6);
    }
    return 0;
}

}  // namespace

// BUNDLE THREADS RAW_RGB HEIGHT WIDTH TEXT
int main(int count, char** arguments) {
    if (count != 7) return 2;
    ris_engine_options options;
    check(ris_engine_options_init(&options));
    options.threads = std::atoi(arguments[2]);
    ris_engine* engine = nullptr;
    check(ris_engine_open(arguments[1], &options, &engine));

    std::ifstream file(arguments[3], std::ios::binary);
    const std::vector<char> pixels{std::istreambuf_iterator<char>(file), {}};
    ris_image_view view;
    check(ris_image_view_init(&view));
    view.data = reinterpret_cast<const std::uint8_t*>(pixels.data());
    view.height_px = std::atoll(arguments[4]);
    view.width_px = std::atoll(arguments[5]);
    view.stride_bytes = 3 * view.width_px;
    if (static_cast<std::int64_t>(pixels.size()) != view.stride_bytes * view.height_px) return 2;

    ris_image* image = nullptr;
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(view.height_px * view.width_px));
    const auto encode = [&] {
        ris_image_free(image);
        check(ris_encode_image(engine, &view, &image));
    };
    const auto ask = [&](const std::string& text) {
        ris_answer answer;
        check(ris_segment(engine, image, text.c_str(), nullptr, &answer, mask.data(), mask.size(), nullptr));
    };
    encode();
    ask(arguments[6]);
    std::cout << "answered" << std::endl;
    for (std::string order; std::getline(std::cin, order);) {
        if (order == "peak") {
            std::cout << peak_bytes() << std::endl;
        } else {
            std::cout << (order == "encode" ? milliseconds(encode) : milliseconds([&] { ask(order); })) << std::endl;
        }
    }
    ris_image_free(image);
    ris_engine_close(engine);
}
