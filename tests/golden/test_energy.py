"""Energies of the sample models on the shipped accelerators, as they were when last reviewed.

`make golden` rewrites the files; the diff shows what a change of the model or of an accelerator does.
"""

import json
from pathlib import Path

import pytest

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.workspace import open_model

FOLDER = Path(__file__).parent
SAMPLES = FOLDER.parents[1] / "sample_models"
MODELS = ("mobilenetv2_small", "resnet20", "vgg_small", "vit_tiny")
TOLERANCE = 1e-9


def record(cost):
    """What a golden file keeps of a cost: energies in the profile's unit, by component."""
    return {
        "energy": round(cost.total, 3),
        "components": {name: round(value, 3) for name, value in cost.energy.items()},
        "energy_unit": cost.energy_unit,
        "cycles": round(cost.cycles, 3),
        "macs": cost.macs,
        "accelerator_bytes": cost.accelerator_bytes,
        "coverage_macs": cost.coverage_macs,
    }


def energies(profile):
    model = CostModel(profile)
    made = {}
    for name in MODELS:
        graph = open_model(SAMPLES / f"{name}.onnx", None).graph
        made[name] = {"float": record(model.float_cost(graph)), "int8": record(model.baseline(graph))}
    return made


def differences(found, golden, path=""):
    """Paths of the values that differ."""
    if isinstance(golden, dict) and isinstance(found, dict):
        names = golden.keys() | found.keys()
        return sorted(p for n in names for p in differences(found.get(n), golden.get(n), f"{path}/{n}"))
    if isinstance(golden, float) and isinstance(found, (int, float)):
        return [] if found == pytest.approx(golden, rel=TOLERANCE, abs=1e-3) else [path]
    return [] if found == golden else [path]


@pytest.mark.parametrize("accelerator", list_profiles())
def test_energy_of_sample_models_equals_the_golden_file(accelerator, request):
    path = FOLDER / f"{accelerator}.json"
    found = energies(load_profile(accelerator))
    if request.config.getoption("--update-golden"):
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    golden = json.loads(path.read_text(encoding="utf-8"))
    assert differences(found, golden) == [], "if this is meant, run `make golden` and review the diff"


def test_a_hundredth_more_energy_per_dram_bit_is_seen_in_every_model():
    """The broken twin."""
    profile = load_profile("edge-flex")
    memories = list(profile.memories)
    memories[-1] = memories[-1].model_copy(update={"read_pj_per_bit": memories[-1].read_pj_per_bit * 1.01})
    found = energies(profile.model_copy(update={"memories": tuple(memories)}))
    golden = json.loads((FOLDER / "edge-flex.json").read_text(encoding="utf-8"))
    changed = differences(found, golden)
    assert {f"/{name}/{which}/energy" for name in MODELS for which in ("float", "int8")} <= set(changed)


def test_no_golden_file_is_left_of_an_accelerator_that_is_gone():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(list_profiles())
