from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not put helpers beside the tests on the path


@pytest.fixture(scope="module")
def torch_threads() -> Iterator[None]:
    """For measurements, which set PyTorch's threads for the process: other tests get theirs back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
