"""``risengine inspect``: what a bundle is, in words."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields

from risengine.backends.devices import find_device, usable_devices
from risengine.bundle import Bundle, open_bundle
from risengine.cli.common import Subparsers
from risengine.manifest import EngineSpec, GraphSpec, Manifest, Parity, Source, TensorSpec
from risengine.overrides import RUNTIME_WEIGHTS

_SHOWN = 4


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = commands.add_parser("inspect", help="show what a bundle holds")
    parser.add_argument("bundle", nargs="?", default="tabletop", help="embedded name or bundle directory")
    parser.add_argument("--json", action="store_true", help="print the manifest itself")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle)
    print(bundle.manifest.encode().decode().rstrip() if options.json else _describe(bundle))
    return 0


def _describe(bundle: Bundle) -> str:
    manifest = bundle.manifest
    settable = f"can be set at run time: {', '.join(RUNTIME_WEIGHTS)}"
    lines = [
        f"{manifest.name}: {manifest.precision} for {manifest.target}, {_size(f.size_bytes for f in bundle.files)}",
        *_aligned(_identity(bundle)),
        "",
        "sources",
        *_aligned([_source(source) for source in manifest.sources]),
        "",
        "graphs, with the arithmetic of one call at the sizes named",
        *_graphs(manifest),
        "",
        f"method ({settable})",
        *_aligned([(field.name, _value(getattr(manifest.method, field.name))) for field in fields(manifest.method)]),
        "",
        "proposals (all can be set at run time)",
        *_aligned([(f.name, _value(getattr(manifest.proposals, f.name))) for f in fields(manifest.proposals)]),
        "",
        "parity with the PyTorch reference, measured when the bundle was built",
        *_aligned(_parity([figure for figure in manifest.parity if not figure.rounded])),
    ]
    if rounded := [figure for figure in manifest.parity if figure.rounded]:
        lines += ["", "the same with every result rounded to half precision, as a device rounds it"]
        lines += _aligned(_parity(rounded))
    return "\n".join(lines)


def _identity(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    devices = "; ".join(device.runs_on for device in usable_devices(bundle))
    return [
        ("path", str(bundle.path)),
        ("id", bundle.id),
        ("licence", manifest.license),
        (
            "runs here",
            devices or f"no: {find_device(manifest.target).missing or 'its engines are for another GPU or version'}",
        ),
        ("built with", ", ".join(f"{name} {version}" for name, version in manifest.compiler.versions.items())),
        *([("notes", manifest.notes)] if manifest.notes else []),
    ]


def _source(source: Source) -> tuple[str, ...]:
    weights = f"{source.checkpoint}, sha256 {source.sha256[:12]}" if source.sha256 else "random weights"
    return source.role, source.model, weights, f"licence {source.license}", source.url


def _graphs(manifest: Manifest) -> list[str]:
    rows = [
        (
            role,
            _size([graph.size_bytes, *(file.size_bytes for file in graph.external)]),
            f"{graph.flops / 1e9:.2f} GFLOP at {graph.flops_at}" if graph.flops else "arithmetic not measured",
        )
        for role, graph in manifest.graphs.items()
    ]
    lines = []
    for line, graph in zip(_aligned(rows), manifest.graphs.values(), strict=True):
        lines += [line, f"    in    {_signature(graph.inputs)}", f"    out   {_signature(graph.outputs)}"]
        lines += [f"    fp32  {_kept_in_fp32(graph)}"] if graph.fp32_nodes else []
        lines += [f"    engine {line}" for line in _engine(graph.engine)] if graph.engine else []
    return lines


def _engine(engine: EngineSpec) -> list[str]:
    newer = [
        name for name, allowed in (("version", engine.any_newer_version), ("GPU", engine.any_newer_gpu)) if allowed
    ]
    facts = f"{engine.library} {engine.version}, compute capability {', '.join(engine.compute_capabilities)}"
    profiles = [
        f"{name} {profile.least} to {profile.largest}, best {profile.best}" for name, profile in engine.profiles.items()
    ]
    context = [] if engine.context is None else [f"{engine.context.file}: the same for ONNX Runtime's provider"]
    return [facts + (f", any newer {' and '.join(newer)}" if newer else ""), *profiles, *context]


def _kept_in_fp32(graph: GraphSpec) -> str:
    """Counts the nodes by the reason they were kept for."""
    reasons = Counter(node.partition(":")[0] for node in graph.fp32_nodes)
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{len(graph.fp32_nodes)} nodes: {counts}"


def _parity(figures: Sequence[Parity]) -> list[tuple[str, ...]]:
    """One row a tensor, its measures side by side."""
    tensors: dict[tuple[str, str], list[str]] = {}
    for figure in figures:
        bound = "<=" if figure.measure.endswith("error") else ">="
        text = f"{figure.measure} {figure.value:.3g} ({bound} {figure.tolerance:g})"
        tensors.setdefault((figure.role, figure.tensor), []).append(text)
    return [(*key, *measures) for key, measures in tensors.items()]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pads the cells of every column but a row's last to one width, and indents the rows."""
    widths: Counter[int] = Counter()
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths[column], len(cell))
    return [("  " + "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row))).rstrip() for row in rows]


def _signature(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_value, value)) if len(value) <= _SHOWN else f"{len(value)} values"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _size(sizes: Iterable[int]) -> str:
    return f"{sum(sizes) / 1e6:.2f} MB"
