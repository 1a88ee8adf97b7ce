"""Damage of each layer alone and of all together: measured as said, shared where tied, counted once in the sum."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.candidate import build
from hwc_onnx.diagnosis.sensitivity import sensitivity
from hwc_onnx.diagnosis.sensitivity_result import Sensitivity
from hwc_onnx.diagnosis.settings import settings_of, units_of
from hwc_onnx.errors import UsageError
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import CompressionPlan, LayerConfig
from hwc_onnx.workspace import calibrate, load_samples, open_float_model
from tests import tiny_models

SAMPLES = 96
X = {"x": tiny_models.feeds(tiny_models.residual(), 600, seed=3)["x"]}


@cache
def residual() -> Sensitivity:
    return sensitivity(tiny_models.residual(), data=X, samples=SAMPLES, widths=(8, 3), activation_widths=(4,))


def test_number_is_the_damage_of_the_written_model_with_that_layer_alone() -> None:
    found = residual()
    column = next(column for column in found.columns if column.setting.name == "w3")
    opened = open_float_model(tiny_models.residual())
    splits = make_splits(load_samples(X, opened.proto, None, None))
    calibrated = calibrate(opened, splits.calibration, seed=0)
    reference = make_reference(opened.proto, splits.search.take(slice(0, SAMPLES)))
    key = column.units[1].name
    in_float = LayerConfig(weight_bits=16, activation_bits=16)
    layers = {layer.key: in_float for layer in opened.graph.layers}
    plan = CompressionPlan(layers={**layers, key: LayerConfig(weight_bits=3, activation_bits=16)})
    written = build(opened.proto, opened.graph, calibrated.database, plan, "file")
    measured = measure(written.proto, reference, level="disable")
    assert column.alone[key].damage == pytest.approx(measured.damage, rel=1e-3)
    assert column.alone[key].damage > 1e-5
    everything = plan.model_copy(update={"layers": {name: plan.layers[key] for name in layers}})
    measured = measure(build(opened.proto, opened.graph, calibrated.database, everything, "file").proto, reference)
    assert column.together is not None and column.together.damage == pytest.approx(measured.damage, rel=1e-3)


def test_layers_that_share_a_tensor_or_channels_share_the_number_which_counts_once() -> None:
    payload = residual().to_json()
    rows = {row["key"]: row for row in payload["layers"]}
    shared = 0
    for setting in payload["settings"]:
        cells = {key: row["cells"][setting["name"]] for key, row in rows.items() if row["cells"][setting["name"]]}
        for key, cell in cells.items():
            for other in cell["tied"]:
                shared += 1
                assert cells[other]["damage"] == cell["damage"] and key in cells[other]["tied"]
        assert setting["sum"]["damage"] == pytest.approx(sum(unit["damage"] for unit in setting["units"]))
        assert setting["sum"]["damage"] == pytest.approx(
            sum(cell["damage"] / (1 + len(cell["tied"])) for cell in cells.values())
        )
    assert shared > 0


def test_shares_of_damage_add_up_and_order_the_rows() -> None:
    rows = residual().rows
    assert sum(row.damage_share for row in rows) == pytest.approx(1.0)
    assert [row.damage_share for row in rows] == sorted((row.damage_share for row in rows), reverse=True)
    assert 0.5 < sum(row.energy_share for row in rows) <= 1.0


def test_fewer_bits_never_look_better_by_much_and_locked_channels_have_no_number() -> None:
    payload = residual().to_json()
    for row in payload["layers"]:
        assert row["cells"]["w3"]["damage"] > row["cells"]["w8"]["damage"]
    last = next(row for row in payload["layers"] if row["op_type"] == "Gemm")
    assert last["cells"]["ch30"] is None


def test_include_chooses_rows_and_what_they_share_is_compressed_as_a_whole() -> None:
    found = sensitivity(
        tiny_models.residual(), data=X, samples=64, widths=(4,), activation_widths=(4,), include=("Gemm",)
    )
    assert [row.op_type for row in found.rows] == ["Gemm"]
    assert all(len(column.units) <= 1 for column in found.columns)


def test_products_of_activations_have_a_row_for_each_operand() -> None:
    x = tiny_models.feeds(tiny_models.attention(), 600, seed=3)
    payload = sensitivity(tiny_models.attention(), data=x, samples=64, widths=(4,), activation_widths=(4,)).to_json()
    assert payload["damage_kind"] == "squared_error"
    products = [row for row in payload["layers"] if row["cells"]["w4"] is None]
    assert sorted(row["operand"] for row in products) == [0, 0, 1, 1]
    assert all(row["cells"]["a4"]["damage"] > 0 for row in products)


def test_without_data_the_result_says_so() -> None:
    found = sensitivity(tiny_models.chain(), samples=64, widths=(4,), activation_widths=(4,))
    assert not found.real and any("synthetic" in note for note in found.notes)
    assert all(math.isfinite(column.total) for column in found.columns)
    assert np.isfinite([row.damage_share for row in found.rows]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": (9,)}, "2 to 8 bits"),
        ({"activation_widths": (1,)}, "2 to 8 bits"),
        ({"samples": 0}, "at least 1 sample"),
        ({"include": ("nothing",)}, "matches no layer"),
        ({"trials": 3}, "trials"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        sensitivity(tiny_models.chain(), data={"x": X["x"]}, **{"samples": 64, **options})


def test_a_pattern_that_can_take_nothing_is_not_tried() -> None:
    b = tiny_models.Builder(["batch", 1, 8, 8])
    t = b.node("Relu", b.conv("x", 1, 8))
    graph = parse(normalize(tiny_models.head(b, b.node("Relu", b.conv(t, 8, 8)), 8)))
    keys = [layer.key for layer in graph.layers]
    pattern = next(setting for setting in settings_of((8,), (8,)) if setting.algorithm == "nm24")
    half = next(setting for setting in settings_of((8,), (8,)) if setting.algorithm == "obs")
    block = next(setting for setting in settings_of((8,), (8,), blocks=True) if setting.algorithm == "block4")
    assert [unit.name for unit in units_of(graph, pattern, keys)] == keys[1:]
    assert [unit.name for unit in units_of(graph, block, keys)] == keys[1:]
    assert [unit.name for unit in units_of(graph, half, keys)] == keys
