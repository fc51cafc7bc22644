"""From an image and masks to full-frame inputs, with nothing and with a blur around the mask, inside the graph."""

from __future__ import annotations

import torch
from torch import Tensor

from risengine.method import Method
from risexport.clip.blocks import Layout
from risexport.clip.blocks import rows as rows_of
from risexport.clip.crops import mask_boxes, normalised_planes
from risexport.clip.windows import Boxes, by_window, window_at
from risexport.resample import blur, resize, resize_weights

__all__ = ["frame_views"]


def frame_views(image: Tensor, masks: Tensor, method: Method, layout: Layout) -> Tensor:
    """Builds the normalised encoder inputs: every mask alone, then every mask in its blurred scene, squashed.

    What lies outside of a mask is the same for all masks, so that it is resized once; per mask there is only the
    difference that the mask makes, which is zero outside of it, and is read from a window like a crop.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool.
        method: Image size, normalisation, fill and filter.
        layout: Whether windows are used.

    Returns:
        (2 N, 3, S, S) float32.
    """
    planes = torch.stack(normalised_planes(image, method))
    blurred = blur(planes)
    rows, columns = (_matrix(masks, axis, method) for axis in (1, 2))
    fill = torch.tensor(method.fill, device=image.device)[:, None, None]
    seen = [*planes, *(planes - blurred)]
    if layout == "dense":
        drawn = _seen_through(masks.float(), seen, rows, columns)
    else:

        def draw(chosen: Tensor, boxes: Boxes, size: tuple[int, int] | None) -> Tensor:
            if size is None:
                return _seen_through(masks.index_select(0, chosen).float(), seen, rows, columns)
            window = window_at(boxes, size, masks)
            windows = [window.cut(plane) for plane in seen]
            own_rows, own_columns = _columns_of(rows, window.rows), _columns_of(columns, window.columns)
            return _seen_through(window.cut_masks(masks, chosen), windows, own_rows, own_columns)

        parts, order = by_window(masks, mask_boxes(masks, "tight"), draw)
        drawn = torch.cat(parts).index_select(0, order)
    return torch.cat([drawn[:, :3], drawn[:, 3:] + resize(blurred, rows, columns)]) + fill


def _seen_through(visible: Tensor, planes: list[Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """Squashes what masks (n, h, w) show of C planes, (h, w) or (n, h, w) each, to (n, C, S, S)."""
    # One plane at a time: the largest intermediate is (n, h, w).
    return torch.stack([resize(visible * plane, rows, columns) for plane in planes], dim=1)


def _matrix(masks: Tensor, axis: int, method: Method) -> Tensor:
    """Returns the matrix (S, L) float32 that squashes an axis of the whole image."""
    start = torch.zeros(1, dtype=torch.int64, device=masks.device)
    size = masks.shape[axis]
    return resize_weights(start, start + size, method.image_size_px, size, method.resize)[0]


def _columns_of(matrix: Tensor, places: Tensor) -> Tensor:
    """Returns (n, S, l): the columns of a (S, L) matrix at n lists of places, (n, l) int64."""
    return rows_of(matrix.t(), places).transpose(1, 2)
