from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from risengine.errors import InputError
from risengine.output import check_writable, save_image, write_atomically


def test_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")

    def full_disk(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write_atomically(tmp_path / "a.json", full_disk)
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_results_are_ordinary_files(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", lambda file: file.write(b"x"))
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    assert (tmp_path / "a.bin").stat().st_mode == plain.stat().st_mode


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_writable(tmp_path / "none" / "a.png")
    for special in (tmp_path, Path("/dev/null")):
        with pytest.raises(InputError, match="is a folder or a device"):
            check_writable(special)
    for path in ("/proc/a.png", tmp_path / ("a" * 300), "~no-such-user/a.png"):
        with pytest.raises(InputError, match=r"not writable|does not exist"):
            check_writable(path)
    assert not os.listdir(tmp_path)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(b"old")
    (tmp_path / "link.bin").symlink_to(tmp_path / "real.bin")
    write_atomically(tmp_path / "link.bin", lambda file: file.write(b"new"))
    assert (tmp_path / "link.bin").is_symlink()
    assert (tmp_path / "real.bin").read_bytes() == b"new"


def test_unknown_image_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown suffix"):
        save_image(Image.new("RGB", (2, 2)), tmp_path / "a.xyz")
    assert not os.listdir(tmp_path)
