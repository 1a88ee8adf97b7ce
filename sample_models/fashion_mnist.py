"""Fashion-MNIST from its four IDX files, split into 55,000 training and 5,000 kept-out images, and 10,000 test images.

The kept-out images are what `hwc-onnx` calibrates and searches on; the test images are its holdout. Neither is
ever trained on. Data: Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv 1708.07747, MIT licence.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

DEFAULT_FOLDER = "/usr/share/datasets/fashion-mnist"
KEPT_OUT = 5_000
SPLIT_SEED = 2312


def read_idx(path: Path) -> np.ndarray:
    """One IDX file of unsigned bytes, plain or gzipped, as an array of the shape in its header."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path}: not an IDX file of unsigned bytes")
    rank = raw[3]
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def find(folder: Path, stem: str) -> Path:
    """The file `stem` in `folder`, gzipped or not."""
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    raise SystemExit(
        f"{folder}: no {stem}[.gz]. Install Debian's dataset-fashion-mnist or pass --data FOLDER with the four files."
    )


def load(folder: str = DEFAULT_FOLDER) -> dict[str, np.ndarray]:
    """Arrays `x_train, y_train` (55,000), `x, y` (5,000 kept out), `x_holdout, y_holdout` (10,000), `mean`, `std`.

    Images are uint8 [N, 1, 28, 28], labels int64; mean and std are of the 55,000 training images in 0..1 units.
    """
    root = Path(folder)
    images = read_idx(find(root, "train-images-idx3-ubyte"))[:, None]
    labels = read_idx(find(root, "train-labels-idx1-ubyte")).astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    kept, train = np.sort(order[:KEPT_OUT]), np.sort(order[KEPT_OUT:])
    scaled = images[train].astype(np.float64) / 255
    return {
        "x_train": images[train],
        "y_train": labels[train],
        "x": images[kept],
        "y": labels[kept],
        "x_holdout": read_idx(find(root, "t10k-images-idx3-ubyte"))[:, None],
        "y_holdout": read_idx(find(root, "t10k-labels-idx1-ubyte")).astype(np.int64),
        "mean": np.array([scaled.mean()], np.float32),
        "std": np.array([scaled.std()], np.float32),
    }


def write_npz(path: Path, folder: str = DEFAULT_FOLDER) -> None:
    """Write the file that `hwc-onnx --data` reads: everything but the training images."""
    arrays = {k: v for k, v in load(folder).items() if not k.endswith("_train")}
    np.savez_compressed(path, **arrays)
