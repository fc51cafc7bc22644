from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from risengine.backends.onnx_session import OnnxSession
from risengine.bundle import Bundle, open_bundle
from risengine.config import RuntimeConfig
from risengine.manifest import Role
from risengine.method import ProposalSettings
from risexport.build import build
from risexport.config import BuildConfig
from risexport.presets import MethodOptions

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not put helpers beside the tests on the path


class ConvEncoder(nn.Module):
    """The least that segment-anything's predictor asks of an image encoder."""

    def __init__(self, size_px: int, channels: int) -> None:
        super().__init__()
        self.img_size = size_px
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.Conv2d(16, channels, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def build_tiny_sam(size_px: int = 64, channels: int = 32, heads: int = 8, mlp: int = 48) -> Sam:
    """A Sam of segment-anything's own modules, with random weights and no bias left at zero."""
    grid = size_px // 8
    with torch.random.fork_rng():
        torch.manual_seed(7)
        sam = Sam(
            ConvEncoder(size_px, channels),
            PromptEncoder(channels, (grid, grid), (size_px, size_px), 16),
            MaskDecoder(
                transformer_dim=channels,
                transformer=TwoWayTransformer(2, channels, heads, mlp),
                iou_head_hidden_dim=channels,
            ),
        )
        with torch.no_grad():
            for parameter in sam.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return sam.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def make_sam() -> Callable[..., Sam]:
    return build_tiny_sam


@pytest.fixture(scope="session")
def tiny_sam() -> Sam:
    return build_tiny_sam()


CLIP_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 4, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory, tiny_sam: Sam) -> Iterator[BuildConfig]:
    """A build of a random CLIP of four blocks and of the tiny SAM's checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "tiny_clip.json").write_text(json.dumps(CLIP_CONFIG), encoding="utf-8")
    save_file(tiny_sam.state_dict(), folder / "tiny_sam.safetensors")
    module = types.ModuleType("tiny_sam_factory")
    module.build = build_tiny_sam  # type: ignore[attr-defined]
    sys.modules["tiny_sam_factory"] = module
    yield BuildConfig(
        out=folder / "bundle",
        clip=str(folder / "tiny_clip.json"),
        sam="tiny_sam_factory:build",
        sam_checkpoint=folder / "tiny_sam.safetensors",
        name="tiny",
        license="Apache-2.0",
        sam_license="MIT",
        method=MethodOptions(global_weight=0.8),
        proposals=ProposalSettings(points_per_side=4),
    )
    del sys.modules["tiny_sam_factory"]


@pytest.fixture(scope="session")
def tiny_bundle(tiny_config: BuildConfig) -> Bundle:
    return open_bundle(build(tiny_config))


@pytest.fixture(scope="session")
def sessions(tiny_bundle: Bundle) -> Iterator[dict[Role, OnnxSession]]:
    graphs = tiny_bundle.manifest.graphs
    opened = {role: OnnxSession(tiny_bundle.graph_path(role), spec, RuntimeConfig()) for role, spec in graphs.items()}
    yield opened
    for session in opened.values():
        session.close()
