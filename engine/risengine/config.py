"""Settings of a running engine, as opposed to facts of a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from risengine.errors import BackendError, InputError

__all__ = ["RuntimeConfig"]


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how an engine runs.

    Attributes:
        device: Execution device. This version runs on ``"cpu"``; any other name is refused, never replaced.
        threads: Threads of one inference call; 0 leaves the choice to ONNX Runtime (all physical cores).

    Raises:
        BackendError: The device is not available in this version.
        InputError: ``threads`` is negative.
    """

    device: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.device != "cpu":
            raise BackendError(f"device {self.device!r} is not available; expected 'cpu'. Use RuntimeConfig('cpu').")
        if not isinstance(self.threads, int) or self.threads < 0:
            raise InputError(f"threads = {self.threads!r}; expected 0 (automatic) or a positive whole number.")
