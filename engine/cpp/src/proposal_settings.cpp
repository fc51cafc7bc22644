#include "proposal_settings.hpp"

#include <cmath>
#include <sstream>
#include <string>

#include "errors.hpp"

namespace ris {

namespace {

template <typename Number>
void expect(bool fits, const char* name, Number value, const char* expected) {
    if (fits) return;
    std::ostringstream message;
    message << name << " = " << value << "; expected " << expected << ".";
    throw Error(Kind::input, message.str());
}

void check_grids(const ProposalSettings& settings) {
    if (!settings.point_grids) {
        auto points = settings.points_per_side;
        // A further layer never has more points, so that the last one that has any can be found before many are tried.
        for (std::int64_t layer = 0; layer < settings.crop_n_layers && points > 0; ++layer) {
            if (settings.crop_n_points_downscale_factor == 1) break;
            points /= settings.crop_n_points_downscale_factor;
        }
        expect(points > 0, "points_per_side", settings.points_per_side,
               "enough to leave a point in the last crop layer after crop_n_points_downscale_factor");
        return;
    }
    const auto grids = static_cast<std::int64_t>(settings.point_grids->size());
    expect(grids == settings.crop_n_layers + 1, "grids in point_grids", grids,
           "one for the whole image and one for each crop layer");
    for (const auto& grid : *settings.point_grids) {
        for (const auto& point : grid) {
            for (const auto share : point) {
                expect(share >= 0 && share <= 1, "a value in point_grids", share, "a share in [0, 1]");
            }
        }
    }
}

}  // namespace

void check(const ProposalSettings& settings) {
    // Far beyond any use; the grid is held in memory.
    expect(settings.points_per_side >= 1 && settings.points_per_side <= 1024, "points_per_side",
           settings.points_per_side, "1 to 1024");
    expect(settings.points_per_batch >= 1, "points_per_batch", settings.points_per_batch, "at least 1");
    expect(settings.crop_n_points_downscale_factor >= 1, "crop_n_points_downscale_factor",
           settings.crop_n_points_downscale_factor, "at least 1");
    // More layers have crops smaller than a pixel, and numbers of crops that no integer holds.
    expect(settings.crop_n_layers >= 0 && settings.crop_n_layers <= 15, "crop_n_layers", settings.crop_n_layers,
           "0 to 15");
    expect(settings.min_mask_region_area >= 0, "min_mask_region_area", settings.min_mask_region_area, "at least 0");
    expect(std::isfinite(settings.pred_iou_thresh), "pred_iou_thresh", settings.pred_iou_thresh, "a finite number");
    expect(std::isfinite(settings.stability_score_thresh), "stability_score_thresh", settings.stability_score_thresh,
           "a finite number");
    expect(std::isfinite(settings.stability_score_offset), "stability_score_offset", settings.stability_score_offset,
           "a finite number");
    const auto share = [](const char* name, double value) {
        expect(value >= 0 && value <= 1, name, value, "a number in [0, 1]");
    };
    share("box_nms_thresh", settings.box_nms_thresh);
    share("crop_nms_thresh", settings.crop_nms_thresh);
    share("crop_overlap_ratio", settings.crop_overlap_ratio);
    check_grids(settings);
}

}  // namespace ris
