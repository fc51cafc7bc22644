"""The engine's side of a comparison of proposal stages: its graphs, its runs and what they did. Never imports torch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from risbench.machine.watch import Shapes, timed_calls, watched_graphs
from risengine.backends.onnx_session import OnnxSession
from risengine.backends.session import Session
from risengine.bundle import Bundle
from risengine.config import RuntimeConfig
from risengine.generator.proposals import Progress, generate_proposals
from risengine.generator.sam import SamImage
from risengine.manifest import GraphSpec, Role
from risengine.method import ProposalSettings
from risengine.types import Proposals

__all__ = ["DECODER_ROLES", "Calls", "EngineRun", "EngineSide", "EngineSource", "StageRun"]

DECODER_ROLES: tuple[Role, ...] = ("point_decoder", "mask_decoder")
_CLIP_ROLES: tuple[Role, ...] = ("proposal_encoder", "text_encoder")

Calls: TypeAlias = "Counter[Shapes]"
"""How often a graph was run, by name and shape of every input."""


@dataclass(frozen=True)
class StageRun:
    """One run of a proposal stage.

    Attributes:
        proposals: Its result.
        encoder_ms: From the image's pixels to what the decoder takes.
        decoder_ms: Everything after that: decoder and post-processing.
    """

    proposals: Proposals = field(repr=False)
    encoder_ms: float
    decoder_ms: float

    @property
    def whole_ms(self) -> float:
        """The stage as its caller sees it."""
        return self.encoder_ms + self.decoder_ms


@dataclass(frozen=True)
class EngineRun(StageRun):
    """One run of the engine's.

    Attributes:
        calls: What its graphs were given.
    """

    calls: Mapping[Role, Calls] = field(repr=False)

    def rows(self, role: Role, name: str) -> int:
        """Returns how many rows of an input a graph was given over all its calls."""
        return sum(count * dict(shapes)[name][0] for shapes, count in self.calls[role].items())


@dataclass(frozen=True)
class EngineSource:
    """SAM's graphs on disk, those of a bundle or those just exported.

    Attributes:
        folder: Where the files are.
        graphs: Their specifications by role.
        sam_image_size_px: Side of SAM's square input.
    """

    folder: Path
    graphs: Mapping[Role, GraphSpec]
    sam_image_size_px: int

    @staticmethod
    def of_bundle(bundle: Bundle) -> EngineSource:
        """Leaves out the graphs of CLIP."""
        manifest = bundle.manifest
        graphs = {role: spec for role, spec in manifest.graphs.items() if role not in _CLIP_ROLES}
        return EngineSource(bundle.path, graphs, manifest.sam_image_size_px)

    def open(self, threads: int) -> EngineSide:
        """Loads the graphs."""
        return EngineSide(self, threads)


class EngineSide:
    """SAM's graphs, loaded.

    Attributes:
        sessions: The sessions by role.
        sam_image_size_px: Side of SAM's square input.
    """

    def __init__(self, source: EngineSource, threads: int) -> None:
        """Loads the graphs; see :meth:`EngineSource.open`."""
        self.sessions: dict[Role, Session] = {
            role: OnnxSession(source.folder / spec.file, spec, RuntimeConfig(threads=threads))
            for role, spec in source.graphs.items()
        }
        self.sam_image_size_px = source.sam_image_size_px

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that really run the graphs."""
        return tuple(dict.fromkeys(name for session in self.sessions.values() for name in session.providers))

    def run(self, image: NDArray[np.uint8], settings: ProposalSettings, progress: Progress | None = None) -> EngineRun:
        """Proposes masks.

        Args:
            image: (H, W, 3) uint8 RGB.
            settings: The generator's settings.
            progress: Called with (prompts done, prompts in all).
        """
        with timed_calls(SamImage, "encode") as encodings_ms, watched_graphs(self.sessions) as made:
            start = time.perf_counter()
            proposals = generate_proposals(self.sessions, image, settings, self.sam_image_size_px, progress)
            whole_ms = 1e3 * (time.perf_counter() - start)
        calls = {role: Counter(call.shapes for call in made if call.role == role) for role in self.sessions}
        return EngineRun(proposals, sum(encodings_ms), whole_ms - sum(encodings_ms), calls)
