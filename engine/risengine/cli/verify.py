"""``risengine verify``: whether a bundle computes here what PyTorch computed where it was built."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import get_args

import msgspec
from tqdm import tqdm

from risengine.bundle import Bundle, open_bundle
from risengine.cli.common import Subparsers, add_device_options, runtime_config
from risengine.manifest import Role
from risengine.verify import Verification, verify_bundle


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = commands.add_parser("verify", help="run a bundle's test vectors on this machine")
    parser.add_argument("bundle", nargs="?", default="tabletop", help="embedded name or bundle directory")
    add_device_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle)
    config = runtime_config(options)
    roles = [role for role in get_args(Role) if role in bundle.manifest.graphs]
    with tqdm(total=len(roles), unit="graph", delay=0.5, leave=False, disable=None) as bar:

        def begin(role: Role) -> None:
            bar.set_description(role, refresh=False)
            bar.update(roles.index(role) - bar.n)

        found = verify_bundle(bundle, config, begin)
    print(_json(bundle, found) if options.json else _table(bundle, found))
    for row in found.failures:
        print(f"risengine: {row}.", file=sys.stderr)
    if found.failures:
        print(
            "risengine: Do not use this bundle on this machine. Rebuild it here, or report it with the output of "
            f"`risengine verify {options.bundle} --json` and `risengine inspect {options.bundle} --json`.",
            file=sys.stderr,
        )
    return 1 if found.failures else 0


def _table(bundle: Bundle, found: Verification) -> str:
    size = sum(file.size_bytes for file in bundle.files)
    lines = [
        f"{bundle.manifest.name}  {bundle.manifest.precision}  target {bundle.manifest.target}",
        f"files     {len(bundle.files)} of {size / 1e6:.1f} MB, all with the manifest's SHA-256",
        f"provider  {', '.join(found.providers)}",
        "",
        f"{'graph':16} {'tensor':16} {'measure':14} {'here':>9} {'at build':>9}  tolerance",
    ]
    built = {(row.role, row.tensor, row.measure): row.value for row in bundle.manifest.parity if not row.rounded}
    for row in found.parity:
        bound = "<=" if row.measure == "relative_error" else ">="
        before = built[row.role, row.tensor, row.measure]
        lines.append(
            f"{row.role:16} {row.tensor:16} {row.measure:14} {row.value:9.3g} {before:9.3g}  {bound} "
            f"{row.tolerance:<8g} {'ok' if row.passed else 'OUT OF TOLERANCE'}"
        )
    passed = len(found.parity) - len(found.failures)
    return "\n".join([*lines, "", f"{passed} of {len(found.parity)} figures within the tolerances of the build."])


def _json(bundle: Bundle, found: Verification) -> str:
    """Returns one object; a figure that is NaN becomes null, because JSON has none."""
    return msgspec.json.encode(
        {
            "bundle": str(bundle.path),
            "bundle_id": bundle.id,
            "providers": found.providers,
            "passed": not found.failures,
            "parity": [{**asdict(row), "passed": row.passed} for row in found.parity],
        }
    ).decode()
