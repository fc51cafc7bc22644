"""The bundle's manifest: the one list of facts about a compiled model, read and written by every other part.

``Manifest.decode`` is strict: a missing key, a wrong type or another format version is a :class:`BundleError` that
names the place. The presets of the method are values of :class:`Method`, never branches in the code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import msgspec

from risengine.errors import BundleError, InputError

__all__ = [
    "FORMAT_VERSION",
    "HOST_TARGETS",
    "MANIFEST_NAME",
    "OPTIONAL_ROLES",
    "Compiler",
    "EngineSpec",
    "FileSpec",
    "Fusion",
    "GraphSpec",
    "Manifest",
    "Measure",
    "Method",
    "Parity",
    "ProposalSettings",
    "Role",
    "ShapeProfile",
    "Source",
    "Target",
    "TensorSpec",
    "TextSpec",
]

_Parsed = TypeVar("_Parsed")

FORMAT_VERSION = 3
"""Of bundles with ``mask_measurer`` too: a runtime of this version that does not know the role refuses them."""

MANIFEST_NAME = "manifest.json"

Role = Literal[
    "image_encoder",
    "image_projector",
    "point_decoder",
    "mask_decoder",
    "mask_measurer",
    "proposal_encoder",
    "text_encoder",
]
Measure = Literal["relative_error", "cosine", "mask_iou", "selection_agreement"]
Target = Literal["cpu", "cuda", "openvino", "tensorrt", "tensorrt-rtx"]
Fusion = Literal["none", "g2l", "l2g", "both"]

HOST_TARGETS: tuple[Target, ...] = ("cpu", "openvino")
"""Targets that are no GPU."""

OPTIONAL_ROLES: tuple[Role, ...] = ("mask_measurer",)
"""Graphs that a bundle may lack: ``mask_measurer`` does on a GPU what NumPy does in the host's memory."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (NumPy's name) and symbolic shape of a graph's input or output."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class FileSpec:
    """A file of the bundle: path relative to the manifest, SHA-256 in hex, size in bytes."""

    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class ShapeProfile:
    """The shapes that an engine takes for one input: from ``least`` to ``largest``, fastest at ``best``."""

    least: tuple[int, ...]
    best: tuple[int, ...]
    largest: tuple[int, ...]


@dataclass(frozen=True)
class EngineSpec:
    """Where a native engine can run, and what it was compiled from.

    Attributes:
        library: Python module of the compiler, ``tensorrt`` or ``tensorrt_rtx``.
        version: The compiler's version; an engine runs under that version alone.
        compute_capabilities: GPUs it was compiled for, such as ``8.6``.
        profiles: Shapes by input, of the inputs whose shape is dynamic.
        onnx_sha256: Hash of the graph that was compiled.
        layers: The compiler's description of the engine's layers, JSON.
        any_newer_version: Whether later versions of the same major version run it too.
        any_newer_gpu: Whether GPUs of higher compute capability run it too.
        context: ONNX model of one node that has ONNX Runtime's provider read the engine's file: for a runtime without
            the compiler's own module. Bundles of older builds have none.
    """

    library: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    compute_capabilities: tuple[str, ...]
    profiles: dict[str, ShapeProfile]
    onnx_sha256: str
    layers: FileSpec
    any_newer_version: bool = False
    any_newer_gpu: bool = False
    context: FileSpec | None = None


