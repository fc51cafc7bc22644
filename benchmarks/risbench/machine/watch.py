"""Looking on while the engine or a library works: how long its calls take, and what its graphs are given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from unittest.mock import patch

from numpy.typing import NDArray

from risengine.backends.session import Session
from risengine.manifest import Role

__all__ = ["GraphCall", "Shapes", "timed_calls", "watched_graphs"]

Array = NDArray[Any]
Shapes: TypeAlias = "tuple[tuple[str, tuple[int, ...]], ...]"
"""Name and shape of every input of a call."""


@dataclass(frozen=True)
class GraphCall:
    """One run of a graph.

    Attributes:
        role: The graph.
        shapes: What it was given.
        array_bytes: Size of its inputs and outputs.
        duration_ms: How long it took.
        feeds: Its inputs, where they were to be kept.
    """

    role: Role
    shapes: Shapes
    array_bytes: int
    duration_ms: float
    feeds: Mapping[str, Array] | None = field(default=None, repr=False)


@contextmanager
def watched_graphs(sessions: Mapping[Role, Session], keep: Collection[Role] = ()) -> Iterator[list[GraphCall]]:
    """Notes every run of some sessions for as long as the context lasts.

    Args:
        sessions: The sessions by role.
        keep: Graphs whose inputs are held too. Those of SAM's decoders are gigabytes.

    Yields:
        The runs, filled as they are made.
    """
    roles = {id(session): role for role, session in sessions.items()}
    calls: list[GraphCall] = []

    nested = threading.local()  # one way to run a graph may call the other

    def watching(run: Callable[..., dict[str, Array]]) -> Callable[..., dict[str, Array]]:
        def watched(session: Session, feeds: Mapping[str, Array], *more: Any, **named: Any) -> dict[str, Array]:
            inner = getattr(nested, "running", False)
            role = None if inner else roles.get(id(session))
            nested.running = True
            start = time.perf_counter()
            try:
                outputs = run(session, feeds, *more, **named)
            finally:
                nested.running = inner
            duration_ms = 1e3 * (time.perf_counter() - start)
            if role is not None:
                shapes = tuple((name, value.shape) for name, value in feeds.items())
                array_bytes = sum(value.nbytes for value in (*feeds.values(), *outputs.values()))
                calls.append(GraphCall(role, shapes, array_bytes, duration_ms, dict(feeds) if role in keep else None))
            return outputs

        return watched

    with ExitStack() as stack:
        for kind in {type(session) for session in sessions.values()}:
            for method in {"run", "run_on_device"} & set(dir(kind)):
                stack.enter_context(patch.object(kind, method, watching(getattr(kind, method))))
        yield calls


@contextmanager
def timed_calls(owner: type, name: str) -> Iterator[list[float]]:
    """Times every call of a method for as long as the context lasts.

    Args:
        owner: Class of the method.
        name: Its name.

    Yields:
        Milliseconds, one number a call, filled as the calls are made.
    """
    method = getattr(owner, name)
    durations_ms: list[float] = []

    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = method(*arguments, **named)
        durations_ms.append(1e3 * (time.perf_counter() - start))
        return result

    with patch.object(owner, name, timed):
        yield durations_ms
