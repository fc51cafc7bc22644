"""The engine's whole path, stage by stage. Never imports torch, so that a cold start is the runtime's own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

from risbench.machine.watch import GraphCall, timed_calls, watched_graphs
from risbench.speed.whole_path import PathRun, Task
from risengine import RuntimeConfig, load
from risengine.engine import Engine
from risengine.generator.sam import SamImage
from risengine.images import load_image
from risengine.manifest import Role
from risengine.method import ProposalSettings
from risengine.types import EncodedImage

__all__ = ["STAGE_OF_ROLE", "EnginePath", "open_engine"]

STAGE_OF_ROLE: Mapping[Role, str] = {
    "image_encoder": "image_encode",
    "image_projector": "image_encode",
    "point_decoder": "prompts",
    "mask_decoder": "prompts",
    "mask_measurer": "filter",
    "proposal_encoder": "proposal_features",
    "text_encoder": "text",
}
"""The stage in which each graph runs."""


def open_engine(bundle: str, runtime: RuntimeConfig, settings: ProposalSettings | None) -> Engine:
    """Loads a bundle, with other proposal settings than its own where they are given."""
    return load(bundle, runtime, **({} if settings is None else asdict(settings)))


class EnginePath:
    """Asks the engine as its user does, and looks on.

    Attributes:
        engine: The engine.
        task: What it is asked.
        calls: The runs of its graphs in the last question.
    """

    def __init__(self, engine: Engine, task: Task) -> None:
        """Takes a loaded engine."""
        self.engine, self.task = engine, task
        self.calls: list[GraphCall] = []

    def ask(self, text: str) -> PathRun:
        """See :class:`~risbench.speed.whole_path.PathSide`."""
        engine, task = self.engine, self.task
        with timed_calls(SamImage, "encode") as encodings_ms, watched_graphs(engine.sessions) as calls:
            start = time.perf_counter()
            pixels = load_image(task.image)
            decoded = time.perf_counter()
            proposed = None if task.masks is None else engine.proposals(pixels)
            proposal_ms = 1e3 * (time.perf_counter() - decoded)
            encoded = engine.encode_image(pixels, masks=task.masks)
            answer = engine.segment(encoded, text)
            whole_ms = 1e3 * (time.perf_counter() - start)
        self.calls = calls
        own = answer.timings_ms
        prompts_ms = sum(call.duration_ms for call in calls if STAGE_OF_ROLE[call.role] == "prompts")
        if proposed is None:
            proposal_ms = own["proposals"]
        stages_ms = {
            "decode": 1e3 * (decoded - start),
            "image_encode": sum(encodings_ms),
            "prompts": prompts_ms,
            "filter": proposal_ms - sum(encodings_ms) - prompts_ms,
            "proposal_features": own["proposal_features"],
            "phrase": own["phrase"],
            "text": own["text_features"],
            "score": own["score"],
            "mask_out": own["mask_out"],
        }
        return PathRun(stages_ms, whole_ms, encoded.proposals if proposed is None else proposed, encoded, answer)

    def ask_again(self, encoded: EncodedImage, text: str) -> float:
        """See :class:`~risbench.speed.whole_path.PathSide`."""
        start = time.perf_counter()
        self.engine.segment(encoded, text)
        return 1e3 * (time.perf_counter() - start)
