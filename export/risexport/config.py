"""The settings of a build, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from risengine.errors import InputError
from risengine.manifest import Target
from risengine.method import ProposalSettings
from risexport.presets import MethodOptions, Preset

__all__ = ["BuildConfig", "EngineOptions", "NativeTarget", "Precision"]

Precision: TypeAlias = Literal["fp32", "fp16"]
NativeTarget: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class EngineOptions:
    """How native engines are compiled; for the targets in :data:`NativeTarget`.

    Attributes:
        compute_capabilities: GPUs to compile for, such as ``8.6``; all that tensorrt-rtx knows, or for tensorrt the one
            at hand, when empty.
        profile: Least, best and largest size of symbolic dimensions (``risengine inspect`` shows them: H, W, N ...), in
            place of :data:`risexport.native.engines.SIZES`.
        workspace_mib: Most memory that a kernel may take beside its tensors, in MiB; the library's limit when None.
        timing_cache: File of measured times, read where it is there and written; none when None.
        optimization_level: The compiler's effort, 0 to 5; the library's own when None.
        version_compatible: Make engines that later versions of the library run too.
        hardware_compatible: Make engines that all GPUs from Ampere on run.

    Raises:
        InputError: A value is out of range.
    """

    compute_capabilities: tuple[str, ...] = ()
    profile: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        for name, sizes in self.profile.items():
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise InputError(f"profile {name} = {sizes}; expected least <= best <= largest, each at least 1.")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise InputError(f"workspace_mib = {self.workspace_mib}; expected at least 1.")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise InputError(f"optimization_level = {self.optimization_level}; expected 0 to 5.")


@dataclass(frozen=True)
class BuildConfig:
    """What to build from what.

    Attributes:
        out: Directory of the bundle; its parent is made where needed.
        clip: open_clip model name, or path of a JSON configuration.
        sam: Name in :data:`risexport.checkpoints.sam_checkpoints.SAM_MODELS`, or ``module:function``.
        clip_checkpoint: Path of the weights or open_clip's tag of them; random weights without it.
        sam_checkpoint: Path of the weights; random weights without it.
        preset: Values of the method, ``clean`` or ``reference``.
        method: Values of the method that differ from the preset's.
        precision: Precision of the graphs.
        target: What will run the bundle.
        engine: How its engines are compiled, where the target has engines.
        name: Name of the bundle; the directory's when empty.
        license: Licence of the bundle.
        clip_license: Licence of CLIP's weights; the bundle's when empty.
        sam_license: Licence of SAM's weights; the bundle's when empty.
        proposals: Settings of the proposal stage that the runtime takes by default.
        force: Replace an existing bundle.
    """

    out: Path
    clip: str
    sam: str
    clip_checkpoint: str | None = None
    sam_checkpoint: Path | None = None
    preset: Preset = "clean"
    method: MethodOptions = field(default_factory=MethodOptions)
    precision: Precision = "fp32"
    target: Target = "cpu"
    engine: EngineOptions = field(default_factory=EngineOptions)
    name: str = ""
    license: str = "not stated"
    clip_license: str = ""
    sam_license: str = ""
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    force: bool = False
