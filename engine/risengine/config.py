"""Settings of a running engine, as opposed to facts of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from risengine.errors import BackendError, InputError

__all__ = ["RuntimeConfig", "StrategyName", "check_strategy"]

StrategyName: TypeAlias = Literal["spatial", "global_local", "hybridgl", "contrast"]


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how an engine runs.

    Attributes:
        device: Execution device. This version runs on ``"cpu"``; any other name is refused, never replaced.
        threads: Threads of one inference call; 0 leaves the choice to ONNX Runtime (all physical cores).
        strategy: How masks are scored, where a question does not say; see :mod:`risengine.strategies`.

    Raises:
        BackendError: The device is not available in this version.
        InputError: ``threads`` is negative, or the strategy is unknown.
    """

    device: str = "cpu"
    threads: int = 0
    strategy: StrategyName = "spatial"

    def __post_init__(self) -> None:
        if self.device != "cpu":
            raise BackendError(f"device {self.device!r} is not available; expected 'cpu'. Use RuntimeConfig('cpu').")
        if not isinstance(self.threads, int) or self.threads < 0:
            raise InputError(f"threads = {self.threads!r}; expected 0 (automatic) or a positive whole number.")
        check_strategy(self.strategy)


def check_strategy(name: str) -> None:
    """Checks the name of a strategy.

    Raises:
        InputError: There is none of that name.
    """
    if name not in get_args(StrategyName):
        raise InputError(f"strategy {name!r}; expected one of {', '.join(get_args(StrategyName))}. Choose one of them.")
