"""The settings of a build, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from risengine.manifest import ProposalSettings
from risexport.presets import MethodOptions, Preset

__all__ = ["BuildConfig", "Precision", "Target"]

Precision: TypeAlias = Literal["fp32", "fp16"]
Target: TypeAlias = Literal["cpu"]


@dataclass(frozen=True)
class BuildConfig:
    """What to build from what.

    Attributes:
        out: Directory of the bundle; its parent is made where needed.
        clip: open_clip model name, or path of a JSON configuration.
        sam: Name in :data:`risexport.sam_checkpoints.SAM_MODELS`, or ``module:function``.
        clip_checkpoint: Path of the weights or open_clip's tag of them; random weights without it.
        sam_checkpoint: Path of the weights; random weights without it.
        preset: Values of the method, ``clean`` or ``reference``.
        method: Values of the method that differ from the preset's.
        precision: Precision of the graphs.
        target: What will run the bundle.
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
    name: str = ""
    license: str = "not stated"
    clip_license: str = ""
    sam_license: str = ""
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    force: bool = False
