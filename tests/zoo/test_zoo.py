"""A dozen networks through every step of the zoo benchmark: inspect, profile, channel removal, 2 to 8 bits, both."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import onnx
import pytest

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "benchmarks" / "zoo"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NETWORKS = ("encoder_prenorm_gelu", "attention_spelled_out", "vit", "swin", "conformer", "decoder_gqa", "mobilevit")
SAMPLES = ("resnet20", "mobilenetv2_small", "vgg_small")


def steps_of(path: Path, last: str = "both") -> dict[str, str | None]:
    """What came of each step, by name: None or the error."""
    command = [sys.executable, str(ZOO / "check.py"), str(path), last]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return {line["step"]: line["error"] for line in lines if "step" in line}


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    """The transformers of the benchmark, as torch modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ZOO))
        return importlib.import_module("transformers")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_transformer_goes_through_every_step(name: str, networks: ModuleType, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    module, inputs = networks.NETWORKS[name]()
    path = tmp_path / f"{name}.onnx"
    axes = {f"x{place}": {0: "batch"} for place in range(len(inputs))}
    torch.onnx.export(
        module.eval(), inputs, str(path), dynamo=False, opset_version=17, input_names=list(axes), dynamic_axes=axes
    )
    found = steps_of(path)
    assert len(found) == 6 and not any(found.values()), found


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_network_goes_through_every_step(name: str) -> None:
    found = steps_of(ROOT / "sample_models" / f"{name}.onnx")
    assert len(found) == 6 and not any(found.values()), found


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_a_network_of_the_onnx_package_loses_channels(name: str) -> None:
    found = steps_of(LIGHT / f"light_{name}.onnx", "masked")
    assert len(found) == 3 and not any(found.values()), found
