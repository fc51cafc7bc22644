"""From ONNX graphs to native engines, by TensorRT or TensorRT-RTX: one piece of code, the module is a parameter.

Precision is written in the graph, and the network is strongly typed: TensorRT 11 knows nothing else, and TensorRT 10
computes then exactly what the graph says.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir

from risengine.backends.nvidia import cuda_module, native_logger, native_module, read_gpu
from risengine.bundle import file_sha256
from risengine.errors import BackendError, InputError
from risengine.manifest import EngineSpec, FileSpec, GraphSpec, Role, ShapeProfile, TensorSpec
from risengine.output import write_atomically
from risexport.config import EngineOptions, NativeTarget
from risexport.native.engine_context import write_context
from risexport.native.engine_layers import Layer, read_layers, summarise
from risexport.native.native_graph import to_native

__all__ = ["SIZES", "EngineBuilder"]

_logger = logging.getLogger(__name__)

SIZES: dict[str, tuple[int, int, int]] = {
    "H": (1, 480, 1080),
    "W": (1, 640, 1920),
    "N": (1, 16, 64),
    "P": (1, 64, 64),
    "K": (1, 2, 16),
    "Q": (1, 32, 64),
    "M": (1, 64, 192),
    "D": (1, 16, 32),
    "T": (1, 2, 64),
}
"""Least, best and largest size of every symbolic dimension. Memory is set aside for the largest: images up to 1920 x
1080, 64 masks described, 32 drawn and 64 prompts a call, of which the runtime makes as many as it needs."""

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_MIB = 1 << 20
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class _Built:
    plan: bytes
    layers: tuple[Layer, ...]


class EngineBuilder:
    """Compiles graphs for a target; made before a build begins, so that what is missing is said at once."""

    def __init__(self, target: NativeTarget, options: EngineOptions) -> None:
        """Loads the compiler.

        Raises:
            BackendError: The library is missing, or for ``tensorrt``, which measures kernels on it, a GPU.
            InputError: The library knows no such compute capability or option, a profile names no dimension, or the
                timing cache cannot be read.
        """
        self._library = native_module(_MODULES[target])
        self._target, self._options = target, options
        self._sizes = {**SIZES, **options.profile}
        unknown = sorted(set(options.profile) - set(SIZES))
        if unknown:
            raise InputError(f"profile names {unknown[0]!r}; expected one of the dimensions {', '.join(SIZES)}.")
        if target == "tensorrt":
            here = read_gpu(cuda_module()).compute_capability
            if any(wanted != here for wanted in options.compute_capabilities):
                raise InputError(
                    f"compute capability {', '.join(options.compute_capabilities)} was asked for; tensorrt compiles "
                    f"for the GPU at hand, {here}. Build on the device, or with --target tensorrt-rtx."
                )
            self._capabilities: tuple[str, ...] = (here,)
        else:
            if options.timing_cache is not None:
                raise InputError(
                    "tensorrt-rtx measures nothing while it builds, and has no timing cache; expected none. Leave out "
                    "--timing-cache."
                )
            if options.version_compatible:
                raise InputError(
                    "tensorrt-rtx makes engines for its own version alone; expected no --version-compatible. Leave it "
                    "out, and rebuild the bundle where the library is updated."
                )
            self._capabilities = options.compute_capabilities or tuple(self._known_capabilities())
            self._check_capabilities()
        self._timing_cache = _read_cache(options.timing_cache)

    @property
    def name(self) -> str:
        """The library's name."""
        return str(self._library.__name__)

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self._library.__version__)

    def compile(
        self, role: Role, spec: GraphSpec, folder: Path, out: Path, progress: Callable[[str], None]
    ) -> GraphSpec:
        """Compiles one graph.

        Args:
            role: What the graph does, for messages.
            spec: The graph.
            folder: Where it lies.
            out: Folder of the engine, the description of its layers and its model for ONNX Runtime's provider.
            progress: Called with what the compiler is at.

        Returns:
            The engine's specification in place of the graph's.

        Raises:
            BackendError: The compiler does not read the graph or makes no engine of it.
            KeyboardInterrupt: It was interrupted.
        """
        path = folder / f"{role}.native.onnx"
        model = onnx_ir.load(folder / spec.file)
        attentions = to_native(model)
        onnx_ir.save(model, path, external_data=f"{path.name}.data" if spec.external else None)
        profiles = {tensor.name: self._profile(role, tensor) for tensor in spec.inputs if _is_dynamic(tensor)}
        built = self._build(role, path, profiles, progress)
        fusion = summarise(built.layers)
        if fusion.attentions < attentions:
            _logger.warning(
                "%s: %d of %d attentions are one kernel, the others are slower", role, fusion.attentions, attentions
            )
        plan_path, layers_path = out / f"{role}.plan", out / f"{role}.layers.json"
        plan_path.write_bytes(built.plan)
        layers_path.write_bytes(msgspec.json.format(msgspec.json.encode(built.layers), indent=1))
        options = self._options
        engine = EngineSpec(
            library=self.name,  # type: ignore[arg-type]
            version=self.version,
            compute_capabilities=self._capabilities,
            profiles=profiles,
            onnx_sha256=spec.sha256,
            layers=_file_spec(layers_path),
            any_newer_version=options.version_compatible,
            any_newer_gpu=options.hardware_compatible,
        )
        plan = _file_spec(plan_path)
        compiled = replace(spec, file=plan.file, sha256=plan.sha256, size_bytes=plan.size_bytes, external=())
        context_path = out / f"{role}.context.onnx"
        write_context(context_path, role, compiled, engine, self._target)
        return replace(compiled, engine=replace(engine, context=_file_spec(context_path)))

    def save_timing_cache(self) -> None:
        """Writes what was measured to the timing cache's file, if there is one."""
        if self._options.timing_cache is not None and self._timing_cache:
            data = self._timing_cache
            write_atomically(self._options.timing_cache, lambda file: file.write(data))

    def _build(
        self, role: Role, path: Path, profiles: Mapping[str, ShapeProfile], progress: Callable[[str], None]
    ) -> _Built:
        library, logger = self._library, native_logger(self._library)
        logger.messages.clear()
        logger.take_error()
        builder = library.Builder(logger)
        network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = library.OnnxParser(network, logger)
        if not parser.parse_from_file(str(path)):
            reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise self._failure(role, "read the graph", reasons)
        _allow_decomposition(library, network)
        config = self._config(builder, profiles)
        with _deferred_interrupts() as interrupts:
            monitor = _monitor(library, lambda phase: progress(f"compile {role}: {phase}"), interrupts)
            config.progress_monitor = monitor  # which does not hold it
            plan = builder.build_serialized_network(network, config)
        if interrupts:
            raise KeyboardInterrupt
        if plan is None:
            raise self._failure(role, "make an engine", logger.take_error())
        cache = config.get_timing_cache() if self._options.timing_cache is not None else None
        if cache is not None:
            self._timing_cache = bytes(cache.serialize())
        return _Built(bytes(plan), read_layers(logger.messages))

    def _config(self, builder: Any, profiles: Mapping[str, ShapeProfile]) -> Any:
        library, options = self._library, self._options
        config = builder.create_builder_config()
        config.clear_flag(library.BuilderFlag.TF32)  # it would round what is to be in single precision
        config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
        if options.workspace_mib is not None:
            config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.version_compatible:
            config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatible:
            config.hardware_compatibility_level = library.HardwareCompatibilityLevel.AMPERE_PLUS
        if library.__name__ == "tensorrt_rtx":
            config.num_compute_capabilities = len(self._capabilities)
            known = self._known_capabilities()
            for index, capability in enumerate(self._capabilities):
                config.set_compute_capability(known[capability], index)
        if options.timing_cache is not None:
            config.set_timing_cache(config.create_timing_cache(self._timing_cache), ignore_mismatch=False)
        if profiles:
            profile = builder.create_optimization_profile()
            for name, shapes in profiles.items():
                profile.set_shape(name, shapes.least, shapes.best, shapes.largest)
            config.add_optimization_profile(profile)
        return config

    def _profile(self, role: Role, tensor: TensorSpec) -> ShapeProfile:
        sizes = self._sizes
        if role == "mask_measurer":  # it reads single logits too, at however many points the search asks about
            sizes = {**sizes, **{side: (1, *sizes[side][1:]) for side in "HW"}}
        shapes = [
            tuple(size if isinstance(size, int) else sizes[size][index] for size in tensor.shape) for index in range(3)
        ]
        return ShapeProfile(*shapes)

    def _known_capabilities(self) -> dict[str, Any]:
        """Returns the compiler's values of compute capabilities by the usual name: SM86 is 8.6."""
        members = self._library.ComputeCapability.__members__
        return {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name[:2] == "SM"}

    def _check_capabilities(self) -> None:
        known = self._known_capabilities()
        for wanted in self._capabilities:
            if wanted not in known:
                raise InputError(
                    f"{self._library.__name__} {self.version} does not compile for compute capability {wanted}; "
                    f"expected one of {', '.join(sorted(known, key=float))}. Choose among them with "
                    "--compute-capability."
                )

    def _failure(self, role: Role, task: str, reason: str) -> BackendError:
        return BackendError(
            f"{self._library.__name__} {self.version} did not {task} of {role}: {reason}. Report it with this message, "
            "or build with another --target."
        )


