"""``Session``: running one graph. The interface of every target, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from risengine.errors import BackendError
from risengine.manifest import GraphSpec, TensorSpec

__all__ = ["DescribedSession", "DeviceSession", "Session", "brought_near", "check_feeds", "run_chained"]

Array = NDArray[Any]


class Session(Protocol):
    """One loaded graph. Safe to call from several threads."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and symbolic shape of every input."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and symbolic shape of every output."""
        ...

    @property
    def providers(self) -> tuple[str, ...]:
        """What really runs the graph, in order of preference: ONNX Runtime's names of providers, or a library."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU runs it, which large batches fill, or a CPU, in whose cache small ones stay."""
        ...

    def largest(self, dimension: str) -> int | None:
        """Returns the largest size that a symbolic dimension may have; None where there is no bound."""
        ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph once; the outputs are new arrays by name.

        Raises:
            BackendError: A feed is missing, superfluous or of another dtype or shape, or the run failed.
        """
        ...

    def close(self) -> None:
        """Frees the graph's memory; the session cannot run afterwards."""
        ...


@runtime_checkable
class DeviceSession(Session, Protocol):
    """A session that can leave its outputs in the memory of its device."""

    def run_on_device(self, feeds: Mapping[str, Any], to_host: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph once.

        Args:
            feeds: NumPy arrays, or arrays of any library on the device, which are read where they are.
            to_host: Outputs to return as NumPy arrays.

        Returns:
            The other outputs as arrays on the device (:class:`~risengine.backends.device_array.DeviceArray`), each in
            memory of its own that no later call overwrites.

        Raises:
            BackendError: As from :meth:`Session.run`.
            InputError: A feed on the device is not contiguous, or on another GPU.
        """
        ...

    def to_device(self, array: Array) -> Any:
        """Returns an array where the device reads it: a copy in its memory, or the array where that is the host's."""
        ...


class DescribedSession:
    """What every session says of itself in the manifest's words; the base of those that implement :class:`Session`."""

    def __init__(self, spec: GraphSpec, on_gpu: bool = False) -> None:
        """Takes the manifest's description of the graph, and what runs it."""
        self._spec, self._on_gpu = spec, on_gpu

    @property
    def on_gpu(self) -> bool:
        """See :class:`Session`."""
        return self._on_gpu

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See :class:`Session`."""
        return self._spec.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See :class:`Session`."""
        return self._spec.outputs

    def largest(self, dimension: str) -> int | None:
        """See :class:`Session`."""
        return self._spec.largest(dimension)

    def _closed(self) -> BackendError:
        return BackendError(f"the session of {self._spec.file} is closed. Load the bundle again.")


def run_chained(session: Session, feeds: Mapping[str, Any], to_host: Collection[str] = ()) -> dict[str, Any]:
    """Runs a graph whose outputs are another's inputs, so that they need not visit the host.

    Args:
        session: A session; where it knows of no device, all outputs are NumPy arrays.
        feeds: As for :meth:`DeviceSession.run_on_device`.
        to_host: Outputs that the caller reads.
    """
    return session.run_on_device(feeds, to_host) if isinstance(session, DeviceSession) else session.run(feeds)


def brought_near(session: Session, array: Array) -> Any:
    """Returns an array that several runs are fed, so that it is sent to the session's device once."""
    return session.to_device(array) if isinstance(session, DeviceSession) else array


def check_feeds(spec: GraphSpec, feeds: Mapping[str, Array]) -> dict[str, int]:
    """Checks names, dtypes and shapes of a run's inputs, and returns the sizes of the symbolic dimensions.

    Raises:
        BackendError: One is missing, superfluous, of another dtype or shape, or larger or smaller than the engine was
            compiled for.
    """
    expected = {tensor.name: tensor for tensor in spec.inputs}
    if feeds.keys() != expected.keys():
        raise BackendError(
            f"{spec.file} got the inputs {sorted(feeds)}; expected {sorted(expected)}. Pass exactly these."
        )
    sizes: dict[str, int] = {}
    for name, tensor in expected.items():
        array = feeds[name]
        fits = array.dtype == np.dtype(tensor.dtype) and array.ndim == len(tensor.shape)
        for wanted, size in zip(tensor.shape, array.shape, strict=False):
            fits = fits and size == (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted)
        if not fits:
            raise BackendError(
                f"{spec.file}: input {name} is {array.dtype} {array.shape}; expected {tensor.dtype} {tensor.shape}, "
                "equal names being equal sizes. Convert or reshape it."
            )
        _check_profile(spec, name, array.shape)
    return sizes


def _check_profile(spec: GraphSpec, name: str, shape: tuple[int, ...]) -> None:
    profile = None if spec.engine is None else spec.engine.profiles.get(name)
    if profile is None:
        return
    limits = zip(profile.least, shape, profile.largest, strict=True)
    if not all(least <= size <= largest for least, size, largest in limits):
        raise BackendError(
            f"{spec.file}: input {name} is {shape}; the engine was compiled for {profile.least} to {profile.largest}. "
            "Pass less, or rebuild the bundle with a wider --profile."
        )
