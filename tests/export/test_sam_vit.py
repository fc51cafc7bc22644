"""segment-anything's ViT encoder against the form that is exported."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from risexport.sam import sam_vit
from risexport.sam.sam_vit import VitImageEncoder


def _encoder(**changes: object) -> ImageEncoderViT:
    """Two windowed blocks, whose windows of 4 leave padding on a grid of 10, around a global one."""
    settings = {
        "img_size": 160,
        "patch_size": 16,
        "embed_dim": 48,
        "depth": 3,
        "num_heads": 4,
        "out_chans": 16,
        "window_size": 4,
        "global_attn_indexes": (1,),
        "use_rel_pos": True,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    }
    torch.manual_seed(0)
    encoder = ImageEncoderViT(**{**settings, **changes})
    for parameter in encoder.parameters():  # positions start as zeros
        nn.init.normal_(parameter, std=0.1)
    return encoder.eval()


@pytest.mark.parametrize("rows", [1, 3, 10])
@pytest.mark.parametrize("changes", [{}, {"use_rel_pos": False}, {"use_abs_pos": False}, {"qkv_bias": False}], ids=str)
def test_the_embedding_is_the_stock_encoders_in_any_grouping_of_rows(rows, changes, monkeypatch):
    monkeypatch.setattr(sam_vit, "_LOGITS", 4 * rows * 10 * 100)
    encoder = _encoder(**changes)
    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        expected, actual = encoder(images), VitImageEncoder(encoder)(images)
    assert (actual - expected).norm() <= 1e-6 * expected.norm()
