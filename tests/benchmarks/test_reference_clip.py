"""The reference's CLIP stages against open_clip itself, on small towers with random weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from bench_samples import CLEAN, REFERENCE
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer

from risbench.reference.preprocess import normalise, squash, token_weights
from risbench.reference.text import ParsedText, encode_expression, encode_texts, parse_text
from risbench.reference.visual import encode_masks, global_features_vit
from risengine.errors import InputError
from risengine.language.phrase import noun_phrase
from risengine.method import Method

PRESETS = pytest.mark.parametrize("method", [CLEAN, REFERENCE], ids=["clean", "reference"])


def _perturbed(model: CLIP) -> CLIP:
    """LayerNorm and bias start at 1 and 0, which would hide their misuse."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def vit() -> CLIP:
    torch.manual_seed(0)
    vision = {"image_size": 48, "patch_size": 16, "width": 32, "head_width": 8, "layers": 5}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    return _perturbed(CLIP(24, vision, text))


@pytest.fixture(scope="module")
def resnet() -> CLIP:
    torch.manual_seed(0)
    vision = {"image_size": 96, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    return _perturbed(CLIP(24, vision, text))


@pytest.fixture(scope="module")
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (37, 61, 3), dtype=np.uint8)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def _whole(image: np.ndarray, method: Method) -> torch.Tensor:
    return squash(normalise(image, method, torch.device("cpu")), method)


@PRESETS
@pytest.mark.parametrize("masked_blocks", [0, 3, 5])
def test_masks_of_ones_give_open_clips_image_feature(
    vit: CLIP, image: np.ndarray, method: Method, masked_blocks: int
) -> None:
    method = dataclasses.replace(method, masked_blocks=masked_blocks)
    features = encode_masks(vit.visual, image, np.ones((2, 37, 61), np.bool_), method)
    with torch.inference_mode():
        expected = vit.encode_image(_whole(image, method)).expand(2, -1)
    torch.testing.assert_close(features.global_features, expected, rtol=1e-4, atol=1e-5)


def test_without_masked_blocks_every_mask_gets_the_image_feature(vit: CLIP, image: np.ndarray) -> None:
    whole = _whole(image, CLEAN)
    with torch.inference_mode():
        expected = vit.encode_image(whole)
    features = global_features_vit(vit.visual, whole, torch.zeros(1, 9), 0)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@PRESETS
@pytest.mark.parametrize("masked_blocks", [1, 3])
def test_global_feature_of_masks_equals_open_clip_with_hooks(
    vit: CLIP, image: np.ndarray, rng: np.random.Generator, method: Method, masked_blocks: int
) -> None:
    """open_clip's own forward, one mask at a time, its last blocks' inputs multiplied by a hook."""
    masks = rng.random((3, 37, 61)) < 0.5
    masks[1, 5:] = False
    method = dataclasses.replace(method, masked_blocks=masked_blocks)
    actual = encode_masks(vit.visual, image, masks, method).global_features
    for mask, feature in zip(masks, actual, strict=True):
        weight = token_weights(torch.from_numpy(mask[None]), (3, 3), method)
        factor = torch.cat([torch.ones(1, 1), weight], dim=1)[..., None]
        hooks = [
            block.register_forward_pre_hook(lambda _, args, factor=factor: (args[0] * factor, *args[1:]))
            for block in vit.visual.transformer.resblocks[-masked_blocks:]
        ]
        with torch.inference_mode():
            expected = vit.encode_image(_whole(image, method))[0]
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-5)


def test_masking_changes_the_global_feature(vit: CLIP, image: np.ndarray) -> None:
    masks = np.zeros((2, 37, 61), np.bool_)
    masks[0] = True
    masks[1, 10:20, 30:50] = True
    one, part = encode_masks(vit.visual, image, masks, CLEAN).global_features
    assert (one - part).abs().max() > 1e-2


def test_hybridgls_encoder_is_refused(vit: CLIP, image: np.ndarray) -> None:
    fused = dataclasses.replace(CLEAN, fusion="g2l", global_weight=0.0)
    with pytest.raises(InputError, match="fusion g2l; expected none"):
        encode_masks(vit.visual, image, np.ones((1, 37, 61), np.bool_), fused)


@PRESETS
def test_local_feature_is_open_clips_feature_of_the_filled_crop(vit: CLIP, image: np.ndarray, method: Method) -> None:
    mask = np.zeros((37, 61), np.bool_)
    mask[4:21, 10:41] = True
    mask[8:12, 20:30] = False
    features = encode_masks(vit.visual, image, mask[None], method)
    pixels = normalise(image, method, torch.device("cpu"))
    filled = torch.where(torch.from_numpy(mask), pixels, torch.tensor(method.fill).view(1, 3, 1, 1))
    shift = 0 if method.box_rule == "tight" else 1
    crop = filled[:, :, 4 - shift : 21 - shift, 10 - shift : 41 - shift]
    resized = F.interpolate(crop, (48, 48), mode="bilinear", antialias=method.resize == "antialias")
    with torch.inference_mode():
        expected = vit.encode_image(resized)
    torch.testing.assert_close(features.local_features, expected, rtol=1e-4, atol=1e-5)
    mixed = 0.95 * features.global_features + 0.05 * features.local_features
    torch.testing.assert_close(features.features, mixed, rtol=1e-4, atol=1e-6)


