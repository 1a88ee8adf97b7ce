"""Compress a sample network from Python, watch it, and read what each layer became.

python examples/01_compress.py --trials 20
"""

from __future__ import annotations

import argparse
from pathlib import Path

import hwc_onnx
from hwc_onnx.events import Event, TrialDone

SAMPLES = Path(__file__).parents[1] / "sample_models"


def watch(event: Event) -> None:
    """Print each improvement."""
    if isinstance(event, TrialDone) and event.improved:
        print(
            f"trial {event.evaluations}: {100 * event.energy:.1f}% of INT8's energy, drop {event.drop_points:+.2f} points"
        )


def main() -> None:
    """Search, save, and list the layers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=SAMPLES / "resnet20.onnx")
    parser.add_argument("--data", default=SAMPLES / "fashion_mnist.npz")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--max-drop", type=float, default=1.0, help="points of accuracy that may be lost")
    parser.add_argument("--folder", type=Path, default=Path("example_01"), help="where the files go")
    arguments = parser.parse_args()

    arguments.folder.mkdir(exist_ok=True)
    result = hwc_onnx.compress(
        arguments.model,
        data=str(arguments.data),
        accelerator="edge-flex",
        max_drop=arguments.max_drop,
        trials=arguments.trials,
        output=arguments.folder / "model.hwc.onnx",
        run_dir=arguments.folder / "run",
        on_event=watch,
    )
    if result.plan is not None:
        for key, config in result.plan.layers.items():
            print(f"{key}: {config.algorithm} {config.ratio:.2f}, W{config.weight_bits} A{config.activation_bits}")
    low, high = result.evaluation.ci95
    print(f"drop {result.evaluation.drop_points:+.2f} points (95% interval {low:+.2f} .. {high:+.2f})")


if __name__ == "__main__":
    main()
