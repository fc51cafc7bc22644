// segment-anything's SamAutomaticMaskGenerator settings under their own names and defaults, and `search`: the
// manifest's block "proposals".
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace ris {

enum class Search { exact, turbo };

struct ProposalSettings {
    std::int64_t points_per_side = 32;
    std::int64_t points_per_batch = 64;  // above 8 means 8; changes no result
    double pred_iou_thresh = 0.88;       // masks of a predicted IoU above this are kept; 0 keeps all
    double stability_score_thresh = 0.95;
    double stability_score_offset = 1.0;  // of the logits' cut-off
    double box_nms_thresh = 0.7;
    std::int64_t crop_n_layers = 0;  // layer i has 4 ** i crops, each encoded anew
    double crop_nms_thresh = 0.7;
    double crop_overlap_ratio = 512.0 / 1500;  // of the shorter side, in the first layer
    std::int64_t crop_n_points_downscale_factor = 1;
    // xy in [0, 1] in place of the grids: those of the whole image, then those of each layer's crops.
    std::optional<std::vector<std::vector<std::array<double, 2>>>> point_grids;
    std::int64_t min_mask_region_area = 0;  // smaller holes and islands are filled and removed; 0 leaves them
    Search search = Search::exact;
};

// Throws Error (Kind::input) where a value is outside its range: what the Python runtime refuses when it loads.
void check(const ProposalSettings& settings);

}  // namespace ris
