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
    with pytest.raises(InputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match="not writable"):
        check_writable("/proc/a.png")


def test_unknown_image_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown suffix"):
        save_image(Image.new("RGB", (2, 2)), tmp_path / "a.xyz")
    assert not os.listdir(tmp_path)
