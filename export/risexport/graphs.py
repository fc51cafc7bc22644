"""A bundle's graphs: which module plays a role, with which names, example sizes and dynamic dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip import CLIP
from open_clip.modified_resnet import ModifiedResNet
from segment_anything.modeling import Sam
from torch import Tensor, nn

from risengine.generator.placement import TAPS
from risengine.manifest import GraphSpec, Role
from risengine.method import Method
from risexport.clip.blocks import Layout
from risexport.clip.clip_text import ClipTextEncoder
from risexport.clip.fusion import FusedProposalEncoder
from risexport.clip.resnet import ResnetProposalEncoder
from risexport.clip.vit import VitProposalEncoder
from risexport.onnx_export import ExportRequest, export_graph
from risexport.sam.decoders import MaskDecoder, PointDecoder
from risexport.sam.image import ImageEncoder, ImageProjector
from risexport.sam.mask_measurer import MaskMeasurer
from risexport.tokenizer import VOCABULARY_SIZE

__all__ = ["GraphPlan", "clip_graphs", "measurer_graph", "sam_graphs"]

_IMAGE_SIZE = (480, 640)
_PROMPTS = 8
_MASKS = 8
_TEXTS = 2  # a sentence and its noun phrase
_WORDS = 8


@dataclass(frozen=True)
class GraphPlan:
    """One graph to export; see :class:`risexport.onnx_export.ExportRequest` for the fields."""

    role: Role
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]

    def export(self, folder: Path) -> GraphSpec:
        """Writes ``<role>.onnx`` into a folder.

        Raises:
            BackendError: The module cannot be exported.
        """
        path = folder / f"{self.role}.onnx"
        return export_graph(self.module.eval(), ExportRequest(path, self.inputs, self.outputs, self.dynamic))


def sam_graphs(sam: Sam) -> list[GraphPlan]:
    """Returns the plans of the four graphs of SAM."""
    rows, columns = sam.prompt_encoder.image_embedding_size
    channels = sam.prompt_encoder.embed_dim
    width = sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image.internal_dim
    return [
        GraphPlan(
            role="image_encoder",
            module=ImageEncoder(sam),
            inputs={"image": torch.zeros(*_IMAGE_SIZE, 3, dtype=torch.uint8)},
            outputs=("image_embedding",),
            dynamic={"image": {0: "H", 1: "W"}},
        ),
        GraphPlan(
            role="image_projector",
            module=ImageProjector(sam),
            inputs={"image_embedding": torch.zeros(1, channels, rows, columns)},
            outputs=("image_cells", "image_keys", "image_values", "image_queries"),
            dynamic={},
        ),
        GraphPlan(
            role="point_decoder",
            module=PointDecoder(sam),
            inputs={
                "image_cells": torch.zeros(1, rows * columns, channels),
                "image_keys": torch.zeros(1, rows * columns, width),
                "image_values": torch.zeros(1, rows * columns, width),
                "image_queries": torch.zeros(1, rows * columns, width),
                "image_size": torch.tensor(_IMAGE_SIZE),
                "points": torch.zeros(_PROMPTS, 2, 2),
                "labels": torch.ones(_PROMPTS, 2, dtype=torch.int64),
            },
            outputs=("iou_predictions", "mask_tokens", "image_features"),
            dynamic={"points": {0: "P", 1: "K"}, "labels": {0: "P", 1: "K"}},
        ),
        GraphPlan(
            role="mask_decoder",
            module=MaskDecoder(sam),
            inputs={
                "image_features": torch.zeros(_PROMPTS // 2, rows * columns, channels),
                "mask_tokens": torch.zeros(_MASKS, channels // 8),
                "prompt_index": torch.zeros(_MASKS, dtype=torch.int64),
            },
            outputs=("logits",),
            dynamic={"image_features": {0: "Q"}, "mask_tokens": {0: "M"}, "prompt_index": {0: "M"}},
        ),
    ]


def measurer_graph(logits_size: tuple[int, int]) -> GraphPlan:
    """Returns the plan of ``mask_measurer``, which GPUs run.

    Args:
        logits_size: (h, w) of the mask decoder's logits.
    """
    height, width = logits_size
    return GraphPlan(
        role="mask_measurer",
        module=MaskMeasurer(),
        inputs={
            "logits": torch.zeros(_MASKS, height, width),
            "row_starts": torch.zeros(_IMAGE_SIZE[0], dtype=torch.int64),
            "row_weights": torch.zeros(_IMAGE_SIZE[0], TAPS),
            "column_starts": torch.zeros(_IMAGE_SIZE[1], dtype=torch.int64),
            "column_weights": torch.zeros(_IMAGE_SIZE[1], TAPS),
            "stability_score_offset": torch.tensor(1.0),
        },
        outputs=("areas", "boxes", "masks"),
        dynamic={
            "logits": {0: "D"},
            "row_starts": {0: "H"},
            "row_weights": {0: "H"},
            "column_starts": {0: "W"},
            "column_weights": {0: "W"},
        },
    )


def clip_graphs(clip: CLIP, method: Method, layout: Layout = "packed") -> list[GraphPlan]:
    """Returns the plans of the two graphs of CLIP.

    Args:
        clip: open_clip's ``CLIP`` or ``CustomTextCLIP``.
        method: Values of the method, which become part of ``proposal_encoder``.
        layout: Whether sizes inside the graphs may follow from their inputs' values.

    Raises:
        InputError: The image or text tower is of a kind that the method or the exporter does not cover.
    """
    vit = VitProposalEncoder if method.fusion == "none" else FusedProposalEncoder
    encoder = ResnetProposalEncoder if isinstance(clip.visual, ModifiedResNet) else vit
    masks = torch.zeros(_MASKS, *_IMAGE_SIZE, dtype=torch.bool)
    masks[:, 100:200, 100:300] = True
    tokens = torch.zeros(_TEXTS, clip.context_length, dtype=torch.int64)
    words = min(_WORDS, clip.context_length - 2)
    tokens[:, : words + 2] = torch.tensor([VOCABULARY_SIZE - 2, *range(1, words + 1), VOCABULARY_SIZE - 1])
    return [
        GraphPlan(
            role="proposal_encoder",
            module=encoder(clip.visual, method, layout),
            inputs={
                "image": torch.zeros(*_IMAGE_SIZE, 3, dtype=torch.uint8),
                "masks": masks,
                "global_weight": torch.tensor(method.global_weight),
            },
            outputs=("global_features", "local_features", "features"),
            dynamic={"image": {0: "H", 1: "W"}, "masks": {0: "N", 1: "H", 2: "W"}},
        ),
        GraphPlan(
            role="text_encoder",
            module=ClipTextEncoder(clip, normalised=method.similarity == "dot", layout=layout),
            inputs={"tokens": tokens},
            outputs=("features",),
            dynamic={"tokens": {0: "T"}},
        ),
    ]
