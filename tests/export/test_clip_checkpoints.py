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
from risexport.checkpoints.clip_checkpoints import load_clip

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 24},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
RESNET = {"layers": [1, 2, 1, 1], "width": 8, "head_width": 32, "image_size": 32}


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
        assert torch.equal(actual[name], value.to(actual[name].dtype)), name
        assert actual[name].dtype in (torch.float32, torch.int64), name
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


class _Writer(nn.Module):
    """Writes a file when its archive is opened."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, image: Tensor) -> Tensor:
        return image

    @torch.jit.export
    def __getstate__(self) -> str:
        return self.path

    @torch.jit.export
    def __setstate__(self, state: str) -> None:
        torch.save(torch.zeros(1), state)
        self.path = state
        self.training = False


def test_an_archive_whose_code_would_run_is_refused(config: str, tmp_path: Path) -> None:
    written, path = tmp_path / "written", tmp_path / "archive.pt"
    torch.jit.script(_Writer(str(written))).save(str(path))
    with pytest.raises(InputError, match="code that runs when it is opened"):
        load_clip(config, path)
    assert not written.exists()


def test_a_damaged_zip_is_refused(config: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    torch.save({"a": torch.zeros(100)}, path)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place : place + 2] = b"XX"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"clip\.pt"):
        load_clip(config, path)


@pytest.mark.parametrize("vision", [CONFIG["vision_cfg"], RESNET], ids=["vit", "resnet"])
def test_openai_archive(vision: dict[str, object], tmp_path: Path) -> None:
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

    content = {**CONFIG, "vision_cfg": vision}
    config = _write(tmp_path / "clip.json", content)
    torch.manual_seed(11)
    model = open_clip.CLIP(**content).half()
    path = tmp_path / "openai.pt"
    torch.jit.trace(Archive(model), torch.zeros(1)).save(str(path))
    clip, _ = load_clip(config, path)
    _assert_loaded(clip, model.state_dict())
    assert isinstance(clip.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"openai\.pt"):
        load_clip(config, path)


def test_weights_that_do_not_fit_are_named(config: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    for change, message in (
        (lambda weights: weights.pop("ln_final.bias"), r"missing: ln_final\.bias"),
        (lambda weights: weights.update(head=torch.zeros(1)), "unexpected: head"),
        (
            lambda weights: weights.update(positional_embedding=torch.zeros(77, 64)),
            r"text context of 77 tokens, the model's configuration says 12\. Pass .* text_cfg\.context_length = 77",
        ),
        (lambda weights: weights.update(positional_embedding=torch.zeros(12, 8)), r"\(12, 8\), the model expects"),
        (
            lambda weights: weights.update({"visual.positional_embedding": torch.zeros(26, 64)}),
            r"visual\.positional_embedding has shape \(26, 64\), the model expects \(10, 64\)",
        ),
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


@pytest.mark.parametrize("form", ["zip", "legacy", "script", "safetensors"])
def test_truncated_files_are_refused(config: str, tmp_path: Path, form: str) -> None:
    path = tmp_path / ("clip.safetensors" if form == "safetensors" else "clip.pt")
    weights = {name: value.clone() for name, value in _weights().items()}
    if form == "safetensors":
        save_file(weights, path)
    elif form == "script":
        torch.jit.trace(nn.Linear(40, 40), torch.zeros(40)).save(str(path))
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    early = range(1, 2000, 61)  # inside a pickle's opcodes
    for length in {*early, *(len(data) * part // 20 for part in range(1, 20)), len(data) - 1}:
        path.write_bytes(data[: min(length, len(data) - 1)])
        with pytest.raises(InputError, match=r"clip\.(pt|safetensors) is .*(Get it again|ask its author)"):
            load_clip(config, path)


@pytest.mark.parametrize("form", ["pt", "legacy", "safetensors"])
def test_half_precision_becomes_single(config: str, tmp_path: Path, form: str) -> None:
    weights = {name: value.half() for name, value in _weights().items()}
    path = tmp_path / ("clip.safetensors" if form == "safetensors" else "clip.pt")
    if form == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == "pt")
    clip, _ = load_clip(config, path)
    assert {parameter.dtype for parameter in clip.parameters()} == {torch.float32}
    _assert_loaded(clip, weights)


def test_a_folder_is_no_checkpoint(config: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder; expected a file or a tag\. Name the file"):
        load_clip(config, tmp_path)


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        (
            {"url": "https://example.org/a.pt", "hf_hub": "timm/vit_base.openai/"},
            "https://huggingface.co/timm/vit_base.openai",
        ),
        ({"url": "", "hf_hub": "laion/CLIP/weights.bin"}, "https://huggingface.co/laion/CLIP"),
        ({"url": "https://example.org/a.pt", "hf_hub": ""}, "https://example.org/a.pt"),
    ],
)
def test_a_tag_and_its_address_are_recorded(
    entry: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.save(_weights(), tmp_path / "blob.pt")
    monkeypatch.setattr("open_clip.get_model_config", lambda _: CONFIG)
    monkeypatch.setattr("risexport.checkpoints.clip_checkpoints.get_pretrained_cfg", lambda *_: entry)
    monkeypatch.setattr(
        "risexport.checkpoints.clip_checkpoints.download_pretrained", lambda *_: str(tmp_path / "blob.pt")
    )
    _, facts = load_clip("ViT-S-32", "some_tag")
    assert (facts.checkpoint, facts.url) == ("some_tag", url)
    assert facts.sha256 == hashlib.sha256((tmp_path / "blob.pt").read_bytes()).hexdigest()


def test_a_hub_model_brings_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_file({name: value.clone() for name, value in _weights().items()}, tmp_path / "open_clip_model.safetensors")
    content = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    _write(tmp_path / "open_clip_config.json", content)

    def download(repository: str, filename: str = "open_clip_model.safetensors") -> str:
        assert repository == "org/clip"
        return str(tmp_path / filename)

    monkeypatch.setattr("risexport.checkpoints.clip_checkpoints.download_pretrained_from_hf", download)
    clip, facts = load_clip("hf-hub:org/clip")
    _assert_loaded(clip, _weights())
    assert (facts.model, facts.checkpoint) == ("hf-hub:org/clip", "open_clip_model.safetensors")
    assert facts.url == "https://huggingface.co/org/clip"
    assert facts.std == (0.25, 0.25, 0.25)
    _, facts = load_clip("hf-hub:org/clip", tmp_path / "open_clip_model.safetensors")
    assert facts.url == ""  # the caller's own file


def test_openai_names_and_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("risexport.checkpoints.clip_checkpoints.download_pretrained", offline)
    with pytest.raises(InputError, match="ViT-B-32, tag openai could not be downloaded: no route to host"):
        load_clip("ViT-B/32", "openai")


def test_openai_tag_implies_quick_gelu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "ViT-S-32"
    entry = {"quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    torch.save(_weights(), tmp_path / "tag.pt")
    monkeypatch.setattr("open_clip.get_model_config", lambda _: CONFIG)
    monkeypatch.setattr("risexport.checkpoints.clip_checkpoints.get_pretrained_cfg", lambda *_: entry)
    monkeypatch.setattr(
        "risexport.checkpoints.clip_checkpoints.download_pretrained", lambda *_: str(tmp_path / "tag.pt")
    )
    clip, facts = load_clip(name, "some_tag")
    assert isinstance(clip.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    assert (facts.model, facts.mean, facts.std) == (name, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_cfg": {**CONFIG["text_cfg"], "vocab_size": 32000}}, "32000"),
        ({"text_cfg": {**CONFIG["text_cfg"], "hf_model_name": "roberta-base"}}, "text tower other than CLIP's"),
        ({"vision_cfg": {"timm_model_name": "vit_tiny"}}, "image tower vit_tiny of timm; .* class token"),
        ({"multimodal_cfg": {"layers": 1}}, "is a CoCa.* attentional pooling"),
        ({"vision_cfg": {**CONFIG["vision_cfg"], "image_size": [24, 32]}}, "24 x 32"),
        ({"vision_cfg": {**CONFIG["vision_cfg"], "colour": "red"}}, "colour"),
        ({"vision_cfg": None}, "lacks vision_cfg"),
        ({"vision_cfg": {**CONFIG["vision_cfg"], "layers": "many"}}, "not one that open_clip builds"),
    ],
)
def test_other_architectures_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_clip(_write(tmp_path / "clip.json", {**CONFIG, **change}))


@pytest.mark.parametrize("model", ["ViT-B-16-SigLIP", "ViT-SO400M-14-SigLIP2", "coca_ViT-B-32", "EVA02-B-16"])
def test_towers_without_a_usable_class_token_say_so(model: str) -> None:
    with pytest.raises(InputError, match=r"class token.*Use a plain CLIP such as ViT-B-32"):
        load_clip(model)


def test_bad_configurations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_clip(str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"lacks vision_cfg, text_cfg"):
        load_clip(_write(tmp_path / "clip.json", {"embed_dim": 3}))
    (tmp_path / "clip.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_clip(str(tmp_path / "clip.json"))


@pytest.mark.parametrize(
    "preprocess",
    [None, {"mean": 0.5}, {"mean": [0.1, 0.2]}, {"std": [0.2, 0.0, 0.2]}, {"std": ["a", "b", "c"]}],
    ids=repr,
)
def test_bad_preprocessing_is_refused(preprocess: object, tmp_path: Path) -> None:
    path = _write(tmp_path / "clip.json", {"model_cfg": CONFIG, "preprocess_cfg": preprocess})
    with pytest.raises(InputError, match=r"preprocess_cfg\.(mean|std) is .*expected three numbers"):
        load_clip(path)


def test_resnet_is_recognised(tmp_path: Path) -> None:
    _, facts = load_clip(_write(tmp_path / "resnet.json", {**CONFIG, "vision_cfg": RESNET}))
    assert (facts.family, facts.image_size_px) == ("resnet", 32)
