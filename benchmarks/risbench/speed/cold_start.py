"""How long a process takes from nothing to its first mask, and how much memory: one process of its own a run.

``python -m risbench.speed.cold_start SIDE JOB`` is such a process. The engine's has no torch, as a target has none:
spaCy's thinc would import it, for seconds, wherever it is installed.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from risbench.machine.host_memory import MIB, begin_peak, is_measurable, peak_bytes
from risbench.speed.whole_path import ModelFiles, PathSide, Task
from risengine.config import RuntimeConfig
from risengine.errors import BackendError
from risengine.method import ProposalSettings

__all__ = ["ColdJob", "ColdStart", "measure_cold_start"]

_PHASES = ("imported", "loaded", "answered")


@dataclass(frozen=True)
class ColdJob:
    """What a process does.

    Attributes:
        side: Which of the two it is.
        bundle: Embedded name or directory.
        runtime: Device and threads.
        settings: Proposal settings in force.
        task: The image.
        text: The question.
        files: Where the reference's models are.
    """

    side: Literal["engine", "reference"]
    bundle: str
    runtime: RuntimeConfig
    settings: ProposalSettings
    task: Task
    text: str
    files: ModelFiles


@dataclass(frozen=True)
class ColdStart:
    """One process, in milliseconds from its start as its parent saw them, and MiB.

    Attributes:
        imported_ms: Until Python and all packages had been loaded.
        loaded_ms: Until the models had been loaded too.
        answered_ms: Until the first mask: the cold start.
        loaded_mib: Resident memory when the models had been loaded; None where the system does not say.
        peak_mib: Highest resident memory of the first question; None where the system does not say.
        torch: Whether torch was there to be imported, as it was in the engine's processes of the first reports.
    """

    imported_ms: float
    loaded_ms: float
    answered_ms: float
    loaded_mib: float | None
    peak_mib: float | None
    torch: bool = True

    @property
    def load_ms(self) -> float:
        """Loading of the models alone."""
        return self.loaded_ms - self.imported_ms


def measure_cold_start(job: ColdJob) -> ColdStart:
    """Runs a job in a new process.

    Raises:
        BackendError: The process failed.
    """
    with TemporaryDirectory(prefix="risbench-") as name:
        path = Path(name) / "job.pickle"
        path.write_bytes(pickle.dumps(job))
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        command = [sys.executable, "-m", "risbench.speed.cold_start", job.side, str(path)]
        start = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
        ) as process:
            assert process.stdout is not None
            reached = [(line.split(), 1e3 * (time.perf_counter() - start)) for line in process.stdout]
    if process.returncode != 0 or [words[0] for words, _ in reached] != list(_PHASES):
        raise BackendError(
            f"a process that loads {job.bundle} and answers once ended with status {process.returncode}; its own "
            "message stands above. Correct that and measure again."
        )
    imported_ms, loaded_ms, answered_ms = (elapsed_ms for _, elapsed_ms in reached)
    loaded_mib, peak_mib = (int(words[1]) / MIB if int(words[1]) else None for words, _ in reached[1:])
    return ColdStart(imported_ms, loaded_ms, answered_ms, loaded_mib, peak_mib, torch=job.side == "reference")


def _main(side: str, path: str) -> None:
    if side == "engine":
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to make a package missing
        import risbench.speed.engine_path
    else:
        import risbench.speed.reference_path  # noqa: F401 (its imports are what is timed)
    _say("imported", 0)
    job: ColdJob = pickle.loads(Path(path).read_bytes())  # written by the parent, a moment ago
    opened = _open(job)
    _say("loaded", _peak())
    if is_measurable():
        begin_peak()
    opened.ask(job.text)
    _say("answered", _peak())


def _open(job: ColdJob) -> PathSide:
    if job.side == "engine":
        from risbench.speed.engine_path import EnginePath, open_engine

        return EnginePath(open_engine(job.bundle, job.runtime, job.settings), job.task)
    import torch

    from risbench.speed.reference_path import load_models, open_reference
    from risengine.bundle import open_bundle
    from risengine.language.phrase import load_language_model

    torch.set_num_threads(job.runtime.threads)
    manifest = open_bundle(job.bundle).manifest
    load_language_model()
    return open_reference(load_models(manifest, job.files), manifest.method, job.settings, job.task)


def _peak() -> int:
    return peak_bytes() if is_measurable() else 0


def _say(phase: str, memory_bytes: int) -> None:
    sys.stdout.write(f"{phase} {memory_bytes}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main(*sys.argv[1:])
