"""Running one graph. ``Session`` is the interface every target implements; here is ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from risengine.config import RuntimeConfig
from risengine.errors import BackendError, BundleError
from risengine.manifest import GraphSpec, TensorSpec

__all__ = ["OnnxSession", "Session", "usable_providers"]

Array = NDArray[Any]

_PROVIDERS = {"cpu": ("CPUExecutionProvider",)}
"""ONNX Runtime's providers for every target that this version runs, in order of preference."""

_SLOW_FUSIONS = ("SkipLayerNormFusion",)
"""ONNX Runtime's fused sum and norm takes four times as long as its norm alone: a fifth of SAM's point decoder."""


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
        """Execution providers that really run the graph, in order of preference."""
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


class OnnxSession:
    """A graph on ONNX Runtime's CPU provider."""

    def __init__(self, path: Path, spec: GraphSpec, config: RuntimeConfig) -> None:
        """Loads the graph.

        Args:
            path: The ONNX file, already verified.
            spec: The manifest's description of it.
            config: Device and threads.

        Raises:
            BackendError: ONNX Runtime is missing or cannot load the graph.
            BundleError: The graph's inputs or outputs have other names than the manifest says.
        """
        ort = _onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(
                path, options, providers=list(_PROVIDERS[config.device]), disabled_optimizers=list(_SLOW_FUSIONS)
            )
        except Exception as error:  # ONNX Runtime's exception classes share no public base
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot load {path}: {error}. Install the version that the bundle was "
                "built with (`risengine inspect` shows it) or a newer one, or rebuild the bundle."
            ) from error
        self._spec = spec
        for kind, declared, actual in (
            ("inputs", spec.inputs, self._session.get_inputs()),
            ("outputs", spec.outputs, self._session.get_outputs()),
        ):
            names, found = [t.name for t in declared], [t.name for t in actual]
            if names != found:
                raise BundleError(f"{path}: {kind} are {found}; the manifest says {names}. Rebuild the bundle.")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See :class:`Session`."""
        return self._spec.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See :class:`Session`."""
        return self._spec.outputs

    @property
    def providers(self) -> tuple[str, ...]:
        """See :class:`Session`."""
        return tuple(self._live().get_providers())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See :class:`Session`."""
        session = self._live()
        _check_feeds(self._spec, feeds)
        names = [output.name for output in self._spec.outputs]
        try:
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        except Exception as error:  # as above
            raise BackendError(
                f"{self._spec.file} failed: {error}. If memory ran out, pass a smaller image or fewer masks or prompts "
                "a call; otherwise rebuild the bundle."
            ) from error

    def close(self) -> None:
        """See :class:`Session`."""
        self._session = None

    def _live(self) -> Any:
        if self._session is None:
            raise BackendError(f"the session of {self._spec.file} is closed. Load the bundle again.")
        return self._session


def usable_providers(target: str) -> tuple[str, ...]:
    """Returns the providers that would run a bundle of a target on this machine; none where it cannot run.

    Raises:
        BackendError: ONNX Runtime is missing.
    """
    available = _onnxruntime().get_available_providers()
    return tuple(name for name in _PROVIDERS.get(target, ()) if name in available)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"ONNX Runtime is missing ({error}). Run: pip install onnxruntime") from error
    return onnxruntime


def _check_feeds(spec: GraphSpec, feeds: Mapping[str, Array]) -> None:
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