def _is_dynamic(tensor: TensorSpec) -> bool:
    return any(isinstance(size, str) for size in tensor.shape)


def _file_spec(path: Path) -> FileSpec:
    return FileSpec(path.name, file_sha256(path), path.stat().st_size)


def _read_cache(path: Path | None) -> bytes:
    if path is None or not path.exists():
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"timing cache {path} cannot be read ({error.strerror}). Choose another file.") from error


def _allow_decomposition(library: Any, network: Any) -> None:
    """Lets the compiler fall back to single steps where it has no kernel for a whole attention, as for tiny heads."""
    output = getattr(library.LayerType, "ATTENTION_OUTPUT", None)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if output is not None and layer.type == output:
            layer.__class__ = library.IAttentionOutputLayer  # the bindings' way to ask for a layer's own type
            layer.attention.decomposable = True


def _monitor(library: Any, progress: Callable[[str], None], interrupts: list[int]) -> Any:
    """Returns a monitor that passes on what the compiler is at, and stops it after an interrupt."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            progress(name)

        def step_complete(self, name: str, step: int) -> bool:
            return not interrupts

        def phase_finish(self, name: str) -> None:
            pass

    return Monitor()


@contextmanager
def _deferred_interrupts() -> Iterator[list[int]]:
    """Collects the signals that would interrupt, because an exception must not pass through the compiler's code."""
    met: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield met
        return
    previous = {number: signal.signal(number, lambda got, _: met.append(got)) for number in _INTERRUPTS}
    try:
        yield met
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
