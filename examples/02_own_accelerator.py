"""Change one memory of a shipped accelerator, and see what that does to the energy of each node.

python examples/02_own_accelerator.py
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import yaml

import hwc_onnx

SAMPLES = Path(__file__).parents[1] / "sample_models"


def halved(memory: str) -> dict[str, object]:
    """The profile edge-flex with one memory at half its size; a change without a source is `assumed`."""
    content = yaml.safe_load(files("hwc_onnx.accel_profiles").joinpath("edge-flex.yaml").read_text(encoding="utf-8"))
    changed = next(entry for entry in content["memories"] if entry["name"] == memory)
    changed["bytes"] //= 2
    return {**content, "name": "edge-flex-half", "description": f"edge-flex with half the {memory}"}


def main() -> None:
    """Write the file and compare node by node."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=SAMPLES / "resnet20.onnx")
    parser.add_argument("--folder", type=Path, default=Path("example_02"), help="where the accelerator file goes")
    arguments = parser.parse_args()

    arguments.folder.mkdir(exist_ok=True)
    file = arguments.folder / "edge-flex-half.yaml"
    file.write_text(yaml.safe_dump(halved("activation_buffer"), sort_keys=False), encoding="utf-8")
    shipped = hwc_onnx.profile(arguments.model, accelerator="edge-flex").cost
    changed = hwc_onnx.profile(arguments.model, accelerator=str(file)).cost
    for before, after in zip(shipped.nodes, changed.nodes, strict=True):
        if before.total != after.total:
            print(f"{before.key}: {before.total / 1e3:.1f} -> {after.total / 1e3:.1f} nJ")
    print(f"total: {shipped.total / 1e6:.3f} -> {changed.total / 1e6:.3f} uJ")


if __name__ == "__main__":
    main()
