"""Settings of a running engine, as opposed to facts of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from risengine.errors import InputError
from risengine.manifest import Target

__all__ = ["RuntimeConfig", "StrategyName", "check_strategy"]

StrategyName: TypeAlias = Literal["spatial", "global_local", "hybridgl", "contrast"]


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how an engine runs.

    Attributes:
        device: What executes the graphs; None is what the bundle was built for. A bundle of ONNX graphs runs on
            ``"cpu"``, ``"cuda"`` and ``"openvino"``, native engines on their own target alone. A device that this
            machine lacks is refused when a bundle is loaded, never replaced.
        threads: Threads of one inference call on a CPU; 0 leaves the choice to the library (all physical cores).
        fallback: Run ONNX graphs on ``"cpu"`` where ``device`` is missing, with a warning; ``Engine.providers`` tells.
        strategy: How masks are scored, where a question does not say; see :mod:`risengine.scoring.strategies`.

    Raises:
        InputError: ``device`` is no device, ``threads`` is negative, or the strategy is unknown.
    """

    device: Target | None = None
    threads: int = 0
    fallback: bool = False
    strategy: StrategyName = "spatial"

    def __post_init__(self) -> None:
        if self.device is not None and self.device not in get_args(Target):
            raise InputError(f"device {self.device!r} is unknown; expected one of: {', '.join(get_args(Target))}.")
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
