"""Latency of CLIP's features of masks: the exported graph against the PyTorch reference, in one run.

Both sides get the same image, masks and number of threads and are checked against each other. Weights are random, which
costs the same as trained ones: these are latencies, not accuracies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional as F

from risbench.machine.arithmetic import Measured, count_gflop, with_rate
from risbench.machine.environment import Environment, read_environment
from risbench.machine.gemm import GEMM_GFLOP, gemm_calls
from risbench.machine.timing import Timing, TimingConfig, time_in_turns
from risbench.reference.preprocess import token_weights
from risbench.reference.visual import encode_masks, masked_tail_vit, trunk_tokens_vit
from risengine.backends.onnx_session import OnnxSession
from risengine.config import RuntimeConfig
from risengine.errors import InputError
from risengine.manifest import GraphSpec
from risengine.measures import relative_error
from risengine.method import Method
from risexport.checkpoints.clip_checkpoints import load_clip
from risexport.checks.references import random_image, random_masks
from risexport.clip.vit import VitProposalEncoder
from risexport.graphs import clip_graphs
from risexport.onnx_export import ExportRequest, export_graph
from risexport.presets import Preset, method_for

__all__ = ["Comparison", "FeaturesConfig", "FeaturesReport", "measure_features"]

_TAIL_SHARE = 5  # of the image's tokens, masks keep one in this many

Array = NDArray[Any]


@dataclass(frozen=True)
class FeaturesConfig:
    """What is measured.

    Attributes:
        clip: An open_clip name, or the path of a JSON configuration.
        preset: Values of the method.
        proposals: Number N of masks.
        threads: Threads of either side; 0 for all processors of this process.
        image_size: (H, W) of the image in pixels.
        timing: How often.
    """

    clip: str = "ViT-B-32"
    preset: Preset = "reference"
    proposals: int = 64
    threads: int = 0
    image_size: tuple[int, int] = (480, 640)
    timing: TimingConfig = field(default_factory=TimingConfig)

    def __post_init__(self) -> None:
        if self.proposals < 2:
            raise InputError(f"proposals = {self.proposals}; expected at least 2, one of which covers the image.")
        if self.threads < 0:
            raise InputError(f"threads = {self.threads}; expected 0 (all processors) or a positive whole number.")


@dataclass(frozen=True)
class Comparison:
    """The exported graph in ONNX Runtime and the reference in PyTorch at the same work.

    Attributes:
        engine: The graph.
        reference: The reference.
        speedup: The reference's median divided by the graph's.
        relative_error: Of the graph's features, the worst mask's.
        kept_tokens: Mean share of the image's tokens (of a ResNet, places of its feature map) that the masks keep.
        graph_sha256: The graph.
        providers: What ran it.
    """

    engine: Measured
    reference: Measured
    speedup: float
    relative_error: float
    kept_tokens: float
    graph_sha256: str
    providers: tuple[str, ...]


@dataclass(frozen=True)
class FeaturesReport:
    """All figures of a run with the conditions they were measured under.

    Attributes:
        config: What was measured.
        threads: Threads of either side.
        method: The method's values.
        environment: Machine and software.
        gemm_gflop_per_s: The machine's GEMM rate in float32 at the median, by library.
        features: Global and local features and their mix, from the image on.
        tail: The masked blocks alone, at masks that keep a fifth of the image's tokens; None for a ResNet.
    """

    config: FeaturesConfig
    threads: int
    method: Method
    environment: Environment
    gemm_gflop_per_s: dict[str, float]
    features: Comparison
    tail: Comparison | None
    weights: str = "random: latency only"
    schema_version: int = 1


def measure_features(config: FeaturesConfig) -> FeaturesReport:
    """Exports a CLIP with random weights and times it; a progress bar shows the rounds.

    PyTorch's number of threads is set for the process.

    Raises:
        InputError: The model is unknown or its tower is of a kind that the method does not cover.
        BackendError: A graph cannot be exported or run.
    """
    environment = read_environment()
    threads = config.threads or environment.logical_cores
    torch.set_num_threads(threads)
    clip, facts = load_clip(config.clip)
    method = method_for(config.preset, facts)
    with TemporaryDirectory(prefix="risbench-") as name:
        folder = Path(name)
        contests = {"features": _features_contest(clip, method, config, folder, threads)}
        if facts.family == "vit":
            contests["tail"] = _tail_contest(clip, method, config, folder, threads)
        gemm = gemm_calls(folder, threads)
        calls = {f"gemm {library}": call for library, call in gemm.items()}
        for stage, contest in contests.items():
            calls |= {f"{stage} engine": contest.engine, f"{stage} reference": contest.reference}
        timings = time_in_turns(calls, config.timing)
    rates = {library: 1e3 * GEMM_GFLOP / timings[f"gemm {library}"].p50_ms for library in gemm}
    results = {
        stage: contest.compare(timings[f"{stage} engine"], timings[f"{stage} reference"], max(rates.values()))
        for stage, contest in contests.items()
    }
    return FeaturesReport(
        config=config,
        threads=threads,
        method=method,
        environment=environment,
        gemm_gflop_per_s=rates,
        features=results["features"],
        tail=results.get("tail"),
    )


@dataclass(frozen=True)
class _Contest:
    """Two ways to the same features of N masks, both (N, E) float32."""

    engine: Callable[[], Array]
    reference: Callable[[], Tensor]
    module: Callable[[], object]
    kept_tokens: float
    spec: GraphSpec
    providers: tuple[str, ...]

    def compare(self, engine: Timing, reference: Timing, gemm_gflop_per_s: float) -> Comparison:
        return Comparison(
            engine=_measured(engine, self.module, gemm_gflop_per_s),
            reference=_measured(reference, self.reference, gemm_gflop_per_s),
            speedup=reference.p50_ms / engine.p50_ms,
            relative_error=relative_error(self.engine(), self.reference().numpy()),
            kept_tokens=self.kept_tokens,
            graph_sha256=self.spec.sha256,
            providers=self.providers,
        )


def _measured(timing: Timing, computation: Callable[[], object], gemm_gflop_per_s: float) -> Measured:
    """Adds the arithmetic of a computation in PyTorch, which for the graph is that of the module it was exported from.

    What a mask keeps decides how much there is, so that it is counted at the inputs of the measurement.
    """
    return with_rate(timing, count_gflop(computation), gemm_gflop_per_s)


def _features_contest(clip: CLIP, method: Method, config: FeaturesConfig, folder: Path, threads: int) -> _Contest:
    (plan,) = (plan for plan in clip_graphs(clip, method) if plan.role == "proposal_encoder")
    spec = plan.export(folder)
    session = OnnxSession(folder / spec.file, spec, RuntimeConfig(threads=threads))
    image = random_image(config.image_size)
    masks = random_masks(np.random.default_rng(0), config.image_size, config.proposals)
    feeds: dict[str, Array] = {
        "image": image,
        "masks": masks,
        "global_weight": np.array(method.global_weight, np.float32),
    }

    def reference() -> Tensor:
        features = encode_masks(clip.visual, image, masks, method).features
        return F.normalize(features, dim=-1) if method.similarity == "cosine" else features

    side: int = plan.module.grid  # type: ignore[assignment]
    weights = token_weights(torch.from_numpy(masks), (side, side), method)
    return _Contest(
        engine=lambda: session.run(feeds)["features"],
        reference=reference,
        module=lambda: plan.module(*(torch.from_numpy(value) for value in feeds.values())),
        kept_tokens=float((weights > 0).float().mean()),
        spec=spec,
        providers=session.providers,
    )


class _MaskedTail(nn.Module):
    """The last k blocks of the global branch, as the proposal encoder's graph contains them."""

    def __init__(self, encoder: VitProposalEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        return self.encoder.masked_tail(tokens, weights)


def _tail_contest(clip: CLIP, method: Method, config: FeaturesConfig, folder: Path, threads: int) -> _Contest:
    generator = torch.Generator().manual_seed(0)
    view = torch.randn(1, 3, method.image_size_px, method.image_size_px, generator=generator)
    tokens = trunk_tokens_vit(clip.visual, view, method.masked_blocks)
    count = tokens.shape[1] - 1
    order = torch.rand(config.proposals, count, generator=generator).argsort(1).argsort(1)
    soft = 0.1 + 0.9 * torch.rand(config.proposals, count, generator=generator)
    weights = torch.where(order < math.ceil(count / _TAIL_SHARE), soft, 0.0)
    inputs = {"tokens": tokens[0].clone(), "weights": weights}
    tail = _MaskedTail(VitProposalEncoder(clip.visual, method)).eval()
    request = ExportRequest(folder / "masked_tail.onnx", inputs, ("features",), {"weights": {0: "N"}})
    spec = export_graph(tail, request)
    session = OnnxSession(folder / spec.file, spec, RuntimeConfig(threads=threads))
    feeds = {name: value.numpy() for name, value in inputs.items()}
    return _Contest(
        engine=lambda: session.run(feeds)["features"],
        reference=lambda: masked_tail_vit(clip.visual, tokens, weights, method.masked_blocks),
        module=lambda: tail(*inputs.values()),
        kept_tokens=float((weights > 0).float().mean()),
        spec=spec,
        providers=session.providers,
    )
