"""CIFAR-10/100 binary files and IDX files (MNIST, Fashion-MNIST), as their authors publish them.

Only the test part is read when a folder holds both: networks have seen the training part, on which every accuracy
looks too good.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.arrays import content_digest, pool_of_arrays
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.presets import Preprocess
from hwc_onnx.errors import DataError

CIFAR_FILES = {"test_batch.bin": 1, "test.bin": 2, "train.bin": 2, **{f"data_batch_{i}.bin": 1 for i in range(1, 6)}}
"""File name -> label bytes per record: CIFAR-100 has a coarse label before the fine one."""
_PIXELS = 3 * 32 * 32
_IDX_IMAGES, _IDX_LABELS = 0x00000803, 0x00000801
_MOST_BYTES = 1 << 30


def find_binary_set(path: Path) -> Path | None:
    """The CIFAR or IDX file that `path` (a file or a folder) means, or None."""
    if path.is_file():
        return path if path.name in CIFAR_FILES or "-idx3-ubyte" in path.name else None
    for name in ("test_batch.bin", "test.bin"):
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("t10k-images-idx3-ubyte*")) or sorted(path.glob("*test*-idx3-ubyte*"))
    return found[0] if found else None


def load_binary_set(
    path: Path, specs: Sequence[InputSpec], preset: Preprocess | None, stored: Preprocess | None
) -> Data:
    """Read the file that `find_binary_set` named.

    Raises:
        DataError: the file is truncated or of another format, or the model reads images of another shape.
    """
    pixels, labels = _cifar(path) if path.name in CIFAR_FILES else _idx(path)
    if len(specs) != 1 or len(specs[0].shape) != 4:
        raise DataError(f"{path}: holds images {list(pixels.shape[1:])}; the model must have one image input")
    spec = specs[0]
    if spec.shape[-1] == pixels.shape[1] and spec.shape[1] != pixels.shape[1]:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    preprocess = preset or stored or Preprocess()
    notes = () if preset or stored else ("no --preset: pixels are only divided by 255",)
    pool = pool_of_arrays({spec.name: pixels}, labels, specs, preprocess, str(path))
    return Data(pool, None, preprocess.to_dict(), str(path), True, content_digest([pixels, labels]), notes)


def _cifar(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, 3, 32, 32] and labels [N] of one CIFAR file."""
    label_bytes = CIFAR_FILES[path.name]
    raw = np.frombuffer(_bytes(path), np.uint8)
    record = label_bytes + _PIXELS
    if raw.size == 0 or raw.size % record:
        raise DataError(
            f"{path}: {raw.size} bytes, not a multiple of the {record}-byte records of a CIFAR binary file; it is truncated "
            "or another format: download it again, or give an .npz"
        )
    records = raw.reshape(-1, record)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1].astype(np.int64)


def _idx(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Images [N, 1, rows, columns] and labels [N] (None without a label file beside it) of an IDX pair."""
    images = _idx_array(path, _IDX_IMAGES, 3)
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == path or not labels.is_file():
        return images[:, None], None
    found = _idx_array(labels, _IDX_LABELS, 1)
    if len(found) != len(images):
        raise DataError(f"{labels}: {len(found)} labels for {len(images)} images; the two files do not belong together: put matching ones side by side")
    return images[:, None], found.astype(np.int64)


def _idx_array(path: Path, magic: int, rank: int) -> NDArray[np.uint8]:
    raw = _bytes(path)
    header = np.frombuffer(raw[: 4 + 4 * rank].ljust(4 + 4 * rank, b"\0"), ">u4")
    shape = [int(size) for size in header[1:]]
    if int(header[0]) != magic or len(raw) != 4 + 4 * rank + int(np.prod(shape, dtype=object)):
        raise DataError(
            f"{path}: not a complete IDX file of {rank} axes (magic {int(header[0]):#010x}, {len(raw)} bytes, sizes {shape}); "
            f"expected magic {magic:#010x}"
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _bytes(path: Path) -> bytes:
    """The content, unpacked if gzipped, at most 1 GB."""
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{path}: unpacks to more than {_MOST_BYTES >> 30} GB; data sets of this format are smaller: give an .npz")
    return content
