"""A folder of image files: one sub-folder per class (labels in alphabetical order), or images without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.pool import Data, Pool
from hwc_onnx.accuracy.presets import Preprocess, explained
from hwc_onnx.accuracy.runner import usable_threads
from hwc_onnx.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff"})


def load_image_folder(
    path: Path, specs: Sequence[InputSpec], preset: Preprocess | None, stored: Preprocess | None
) -> Data:
    """Read `path/class/*.jpg`, decoding images only when a split takes them.

    Raises:
        DataError: no images, a model that does not read one image, a size that nothing settles, or no word on how
            images are normalised.
        UsageError: Pillow is not installed.
    """
    files, labels = _list(path)
    if len(specs) != 1 or len(specs[0].shape) != 4:
        shapes = ", ".join(f"'{spec.name}' {list(spec.shape)}" for spec in specs)
        raise DataError(f"{path}: image folders fit models with one image input, this one reads {shapes}; use an .npz")
    preprocess = preset or stored
    if preprocess is None:
        raise DataError(
            f"{path}: an image folder does not say how images are normalised; choose the --preset that the network was trained with: "
            f"{explained()}; with changes such as imagenet,crop=192"
        )
    _require_pillow()
    spec = specs[0]
    channels_last, channels, size = _layout(spec, preprocess, path)

    def fetch(index: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        with ThreadPoolExecutor(usable_threads()) as workers:
            images = list(workers.map(lambda i: decode(files[i], channels, size, preprocess), index.tolist()))
        pixels = np.stack(images)
        ordered = pixels if channels_last else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        if spec.dtype == np.uint8:
            return {spec.name: ordered}
        return {spec.name: preprocess.apply(ordered, spec, str(path))}

    pool = Pool(len(files), labels, fetch, tuple(specs), str(path))
    hasher = hashlib.sha256()
    for file in files:
        hasher.update(f"{file.relative_to(path)}:{file.stat().st_size};".encode())
    notes = () if preset is not None else ("images are prepared as the model file says",)
    return Data(pool, None, preprocess.to_dict(), str(path), True, hasher.hexdigest(), notes)


def decode(path: Path, channels: int, size: tuple[int, int], preprocess: Preprocess) -> NDArray[np.uint8]:
    """One image as [rows, columns, channels]: shorter side scaled, central part cut out, channel order set.

    Raises:
        DataError: the file is not a readable image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}); remove or replace the file") from error
    pixels = np.asarray(_fit(image, size, preprocess), np.uint8)
    if channels == 1:
        return pixels[:, :, None]
    return pixels[:, :, ::-1] if preprocess.channels == "bgr" else pixels


def _fit(image: Image.Image, size: tuple[int, int], preprocess: Preprocess) -> Image.Image:
    """Scaled and cropped to `size` (rows, columns)."""
    from PIL import Image

    rows, columns = size
    if preprocess.resize is None and preprocess.crop_share == 0:
        return image.resize((columns, rows), Image.Resampling.BILINEAR)
    shorter = preprocess.resize or round(min(rows, columns) / preprocess.crop_share)
    scale = shorter / min(image.size)
    scaled = (max(columns, round(image.width * scale)), max(rows, round(image.height * scale)))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (image.width - columns) // 2, (image.height - rows) // 2
    return image.crop((left, top, left + columns, top + rows))


def _layout(spec: InputSpec, preprocess: Preprocess, path: Path) -> tuple[bool, int, tuple[int, int]]:
    """(channels last, channels, (rows, columns)) of the model's image input."""
    _, second, third, last = spec.shape
    if second in (1, 3):
        channels_last, channels, sides = False, second, (third, last)
    elif last in (1, 3):
        channels_last, channels, sides = True, last, (second, third)
    else:
        raise DataError(
            f"{path}: the model's input '{spec.name}' {list(spec.shape)} has no axis of 1 or 3 channels; use an .npz"
        )
    rows, columns = (side or preprocess.crop for side in sides)
    if rows is None or columns is None:
        raise DataError(
            f"{path}: the model's input '{spec.name}' {list(spec.shape)} leaves the image size open; add crop to the "
            "preset (imagenet,crop=224) or give --input-shape"
        )
    return channels_last, channels, (rows, columns)


def _list(path: Path) -> tuple[list[Path], NDArray[np.int64] | None]:
    """Image files and their labels; files directly in the folder have none."""
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    per_class = [_images(entry) for entry in classes]
    if any(per_class):
        empty = [entry.name for entry, found in zip(classes, per_class, strict=True) if not found]
        if empty:
            raise DataError(
                f"{path}: class folder '{empty[0]}' holds no images, so later classes would get wrong labels; fill or remove it"
            )
        counts = [len(found) for found in per_class]
        return [file for found in per_class for file in found], np.repeat(np.arange(len(classes)), counts)
    flat = _images(path)
    if not flat:
        raise DataError(
            f"{path}: no images found; expected path/class/image.jpg ({', '.join(sorted(SUFFIXES))}), CIFAR or IDX files"
        )
    return flat, None


def _images(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


def _require_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise UsageError('image folders need Pillow; install it with: pip install "hwc-onnx[images]"') from error
