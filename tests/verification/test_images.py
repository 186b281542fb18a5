"""Real images as the data of a verification."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command

import archspec
from archspec.verification.images import ImagesError, read_images, top

np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")
GRADED = """
archspec: 1
name: net
input: {channels: 3, height: 8, width: 8}
%s
layers: [{name: flatten, op: flatten}, {name: fc, op: linear, out_features: 7}]
"""
RECIPE = """training:
  optimizer: {sgd: {lr: 0.1}}
  preprocessing: [rescale, {normalize: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.25, 0.125]}}]
  augmentation: [{random_crop: 8}]
  evaluation: [{resize: 10}, {center_crop: 8}]
"""


def image(folder: Path, name: str, size: tuple[int, int], color: tuple[int, int, int] = (255, 128, 0)) -> Path:
    """Write an image of one color."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def test_images_are_prepared_as_the_recipe_says(tmp_path: Path) -> None:
    """(255 / 255 - 0.5) / 0.5 = 1, (128 / 255 - 0.5) / 0.25 and -0.5 / 0.125 = -4."""
    path = image(tmp_path, "one.png", (30, 20))
    images, files = read_images(archspec.loads(GRADED % RECIPE), tmp_path, 4, noise=False)

    assert (files, images.shape, images.dtype) == ([path], (1, 3, 8, 8), np.float32)
    np.testing.assert_allclose(images[0, :, 4, 4], [1, (128 / 255 - 0.5) / 0.25, -4], atol=1e-6)


def test_the_center_is_cropped_as_torchvision_crops_it(tmp_path: Path) -> None:
    """A ramp of columns and rows: torchvision's Resize and CenterCrop of the same PIL image."""
    transforms = pytest.importorskip("torchvision").transforms
    ramp = np.add.outer(np.arange(23) * 5, np.arange(37) * 3).astype(np.uint8)
    picture = Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], -1))
    picture.save(tmp_path / "ramp.png")
    images, _ = read_images(archspec.loads(GRADED % RECIPE), tmp_path, 1, noise=False)
    steps = [transforms.Resize(10), transforms.CenterCrop(8), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.5] * 3, [0.5, 0.25, 0.125]))

    np.testing.assert_allclose(images[0], transforms.Compose(steps)(picture).numpy(), atol=1e-6)


def test_without_a_recipe_images_are_as_for_pretrained_weights(tmp_path: Path) -> None:
    """Scaled to 0..1, and ImageNet's mean and deviation: (1 - 0.485) / 0.229. Files are spread over the folder."""
    for i in range(6):
        image(tmp_path, f"{i}/image.png", (9, 12))
    images, files = read_images(archspec.loads(GRADED % ""), tmp_path, 3, noise=False)

    assert [path.parent.name for path in files] == ["0", "2", "4"]
    np.testing.assert_allclose(images[:, 0], (1 - 0.485) / 0.229, rtol=1e-6)
    # half a gray level at most, and no two pixels are equal
    noisy, _ = read_images(archspec.loads(GRADED % ""), tmp_path, 3)
    assert 0 < abs(noisy[:, 0] - images[:, 0]).max() <= 0.5 / 255 / 0.229 + 1e-6
    assert len(np.unique(noisy)) == noisy.size


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    """An empty folder, a file that is none, an image of too many pixels, a network that reads vectors."""
    graph = archspec.loads(GRADED % "")
    with pytest.raises(ImagesError, match="there are no images in"):
        read_images(graph, tmp_path, 1)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImagesError, match=r"text\.png cannot be read"):
        read_images(graph, tmp_path, 1)
    (tmp_path / "text.png").unlink()
    header = b"BM" + b"\0" * 8 + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    header += (30_000).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + b"\0" * 24
    (tmp_path / "bomb.bmp").write_bytes(header)
    with pytest.raises(ImagesError, match=r"bomb\.bmp cannot be read: Image size \(900000000 pixels\)"):
        read_images(graph, tmp_path, 1)
    vectors = GRADED.replace("channels: 3, height: 8, width: 8", "features: 4").replace(
        "{name: flatten, op: flatten}, ", ""
    )
    with pytest.raises(ImagesError, match="no images in gray or color"):
        read_images(archspec.loads(vectors % ""), tmp_path, 1)


def test_the_five_largest() -> None:
    """Of equal ones the first."""
    assert top(np.array([[0.1, 5, 5, -1, 3, 2], [6, 5, 4, 3, 2, 1]]), 3) == [[1, 2, 4], [0, 1, 2]]


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.xdist_group("ports")
def test_the_command_prints_what_the_targets_say(tmp_path: Path) -> None:
    """A table of the reference's outputs, and in how many images the other target agrees."""
    pytest.importorskip("torch")
    image(tmp_path, "images/a.png", (20, 16), (200, 30, 90))
    image(tmp_path, "images/b.jpg", (16, 16), (0, 30, 250))
    spec = str(ROOT / "tests" / "data" / "ports" / "port.yaml")
    words = ["--target", "torch", "--target", "numpy", "--quick", "--data", "images"]
    run = archspec_command("verify", spec, *words, cwd=tmp_path)

    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^a\.png  \d \([-.\de]+\), \d ", run.stdout, re.M)
    assert "numpy: the largest is the same in 2 of 2 images, the five largest in 2" in run.stdout
