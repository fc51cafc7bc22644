"""The bundle's manifest: the one list of facts about a compiled model, read and written by every other part.

``Manifest.decode`` is strict: a missing key, a wrong type or another format version is a :class:`BundleError` that
names the place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import msgspec

from risengine.errors import BundleError
from risengine.method import Method, ProposalSettings

__all__ = [
    "FORMAT_VERSION",
    "HOST_TARGETS",
    "MANIFEST_NAME",
    "OPTIONAL_ROLES",
    "Compiler",
    "EngineSpec",
    "FileSpec",
    "GraphSpec",
    "Manifest",
    "Measure",
    "Parity",
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

    def fits(self, tensor: TensorSpec) -> bool:
        """Whether these are shapes of a tensor, each size at least 1 and none beyond its neighbour."""
        if not len(self.least) == len(self.best) == len(self.largest) == len(tensor.shape):
            return False
        sizes = zip(tensor.shape, self.least, self.best, self.largest, strict=True)
        return all(
            1 <= least <= best <= largest and (isinstance(size, str) or least == largest == size)
            for size, least, best, largest in sizes
        )


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

    def check_profiles(self) -> None:
        """Checks that an engine's profiles are of its dynamic inputs, all of them, and can be met.

        Raises:
            BundleError: One is missing, superfluous, or of impossible shapes.
        """
        if self.engine is None:
            return
        dynamic = {tensor.name: tensor for tensor in self.inputs if any(isinstance(s, str) for s in tensor.shape)}
        if self.engine.profiles.keys() != dynamic.keys():
            raise BundleError(
                f"{self.file} has profiles of {sorted(self.engine.profiles)}; expected one of each dynamic input, "
                f"{sorted(dynamic)}. Rebuild the bundle."
            )
        for name, tensor in dynamic.items():
            profile = self.engine.profiles[name]
            if not profile.fits(tensor):
                raise BundleError(
                    f"{self.file}: the profile of {name} is {profile.least}, {profile.best}, {profile.largest}; "
                    f"expected rising sizes from 1 on of the shape {tensor.shape}. Rebuild the bundle."
                )


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
            BundleError: The JSON is malformed, a field is missing or mistyped, a role is missing, an engine's profiles
                are not of its inputs, or the format version is not the one this runtime reads.
        """
        version = _parsed(data, _Versioned).format_version
        if version != FORMAT_VERSION:
            remedy = "Update risengine" if version > FORMAT_VERSION else "Rebuild the bundle with `risengine build`"
            raise BundleError(f"bundle format version {version}; this risengine reads {FORMAT_VERSION}. {remedy}.")
        manifest = _parsed(data, Manifest)
        missing = sorted(set(get_args(Role)) - set(manifest.graphs) - set(OPTIONAL_ROLES))
        if missing:
            raise BundleError(f"{MANIFEST_NAME} lists no graph for {', '.join(missing)}. Rebuild the bundle.")
        for graph in manifest.graphs.values():
            graph.check_profiles()
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
