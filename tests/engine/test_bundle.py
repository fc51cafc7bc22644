from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from risengine.bundle import embedded_bundles, open_bundle
from risengine.errors import BundleError
from risengine.manifest import FORMAT_VERSION, MANIFEST_NAME, EngineSpec, FileSpec, Manifest, ShapeProfile

Manifesto = dict[str, Any]


def edit(bundle: Path, change: Callable[[Manifesto], None]) -> None:
    manifest = json.loads((bundle / MANIFEST_NAME).read_text())
    change(manifest)
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_the_default_is_embedded_and_small() -> None:
    assert "tabletop" in embedded_bundles()
    bundle = open_bundle("tabletop")
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) < 20e6
    assert {path.name for path in bundle.path.iterdir()} == {file.file for file in bundle.files} | {MANIFEST_NAME}


def test_manifest_survives_a_round_trip() -> None:
    manifest = open_bundle("tabletop").manifest
    assert Manifest.decode(manifest.encode()) == manifest


def test_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="one of: tabletop"):
        open_bundle("no-such-bundle")
    with pytest.raises(BundleError, match=r"manifest\.json not found"):
        open_bundle(tmp_path)


def test_missing_graph(bundle_copy: Path) -> None:
    (bundle_copy / open_bundle(bundle_copy).manifest.graphs["text_encoder"].file).unlink()
    with pytest.raises(BundleError, match="lacks text_encoder"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("role", ["image_encoder", "text_encoder"])
def test_a_changed_byte(bundle_copy: Path, role: Any) -> None:
    path = open_bundle(bundle_copy).graph_path(role)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="was changed: SHA-256"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(("version", "remedy"), [(FORMAT_VERSION + 1, "Update risengine"), (0, "Rebuild the bundle")])
def test_other_format_versions(bundle_copy: Path, version: int, remedy: str) -> None:
    edit(bundle_copy, lambda manifest: manifest.update(format_version=version))
    with pytest.raises(BundleError, match=f"version {version}; this risengine reads {FORMAT_VERSION}. {remedy}"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("method"), "method"),
        (lambda m: m["method"].update(global_weight="much"), "global_weight"),
        (lambda m: m["graphs"].pop("mask_decoder"), "no graph for mask_decoder"),
        (lambda m: m["graphs"].update(captioner=m["graphs"]["text_encoder"]), "captioner|Invalid"),
        (lambda m: m["method"].update(global_weight=1.5), "expected a share in"),
        (lambda m: m["proposals"].update(points_per_batch=0), "points_per_batch = 0; expected at least 1"),
        (lambda m: m["text"]["tokenizer"].update(file="../../etc/passwd"), "outside the bundle"),
    ],
)
def test_tampered_manifests(bundle_copy: Path, change: Callable[[Manifesto], None], message: str) -> None:
    edit(bundle_copy, change)
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle_copy)


def _manifest_with_profiles(profiles: dict[str, ShapeProfile]) -> Manifest:
    """The embedded bundle's, had its text encoder (tokens: (T, 77)) been compiled."""
    manifest = open_bundle("tabletop").manifest
    text_encoder = manifest.graphs["text_encoder"]
    file = FileSpec(text_encoder.file, text_encoder.sha256, text_encoder.size_bytes)
    engine = EngineSpec("tensorrt", "10.3.0.26", ("8.7",), profiles, file.sha256, layers=file)
    return replace(manifest, graphs={**manifest.graphs, "text_encoder": replace(text_encoder, engine=engine)})


def test_an_engines_profiles_are_of_its_inputs() -> None:
    manifest = _manifest_with_profiles({"tokens": ShapeProfile((1, 77), (2, 77), (64, 77))})
    assert Manifest.decode(manifest.encode()).graphs["text_encoder"].largest("T") == 64


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ({}, r"has profiles of \[\]; expected one of each dynamic input, \['tokens'\]"),
        ({"words": ShapeProfile((1, 77), (2, 77), (64, 77))}, r"has profiles of \['words'\]"),
        ({"tokens": ShapeProfile((1,), (2,), (64,))}, r"tokens is \(1,\), .*; expected .* of the shape \('T', 77\)"),
        ({"tokens": ShapeProfile((1, 77), (2, 77), (64,))}, r"tokens is \(1, 77\), \(2, 77\), \(64,\)"),
        ({"tokens": ShapeProfile((0, 77), (2, 77), (64, 77))}, r"expected rising sizes from 1 on"),
        ({"tokens": ShapeProfile((1, 77), (65, 77), (64, 77))}, r"expected rising sizes from 1 on"),
        ({"tokens": ShapeProfile((1, 1), (2, 76), (64, 77))}, r"expected rising sizes from 1 on"),
    ],
)
def test_impossible_profiles_are_refused(profiles: dict[str, ShapeProfile], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.decode(_manifest_with_profiles(profiles).encode())


DEEP = b'{"format_version": %d, "x": ' % FORMAT_VERSION + b"[" * 100_000


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format_version": "one"}', DEEP])
def test_manifests_that_are_none(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(bundle_copy)
