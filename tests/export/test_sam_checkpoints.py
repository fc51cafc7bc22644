"""SAM models and checkpoint files: what loads, and with which words everything else is refused."""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from segment_anything.modeling import MaskDecoder, Sam
from torch import nn

from risengine.bundle import file_sha256
from risengine.errors import InputError
from risexport.checkpoints.checkpoint_files import load_weights, read_state_dict
from risexport.checkpoints.sam_checkpoints import load_sam

FACTORY = "tiny_sam_models:build"


@pytest.fixture(autouse=True)
def factory(make_sam: Callable[..., Sam], monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("tiny_sam_models")
    module.build = make_sam  # type: ignore[attr-defined]
    module.build_random = lambda: randomised(make_sam())  # type: ignore[attr-defined]
    module.build_linear = lambda: nn.Linear(2, 2)  # type: ignore[attr-defined]
    module.build_sized = lambda size_px: make_sam(size_px)  # type: ignore[attr-defined]
    module.build_two_masks = lambda: with_masks(make_sam(), 2)  # type: ignore[attr-defined]
    module.no_function = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tiny_sam_models", module)


def randomised(sam: Sam) -> Sam:
    """Draws weights from torch's own generator, as segment-anything's builders do."""
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return sam


def with_masks(sam: Sam, count: int) -> Sam:
    sam.mask_decoder = MaskDecoder(
        transformer_dim=32, transformer=sam.mask_decoder.transformer, num_multimask_outputs=count
    )
    return sam


def changed_state(sam: Sam) -> dict[str, torch.Tensor]:
    return {name: value + 1.0 for name, value in sam.state_dict().items()}


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped", "parallel", "half"])
def test_loads_every_form(tiny_sam: Sam, tmp_path: Path, form: str) -> None:
    state = changed_state(tiny_sam)
    path = tmp_path / ("sam.safetensors" if form == "safetensors" else "sam.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "wrapped":
        torch.save({"model": state, "step": 7}, path)
    elif form == "parallel":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    else:
        torch.save({name: value.half() if form == "half" else value for name, value in state.items()}, path)
    before = path.read_bytes()
    sam, facts = load_sam(FACTORY, path)
    for name, value in sam.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, state[name], rtol=1e-3, atol=1e-3)
    assert (facts.model, facts.checkpoint, facts.sha256) == (FACTORY, path.name, file_sha256(path))
    assert facts.image_size_px == 64
    assert not sam.training
    assert path.read_bytes() == before


def test_random_weights_are_always_the_same(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    first, facts = load_sam("tiny_sam_models:build_random")
    assert (facts.checkpoint, facts.sha256, facts.image_size_px) == ("random", "", 64)
    assert "random weights" in caplog.text
    torch.manual_seed(2)
    second, _ = load_sam("tiny_sam_models:build_random")
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("vitb", "did you mean vit_b"),
        ("nothing_like_it", "expected one of vit_b, vit_h, vit_l"),
        ("no_such_module:build", "No module named 'no_such_module'"),
        ("tiny_sam_models:no_such_function", "no_such_function"),
        (":build", "Empty module name"),
        ("tiny_sam_models:build_linear", r"is a Linear; expected a segment_anything.* Return one"),
        ("tiny_sam_models:build_sized", r"missing 1 required positional argument.* takes no arguments"),
        ("tiny_sam_models:no_function", "'int' object is not callable"),
        ("tiny_sam_models:build_two_masks", r"decodes 2 masks a prompt; expected 3\. Build its MaskDecoder with"),
    ],
)
def test_unusable_models_are_refused(model: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_sam(model)


def test_a_module_that_fails_to_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_sam_module.py").write_text("raise RuntimeError('no licence server')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"RuntimeError: no licence server\). Check .* imports on its own"):
        load_sam("broken_sam_module:build")


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code from a checkpoint ran",))


def write_unusable(path: Path, kind: str) -> None:
    if kind == "missing":
        return
    if kind == "folder":
        path.mkdir()
        return
    torch.save({"weight": torch.ones(1000)}, path)
    writers: dict[str, Callable[[], object]] = {
        "unsafe": lambda: torch.save({"weight": Payload()}, path),
        "whole module": lambda: torch.save(nn.Linear(2, 2), path),
        "arguments": lambda: torch.save({"model": {"a": torch.ones(1)}, "args": argparse.Namespace()}, path),
        "unsafe, legacy": lambda: torch.save({"weight": Payload()}, path, _use_new_zipfile_serialization=False),
        "truncated": lambda: path.write_bytes(path.read_bytes()[:-1500]),
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("<html>404</html>", encoding="utf-8"),
        "list": lambda: torch.save([torch.ones(2)], path),
        "numbers": lambda: torch.save({"epoch": 3}, path),
    }
    writers[kind]()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "expected a file, found nothing"),
        ("folder", "expected a file, found a folder"),
        ("unsafe", "refused: unpickling it calls print"),
        ("unsafe, legacy", "refused: unpickling it calls print"),
        ("whole module", "refused: unpickling it calls torch.nn.modules.linear.Linear"),
        ("arguments", "refused: unpickling it calls argparse.Namespace"),
        ("truncated", "truncated"),
        ("empty", "empty"),
        ("text", "no file of torch.save"),
        ("list", "holds a list; expected a state dict"),
        ("numbers", "'epoch' is a int; expected a state dict"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, words: str) -> None:
    path = tmp_path / "sam.pth"
    write_unusable(path, kind)
    with pytest.raises(InputError, match=words):
        read_state_dict(path)
    assert "ran" not in capfd.readouterr().out


def test_truncated_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam.safetensors"
    save_file({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        read_state_dict(path)


def test_weights_that_do_not_fit_are_named() -> None:
    state = nn.Linear(2, 3).state_dict()
    with pytest.raises(InputError, match=r"missing: bias; unexpected: scale\."):
        load_weights(nn.Linear(2, 3), {"weight": state["weight"], "scale": state["bias"]}, "checkpoint x")
    with pytest.raises(InputError, match=r"bias has shape \(4,\), the model expects \(3,\)"):
        load_weights(nn.Linear(2, 3), {**state, "bias": torch.zeros(4)}, "checkpoint x")
    with pytest.raises(InputError, match="weight holds NaN"):
        load_weights(nn.Linear(2, 3), {**state, "weight": state["weight"] * torch.nan}, "checkpoint x")
    with pytest.raises(InputError, match="and 1 more"):
        load_weights(nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(6))), {}, "checkpoint x")
