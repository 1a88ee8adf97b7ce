"""The headline figures: energy saved against dense INT8 at a bounded accuracy drop, without retraining.

    python benchmarks/headline.py                               # resnet20 on edge-flex, 3 seeds, 200 evaluations
    python benchmarks/headline.py --model vgg_small --accel edge-tpu-64x64
    python benchmarks/headline.py --all --markdown docs/results.md

Each row is one `compress` from an empty folder: calibration, layer database, search, final gate on the 10,000 test
images. The energy of the result is printed against dense INT8 on the same accelerator, and, where the accelerator is
`edge-flex`, on its fixed-width twin `edge-flex-fixed8` beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import hwc_onnx

SAMPLES = Path(__file__).parent.parent / "sample_models"
MODELS = ("resnet20", "mobilenetv2_small", "vgg_small", "vit_tiny")


def run(name: str, accelerator: str, twin: str | None, args: argparse.Namespace, seed: int) -> dict:
    """One compress; the row's figures."""
    with tempfile.TemporaryDirectory() as folder:
        result = hwc_onnx.compress(
            SAMPLES / f"{name}.onnx",
            data=SAMPLES / "fashion_mnist.npz",
            accelerator=accelerator,
            max_drop=args.max_drop,
            trials=args.trials,
            sampler=args.sampler,
            seed=seed,
            run_dir=Path(folder) / "run",
            output=Path(folder) / "out.onnx",
            compare_accelerators=(twin,) if twin else (),
        ).to_json()
    beside = {row["name"]: row["reduction_vs_int8"] for row in result.get("compared_accelerators", ())}
    return {
        "model": name,
        "accelerator": accelerator,
        "seed": seed,
        "saved": result["reduction_vs_int8"],
        "saved_float": result["reduction_vs_float"],
        "twin": beside.get(twin) if twin else None,
        "drop": result["metric"]["drop_points"],
        "ci": result["metric"]["drop_ci95"],
        "evaluations": result["search"]["evaluations"],
        "seconds": result["search"]["seconds"],
        "database_seconds": result["search"]["database_seconds"],
        "kind": result["output"]["kind"],
        "bytes": result["output"]["file_bytes"] / result["output"]["original_file_bytes"],
    }


def line(row: dict) -> str:
    """One Markdown row."""
    twin = f"{100 * row['twin']:.1f} %" if row["twin"] is not None else "-"
    return (
        f"| {row['model']} | {row['accelerator']} | {row['seed']} | {100 * row['saved']:.1f} % | {twin} "
        f"| {100 * row['saved_float']:.1f} % | {row['drop']:+.2f} ({row['ci'][0]:+.2f} .. {row['ci'][1]:+.2f}) "
        f"| {100 * row['bytes']:.0f} % | {row['evaluations']} | {row['seconds'] + row['database_seconds']:.0f} s |"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Energy saved against dense INT8 on the sample models.")
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--accel", action="append")
    parser.add_argument("--all", action="store_true", help="every sample model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--sampler", default="composite")
    parser.add_argument("--markdown", type=Path, help="also write the table there")
    args = parser.parse_args()
    models = MODELS if args.all else args.model or ["resnet20"]
    head = [
        f"`python benchmarks/headline.py`: at most {args.max_drop} points, {args.trials} evaluations, {args.sampler}",
        "",
        "| model | accelerator | seed | energy saved vs INT8 | on edge-flex-fixed8 | vs float | holdout drop, points (95 %)"
        " | file | evaluations | wall time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines = list(head)
    print("\n".join(head), flush=True)
    for name in models:
        for accelerator in args.accel or ["edge-flex"]:
            twin = "edge-flex-fixed8" if accelerator == "edge-flex" else None
            rows = []
            for seed in range(args.seeds):
                rows.append(run(name, accelerator, twin, args, seed))
                lines.append(line(rows[-1]))
                print(lines[-1], flush=True)
            saved, drop = (statistics.median(row[key] for row in rows) for key in ("saved", "drop"))
            lines.append(f"| **{name}** | {accelerator} | median | **{100 * saved:.1f} %** | | | {drop:+.2f} | | | |")
            print(lines[-1], flush=True)
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
