"""CLIP checkpoints: every form that is read, and every refusal with its reason."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from risengine.errors import InputError
from risexport.clip_checkpoints import load_clip

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 24},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    return _write(tmp_path / "clip.json", CONFIG)


def _write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def _weights() -> dict[str, Tensor]:
    torch.manual_seed(11)
    return open_clip.CLIP(**CONFIG).state_dict()


def _assert_loaded(clip: nn.Module, expected: dict[str, Tensor]) -> None:
    actual = clip.state_dict()
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert torch.equal(actual[name], value.float()), name
    assert not clip.training


def test_random_weights_are_reproducible(config: str) -> None:
    first, facts = load_clip(config)
    torch.manual_seed(99)
    second, _ = load_clip(config)
    _assert_loaded(second, first.state_dict())
    assert (facts.model, facts.checkpoint, facts.sha256) == ("clip.json", "random", "")
    assert (facts.family, facts.image_size_px, facts.embed_dim, facts.context_length) == ("vit", 24, 16, 12)
    assert facts.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)


def test_safetensors_and_training_checkpoint(config: str, tmp_path: Path) -> None:
    weights = _weights()
    path = tmp_path / "clip.safetensors"
    save_file({name: value.clone() for name, value in weights.items()}, path)
    clip, facts = load_clip(config, path)
    _assert_loaded(clip, weights)
    assert (facts.checkpoint, facts.sha256) == ("clip.safetensors", hashlib.sha256(path.read_bytes()).hexdigest())

    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}, "optimizer": {}}
    torch.save(wrapped, tmp_path / "epoch.pt")
    _assert_loaded(load_clip(config, str(tmp_path / "epoch.pt"))[0], weights)


def test_custom_text_model_takes_old_names(tmp_path: Path) -> None:
    weights = _weights()
    torch.save(weights, tmp_path / "clip.pt")
    clip, _ = load_clip(_write(tmp_path / "custom.json", {**CONFIG, "custom_text": True}), tmp_path / "clip.pt")
    assert torch.equal(clip.text.ln_final.weight, weights["ln_final.weight"])


def test_openai_archive(config: str, tmp_path: Path) -> None:
    class Archive(nn.Module):
        """Parameters under CLIP's names in float16 beside OpenAI's three extra entries, as in its releases."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            for name, child in model.named_children():
                self.add_module(name, child)
            for name, parameter in model.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            for name, value in (("input_resolution", 24), ("context_length", 12), ("vocab_size", 49408)):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, image: Tensor) -> Tensor:
            return image + 1

    model = open_clip.CLIP(**CONFIG)
    model.load_state_dict(_weights())
    model.half()
    path = tmp_path / "openai.pt"
    torch.jit.trace(Archive(model), torch.zeros(1)).save(str(path))
    clip, _ = load_clip(config, path)
    _assert_loaded(clip, model.state_dict())
    assert isinstance(clip.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"openai\.pt"):
        load_clip(config, path)


def test_weights_that_do_not_fit_are_named(config: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    for change, message in (
        (lambda weights: weights.pop("ln_final.bias"), r"missing: ln_final\.bias"),
        (lambda weights: weights.update(head=torch.zeros(1)), "unexpected: head"),
        (lambda weights: weights.update(positional_embedding=torch.zeros(77, 64)), r"positional_embedding.*\(77, 64\)"),
        (lambda weights: weights["ln_final.bias"].fill_(float("nan")), r"ln_final\.bias holds NaN"),
    ):
        weights = _weights()
        change(weights)
        torch.save(weights, path)
        with pytest.raises(InputError, match=message):
            load_clip(config, path)


def test_unsafe_and_broken_files_are_refused(config: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    torch.save({"state_dict": _weights(), "hook": Path}, path)
    with pytest.raises(InputError, match="refused: unpickling it calls pathlib"):
        load_clip(config, path)
    torch.save(_weights(), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match="truncated"):
        load_clip(config, path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        load_clip(config, path)


def test_unknown_names_get_suggestions(config: str) -> None:
    with pytest.raises(InputError, match=r"did you mean .*ViT-B-32"):
        load_clip("ViT-B32")
    with pytest.raises(InputError, match="did you mean laion2b_s34b_b79k"):
        load_clip("ViT-B-32", "laion2b_s34b_b79")
    with pytest.raises(InputError, match=r"neither a file nor an open_clip tag of clip\.json"):
        load_clip(config, "missing.pt")


def test_openai_names_and_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("risexport.clip_checkpoints.download_pretrained", offline)
    with pytest.raises(InputError, match="ViT-B-32, tag openai could not be downloaded: no route to host"):
        load_clip("ViT-B/32", "openai")


def test_openai_tag_implies_quick_gelu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "ViT-S-32"
    entry = {"quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    torch.save(_weights(), tmp_path / "tag.pt")
    monkeypatch.setattr("open_clip.get_model_config", lambda _: CONFIG)
    monkeypatch.setattr("risexport.clip_checkpoints.get_pretrained_cfg", lambda *_: entry)
    monkeypatch.setattr("risexport.clip_checkpoints.download_pretrained", lambda *_: str(tmp_path / "tag.pt"))
    clip, facts = load_clip(name, "some_tag")
    assert isinstance(clip.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    assert (facts.model, facts.mean, facts.std) == (name, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_cfg": {**CONFIG["text_cfg"], "vocab_size": 32000}}, "32000"),
        ({"text_cfg": {**CONFIG["text_cfg"], "hf_model_name": "roberta-base"}}, "text tower other than CLIP's"),
        ({"vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"}}, "vit_base_patch16_siglip_224"),
        ({"vision_cfg": {**CONFIG["vision_cfg"], "image_size": [24, 32]}}, "24 x 32"),
        ({"vision_cfg": {**CONFIG["vision_cfg"], "colour": "red"}}, "colour"),
        ({"vision_cfg": None}, "lacks vision_cfg"),
        ({"vision_cfg": {**CONFIG["vision_cfg"], "layers": "many"}}, "not one that open_clip builds"),
    ],
)
def test_other_architectures_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_clip(_write(tmp_path / "clip.json", {**CONFIG, **change}))


def test_bad_configurations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_clip(str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"lacks vision_cfg, text_cfg"):
        load_clip(_write(tmp_path / "clip.json", {"embed_dim": 3}))
    (tmp_path / "clip.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_clip(str(tmp_path / "clip.json"))


def test_resnet_is_recognised(tmp_path: Path) -> None:
    vision = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "image_size": 32}
    _, facts = load_clip(_write(tmp_path / "resnet.json", {**CONFIG, "vision_cfg": vision}))
    assert (facts.family, facts.image_size_px) == ("resnet", 32)
