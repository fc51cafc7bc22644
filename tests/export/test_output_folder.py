"""The place of a bundle: only a bundle is replaced, only by a complete one, and a failed build leaves no trace."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from risengine.errors import InputError
from risexport.output_folder import check_out, publish, staging

OLD = {
    "format_version": 0,
    "graphs": {"a": {"file": "a.onnx", "external": [{"file": "a.data"}]}},
    "method": {},
    "text": {"file": "words.json"},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of another version of the format."""
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps(OLD), encoding="utf-8")
    for name in ("a.onnx", "a.data", "words.json"):
        (out / name).write_text("old", encoding="utf-8")
    return out


def write_new(folder: Path) -> None:
    (folder / "manifest.json").write_text("new", encoding="utf-8")


def is_new(out: Path) -> bool:
    return [path.name for path in out.iterdir()] == ["manifest.json"] and (out / "manifest.json").read_text() == "new"


def test_a_bundle_of_any_version_is_replaced_only_with_force(bundle: Path) -> None:
    check_out(bundle, force=True)
    with pytest.raises(InputError, match="--force"):
        check_out(bundle, force=False)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"name": "web app"}', '{"format_version": 1, "graphs": {}}'])
def test_another_manifest_is_no_bundles(bundle: Path, content: str) -> None:
    (bundle / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"is no bundle .* Choose another OUT"):
        check_out(bundle, force=True)


@pytest.mark.parametrize("name", ["notes.txt", "photographs/holiday.jpg"])
def test_a_bundle_with_other_files_is_not_replaced(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match=rf"holds {name}, which .* Move them away"):
        check_out(bundle, force=True)


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="is no bundle"):
        check_out(tmp_path / "out", force=True)


def test_a_new_bundle_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").mkdir()
    out = tmp_path / "bundle"
    with staging(out) as folder:
        write_new(folder)
        publish(folder, out, force=False)
    assert is_new(out)
    assert out.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_parents_stay_with_the_bundle_and_go_with_a_failure(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    out = tmp_path / "kept" / "made" / "too" / "bundle"
    with pytest.raises(KeyboardInterrupt), staging(out):
        raise KeyboardInterrupt
    assert not list((tmp_path / "kept").iterdir())
    with staging(out) as folder:
        write_new(folder)
        publish(folder, out, force=False)
    assert is_new(out)


def test_something_that_came_during_the_build_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with staging(out) as folder:
        out.mkdir()
        with pytest.raises(InputError, match="--force"):
            publish(folder, out, force=False)


def test_two_builds_of_one_process_are_not_in_each_others_way(tmp_path: Path) -> None:
    with staging(tmp_path / "bundle") as first, staging(tmp_path / "bundle") as second:
        assert first != second


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.EXDEV, "Invalid cross-device link"), InputError)],
)
@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("before", [True, False])
def test_a_bundle_is_there_whenever_a_replacement_fails(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
    failing: int,
    before: bool,
) -> None:
    """The first or second rename is interrupted or refused, before or just after it took place."""
    rename, calls = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == failing and before:
            raise error
        moved = rename(path, target)
        if len(calls) == failing:
            raise error
        return moved

    with staging(bundle) as folder:
        write_new(folder)
        monkeypatch.setattr(Path, "rename", interrupted)
        with pytest.raises(raised):
            publish(folder, bundle, force=True)
    if failing == 2 and not before:
        assert is_new(bundle)
    else:
        assert (bundle / "a.onnx").read_text() == "old"
    assert list(bundle.parent.iterdir()) == [bundle]


def test_what_cannot_be_removed_does_not_fail_a_build(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with staging(bundle) as folder:
        write_new(folder)
        monkeypatch.setattr("os.unlink", _refuse)
        publish(folder, bundle, force=True)
        monkeypatch.undo()
    assert is_new(bundle)


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")
