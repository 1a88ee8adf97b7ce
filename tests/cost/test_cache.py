"""Energy depends on layer, setting, profile and code alone: not on what was asked before, from where, or by whom."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.files import cache_folder
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models

PROGRAM = """
import json, sys
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
cost = CostModel(load_profile("edge-flex"), sys.argv[1] or None).cost(parse(normalize(tiny_models.ALL["residual"]())))
print(json.dumps([[n.key, dict(n.energy), dict(n.mapping), n.cycles] for n in cost.nodes]))
"""


def bytes_of(cost):
    return json.dumps([[n.key, dict(n.energy), dict(n.mapping), n.cycles] for n in cost.nodes])


def test_cold_warm_from_disk_and_in_other_processes_are_equal_byte_for_byte(tmp_path):
    graph = parse(normalize(tiny_models.ALL["residual"]()))
    model = CostModel(load_profile("edge-flex"), tmp_path)
    cold = bytes_of(model.cost(graph))
    assert bytes_of(model.cost(graph)) == cold
    files = sorted(tmp_path.rglob("*.npz"))
    assert files
    assert bytes_of(CostModel(load_profile("edge-flex"), tmp_path).cost(graph)) == cold
    for folder in ("", str(tmp_path)):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, folder], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
        )
        assert done.stdout.strip() == cold
    assert sorted(tmp_path.rglob("*.npz")) == files


def test_damaged_file_of_the_cache_is_made_again(tmp_path):
    graph = parse(normalize(tiny_models.ALL["residual"]()))
    right = bytes_of(CostModel(load_profile("edge-flex"), tmp_path).cost(graph))
    for number, path in enumerate(sorted(tmp_path.rglob("*.npz"))):
        path.write_bytes(b"" if number % 2 else path.read_bytes()[:100])
    assert bytes_of(CostModel(load_profile("edge-flex"), tmp_path).cost(graph)) == right


@pytest.mark.parametrize("accelerator", ["edge-flex", "eyeriss-v1", "edge-tpu-64x64"])
def test_order_of_the_questions_does_not_matter(accelerator):
    rng, asked = np.random.default_rng(0), []
    for k in (16, 17, 24, 31):
        dims = LoopDims(K=k, C=12, OY=7, OX=7, FY=3, FX=3)
        for bits, density in ((8, 1.0), (4, 0.5), (2, 0.25)):
            one = LayerSetting(dims, True, bits, bits, density, density, None, Nest(dims).words("O"), bits, 1.0, k)
            asked += [(one, Place()), (one, Place(True, False, True, 8))]
    found = []
    for order in (range(len(asked)), rng.permutation(len(asked))):
        energies = StepEnergies(load_profile(accelerator), None)
        found.append({int(i): energies.best(*asked[i]) for i in order})
    assert found[0] == found[1]


def test_cache_folder_is_the_stated_one_the_users_or_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HWC_ONNX_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("HWC_ONNX_CACHE", "")
    assert cache_folder() is None
    monkeypatch.delenv("HWC_ONNX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert cache_folder() == tmp_path / "user" / "hwc-onnx"
