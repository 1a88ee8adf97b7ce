"""Energy depends on layer, setting, profile and code alone: not on what was asked before, from where, or by whom."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwc_onnx.cost import cache
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.events import Step
from hwc_onnx.files import cache_folder
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.cli.running import hwc

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


SHAPES = [LoopDims(K=8, C=8, OY=n, OX=4, FY=3, FX=3, input_size=(n, 4)) for n in (4, 5, 6)]


def heard_of(seconds, shapes, monkeypatch, folder=None):
    """Events of these tables on a clock on which every search takes so long."""
    times = itertools.accumulate(itertools.cycle((0.0, seconds)))
    monkeypatch.setattr(cache.time, "monotonic", lambda: next(times))
    heard = []
    tables = cache.TableCache(Hierarchy(load_profile("edge-flex")), folder, heard.append)
    for dims in shapes:
        tables.table(dims)
    monkeypatch.undo()
    return heard


def test_long_searches_are_said_with_the_number_of_shapes_mapped(monkeypatch):
    heard = heard_of(cache.SAID_SECONDS / 2, [*SHAPES, SHAPES[0]], monkeypatch)
    assert heard == [Step(2, 0, "layer shapes mapped on edge-flex: 2")]
    assert len(heard_of(cache.SAID_SECONDS, SHAPES, monkeypatch)) == 3


def test_short_searches_and_tables_from_disk_are_not_said(monkeypatch, tmp_path):
    assert heard_of(cache.SAID_SECONDS / 4, SHAPES, monkeypatch, tmp_path) == []
    assert heard_of(cache.SAID_SECONDS, SHAPES, monkeypatch, tmp_path) == []


@pytest.mark.parametrize("command", ["profile", "inspect", "verify"])
def test_commands_say_that_mappings_are_searched_where_it_takes_long(command, monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "SAID_SECONDS", 0.0)
    monkeypatch.setenv("HWC_ONNX_CACHE", str(tmp_path / "cache"))
    path = str(tmp_path / "m.onnx")
    onnx.save(tiny_models.ALL["residual"](), path)
    done = hwc(command, path, *(["--against", path] if command == "verify" else []), "--json")
    steps = [json.loads(line) for line in done.stderr.splitlines()]
    assert [step["done"] for step in steps] == list(range(1, len(steps) + 1)) and steps
    assert steps[0]["detail"] == "layer shapes mapped on edge-flex: 1"
