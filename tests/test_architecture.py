"""Which way imports point, that the runtime lives without torch, and that the tree is clean."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "risengine": ROOT / "engine",
    "risexport": ROOT / "export",
    "risbench": ROOT / "benchmarks",
    "tabletop": ROOT / "models",
}
ALLOWED = {
    "risengine": set(),
    "risexport": {"risengine"},
    "risbench": {"risengine", "risexport"},
    "tabletop": {"risengine", "risexport"},
}
PARTS = {  # of each package: whose modules the modules of a part may import, beside those at the top
    "risengine": {
        "language": set(),
        "backends": set(),
        "scoring": {"language"},
        "generator": {"backends"},
        "cli": {"language", "backends", "scoring", "generator"},
    },
    "risexport": {
        "checkpoints": set(),
        "clip": set(),
        "native": set(),
        "checks": set(),
        "half": {"checks"},
        "sam": {"checks"},
    },
    "risbench": {
        "data": set(),
        "machine": set(),
        "reference": set(),
        "quality": {"data", "machine"},
        "speed": {"data", "machine", "quality", "reference"},
        "reports": {"data", "machine", "quality", "speed"},
    },
}
RUNTIME_LIBRARIES = {"numpy", "onnxruntime", "PIL", "tokenizers", "spacy", "msgspec", "tqdm"}
OPTIONAL_LIBRARIES = {"openvino", "supervision"}  # an extra each; imported by the one function that needs it


def imported(path: Path) -> set[str]:
    """Returns the top-level names that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    allowed = ALLOWED[package] | {package}
    paths = list((PACKAGES[package] / package).rglob("*.py"))
    assert paths
    for path in paths:
        names = imported(path) & set(PACKAGES)
        assert names <= allowed, path


@pytest.mark.parametrize("package", PARTS)
def test_parts_import_one_way(package: str) -> None:
    root = PACKAGES[package] / package
    parts = PARTS[package]
    assert {path.parent.name for path in root.glob("*/__init__.py")} == set(parts)
    for part, allowed in parts.items():
        for path in (root / part).rglob("*.py"):
            inside = {
                node.module.split(".")[1]
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{package}.")
            }
            assert inside & set(parts) <= allowed | {part}, path


def test_the_runtime_imports_only_its_declared_libraries() -> None:
    for path in (ROOT / "engine" / "risengine").rglob("*.py"):
        foreign = imported(path) - set(sys.stdlib_module_names) - RUNTIME_LIBRARIES - OPTIONAL_LIBRARIES - {"risengine"}
        assert not foreign, path


WITHOUT_TORCH = """
import sys, time
for name in ("torch", "torchvision", "open_clip", "segment_anything", "onnx", "supervision", "openvino", "cuda"):
    sys.modules[name] = None
import risengine
from risengine.demo import demo_pictures
picture = demo_pictures()[0]
with risengine.load() as engine:
    assert engine.segment(picture.path, picture.questions[0].text).mask.any()
"""


def test_the_runtime_segments_with_torch_blocked() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)


def test_import_is_quick() -> None:
    # Processor time, so that a busy machine does not make it slow.
    code = "import time; start = time.process_time(); import risengine; print(time.process_time() - start)"
    command = [sys.executable, "-c", code]
    seconds = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=["lint", "format", "types"]
)
def test_the_tree_is_clean(command: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
