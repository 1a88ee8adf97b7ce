"""Train the sample models on Fashion-MNIST and export them to ONNX.

    python sample_models/train.py                 # all four, about four core-hours
    python sample_models/train.py vgg_small       # one
    python sample_models/train.py --npz           # only write fashion_mnist.npz

A fixed number of epochs with a one-cycle learning rate; nothing is chosen on the 5,000 kept-out images or on the
10,000 test images, which are measured once, at the end. Each run writes `<name>.onnx` and a log
`training_logs/<name>.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import fashion_mnist
import numpy as np
import torch
from architectures import ARCHITECTURES
from torch import nn

HERE = Path(__file__).parent
RECIPES = {
    "resnet20": {"optimizer": "sgd", "epochs": 14, "lr": 0.2, "weight_decay": 5e-4},
    "mobilenetv2_small": {"optimizer": "sgd", "epochs": 12, "lr": 0.2, "weight_decay": 2e-4},
    "vgg_small": {"optimizer": "sgd", "epochs": 9, "lr": 0.08, "weight_decay": 5e-4},
    "vit_tiny": {"optimizer": "adamw", "epochs": 22, "lr": 2e-3, "weight_decay": 0.05},
}
BATCH = 128


def augment(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Random horizontal flip of half the images and one random shift of up to two pixels per batch half."""
    flip = torch.rand(len(x), generator=rng) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    padded = nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    out = torch.empty_like(x)
    for part in torch.randperm(len(x), generator=rng).chunk(8):
        top, left = torch.randint(0, 5, (2,), generator=rng).tolist()
        out[part] = padded[part, :, top : top + 28, left : left + 28]
    return out


def optimizer_of(model: nn.Module, recipe: dict) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; no weight decay on biases, normalisation and positions."""
    decayed = [p for p in model.parameters() if p.ndim > 1 and p.shape[0] > 1]
    rest = [p for p in model.parameters() if not (p.ndim > 1 and p.shape[0] > 1)]
    groups = [{"params": decayed, "weight_decay": recipe["weight_decay"]}, {"params": rest, "weight_decay": 0.0}]
    if recipe["optimizer"] == "sgd":
        return torch.optim.SGD(groups, recipe["lr"], momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, recipe["lr"])


@torch.inference_mode()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Top-1 in percent."""
    model.eval()
    hits = sum(int((model(x[i : i + 500]).argmax(1) == y[i : i + 500]).sum()) for i in range(0, len(x), 500))
    return 100 * hits / len(x)


def train(name: str, data: dict[str, np.ndarray], seed: int) -> None:
    """Train one network, export it and write its log."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    recipe, model = RECIPES[name], ARCHITECTURES[name]()
    mean, std = float(data["mean"][0]), float(data["std"][0])

    def images(key: str) -> torch.Tensor:
        return (torch.from_numpy(data[key]).float() / 255 - mean) / std

    layout = torch.contiguous_format if name == "vit_tiny" else torch.channels_last
    model = model.to(memory_format=layout)
    x, y = images("x_train"), torch.from_numpy(data["y_train"])
    steps = recipe["epochs"] * (len(x) // BATCH)
    optimizer = optimizer_of(model, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe["lr"], steps, pct_start=0.25)
    losses, started = [], time.time()
    for epoch in range(recipe["epochs"]):
        model.train()
        total = 0.0
        for batch in torch.randperm(len(x), generator=rng).split(BATCH):
            if len(batch) < BATCH:
                continue
            inputs = augment(x[batch], rng).contiguous(memory_format=layout)
            loss = nn.functional.cross_entropy(model(inputs), y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        losses.append(round(total / (len(x) // BATCH), 4))
        print(
            f"{name} epoch {epoch + 1}/{recipe['epochs']} loss {losses[-1]} {time.time() - started:.0f} s", flush=True
        )
    log = {
        "model": name,
        "seed": seed,
        "recipe": {**recipe, "batch": BATCH, "schedule": "one-cycle", "label_smoothing": 0.05},
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_loss_per_epoch": losses,
        "kept_out_top1": round(accuracy(model, images("x"), torch.from_numpy(data["y"])), 2),
        "test_top1": round(accuracy(model, images("x_holdout"), torch.from_numpy(data["y_holdout"])), 2),
        "torch": torch.__version__,
    }
    export(model, HERE / f"{name}.onnx")
    logs = HERE / "training_logs"
    logs.mkdir(exist_ok=True)
    (logs / f"{name}.json").write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps(log), flush=True)


def export(model: nn.Module, path: Path) -> None:
    """Write opset-17 ONNX with a dynamic batch axis, input `image` and output `logits`."""
    model = model.eval().to(memory_format=torch.contiguous_format)
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 28, 28),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the sample models on Fashion-MNIST.")
    parser.add_argument("models", nargs="*", help=f"from {', '.join(ARCHITECTURES)} (default: all)")
    parser.add_argument("--data", default=fashion_mnist.DEFAULT_FOLDER, help="folder with the four IDX files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--npz", action="store_true", help="only write fashion_mnist.npz")
    args = parser.parse_args()
    unknown = sorted(set(args.models) - set(ARCHITECTURES))
    if unknown:
        parser.error(f"unknown model {', '.join(unknown)}; choose from {', '.join(ARCHITECTURES)}")
    fashion_mnist.write_npz(HERE / "fashion_mnist.npz", args.data)
    if args.npz:
        return
    torch.set_num_threads(args.threads)
    data = fashion_mnist.load(args.data)
    for name in args.models or ARCHITECTURES:
        train(name, data, args.seed)


if __name__ == "__main__":
    main()
