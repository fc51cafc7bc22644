"""The reference's proposals against the stock generator, and the whole pipeline on random weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from bench_samples import CLEAN
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from risbench.data.refer import Ref, Sentence
from risbench.quality.answers import ImageTruth, answer_image
from risbench.reference import ReferencePipeline
from risbench.reference.proposals import generate_proposals
from risengine.errors import InputError
from risengine.method import ProposalSettings

ANY_MASK = ProposalSettings(
    points_per_side=4, points_per_batch=5, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)
NO_MASK = dataclasses.replace(ANY_MASK, pred_iou_thresh=1e6)
METHOD = dataclasses.replace(CLEAN, image_size_px=32, masked_blocks=2, global_weight=0.7, tokenisation="spaced")


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(3)
    encoder = ImageEncoderViT(img_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, out_chans=32)
    prompts = PromptEncoder(embed_dim=32, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=32)
    decoder = MaskDecoder(transformer_dim=32, transformer=transformer, iou_head_depth=2, iou_head_hidden_dim=16)
    sam = Sam(encoder, prompts, decoder).eval()
    torch.nn.init.constant_(decoder.iou_prediction_head.layers[-1].bias, 0.8)
    return sam


@pytest.fixture(scope="module")
def pipeline(sam: Sam) -> ReferencePipeline:
    torch.manual_seed(4)
    vision = {"image_size": 32, "patch_size": 8, "width": 16, "head_width": 8, "layers": 3}
    clip = CLIP(12, vision, {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1})
    return ReferencePipeline(clip.eval(), SimpleTokenizer(), sam, METHOD, ANY_MASK)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat(np.repeat(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), 9, axis=0), 9, axis=1)


def test_proposals_equal_the_stock_generators(sam: Sam, image: np.ndarray) -> None:
    settings = dataclasses.asdict(ANY_MASK)
    del settings["search"]  # risengine's own
    records = SamAutomaticMaskGenerator(sam, **settings).generate(image)
    proposals = generate_proposals(sam, image, ANY_MASK)
    assert len(records) > 3
    assert np.array_equal(proposals.masks, [record["segmentation"] for record in records])
    np.testing.assert_array_equal(proposals.scores, np.float32([record["predicted_iou"] for record in records]))
    assert (np.diff(proposals.scores) <= 0).all()
    inclusive = [[x, y, x + w + 1, y + h + 1] for x, y, w, h in (record["bbox"] for record in records)]
    np.testing.assert_array_equal(proposals.boxes, inclusive)


def test_nothing_proposed(pipeline: ReferencePipeline, image: np.ndarray) -> None:
    empty = dataclasses.replace(pipeline, proposals=NO_MASK)
    encoded = empty.encode_image(image)
    assert encoded.proposals.masks.shape == (0, 45, 63)
    assert encoded.features.shape == (0, 12)
    assert empty.rank(encoded, "the red mug") == []
    with pytest.raises(InputError, match="no object"):
        empty.segment(encoded, "the red mug")


def test_score_is_the_cosine_of_the_mixed_features(pipeline: ReferencePipeline, image: np.ndarray) -> None:
    masks = np.zeros((3, 45, 63), np.bool_)
    masks[0, :20, :20] = masks[1, 10:40, 30:60] = masks[2, 30:, :] = True
    encoded = pipeline.encode_image(image, masks=masks)
    np.testing.assert_array_equal(encoded.proposals.boxes, [[0, 0, 20, 20], [30, 10, 60, 40], [0, 30, 63, 45]])
    np.testing.assert_allclose(np.linalg.norm(encoded.features, axis=1), 1, rtol=1e-5)

    ranked = pipeline.rank(encoded, "The man's red umbrella on the table")
    assert [answer.phrase for answer in ranked] == ["the man 's red umbrella"] * 3
    tokens = pipeline.tokenizer(["the man 's red umbrella on the table", "the man 's red umbrella"])
    with torch.inference_mode():
        text = pipeline.clip.encode_text(tokens).mean(0)
        scores = torch.cosine_similarity(torch.from_numpy(encoded.features), text[None])
    assert [answer.index for answer in ranked] == scores.argsort(descending=True).tolist()
    np.testing.assert_allclose([answer.score for answer in ranked], scores.sort(descending=True).values, rtol=1e-4)
    best = pipeline.segment(encoded, "The man's red umbrella on the table")
    assert np.array_equal(best.mask, masks[best.index])
    assert set(best.timings_ms) == {"load_image", "proposals", "proposal_features", "phrase", "text_features", "score"}


def test_many_expressions_on_one_image(pipeline: ReferencePipeline, image: np.ndarray) -> None:
    encoded = pipeline.encode_image(image)
    assert len(encoded.features) == len(encoded.proposals) > 0
    again = pipeline.segment(image, "the bowl")
    assert again.index == pipeline.rank(encoded, "the bowl", top_k=1)[0].index


def test_accuracy_can_be_measured_of_the_reference_too(pipeline: ReferencePipeline, image: np.ndarray) -> None:
    encoded = pipeline.encode_image(image)
    target = encoded.proposals.masks[1]
    truth = ImageTruth((5, 6), np.stack([~target, target]))
    sentence = Sentence(1, "the bowl", "The bowl", ["the", "bowl"], fits=[6])
    (answer,) = answer_image(pipeline, encoded, truth, [Ref(1, 6, 9, 1, "val", [1], [sentence])])
    best = pipeline.segment(encoded, "the bowl")
    expected = (best.mask & target).sum() / (best.mask | target).sum()
    assert answer.overlap.iou == pytest.approx(expected)
    assert answer.oracle.iou == 1
