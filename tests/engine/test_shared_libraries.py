"""What a provider of ONNX Runtime needs is looked for without starting it, its libraries' version where it looks."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import FakeCudart
from fake_ort import FakeOnnxRuntime
from fake_tensorrt import SPEC, compute

from risengine.backends import onnx_session, shared_libraries
from risengine.backends.devices import find_device
from risengine.backends.onnx_providers import find_provider, onnxruntime_module
from risengine.backends.shared_libraries import missing_libraries, shared_library_version
from risengine.config import RuntimeConfig
from risengine.errors import BackendError

NUMPYS = next(Path(np.__file__).parent.glob("_core/_multiarray_umath*.so"))


@pytest.fixture
def lacking(tmp_path: Path) -> Path:
    """NumPy's library, which needs one that no machine has."""
    path = tmp_path / "lacking.so"
    content = NUMPYS.read_bytes()
    assert b"\0libm.so.6\0" in content
    path.write_bytes(content.replace(b"\0libm.so.6\0", b"\0libm.so.0\0"))
    return path


def test_what_a_library_needs_and_the_loader_lacks_is_named(lacking: Path) -> None:
    assert missing_libraries(NUMPYS) == ()
    (refusal,) = missing_libraries(lacking)
    assert refusal.startswith("libm.so.0: cannot open shared object file")


def test_a_library_may_lie_beside_the_one_that_needs_it(lacking: Path) -> None:
    (lacking.parent / "libm.so.0").symlink_to(NUMPYS)
    assert missing_libraries(lacking) == ()


def test_a_file_of_another_format_lacks_nothing(tmp_path: Path) -> None:
    (tmp_path / "provider.dll").write_bytes(b"MZ" + bytes(100))
    assert missing_libraries(tmp_path / "provider.dll") == ()


@pytest.mark.parametrize(
    ("device", "name", "file"),
    [
        ("cuda", "CUDAExecutionProvider", "libonnxruntime_providers_cuda.so"),
        ("tensorrt", "TensorrtExecutionProvider", "libonnxruntime_providers_tensorrt.so"),
    ],
)
def test_a_provider_without_its_libraries_is_no_device(
    device: str, name: str, file: str, lacking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime lists providers that it was built with, whether or not they can start."""
    folder = lacking.parent / "capi"
    folder.mkdir()
    ort = SimpleNamespace(
        __version__="1.32.0", __file__=str(lacking.parent / "__init__.py"), get_available_providers=lambda: [name]
    )
    for module, stand_in in {"onnxruntime": ort, "tensorrt": None, "cuda.bindings.runtime": FakeCudart()}.items():
        monkeypatch.setitem(sys.modules, module, stand_in)  # type: ignore[arg-type]
    assert find_provider(device).folder is None  # type: ignore[arg-type]
    (folder / file).write_bytes(NUMPYS.read_bytes())
    assert find_provider(device).folder == folder  # type: ignore[arg-type]
    assert name in find_device(device).runs_on  # type: ignore[arg-type]
    (folder / file).write_bytes(lacking.read_bytes())
    missing = find_device(device).missing  # type: ignore[arg-type]
    assert f"{name} of ONNX Runtime 1.32.0 cannot start: libm.so.0: cannot open" in missing
    assert "Install NVIDIA's package that holds it, and put its folder on LD_LIBRARY_PATH" in missing


def versioned(*numbers: int) -> SimpleNamespace:
    parts = zip(("Major", "Minor", "Patch", "Build"), numbers, strict=True)
    return SimpleNamespace(**{f"getInferLib{part}Version": lambda n=n: n for part, n in parts})


def test_a_version_is_that_of_the_copy_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name, beside = "libnvinfer.so.10", str(tmp_path / "libnvinfer.so.10")
    copies = {(name, os.RTLD_NOLOAD): (10, 1, 0, 0), (beside, ctypes.DEFAULT_MODE): (10, 2, 0, 0)}
    copies[name, ctypes.DEFAULT_MODE] = (10, 3, 0, 0)

    def load(path: str, mode: int) -> SimpleNamespace:
        if (path, mode) not in copies:
            raise OSError("cannot open shared object file")
        return versioned(*copies[path, mode])

    monkeypatch.setattr(shared_libraries.ctypes, "CDLL", load)
    for place, wanted in [(tmp_path, "10.1.0.0"), (tmp_path, "10.2.0.0"), (tmp_path, "10.3.0.0"), (None, None)]:
        assert shared_library_version("tensorrt", "10.13.3.9", place) == wanted
        copies.pop(next(iter(copies), None), None)


def test_a_library_without_a_version_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_library_version("tensorrt", "7.0") is None
    monkeypatch.setattr(shared_libraries.ctypes, "CDLL", lambda path, mode: SimpleNamespace())  # too old to say
    assert shared_library_version("tensorrt", "10.3.0.30") is None


def test_a_provider_that_does_not_start_is_got_around_as_the_bundle_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:

    ort = FakeOnnxRuntime(SPEC, compute, built_in=("TensorrtExecutionProvider",), does_not_start=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)  # type: ignore[arg-type]
    monkeypatch.setattr(onnx_session, "cuda_module", FakeCudart)
    assert onnxruntime_module() is ort
    with pytest.raises(BackendError, match=r"or install tensorrt_rtx, whose own module runs this engine") as raised:
        onnx_session.OnnxSession(tmp_path, SPEC, RuntimeConfig("tensorrt"))
    assert "device='cpu'" not in str(raised.value)
