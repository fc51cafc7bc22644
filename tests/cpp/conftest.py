from __future__ import annotations

import sys
from pathlib import Path

# importlib mode does not put helpers beside the tests on the path; the made-up SAM is the engine's tests'
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "engine")]
