"""The Python runtime at work for :mod:`risbench.speed.native`: does what ``tests/cpp/latency.cpp`` does.

Imports nothing but the runtime, and has no torch, as on a target, so that a cold start is the runtime's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import risengine


def _main(bundle: str, threads: str, raw: str, height: str, width: str, text: str) -> None:
    sys.modules["torch"] = None  # type: ignore[assignment]  # spaCy would import it where it is installed
    config = risengine.RuntimeConfig(threads=int(threads), strategy="global_local")
    engine = risengine.load(bundle, config)
    pixels = np.fromfile(raw, np.uint8).reshape(int(height), int(width), 3)
    encoded = engine.encode_image(pixels)
    engine.segment(encoded, text)
    _say("answered")
    for line in sys.stdin:
        order = line.strip()
        if order == "peak":
            _say(_peak_bytes())
        elif order == "encode":
            _say(_milliseconds(lambda: engine.encode_image(pixels)))
        else:
            _say(_milliseconds(partial(engine.segment, encoded, order)))


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def _say(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main(*sys.argv[1:])