@dataclass(frozen=True)
class GraphSpec(FileSpec):
    """A graph file, its signature, and what a person asks about it.

    ``flops`` holds multiply-adds counted twice for one call at the shapes in ``flops_at``. ``fp32_nodes`` lists the
    nodes kept in single precision in a reduced-precision graph, each as ``reason: operator name``. ``external`` lists
    weight files beside the graph. ``engine`` is set where the file is no ONNX graph but an engine compiled from one.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flops: float = 0.0
    flops_at: str = ""
    fp32_nodes: tuple[str, ...] = ()
    external: tuple[FileSpec, ...] = ()
    engine: EngineSpec | None = None

    def largest(self, dimension: str) -> int | None:
        """Returns the largest size that a symbolic dimension may have; None where there is no bound."""
        if self.engine is None:
            return None
        sizes = [
            self.engine.profiles[tensor.name].largest[axis]
            for tensor in self.inputs
            for axis, size in enumerate(tensor.shape)
            if size == dimension
        ]
        return min(sizes, default=None)


@dataclass(frozen=True)
class Source:
    """A checkpoint the bundle was made from: what it is, its hash, its licence and where it can be had."""

    role: Literal["clip", "sam"]
    model: str
    checkpoint: str
    sha256: str
    license: str
    url: str = ""


@dataclass(frozen=True)
class Method:
    """How masks and texts are described and compared (Yu, Seo, Son, CVPR 2023); see models/README.md.

    Attributes:
        preset: Name of the preset these values came from.
        image_size_px: Side S of the square CLIP input.
        mean: Mean per channel, of values in [0, 1].
        std: Standard deviation per channel, of values in [0, 1].
        fill: Value written outside a mask before it is cropped, per channel, in normalised units.
        resize: ``antialias`` (triangle filter widened when shrinking) or ``bilinear`` (two taps).
        mask_pooling: How a mask becomes token weights: ``area`` average, or ``point`` (bilinear at the cells' centres).
        box_rule: ``tight`` box, or ``centroid`` (centre of mass plus/minus half the occupied rows and columns).
        masked_blocks: Number k of final transformer blocks in which tokens are masked (0 for ResNet towers).
        global_weight: v, the share of the global feature in the mix.
        sentence_weight: r, the share of the whole sentence in the text feature.
        similarity: ``cosine`` of both features, or ``dot`` (ResNet towers in the reference).
        tokenisation: ``spaced`` joins spaCy's tokens by single spaces as the authors do; ``plain`` keeps the text.
        fusion: ``none`` describes masks as above. The others are HybridGL's (Liu, Li, CVPR 2025), of ViT towers: a mask
            alone and in its blurred scene, both in the full frame, whose tokens meet in the masked blocks. ``g2l`` adds
            the scene's to the mask's, ``l2g`` the mask's to the scene's; ``both`` mixes the two, l2g's share being v.
    """

    preset: str
    image_size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fill: tuple[float, float, float]
    resize: Literal["antialias", "bilinear"]
    mask_pooling: Literal["area", "point"]
    box_rule: Literal["tight", "centroid"]
    masked_blocks: int
    global_weight: float
    sentence_weight: float
    similarity: Literal["cosine", "dot"]
    tokenisation: Literal["spaced", "plain"]
    fusion: Fusion = "none"

    def __post_init__(self) -> None:
        for name in ("global_weight", "sentence_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected a share in [0, 1].")
        only = {"g2l": 0, "l2g": 1}.get(self.fusion, self.global_weight)
        if self.global_weight != only:
            raise InputError(
                f"global_weight = {self.global_weight}; expected {only} with fusion {self.fusion}, which has nothing "
                "to mix. Leave it out, or build a bundle with --fusion both."
            )


@dataclass(frozen=True)
class ProposalSettings:
    """segment-anything's ``SamAutomaticMaskGenerator`` settings under their own names and defaults, and ``search``.

    Attributes:
        points_per_side: Points of the prompt grid along each side.
        points_per_batch: Most prompts decoded in one call; above 8 on a CPU (``sam.PROMPTS_PER_CALL``) means 8, and
            above 64 on a GPU means 64. Changes no result.
        pred_iou_thresh: Masks of a predicted IoU above this are kept, in [0, 1]; 0 keeps all.
        stability_score_thresh: Lowest stability score kept, in [0, 1].
        stability_score_offset: Shift of the logit cut-off when the stability score is computed.
        box_nms_thresh: Box IoU above which the lower-scored of two masks is dropped.
        crop_n_layers: Layers of crops prompted beside the whole image; layer i has 4 ** i crops, each encoded anew.
        crop_nms_thresh: Box IoU above which, of masks from two crops, the one from the larger crop is dropped.
        crop_overlap_ratio: Overlap of the first layer's crops as a share of the shorter side; later layers have less.
        crop_n_points_downscale_factor: In layer n the grid has points_per_side over this ** n points along each side.
        point_grids: Points in place of the grids, for the whole image and then for each layer's crops: xy as shares
            of the width and height, in [0, 1].
        min_mask_region_area: Holes and islands of fewer pixels are filled and removed; 0 leaves masks as they are.
        search: exact asks every point, as segment-anything does; turbo asks about a fifth of them, but at least 8,
            chosen as it goes on, and misses some of the masks.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: tuple[tuple[tuple[float, float], ...], ...] | None = None
    min_mask_region_area: int = 0
    search: Literal["exact", "turbo"] = "exact"

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch", "crop_n_points_downscale_factor"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected at least 1.")
        for name in ("crop_n_layers", "min_mask_region_area"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} = {getattr(self, name)}; expected at least 0.")
        # A SAM with random weights, as latency is measured with, predicts IoUs outside [0, 1].
        for name in ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} = {getattr(self, name)}; expected a finite number.")
        for name in ("box_nms_thresh", "crop_nms_thresh", "crop_overlap_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected a number in [0, 1].")
        self._check_grids()

    def _check_grids(self) -> None:
        if self.point_grids is None:
            if self.points_per_side < self.crop_n_points_downscale_factor**self.crop_n_layers:
                raise InputError(
                    f"points_per_side = {self.points_per_side} leaves no point in crop layer {self.crop_n_layers} with "
                    f"crop_n_points_downscale_factor = {self.crop_n_points_downscale_factor}. Raise the one or lower "
                    "the other."
                )
            return
        if len(self.point_grids) != self.crop_n_layers + 1:
            raise InputError(
                f"point_grids has {len(self.point_grids)} grids; expected {self.crop_n_layers + 1}: one for the whole "
                "image and one for each crop layer."
            )
        if not all(0 <= value <= 1 for grid in self.point_grids for point in grid for value in point):
            raise InputError(
                "point_grids holds a value outside [0, 1]; expected shares of the image's width and height."
            )


