from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from risengine.errors import InputError
from risengine.images import MAX_PIXELS, load_image


def gradient(height: int = 12, width: int = 20) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 9, x * 9, (x + y) * 5], axis=-1).astype(np.uint8)


def test_png_is_read_exactly(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), gradient())
    np.testing.assert_array_equal(load_image(str(tmp_path / "a.png")), gradient())


def test_arrays_are_copied_not_aliased() -> None:
    array = gradient()
    loaded = load_image(array)
    loaded[:] = 0
    np.testing.assert_array_equal(array, gradient())
    np.testing.assert_array_equal(load_image(gradient()[::-1]), gradient()[::-1])


@pytest.mark.parametrize(("suffix", "mode"), [("png", "L"), ("png", "P"), ("png", "1"), ("jpg", "CMYK"), ("gif", "P")])
def test_other_modes_become_rgb(tmp_path: Path, suffix: str, mode: str) -> None:
    image = Image.fromarray(gradient()).convert(mode)
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    loaded = load_image(path)
    assert loaded.shape == (12, 20, 3)
    assert loaded.dtype == np.uint8
    with Image.open(path) as stored:
        np.testing.assert_array_equal(loaded, np.asarray(stored.convert("RGB")))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, :3, 3] = 255
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert (loaded[:, :3] == (200, 0, 0)).all()
    assert (loaded[:, 3:] == 255).all()


def test_16_bit_gray_is_scaled_to_8_bits(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png")[0, :, 0], [0, 1, 255])


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), np.rot90(gradient(), k=-1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_shapes(shape: tuple[int, int]) -> None:
    assert load_image(np.zeros((*shape, 3), np.uint8)).shape == (*shape, 3)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(gradient() // (i + 1)) for i in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="3 frames; expected a still"):
        load_image(tmp_path / f"a.{suffix}")


def test_a_phones_mpo_is_its_photograph(tmp_path: Path) -> None:
    frames = [Image.fromarray(gradient() // (i + 1)) for i in range(2)]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.n_frames == 2
        np.testing.assert_array_equal(load_image(tmp_path / "a.jpg"), np.asarray(stored.convert("RGB")))


def test_unreadable_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        load_image("x" * 5000)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    Image.fromarray(gradient()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        load_image(tmp_path / "a.png")


def test_a_truncated_picture_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Image.open(path) as lazy, pytest.raises(InputError, match="cannot be decoded"):
        load_image(lazy)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is not a file"):
        load_image(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"is not an image|cannot be decoded"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"truncated|is not an image"):
        load_image(path)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    assert side * side > MAX_PIXELS
    with pytest.raises(InputError, match=f"{MAX_PIXELS}"):
        load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (3, 4, 4), (0, 4, 3), (4, 4, 3, 1)])
def test_arrays_of_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(H, W, 3\)"):
        load_image(np.zeros(shape, np.uint8))


def test_arrays_of_wrong_dtype_and_nan() -> None:
    with pytest.raises(InputError, match="dtype float32; expected uint8"):
        load_image(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="contains NaN"):
        load_image(np.full((4, 4, 3), np.nan))  # type: ignore[arg-type]


def test_floating_point_pictures_and_other_objects() -> None:
    with pytest.raises(InputError, match="floating-point"):
        load_image(Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(InputError, match="is a list"):
        load_image([[1, 2, 3]])  # type: ignore[arg-type]
