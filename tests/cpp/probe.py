"""The C++ library's inside, as ``probe.cpp`` shows it: the same functions as the Python runtime's, on NumPy arrays."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from risengine.manifest import OPTIONAL_ROLES, Role
from risengine.method import ProposalSettings
from risengine.types import Proposals

__all__ = ["LIBRARY", "Probe"]

LIBRARY = os.environ.get("RIS_PROBE", "")
"""Path of the shared library; CTest sets it."""

_ROLES = [role for role in get_args(Role) if role not in OPTIONAL_ROLES]  # session.hpp's order
_DTYPES = (np.float32, np.float16, np.uint8, np.int64, np.bool_)  # tensor.hpp's order
_RUN = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int32,
    ctypes.c_int64,
    ctypes.POINTER(ctypes.c_char_p),
    ctypes.POINTER(ctypes.c_int32),
    ctypes.POINTER(ctypes.c_int64),
    ctypes.POINTER(ctypes.POINTER(ctypes.c_int64)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)
_BOUND = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int32, ctypes.c_char_p)


class _Graphs(ctypes.Structure):
    _fields_ = [("run", _RUN), ("bound", _BOUND)]


_WHOLE = ("points_per_side", "points_per_batch", "crop_n_layers")
_WHOLE_TOO = ("crop_n_points_downscale_factor", "min_mask_region_area")
_REAL = ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset")
_SHARES = ("box_nms_thresh", "crop_nms_thresh", "crop_overlap_ratio")


class _Settings(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in _WHOLE + _WHOLE_TOO),
        *((name, ctypes.c_double) for name in _REAL + _SHARES),
        ("turbo", ctypes.c_int64),
        ("grids", ctypes.c_int64),
        ("grid_sizes", ctypes.c_void_p),
        ("grid_points", ctypes.c_void_p),
    ]


class _Image(ctypes.Structure):
    _fields_ = [("height", ctypes.c_int64), ("width", ctypes.c_int64), ("rgb", ctypes.c_void_p)]


class _Prompts(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_int64),
        ("points_each", ctypes.c_int64),
        ("points", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("boxes", ctypes.c_void_p),
    ]


class _Message(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("size", ctypes.c_int64)]


class Probe:
    """The library, over some sessions."""

    def __init__(self, sessions: Mapping[Role, Any]) -> None:
        """Loads the library; ``sessions`` run the graphs."""
        self._library = ctypes.CDLL(LIBRARY)
        for name in ("propose", "propose_at", "read_masks"):
            getattr(self._library, f"probe_{name}").restype = ctypes.c_void_p
        for name in ("count", "runs", "describe", "nms", "regions"):
            getattr(self._library, f"probe_{name}").restype = ctypes.c_int64
        self._sessions = sessions
        self._failure: Exception | None = None  # which an exception in a call from C would be printed and lost
        self._graphs = _Graphs(_RUN(self._run_graph), _BOUND(self._bound_of))

    def propose(self, image: NDArray[np.uint8], settings: ProposalSettings, side_px: int) -> Proposals:
        """As ``risengine.generator.proposals.generate_proposals``."""
        grids = [np.array(grid, np.float64).reshape(-1, 2) for grid in settings.point_grids or ()]
        return self._called(
            image,
            lambda message: self._library.probe_propose(
                ctypes.byref(self._graphs),
                ctypes.byref(_image(image)),
                ctypes.byref(_settings(settings, grids)),
                _whole(side_px),
                message,
            ),
        )

    def propose_at(
        self, image: NDArray[np.uint8], prompts: Mapping[str, Any], settings: ProposalSettings, side_px: int
    ) -> Proposals:
        """As ``Engine.proposals`` with prompts: points (P, K, 2), labels and boxes."""
        arrays = {
            name: np.ascontiguousarray(prompts[name], dtype)
            for name, dtype in (("points", np.float32), ("labels", np.int64), ("boxes", np.float32))
            if prompts.get(name) is not None
        }
        given = _Prompts(
            len(next(iter(arrays.values()))),
            arrays["points"].shape[1] if "points" in arrays else 0,
            *(_address(arrays[name]) if name in arrays else None for name in ("points", "labels", "boxes")),
        )
        call = self._library.probe_propose_at
        return self._called(
            image,
            lambda message: call(
                ctypes.byref(self._graphs),
                ctypes.byref(_image(image)),
                ctypes.byref(given),
                ctypes.byref(_settings(settings, [])),
                _whole(side_px),
                message,
            ),
        )

    def read_masks(self, masks: NDArray[np.uint8]) -> tuple[Proposals, list[NDArray[np.int64]]]:
        """As ``risengine.caller_masks.read_masks``, of any strides; and the run lengths of each mask."""
        rows: list[NDArray[np.int64]] = []
        proposals = self._called(
            masks[0] if len(masks) else masks.reshape(masks.shape[1:]),
            lambda message: self._library.probe_read_masks(
                _address(masks), *map(_whole, (*masks.shape, masks.strides[1], masks.strides[0])), message
            ),
            rows,
        )
        return proposals, rows

    def describe(
        self, image: NDArray[np.uint8], masks: NDArray[np.bool_], weight: float, side_px: int, views: int, width: int
    ) -> NDArray[np.float32]:
        """As the engine describes masks: (N, width) float32."""
        packed = masks.astype(np.uint8)
        message = _Message(None, 0)
        handle = self._library.probe_read_masks(
            _address(packed), *map(_whole, (*masks.shape, masks.shape[2], masks[0].size)), ctypes.byref(message)
        )
        features = np.empty((len(masks), width), np.float32)
        found = self._library.probe_describe(
            ctypes.byref(self._graphs),
            ctypes.byref(_image(image)),
            ctypes.c_void_p(handle),
            ctypes.c_float(weight),
            *map(_whole, (side_px, views)),
            _address(features),
            _whole(features.size),
        )
        self._library.probe_free(ctypes.c_void_p(handle))
        assert found == features.size
        return features

    def upsample(
        self, logits: NDArray[np.float32], size: tuple[int, int], square: int, offset: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Stability scores, boxes and masks of (M, h, w) logits."""
        logits = np.ascontiguousarray(logits)
        stability, boxes = np.empty(len(logits), np.float32), np.empty((len(logits), 4), np.float32)
        masks = np.empty((len(logits), *size), np.uint8)
        sizes = np.array([*size, *logits.shape[1:], square], np.int64)
        self._library.probe_upsample(
            _whole(len(logits)),
            *map(_address, (sizes, logits)),
            ctypes.c_double(offset),
            *map(_address, (stability, boxes, masks)),
        )
        return stability, boxes, masks.view(np.bool_)

    def non_maximum_suppression(
        self, boxes: NDArray[np.float32], scores: NDArray[np.float32], iou_thresh: float
    ) -> NDArray[np.int64]:
        """As ``risengine.generator.nms``."""
        kept = np.empty(len(boxes), np.int64)
        count = self._library.probe_nms(
            _whole(len(boxes)), _address(boxes), _address(scores), ctypes.c_double(iou_thresh), _address(kept)
        )
        return kept[:count]

    def without_small_regions(self, mask: NDArray[np.bool_], min_area: int) -> tuple[NDArray[np.bool_], bool]:
        """As ``risengine.generator.regions``, of a mask."""
        changed = mask.astype(np.uint8)
        found = self._library.probe_regions(_address(changed), *map(_whole, (*mask.shape, min_area)))
        return changed.view(np.bool_), bool(found)

    def scores(
        self,
        features: NDArray[np.float32],
        sentence: NDArray[np.float32],
        phrase: NDArray[np.float32],
        weight: float,
        kind: str,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The paper's scores, and the masks' order by them."""
        scores, order = np.empty(len(features), np.float32), np.empty(len(features), np.int64)
        self._library.probe_scores(
            *map(_whole, features.shape),
            *map(_address, (features, sentence, phrase)),
            ctypes.c_double(weight),
            _whole(kind == "cosine"),
            *map(_address, (scores, order)),
        )
        return scores, order

    def _called(
        self, image: NDArray[Any], call: Callable[[Any], Any], rows: list[NDArray[np.int64]] | None = None
    ) -> Proposals:
        text = ctypes.create_string_buffer(1000)
        self._failure = None
        handle = call(ctypes.byref(_Message(ctypes.addressof(text), len(text))))
        if self._failure is not None:
            raise self._failure
        if handle is None:
            raise ValueError(text.value.decode())
        size = image.shape[0], image.shape[1]
        count = self._library.probe_count(ctypes.c_void_p(handle))
        masks, facts = np.empty((count, *size), np.uint8), np.empty((count, 6), np.float32)
        for index in range(count):
            runs = np.empty(self._library.probe_runs(ctypes.c_void_p(handle), _whole(index)), np.int64)
            self._library.probe_read(
                ctypes.c_void_p(handle), _whole(index), *map(_address, (masks[index], facts[index], runs))
            )
            if rows is not None:
                rows.append(runs)
        self._library.probe_free(ctypes.c_void_p(handle))
        counts = Proposals.from_masks(masks.view(np.bool_)).counts
        return Proposals(size, counts, facts[:, :4].copy(), facts[:, 4].copy(), facts[:, 5].copy())

    def _bound_of(self, role: int, dimension: bytes) -> int:
        largest = getattr(self._sessions[_ROLES[role]], "largest", {}.get)
        return largest(dimension.decode()) or 0

    def _run_graph(
        self, role: int, count: int, names: Any, dtypes: Any, ranks: Any, shapes: Any, data: Any, outputs: int
    ) -> None:
        try:
            feeds = {
                names[index].decode(): _array(data[index], shapes[index][: ranks[index]], _DTYPES[dtypes[index]])
                for index in range(count)
            }
            for name, array in self._sessions[_ROLES[role]].run(feeds).items():
                values = np.ascontiguousarray(array, np.float32)
                shape = np.array(values.shape, np.int64)
                self._library.probe_put(
                    ctypes.c_void_p(outputs), name.encode(), _address(values), _whole(values.ndim), _address(shape)
                )
        except Exception as error:
            self._failure = error


def _array(address: int, shape: Any, dtype: Any) -> NDArray[Any]:
    shape = tuple(shape)
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _whole(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def _image(image: NDArray[np.uint8]) -> _Image:
    return _Image(image.shape[0], image.shape[1], image.ctypes.data)


def _settings(settings: ProposalSettings, grids: list[NDArray[np.float64]]) -> _Settings:
    given = _Settings(**{name: getattr(settings, name) for name in _WHOLE + _WHOLE_TOO + _REAL + _SHARES})
    given.turbo = settings.search == "turbo"
    given.grids = len(grids)
    sizes = np.array([len(grid) for grid in grids], np.int64)
    points = np.concatenate([np.zeros((0, 2)), *grids])
    given.grid_sizes, given.grid_points = sizes.ctypes.data, points.ctypes.data
    given.kept = sizes, points  # for as long as the settings are
    return given
