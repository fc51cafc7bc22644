"""``risengine inspect``: what a bundle is, in words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields

from risengine.bundle import Bundle, open_bundle
from risengine.cli.common import Subparsers
from risengine.manifest import TensorSpec


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
    size = sum(file.size_bytes for file in bundle.files)
    lines = [
        f"{manifest.name}  {manifest.precision}  target {manifest.target}  {_megabytes(size)}",
        f"path     {bundle.path}",
        f"id       {bundle.id}",
        f"licence  {manifest.license}",
        *([f"notes    {manifest.notes}"] if manifest.notes else []),
        "",
        "sources",
        *(f"  {s.role:5} {s.model}  {s.checkpoint}  sha256 {s.sha256[:12]}  {s.license}" for s in manifest.sources),
        "",
        "graphs",
    ]
    for role, graph in manifest.graphs.items():
        weights = graph.size_bytes + sum(file.size_bytes for file in graph.external)
        arithmetic = f"  {graph.flops / 1e9:.2f} GFLOP ({graph.flops_at})" if graph.flops else ""
        lines.append(f"  {role:16} {_megabytes(weights):>9}{arithmetic}")
        lines.append(f"    in   {_signature(graph.inputs)}")
        lines.append(f"    out  {_signature(graph.outputs)}")
        if graph.fp32_nodes:
            lines.append(f"    kept in fp32: {', '.join(graph.fp32_nodes)}")
    for title, settings in (("method", manifest.method), ("proposals", manifest.proposals)):
        lines += ["", title]
        lines += [f"  {field.name:24} {getattr(settings, field.name)}" for field in fields(settings)]
    lines += ["", "parity with the PyTorch reference, measured when this bundle was built"]
    lines += [
        f"  {p.role:16} {p.tensor:20} {p.measure:20} {p.value:.3g}  (tolerance {p.tolerance:g})"
        for p in manifest.parity
    ]
    lines += ["", "built with  " + ", ".join(f"{k} {v}" for k, v in manifest.compiler.versions.items())]
    return "\n".join(lines)


def _signature(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