def test_resnet_features(resnet: CLIP, image: np.ndarray) -> None:
    method = dataclasses.replace(REFERENCE, image_size_px=96, masked_blocks=0, similarity="dot")
    mask = np.zeros((37, 61), np.bool_)
    mask[:20, :35] = True
    features = encode_masks(resnet.visual, image, np.stack([mask, np.ones_like(mask)]), method)

    maps: list[torch.Tensor] = []
    hook = resnet.visual.attnpool.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
    with torch.inference_mode():
        resnet.encode_image(_whole(image, method))
        hook.remove()
        unit = maps[0] / maps[0].norm(dim=1, keepdim=True)
        weight = F.interpolate(torch.from_numpy(mask)[None, None].float(), (3, 3), mode="bilinear")
        expected = resnet.visual.attnpool(torch.cat([unit * weight, unit]))
    torch.testing.assert_close(features.global_features, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.local_features.norm(dim=1), torch.ones(2), rtol=1e-5, atol=0)


def test_no_masks_give_no_features(vit: CLIP, image: np.ndarray) -> None:
    assert encode_masks(vit.visual, image, np.zeros((0, 37, 61), np.bool_), CLEAN).features.shape == (0, 24)


def test_unusable_masks_and_towers_are_refused(vit: CLIP, image: np.ndarray) -> None:
    with pytest.raises(InputError, match="empty"):
        encode_masks(vit.visual, image, np.zeros((1, 37, 61), np.bool_), CLEAN)
    with pytest.raises(InputError, match="expected the image's"):
        encode_masks(vit.visual, image, np.ones((1, 37, 60), np.bool_), CLEAN)
    averaging = open_clip.transformer.VisionTransformer(48, 16, 32, 1, 4, 4.0, pool_type="avg")
    with pytest.raises(InputError, match="no class token"):
        encode_masks(averaging, image, np.ones((1, 37, 61), np.bool_), CLEAN)


def test_text_features_equal_encode_text(vit: CLIP, tokenizer: SimpleTokenizer) -> None:
    texts = ["the red mug", "man 's left hand"]
    with torch.inference_mode():
        expected = vit.encode_text(tokenizer(texts))
    torch.testing.assert_close(encode_texts(vit, tokenizer, texts), expected, rtol=0, atol=0)
    parsed = ParsedText(*texts)
    mixed = encode_expression(vit, tokenizer, parsed, dataclasses.replace(CLEAN, sentence_weight=0.25))
    torch.testing.assert_close(mixed, 0.25 * expected[0] + 0.75 * expected[1], rtol=1e-6, atol=1e-7)
    dot = encode_expression(vit, tokenizer, parsed, dataclasses.replace(CLEAN, similarity="dot"))
    unit = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(dot, unit.mean(0), rtol=1e-5, atol=1e-6)


def test_too_many_tokens_are_refused(vit: CLIP, tokenizer: SimpleTokenizer) -> None:
    encode_texts(vit, tokenizer, ["red " * 75])
    with pytest.raises(InputError, match="78 CLIP tokens; at most 77"):
        encode_texts(vit, tokenizer, ["red " * 76])


@pytest.mark.parametrize(
    ("text", "sentence", "phrase"),
    [
        ("The man's red umbrella", "the man 's red umbrella", "the man 's red umbrella"),
        ("the green bottle behind the blue box", "the green bottle behind the blue box", "the green bottle"),
        ("left", "left", "left"),
    ],
)
def test_spelling_and_noun_phrase(text: str, sentence: str, phrase: str) -> None:
    assert parse_text(text, REFERENCE) == ParsedText(sentence, phrase)
    assert parse_text(text, CLEAN).sentence == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "the small red cube",
        "woman sitting down",
        "the leftmost mug",
        "the mug at the back",
        "a guy who is holding the second racket from the left",
        "standing behind the sofa",
        "bowl",
        "in front of it",
        "far right",
        "not the red one, the blue one next to it",
    ],
)
def test_engine_finds_the_same_noun_phrase(text: str) -> None:
    parsed = parse_text(text, REFERENCE)
    assert noun_phrase(parsed.sentence) == parsed.phrase


def test_blank_text_is_refused() -> None:
    for method in (CLEAN, REFERENCE):
        with pytest.raises(InputError, match="blank"):
            parse_text("  ", method)
