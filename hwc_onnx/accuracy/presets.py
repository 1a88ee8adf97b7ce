"""How images become model inputs: cut to size, divide, subtract a mean, divide by a spread.

A preset is a name, or a name with changes: "imagenet,crop=192,std=0.25". What was used is stored in the compressed
file, so that `evaluate` does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.errors import DataError, UsageError
from hwc_onnx.plugins import nearest


@dataclass(frozen=True)
class Preprocess:
    """value = (pixel / divide - mean) / std per channel, pixels being 0..255.

    `crop` is the side of the central square that the model sees (None: the model's own size); before it, the shorter
    side of an image file is scaled to `resize` (None: crop / `crop_share`; a share of 0 squeezes the whole image).
    `channels` is "rgb" or "bgr". `mean` and `std` have one entry, or one per channel in that order.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    divide: float = 255.0
    resize: int | None = None
    crop: int | None = None
    crop_share: float = 0.0
    channels: str = "rgb"

    def to_dict(self) -> dict[str, object]:
        """Plain values for a plan or a model's metadata."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Preprocess:
        """Read back `to_dict` (DataError for anything else)."""
        known = list(asdict(cls()))
        unknown = [key for key in values if key not in known]
        if unknown:
            raise DataError(
                f"{where}: unknown field '{unknown[0]}' of the preprocessing; choose from {', '.join(known)}"
            )
        try:
            return TypeAdapter(cls).validate_python(dict(values)).checked(where)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"{where}: preprocessing field '{'.'.join(map(str, first['loc']))}': {first['msg']}; see docs/data.md"
            ) from error

    def checked(self, where: str) -> Preprocess:
        """Itself, if its numbers make sense (DataError otherwise)."""
        numbers = np.array([*self.mean, *self.std, self.divide], np.float64)
        if not np.isfinite(numbers).all() or min(self.std) <= 0 or self.divide <= 0:
            raise DataError(
                f"{where}: mean {list(self.mean)}, std {list(self.std)}, divide {self.divide:g}; all must be finite, std "
                "and divide above zero"
            )
        if self.divide == 255 and (max(map(abs, self.mean)) > 1.5 or max(self.std) > 1.5):
            raise DataError(
                f"{where}: mean {list(self.mean)} and std {list(self.std)} look like 0..255 units; they apply after the "
                "division by 255: divide them by 255, or say divide=1"
            )
        if self.channels not in ("rgb", "bgr"):
            raise DataError(f"{where}: channels '{self.channels}'; choose rgb or bgr")
        return self

    def apply(self, pixels: NDArray[np.uint8], spec: InputSpec, where: str) -> NDArray[np.generic]:
        """Pixels [N, ...] in the model's layout as values of the model's type.

        Raises:
            DataError: mean or std has more entries than the images have channels.
        """
        width = max(len(self.mean), len(self.std))
        axis = channel_axis(pixels.shape, width)
        if axis is None:
            raise DataError(
                f"{where}: mean and std have {width} entries but no axis of images {list(pixels.shape[1:])} has that size; "
                "give one entry, or one per channel"
            )
        shape = [1] * pixels.ndim
        shape[axis] = -1
        mean = np.asarray(self.mean, np.float64).reshape(shape if len(self.mean) > 1 else [1] * pixels.ndim)
        std = np.asarray(self.std, np.float64).reshape(shape if len(self.std) > 1 else [1] * pixels.ndim)
        # one product and one sum per pixel: large photographs make this the slowest part of loading
        values = np.multiply(pixels, (1 / (self.divide * std)).astype(np.float32), dtype=np.float32)
        values -= (mean / std).astype(np.float32)
        return values.astype(spec.dtype, copy=False)


_IMAGENET = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop_share=0.875)
PRESETS: Mapping[str, Preprocess] = {
    # torchvision's documented transforms of its classification weights: resize 256, crop 224
    "imagenet": _IMAGENET,
    # TF-Slim's Inception preprocessing: central 87.5 %, values -1..1
    "inception": Preprocess((0.5,), (0.5,), crop_share=0.875),
    # OpenAI's CLIP: shorter side scaled to the model's size
    "clip": Preprocess(
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), crop_share=1.0
    ),
    # EfficientNet-Lite: (pixel - 127) / 128
    "efficientnet-lite": Preprocess((127.0,), (128.0,), divide=1.0, crop_share=0.875),
    # networks converted from Caffe: BGR, mean colour subtracted, no scaling
    "caffe": Preprocess((103.939, 116.779, 123.68), (1.0,), divide=1.0, crop_share=0.875, channels="bgr"),
    # channel means and spreads of the training images
    "cifar10": Preprocess((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Preprocess((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": Preprocess((0.1307,), (0.3081,)),
    "fashion-mnist": Preprocess((0.2860,), (0.3530,)),
    # values -1..1, the whole image: Normalize(0.5, 0.5) of many examples
    "signed": Preprocess((0.5,), (0.5,)),
    # values 0..1
    "unit": Preprocess(),
    # values 0..255
    "raw": Preprocess(divide=1.0),
}

WHAT: Mapping[str, str] = {
    "imagenet": "torchvision's mean and spread",
    "inception": "-1..1, central 87.5%",
    "clip": "CLIP's mean and spread",
    "efficientnet-lite": "-1..1 as (pixel - 127) / 128",
    "caffe": "BGR less a mean colour, not scaled",
    "cifar10": "its mean and spread",
    "cifar100": "its mean and spread",
    "mnist": "its mean and spread",
    "fashion-mnist": "its mean and spread",
    "signed": "-1..1",
    "unit": "0..1",
    "raw": "0..255",
}
"""What becomes of pixels under each preset, in a few words."""


def explained() -> str:
    """Every preset with what it does, for a message."""
    return ", ".join(f"{name} ({WHAT[name]})" for name in PRESETS)


def parse_preset(text: str) -> Preprocess:
    """A preset by name, with changes: "imagenet", "imagenet,crop=192", "unit,mean=0.5/0.4/0.3,channels=bgr".

    Raises:
        UsageError: an unknown name or field, or a value that is not a number.
    """
    name, *changes = [part.strip() for part in text.split(",")]
    if name not in PRESETS:
        raise UsageError(f"unknown preset '{name}'{nearest(name, list(PRESETS))}; choose from {explained()}")
    fields: dict[str, Any] = {}
    for change in changes:
        key, _, value = change.partition("=")
        try:
            if key in ("mean", "std"):
                fields[key] = tuple(float(number) for number in value.split("/"))
            elif key in ("crop", "resize"):
                fields[key] = int(value)
            elif key in ("divide", "crop_share"):
                fields[key] = float(value)
            elif key == "channels":
                fields[key] = value
            else:
                raise UsageError(
                    f"preset '{text}': unknown field '{key}'; choose from mean, std, divide, resize, crop, crop_share, "
                    "channels"
                )
        except ValueError as error:
            raise UsageError(
                f"preset '{text}': '{value}' is not a number for {key}; write for example {key}=0.5"
            ) from error
    return replace(PRESETS[name], **fields).checked(f"preset '{text}'")


def channel_axis(shape: tuple[int, ...], channels: int) -> int | None:
    """The axis of `channels` channels in images [N, ...]: the second, else the last; any where one entry fits all."""
    if channels == 1:
        return 1 if len(shape) > 1 else 0
    if len(shape) > 1 and shape[1] == channels:
        return 1
    return len(shape) - 1 if shape[-1] == channels else None
