from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import risengine
from risengine.bundle import open_bundle
from risengine.demo import DemoPicture, demo_pictures

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not put helpers beside the tests on the path


@pytest.fixture(scope="session")
def engine() -> Iterator[risengine.Engine]:
    with risengine.load("tabletop", risengine.RuntimeConfig(threads=2)) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def picture() -> DemoPicture:
    return demo_pictures()[0]


@pytest.fixture(scope="session")
def encoded(engine: risengine.Engine, picture: DemoPicture) -> risengine.EncodedImage:
    return engine.encode_image(picture.path)


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(open_bundle("tabletop").path, tmp_path / "bundle"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)
