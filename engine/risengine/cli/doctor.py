"""``risengine doctor``: what this machine can run, and what is missing for the rest."""

from __future__ import annotations

import argparse
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import msgspec

from risengine import __version__
from risengine.backends.devices import Device, find_devices, usable_devices
from risengine.bundle import Bundle, embedded_bundles, open_bundle
from risengine.cli.common import Subparsers
from risengine.errors import BackendError, BundleError
from risengine.language.phrase import load_language_model

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    "cuda-bindings",
    "spacy",
    "tokenizers",
    "torch",
)


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = commands.add_parser("doctor", help="show what this machine can run, and what is missing for the rest")
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help="bundle directories to look at too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    devices = find_devices()
    language_model = _language_model()
    bundles = {name: _usable(name) for name in (*embedded_bundles(), *options.bundles)}
    if options.json:
        facts = {
            "risengine": __version__,
            "python": platform.python_version(),
            "machine": platform.platform(),
            "packages": _versions(),
            "language_model": language_model,
            "devices": [asdict(device) for device in devices],
            "bundles": bundles,
        }
        print(msgspec.json.encode(facts).decode())
        return 0
    print(f"risengine {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"packages   {', '.join(f'{name} {found}' for name, found in _versions().items())}")
    print(f"language   {language_model}\n")
    for device in devices:
        print(_device_line(device))
    print()
    for name, usable in bundles.items():
        print(f"{name}: {usable}")
    return 0


def _device_line(device: Device) -> str:
    return f"{device.target:12} {'yes  ' + device.runs_on if device.runs_on else 'no   ' + device.missing}"


def _language_model() -> str:
    try:
        model = load_language_model()
    except BackendError as error:
        return str(error)
    return f"{model.meta['lang']}_{model.meta['name']} {model.meta['version']}"


def _usable(name: str) -> str:
    try:
        bundle = open_bundle(name)
        devices = usable_devices(bundle)
    except (BundleError, BackendError) as error:
        return f"cannot be used: {error}"
    return f"runs on {', '.join(device.target for device in devices)}" if devices else _why_not(bundle)


def _why_not(bundle: Bundle) -> str:
    target = bundle.manifest.target
    engines = [graph.engine for graph in bundle.manifest.graphs.values() if graph.engine is not None]
    if not engines:
        return f"cannot run here: it is built for {target}"
    return (
        f"cannot run here: it is built for {target}, by {engines[0].library} {engines[0].version} for compute "
        f"capability {', '.join(engines[0].compute_capabilities)}"
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
