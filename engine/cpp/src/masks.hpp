// Binary masks as run lengths: down the columns, background first, as in COCO. A few kilobytes each, whatever the
// image's size. Every run but the first has at least one pixel.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace ris {

// Of an image in pixels.
struct Size {
    std::int64_t height = 0;
    std::int64_t width = 0;
};

using Runs = std::vector<std::int64_t>;

// Half-open x0, y0, x1, y1 in pixels; zeros for an empty mask.
using Box = std::array<float, 4>;

// Writes one byte a pixel, 0 or 1, to height * width bytes in rows.
void unpack_runs(const Runs& runs, Size size, std::uint8_t* mask);

// Reads height rows of bytes, `stride` apart; any value but 0 is the object.
Runs pack_mask(const std::uint8_t* mask, Size size, std::int64_t stride);

// The tight box.
Box box_from_runs(const Runs& runs, Size size);

// Collects the runs of a mask's pieces, which come in order.
class RunWriter {
public:
    explicit RunWriter(std::size_t expected_pieces) { runs_.reserve(2 * expected_pieces + 2); }

    // Adds the pixels [start, stop), at or past the last stop.
    void add(std::int64_t start, std::int64_t stop) {
        if (start >= stop) return;
        if (start == end_ && !runs_.empty()) {
            runs_.back() += stop - start;
        } else {
            runs_.push_back(start - end_);
            runs_.push_back(stop - start);
        }
        end_ = stop;
    }

    // Ends the mask at its last pixel; the writer is empty then.
    Runs finish(std::int64_t pixels) {
        if (end_ < pixels || runs_.empty()) runs_.push_back(pixels - end_);
        end_ = 0;
        return std::move(runs_);
    }

private:
    Runs runs_;
    std::int64_t end_ = 0;
};

}  // namespace ris