@dataclass(frozen=True)
class TextSpec:
    """The tokenizer's file (Hugging Face ``tokenizers`` JSON) and the text encoder's context length in tokens."""

    tokenizer: FileSpec
    context_length: int


@dataclass(frozen=True)
class Parity:
    """One figure: the exported graph against the PyTorch reference, for the worst row (mask, text or prompt).

    ``tolerance`` is the bound that the build enforces: an upper bound for errors, a lower one for the others.
    ``rounded``: measured with every result rounded to half precision, as a device computes; the CPU provider runs most
    of a half-precision graph in single.
    """

    role: Role
    tensor: str
    measure: Measure
    value: float
    tolerance: float
    rounded: bool = False

    @property
    def passed(self) -> bool:
        """Whether the value is within the tolerance, which NaN never is."""
        return self.value <= self.tolerance if self.measure == "relative_error" else self.value >= self.tolerance

    def __str__(self) -> str:
        """States the figure and what was expected."""
        side = "at most" if self.measure == "relative_error" else "at least"
        rounded = ", every result rounded to half precision," if self.rounded else ""
        return (
            f"{self.role}: {self.measure} of {self.tensor}{rounded} against the PyTorch reference is {self.value:.3g}; "
            f"expected {side} {self.tolerance:g}"
        )


@dataclass(frozen=True)
class Compiler:
    """What built the graphs: tool names and versions."""

    versions: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know about a bundle; the contents of ``manifest.json``.

    ``sam_image_size_px`` is the side of the square into which ``image_encoder`` fits the image (longest side).
    ``vectors`` is the file of test vectors (:class:`~risengine.vectors.Vectors`).
    """

    format_version: int
    name: str
    license: str
    precision: Literal["fp32", "fp16"]
    target: Target
    sources: tuple[Source, ...]
    graphs: dict[Role, GraphSpec]
    text: TextSpec
    method: Method
    proposals: ProposalSettings
    sam_image_size_px: int
    vectors: FileSpec
    compiler: Compiler
    parity: tuple[Parity, ...] = ()
    notes: str = ""

    @staticmethod
    def decode(data: bytes) -> Manifest:
        """Parses and validates the JSON of a manifest.

        Raises:
            BundleError: The JSON is malformed, a field is missing or mistyped, a role is missing, or the format
                version is not the one this runtime reads.
        """
        version = _parsed(data, _Versioned).format_version
        if version != FORMAT_VERSION:
            remedy = "Update risengine" if version > FORMAT_VERSION else "Rebuild the bundle with `risengine build`"
            raise BundleError(f"bundle format version {version}; this risengine reads {FORMAT_VERSION}. {remedy}.")
        manifest = _parsed(data, Manifest)
        missing = sorted(set(get_args(Role)) - set(manifest.graphs) - set(OPTIONAL_ROLES))
        if missing:
            raise BundleError(f"{MANIFEST_NAME} lists no graph for {', '.join(missing)}. Rebuild the bundle.")
        return manifest

    def roles_on(self, device: Target) -> tuple[Role, ...]:
        """Returns the graphs that a device runs; without a GPU, NumPy does what the optional ones do."""
        left_out = OPTIONAL_ROLES if device in HOST_TARGETS else ()
        return tuple(role for role in get_args(Role) if role in self.graphs and role not in left_out)

    def encode(self) -> bytes:
        """Returns the manifest as indented JSON, UTF-8."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@dataclass(frozen=True)
class _Versioned:
    format_version: int


def _parsed(data: bytes, kind: type[_Parsed]) -> _Parsed:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:  # RecursionError: nested too deeply
        raise BundleError(f"{MANIFEST_NAME} cannot be read: {error}. Rebuild or re-copy the bundle.") from error
