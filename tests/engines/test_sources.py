"""Data sets on disk: the rules by which both training programs read them, and a clear message for bad ones."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.programs import write_cifar, write_idx, write_image
from PIL import Image

from archspec.engines.torch.errors import DataError
from archspec.engines.torch.sources import MAX_BYTES, read_image, read_sources

ENGINES = ROOT / "archspec" / "engines"
TRAIN, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("name", ["sources.py", "statistics.py"])
def test_both_programs_have_the_same_rules(name: str) -> None:
    """The files are the same, byte for byte."""
    assert (ENGINES / "torch" / name).read_bytes() == (ENGINES / "keras" / name).read_bytes()


def test_mnists_files_are_read(tmp_path: Path) -> None:
    """Images and labels of idx files, gzipped and not; a file that is not gzipped is taken before one that is."""
    images, labels = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7), np.array([3, 1, 4, 1, 2], np.uint8)
    write_idx(tmp_path, images, labels)
    (tmp_path / f"{TEST}.gz").write_bytes(b"not read")
    found = read_sources(tmp_path)

    assert found.num_classes == 5
    for part in (found.train, found.validation):
        assert np.array_equal(part.images[..., 0], images)
        assert part.labels.tolist() == labels.tolist()


def test_cifars_files_are_read(tmp_path: Path) -> None:
    """A label, then red, green and blue by rows."""
    write_cifar(tmp_path)
    (images, labels), test, num_classes = read_sources(tmp_path)

    assert (images.shape, test.images.shape, num_classes) == ((10, 32, 32, 3), (2, 32, 32, 3), 10)
    assert labels.tolist() == [7] * 10
    assert images[0, 2, 3, 1] == (1024 + 2 * 32 + 3) % 251


def test_digits_are_read() -> None:
    """A fifth of them is for validation."""
    train, validation, num_classes = read_sources(None)

    assert (train.images.shape, validation.images.shape, num_classes) == ((1437, 8, 8, 1), (360, 8, 8, 1), 10)


def test_folders_of_images_are_read_by_these_rules(tmp_path: Path) -> None:
    """Images also in folders below, by suffix in any case; no hidden ones, no links to folders, no folders."""
    for part in ("train", "val"):
        for name in ("a/2.png", "a/deep/1.png", "b/1.PNG", "b/2.jpeg", "b/.hidden.png"):
            write_image(tmp_path / part / name, 0)
        (tmp_path / part / ".cache").mkdir()
        (tmp_path / part / "README.txt").write_text("no class")
        (tmp_path / part / "a" / "notes.txt").write_text("no image")
        (tmp_path / part / "a" / "folder.png").mkdir()
        (tmp_path / part / "a" / "loop").symlink_to(tmp_path / part / "a")
        (tmp_path / part / "b" / "linked.png").symlink_to(tmp_path / part / "a" / "2.png")
        (tmp_path / part / "b" / "gone.png").symlink_to(tmp_path / "nothing")
        (tmp_path / part / "c").symlink_to(tmp_path / part / "b")  # a class may be a link
        os.mkfifo(tmp_path / part / "b" / "pipe.png")
    train, validation, num_classes = read_sources(tmp_path)

    names = ["a/2.png", "a/deep/1.png", *(f"{c}/{name}" for c in "bc" for name in ("1.PNG", "2.jpeg", "linked.png"))]
    assert [str(Path(path).relative_to(tmp_path / "train")) for path in train.images] == names
    assert train.labels.tolist() == validation.labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert num_classes == 3


# --- bad ones: what is wrong, and the message ------------------------------------------------------------------------

Damage = Callable[[Path], object]


def _idx(name: str, shape: tuple[int, ...], content: bytes | None = None, kind: bytes = b"\0\0\x08") -> Damage:
    """Replace an idx file by one of another shape, content and first bytes."""

    def damage(folder: Path) -> None:
        values = bytes(int(np.prod(shape))) if content is None else content
        text = kind + bytes([len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + values
        (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)

    return damage


def _write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def _edit(name: str, edit: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


def _remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def _instead(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def _sparse(name: str, size: int) -> Damage:
    return lambda folder: os.truncate(folder / name, size)


INVALID = "truncated or invalid idx file"
BROKEN = "truncated or invalid gzip file"
IDX: dict[str, tuple[Damage, str]] = {
    "images empty": (_write(TEST, b""), f"{TEST}: {INVALID}"),
    "three bytes": (_write(TEST, b"\0\0\x08"), f"{TEST}: no dimensions, and should have 3"),
    "floats": (_idx(TEST, (5, 6, 7), kind=b"\0\0\x0d"), f"{TEST}: {INVALID}"),
    "another format": (_write(TEST, b"\x89PNG\r\n\x1a\n" + bytes(500)), f"{TEST}: {INVALID}"),
    "four dimensions": (_idx(TEST, (5, 6, 7, 3)), f"{TEST}: 4 dimensions, and should have 3"),
    "two dimensions": (_idx(TEST, (5, 42)), f"{TEST}: 2 dimensions, and should have 3"),
    "one dimension": (_idx(TEST, (210,)), f"{TEST}: 1 dimensions, and should have 3"),
    "no dimension": (_idx(TEST, ()), f"{TEST}: 0 dimensions, and should have 3"),
    "255 dimensions": (_write(TEST, b"\0\0\x08\xff" + bytes(1020)), f"{TEST}: 255 dimensions, and should have 3"),
    "sides cut off": (_edit(TEST, lambda text: text[:11]), f"{TEST}: {INVALID}"),
    "only the sides": (_edit(TEST, lambda text: text[:16]), f"{TEST}: {INVALID}"),
    "no images": (_idx(TEST, (0, 6, 7)), f"{TEST}: no images: its shape is (0, 6, 7)"),
    "images of no rows": (_idx(TEST, (5, 0, 7)), f"{TEST}: no images: its shape is (5, 0, 7)"),
    "images of no columns": (_idx(TEST, (5, 6, 0)), f"{TEST}: no images: its shape is (5, 6, 0)"),
    "a byte is missing": (_edit(TEST, lambda text: text[:-1]), f"{TEST}: {INVALID}"),
    "a byte more": (_edit(TEST, lambda text: text + b"\0"), f"{TEST}: {INVALID}"),
    "more images than bytes": (_idx(TEST, (6, 6, 7), bytes(210)), f"{TEST}: {INVALID}"),
    "8e28 bytes": (_idx(TEST, (2**32 - 1,) * 3, b""), f"bytes are more than {MAX_BYTES:,}"),
    "3 GB": (_idx(TEST, (3 * 10**6, 32, 32), b""), f"3,072,000,000 bytes are more than {MAX_BYTES:,}"),
    "labels empty": (_write(TEST_LABELS, b""), f"{TEST_LABELS}: {INVALID}"),
    "labels of another format": (_write(TEST_LABELS, b"label\n3\n1\n"), f"{TEST_LABELS}: {INVALID}"),
    "labels of two dimensions": (_idx(TEST_LABELS, (5, 10)), f"{TEST_LABELS}: 2 dimensions, and should have 1"),
    "labels of no dimension": (_idx(TEST_LABELS, ()), f"{TEST_LABELS}: 0 dimensions, and should have 1"),
    "fewer labels": (_idx(TEST_LABELS, (4,)), f"{TEST_LABELS}: 4 labels of 5 images"),
    "more labels": (_idx(TEST_LABELS, (6,)), f"{TEST_LABELS}: 6 labels of 5 images"),
    "more labels in training": (_idx(TRAIN_LABELS, (6,)), f"{TRAIN_LABELS}: 6 labels of 5 images"),
    "no labels": (_idx(TEST_LABELS, (0,)), f"{TEST_LABELS}: 0 labels of 5 images"),
    "labels cut off": (_edit(TEST_LABELS, lambda text: text[:-1]), f"{TEST_LABELS}: {INVALID}"),
    "labels with a byte more": (_edit(TEST_LABELS, lambda text: text + b"\0"), f"{TEST_LABELS}: {INVALID}"),
    "one class": (_idx(TRAIN_LABELS, (5,)), f"{TRAIN_LABELS}: all labels are the same"),
    "labels swapped for images": (_idx(TEST_LABELS, (5, 6, 7)), f"{TEST_LABELS}: 3 dimensions, and should have 1"),
    "a label beyond the classes": (
        _idx(TEST_LABELS, (5,), b"\0\1\5\0\1"),
        f"{TEST_LABELS}: label 5 of image 2, but the classes are 0 to 4",
    ),
    "no test images": (_remove(TEST), f"no file {TEST}"),
    "no test labels": (_remove(TEST_LABELS), f"no file {TEST_LABELS}"),
    "no training images": (_remove(TRAIN), "no file train-images-idx3-ubyte"),
    "no training labels": (_remove(TRAIN_LABELS), "no file train-labels-idx1-ubyte"),
    "a folder for images": (_instead(TEST, Path.mkdir), f"{TEST} is not a file"),
    "a pipe for images": (_instead(TEST, os.mkfifo), f"{TEST} is not a file"),
    "a device for images": (_instead(TEST, lambda path: path.symlink_to("/dev/zero")), f"{TEST} is not a file"),
    "a broken link": (_instead(TEST, lambda path: path.symlink_to("nothing")), f"no file {TEST}"),
    "not gzipped": (_write(TRAIN, b"\0\0\x08\3" + bytes(200)), f"{TRAIN}: {BROKEN}"),
    "gzip empty": (_write(TRAIN, b""), f"{TRAIN}: {INVALID}"),
    "gzip cut off": (_edit(TRAIN, lambda text: text[: len(text) // 2]), f"{TRAIN}: {BROKEN}"),
    "gzip without its end": (_edit(TRAIN, lambda text: text[:-8]), f"{TRAIN}: {BROKEN}"),
    "gzip with a wrong sum": (_edit(TRAIN, lambda text: text[:-8] + b"\1\2\3\4" + text[-4:]), f"{TRAIN}: {BROKEN}"),
    "gzip altered": (_edit(TRAIN, lambda text: text[:12] + b"\xff\xff\xff" + text[15:]), f"{TRAIN}: {BROKEN}"),
    "gzip of gzip": (_edit(TRAIN, gzip.compress), f"{TRAIN}: {INVALID}"),
    "gzipped labels cut off": (_edit(TRAIN_LABELS, lambda text: text[:-4]), f"{TRAIN_LABELS}: {BROKEN}"),
    "a bomb that says so": (_idx(TRAIN, (10**6, 64, 64), b""), f"4,096,000,000 bytes are more than {MAX_BYTES:,}"),
    "a bomb that does not": (_idx(TRAIN, (5, 6, 7), bytes(30_000_000)), f"{TRAIN}: {INVALID}"),
}
BAD = "truncated or invalid CIFAR-10 file"
CIFAR: dict[str, tuple[Damage, str]] = {
    "batch 1 empty": (_write("data_batch_1.bin", b""), f"data_batch_1.bin: {BAD}"),
    "batch 2 empty": (_write("data_batch_2.bin", b""), f"data_batch_2.bin: {BAD}"),
    "test empty": (_write("test_batch.bin", b""), f"test_batch.bin: {BAD}"),
    "a byte is missing": (_edit("test_batch.bin", lambda text: text[:-1]), f"test_batch.bin: {BAD}"),
    "a byte more": (_edit("data_batch_5.bin", lambda text: text + b"\0"), f"data_batch_5.bin: {BAD}"),
    "batch 3 missing": (_remove("data_batch_3.bin"), "no file data_batch_3.bin"),
    "test missing": (_remove("test_batch.bin"), "no file test_batch.bin"),
    "label 10": (
        _write("data_batch_4.bin", bytes(3073) + b"\x0a" + bytes(3072)),
        "data_batch_4.bin: label 10 of image 1, but the classes are 0 to 9",
    ),
    "label 255": (_write("test_batch.bin", b"\xff" + bytes(3072)), "test_batch.bin: label 255 of image 0"),
    "CIFAR-100's": (_write("test_batch.bin", bytes(3074)), f"test_batch.bin: {BAD}"),
    "a folder": (_instead("data_batch_2.bin", Path.mkdir), "data_batch_2.bin is not a file"),
    "a pipe": (_instead("data_batch_1.bin", os.mkfifo), "data_batch_1.bin is not a file"),
    "3 GB": (_sparse("data_batch_1.bin", 3073 * 10**6), f"3,073,000,000 bytes are more than {MAX_BYTES:,}"),
}


def _class(make: Callable[[Path], object] = lambda folder: None, name: str = "c", part: str = "train") -> Damage:
    """Make a folder of a class, and what is in it."""

    def damage(folder: Path) -> None:
        path = folder / part / name
        path.mkdir(exist_ok=True)
        make(path)

    return damage


def _delete(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


FOLDERS: dict[str, tuple[Damage, str]] = {
    "no folder": (_delete, "no such folder: "),
    "a file": (lambda folder: (_delete(folder), folder.write_text("")), "no such folder: "),
    "empty": (
        lambda folder: (_delete(folder), folder.mkdir()),
        "has neither train/ and val/, nor MNIST's or CIFAR-10's",
    ),
    "no val": (lambda folder: _delete(folder / "val"), "has train/ but no folder val/"),
    "no train": (lambda folder: _delete(folder / "train"), "has val/ but no folder train/"),
    "no classes": (
        lambda folder: (_delete(folder / "train"), (folder / "train").mkdir()),
        "train: no images found: it has no folders of classes",
    ),
    "images without classes": (
        lambda folder: (_delete(folder / "train"), write_image(folder / "train" / "0.png", 0)),
        "train: no images found: it has no folders of classes",
    ),
    "a class without images": (_class(), "train/c: no images found"),
    "a class of text": (_class(lambda path: (path / "a.txt").write_text("a")), "train/c: no images found"),
    "a class of hidden images": (_class(lambda path: write_image(path / ".0.png", 0)), "train/c: no images found"),
    "a class of a folder": (_class(lambda path: (path / "x.png").mkdir()), "train/c: no images found"),
    "a class of a pipe": (_class(lambda path: os.mkfifo(path / "x.png")), "train/c: no images found"),
    "a class of a broken link": (_class(lambda path: (path / "x.png").symlink_to("no")), "train/c: no images found"),
    "a class of a loop": (_class(lambda path: (path / "loop").symlink_to(path)), "train/c: no images found"),
    "a class more in val": (
        _class(lambda path: write_image(path / "0.png", 0), part="val"),
        "train/ and val/ have different classes: c is only in val/",
    ),
    "a class more in train": (
        _class(lambda path: write_image(path / "0.png", 0)),
        "train/ and val/ have different classes: c is only in train/",
    ),
    "one class": (
        lambda folder: [_delete(folder / part / "b") for part in ("train", "val")],
        "train: a is the only class: nothing to learn",
    ),
}


@pytest.mark.parametrize(("damage", "message"), IDX.values(), ids=IDX)
def test_bad_idx_files(damage: Damage, message: str, tmp_path: Path) -> None:
    """One line that names the file and what is wrong with it."""
    images = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)
    write_idx(tmp_path, images, np.array([3, 1, 4, 1, 2], np.uint8))
    _expect(tmp_path, damage, message)


@pytest.mark.parametrize(("damage", "message"), CIFAR.values(), ids=CIFAR)
def test_bad_cifar_files(damage: Damage, message: str, tmp_path: Path) -> None:
    """The same."""
    write_cifar(tmp_path)
    _expect(tmp_path, damage, message)


@pytest.mark.parametrize(("damage", "message"), FOLDERS.values(), ids=FOLDERS)
def test_bad_folders(damage: Damage, message: str, tmp_path: Path) -> None:
    """The same."""
    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        write_image(tmp_path / "data" / f"{name}.png", 0)
    _expect(tmp_path / "data", damage, message)


def _expect(folder: Path, damage: Damage, message: str) -> None:
    read_sources(folder)  # before it is damaged
    damage(folder)
    with pytest.raises(DataError) as caught:
        read_sources(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def _png(width: int, height: int, rows: bytes = b"", depth: int = 8, color: int = 0) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, color, 0, 0, 0])
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data


def _saved(suffix: str, edit: Callable[[bytes], bytes] = bytes, mode: str = "RGB") -> Callable[[Path], object]:
    """Write an image file in the format of a suffix, edited."""

    def make(path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
        saved = path.with_suffix(suffix)
        Image.fromarray(noise).convert(mode).save(saved)
        path.write_bytes(edit(saved.read_bytes()))

    return make


CANNOT = "cannot be read as an image: "
IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), CANNOT),
    "missing": (lambda path: None, CANNOT),
    "a folder": (Path.mkdir, CANNOT),
    "text": (lambda path: path.write_text("no image"), CANNOT),
    "a page": (lambda path: path.write_text("<html>404</html>"), CANNOT),
    "PNG cut off": (_saved(".png", lambda text: text[: len(text) // 2]), CANNOT),
    "PNG altered": (_saved(".png", lambda text: text[:60] + b"\xff\xff\xff\xff" + text[64:]), CANNOT),
    "PNG's head altered": (_saved(".png", lambda text: text[:20] + b"\xff" + text[21:]), CANNOT),
    "PNG without pixels": (lambda path: path.write_bytes(_png(8, 8)), CANNOT),
    "PNG of no width": (lambda path: path.write_bytes(_png(0, 8)), CANNOT),
    "JPEG cut off": (_saved(".jpg", lambda text: text[: len(text) // 2]), CANNOT),
    "JPEG's head alone": (_saved(".jpg", lambda text: text[:30]), CANNOT),
    "WebP cut off": (_saved(".webp", lambda text: text[: len(text) // 2]), CANNOT),
    "BMP cut off": (_saved(".bmp", lambda text: text[: len(text) // 2]), CANNOT),
    "TIFF cut off": (_saved(".tif", lambda text: text[: len(text) // 2]), CANNOT),
    "PPM cut off": (_saved(".ppm", lambda text: text[: len(text) // 2]), CANNOT),
    "16 bits": (_saved(".png", mode="I;16"), "pixels of more than 8 bits (mode I;16)"),
    "floats": (_saved(".tif", mode="F"), "pixels of more than 8 bits (mode F)"),
    "13,000 x 13,000": (
        lambda path: path.write_bytes(_png(13_000, 13_000, bytes(1626 * 13_000), depth=1)),
        "13000 x 13000 pixels are more than 67,108,864",
    ),
    "40,000 x 40,000": (lambda path: path.write_bytes(_png(40_000, 40_000)), "exceeds limit of"),
    "PPM of 1e10 pixels": (lambda path: path.write_bytes(b"P6 100000 100000 255\n"), "exceeds limit of"),
}


@pytest.mark.parametrize(("make", "message"), IMAGES.values(), ids=IMAGES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_images(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """One line that names the file."""
    path = tmp_path / "image.png"
    make(path)
    with pytest.raises(DataError) as caught:
        read_image(str(path))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_images_of_any_mode_are_color(mode: str, tmp_path: Path) -> None:
    """Pixels are (H, W, 3) of uint8, writable."""
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(tmp_path / "image.tif")
    pixels = read_image(str(tmp_path / "image.tif"))

    assert (pixels.shape, pixels.dtype, pixels.flags.writeable) == ((4, 5, 3), np.uint8, True)
    assert (pixels == 255).all()
