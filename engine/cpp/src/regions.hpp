// Small holes and islands of masks, found and removed in their run lengths.
//
// Regions are those of segment-anything's `remove_small_regions`: pixels that touch at a side or a corner belong
// together, in the object as in the background.
#pragma once

#include <cstdint>

#include "masks.hpp"

namespace ris {

// Fills small holes of a mask, then removes its small islands; of islands that are all small the largest stays.
// Returns whether there was a small region: then the mask differs, or it is one small island.
bool remove_small_regions(Runs& runs, Size size, std::int64_t min_area);

}  // namespace ris
