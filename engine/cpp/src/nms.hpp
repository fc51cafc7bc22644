// Greedy non-maximum suppression of boxes, as segment-anything does it with torchvision's `nms`.
#pragma once

#include <cstddef>
#include <vector>

#include "masks.hpp"

namespace ris {

// Indexes of values from the greatest down; equal ones in the order given, NaN last.
std::vector<std::size_t> falling_order(const std::vector<float>& values);

// Indexes of the boxes kept, by falling score. A box is dropped when its IoU with a better one is greater than
// `iou_thresh`; it is measured between pixel centres, so a mask one pixel wide has a box without an area.
std::vector<std::size_t> non_maximum_suppression(const std::vector<Box>& boxes, const std::vector<float>& scores,
                                                 double iou_thresh);

}  // namespace ris
