"""Opening a bundle: finding its directory, reading the manifest, and refusing files that are not what it says."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from risengine.errors import BundleError
from risengine.manifest import MANIFEST_NAME, FileSpec, Manifest, Role

__all__ = ["Bundle", "embedded_bundles", "file_sha256", "open_bundle"]

_EMBEDDED = Path(__file__).parent / "bundles"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk. ``id`` is the SHA-256 of its manifest, which holds the hash of every other file."""

    path: Path
    manifest: Manifest
    id: str

    def graph_path(self, role: Role) -> Path:
        """Returns the path of the graph file that plays a role."""
        return self.path / self.manifest.graphs[role].file

    @property
    def tokenizer_path(self) -> Path:
        """Path of the tokenizer's JSON."""
        return self.path / self.manifest.text.tokenizer.file

    @property
    def vectors_path(self) -> Path:
        """Path of the test vectors."""
        return self.path / self.manifest.vectors.file

    @property
    def files(self) -> tuple[FileSpec, ...]:
        """Every file the manifest lists."""
        graphs = self.manifest.graphs.values()
        external = [file for graph in graphs for file in graph.external]
        for engine in (graph.engine for graph in graphs if graph.engine is not None):
            external += [engine.layers] if engine.context is None else [engine.layers, engine.context]
        return (*graphs, *external, self.manifest.text.tokenizer, self.manifest.vectors)


def embedded_bundles() -> list[str]:
    """Returns the names of the bundles that come with the package."""
    return sorted(path.parent.name for path in _EMBEDDED.glob(f"*/{MANIFEST_NAME}"))


def open_bundle(bundle: str | os.PathLike[str]) -> Bundle:
    """Opens a bundle and checks every file against its hash.

    Args:
        bundle: Name of an embedded bundle, or path of a bundle directory.

    Raises:
        BundleError: There is no such bundle, its manifest cannot be read or is of another format version, or a file is
            missing, lies outside the bundle, or differs from its hash.
    """
    path = _EMBEDDED / bundle if bundle in embedded_bundles() else Path(bundle)
    manifest_path = path / MANIFEST_NAME
    if not manifest_path.is_file():
        names = ", ".join(embedded_bundles()) or "none"
        raise BundleError(
            f"no bundle at {path}: {MANIFEST_NAME} not found. Pass a bundle directory or one of: {names}."
        )
    try:
        data = manifest_path.read_bytes()
    except OSError as error:
        raise BundleError(f"{manifest_path} cannot be read ({error.strerror}). Check its permissions.") from error
    opened = Bundle(path, Manifest.decode(data), hashlib.sha256(data).hexdigest())
    for file in opened.files:
        _check_file(path, file)
    return opened


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _check_file(root: Path, spec: FileSpec) -> None:
    path = root / spec.file
    if Path(spec.file).is_absolute() or ".." in Path(spec.file).parts:
        raise BundleError(f"{MANIFEST_NAME} names {spec.file!r}, outside the bundle. Do not use this bundle.")
    if not path.is_file():
        raise BundleError(f"bundle {root} lacks {spec.file}. Rebuild or re-copy the bundle.")
    try:
        actual = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    if actual != spec.sha256:
        raise BundleError(
            f"{path} was changed: SHA-256 is {actual[:16]}..., manifest says {spec.sha256[:16]}.... "
            "Rebuild or re-copy the bundle."
        )
