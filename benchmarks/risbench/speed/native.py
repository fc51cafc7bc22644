"""librisengine beside the Python runtime: cold start, encoding, one question, peak memory; in turns, on one bundle.

``python -m risbench.speed.native PROGRAM [BUNDLE] --json OUT``; the program is ``tests/cpp/latency.cpp``, which ``make
test-cpp`` builds. Both answer by the paper's score.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from risbench.machine.environment import Environment, read_environment
from risbench.machine.host_memory import MIB
from risbench.machine.timing import Timing, TimingConfig, collect_in_turns, summarise_ms
from risengine.bundle import open_bundle
from risengine.demo import demo_pictures
from risengine.errors import BackendError
from risengine.images import load_image

__all__ = ["NativeReport", "SideResult", "markdown_native", "measure_native"]


@dataclass(frozen=True)
class SideResult:
    """One runtime.

    Attributes:
        cold_start: From the start of a process to its first mask.
        encode: Proposals and features of the image.
        ask: An expression asked of the encoded image for the first time, to the mask.
        ask_again: One asked before, whose text features both runtimes keep.
        peak_mib: Highest resident memory of the process that answered all; 0 where the system does not say.
    """

    cold_start: Timing
    encode: Timing
    ask: Timing
    ask_again: Timing
    peak_mib: float


@dataclass(frozen=True)
class NativeReport:
    """The measurement.

    Attributes:
        native_bundle: Name of the bundle.
        bundle_id: Its identity.
        threads: Threads of an inference call.
        size: (H, W) of the image in pixels.
        text: The expression.
        sides: ``C++`` and ``Python``.
        environment: The machine.
        schema_version: Of this report.
    """

    native_bundle: str
    bundle_id: str
    threads: int
    size: tuple[int, int]
    text: str
    sides: dict[str, SideResult]
    environment: Environment
    schema_version: int = 1


def measure_native(program: Path, bundle: str, threads: int, config: TimingConfig) -> NativeReport:
    """Times both on the first demo picture and expression.

    Args:
        program: What ``tests/cpp/latency.cpp`` was built to.
        bundle: Embedded name or directory.
        threads: Threads of an inference call.
        config: How often images are encoded; questions are asked ten times as often, processes started half as often.

    Raises:
        BackendError: A process failed.
    """
    opened, picture = open_bundle(bundle), demo_pictures()[0]
    pixels, text = load_image(picture.path), picture.questions[0].text
    height, width = pixels.shape[:2]
    with TemporaryDirectory(prefix="risbench-") as folder:
        raw = Path(folder) / "pixels.rgb"
        raw.write_bytes(pixels.tobytes())
        job = [str(opened.path), str(threads), str(raw), str(height), str(width), text]
        commands = {
            "C++": [str(program), *job],
            "Python": [sys.executable, "-m", "risbench.speed.native_python", *job],
        }
        starts = TimingConfig(config.warmups, max(1, config.rounds // 2), 0)
        cold = collect_in_turns({name: partial(_cold_start_ms, command) for name, command in commands.items()}, starts)
        with _worker(commands["C++"]) as native, _worker(commands["Python"]) as python:
            workers = {"C++": native, "Python": python}
            encoded = collect_in_turns(
                {name: partial(worker.order, "encode") for name, worker in workers.items()}, config
            )
            often = TimingConfig(config.warmups, 10 * config.rounds, config.seconds)
            asked = collect_in_turns({name: _asking(worker, text) for name, worker in workers.items()}, often)
            again = collect_in_turns({name: partial(worker.order, text) for name, worker in workers.items()}, often)
            peaks = {name: worker.order("peak") / MIB for name, worker in workers.items()}
    sides = {
        name: SideResult(
            summarise_ms(cold[name]),
            summarise_ms(encoded[name]),
            summarise_ms(asked[name]),
            summarise_ms(again[name]),
            peaks[name],
        )
        for name in commands
    }
    return NativeReport(opened.manifest.name, opened.id, threads, (height, width), text, sides, read_environment())


def markdown_native(report: NativeReport) -> str:
    """Returns the figures as a Markdown table with their conditions."""
    rows = [
        "| median ms | process to first mask | encode an image | ask something new | ask it again | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, side in report.sides.items():
        times = " | ".join(
            f"{timing.p50_ms:.4g}" for timing in (side.cold_start, side.encode, side.ask, side.ask_again)
        )
        rows.append(f"| {name} | {times} | {side.peak_mib:.0f} |")
    environment, native = report.environment, report.sides["C++"]
    unsteady = [
        f"{name}'s {part} (CV {getattr(side, part).cv:.2f})"
        for name, side in report.sides.items()
        for part in ("cold_start", "encode", "ask", "ask_again")
        if getattr(side, part).unstable
    ]
    rows.append("")
    rows.append(
        f"Bundle `{report.native_bundle}` ({report.bundle_id[:12]}), {report.size[1]} x {report.size[0]} image, "
        f'"{report.text}", the paper\'s score, {report.threads} threads, CPUExecutionProvider, {environment.cpu}, '
        f"onnxruntime {environment.packages.get('onnxruntime', '?')}; in turns: {native.cold_start.runs} processes, "
        f"{native.encode.runs} encodings, {native.ask.runs} questions of each kind; load average at the end "
        f"{environment.load_average}. Memory is the whole process's, its models included. C++ finds the noun phrase by "
        "its own rules, Python by spaCy; torch was missing, as on a target."
        f"{' Unsteady: ' + ', '.join(unsteady) + '.' if unsteady else ''}"
    )
    return "\n".join(rows)


class _Worker:
    """A process that does what it is told, one thing at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def wait(self) -> str:
        """Returns the next line it writes."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return line.strip()

    def order(self, order: str) -> float:
        """Has one thing done; returns the milliseconds or bytes it took."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{order}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            with suppress(BrokenPipeError):
                self._process.stdin.close()  # now: at the end of the context what is still unwritten would raise again
            raise self._ended() from error
        return float(self.wait())

    def _ended(self) -> BackendError:
        return BackendError(
            f"{self._process.args!r} ended with status {self._process.wait()}; its own message stands above. Correct "
            "that and measure again."
        )


def _asking(worker: _Worker, text: str) -> Callable[[], float]:
    numbers = itertools.count()
    return lambda: worker.order(f"{text} number {next(numbers)}")


def _cold_start_ms(command: Sequence[str]) -> float:
    start = time.perf_counter()
    with _worker(command):
        return 1e3 * (time.perf_counter() - start)


@contextmanager
def _worker(command: Sequence[str]) -> Iterator[_Worker]:
    """Runs a process that has answered once, until the end of the context."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        worker = _Worker(process)
        worker.wait()
        yield worker


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("bundle", nargs="?", default="tabletop")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    report = measure_native(given.program, given.bundle, given.threads, TimingConfig(1, given.rounds, 0))
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    sys.stdout.write(markdown_native(report) + "\n")


if __name__ == "__main__":
    _main()
