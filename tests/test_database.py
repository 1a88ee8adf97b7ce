"""Entries are the same however they are made: alone, together, by two threads, or read from the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwc_onnx.database import Entry, LayerDatabase
from hwc_onnx.errors import PlanError
from hwc_onnx.plan import LayerConfig
from hwc_onnx.recovery.layer_weight import select_outputs
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import Prepared, prepare

CONFIGS = [
    LayerConfig(weight_bits=3, activation_bits=4),
    LayerConfig(algorithm="obs", ratio=0.5, weight_bits=4, activation_bits=8),
    LayerConfig(algorithm="nm24", weight_bits=2, activation_bits=8),
]
MODELS: list[Callable[[], object]] = [tiny_models.chain, tiny_models.depthwise, tiny_models.conv_transpose]


def equal(a: Entry, b: Entry) -> bool:
    same = np.array_equal(a.weight.codes, b.weight.codes) and np.array_equal(a.weight.bias, b.weight.bias)
    if a.weight.params is not None and b.weight.params is not None:
        same &= np.array_equal(a.weight.params.scale, b.weight.params.scale)
    return same and (a.error_fit, a.error_heldout, a.density) == (b.error_fit, b.error_heldout, b.density)


def requests(made: Prepared) -> list[tuple[str, LayerConfig, None, str]]:
    return [(key, config, None, "none") for key in made.database.parameters for config in CONFIGS]


def entries(database: LayerDatabase, wanted: list[tuple[str, LayerConfig, None, str]]) -> list[Entry]:
    return [database.entry(*one) for one in wanted]


@pytest.mark.parametrize("model", MODELS)
def test_entries_are_the_same_alone_together_and_with_two_threads(model) -> None:  # type: ignore[no-untyped-def]
    alone = prepare(model)
    wanted = requests(alone)
    expected = entries(alone.database, wanted)
    for workers in (1, 2):
        made = prepare(model).database
        assert made.prepare(wanted, workers) == len(wanted)
        assert made.prepare(wanted, workers) == 0
        assert all(map(equal, entries(made, wanted), expected))
    assert not equal(expected[0], expected[1])


def test_entries_from_the_cache_folder_equal_those_made(tmp_path: Path) -> None:
    first = prepare(tiny_models.chain, cache_dir=tmp_path)
    wanted = requests(first)
    expected = entries(first.database, wanted)
    again = prepare(tiny_models.chain, cache_dir=tmp_path).database
    assert again.prepare(wanted, 1) == 0
    assert all(map(equal, entries(again, wanted), expected))


@pytest.mark.parametrize(
    "other",
    [
        {"images": 17},
        {"recovery": "ranges"},
        {"portable": True},
        {"make": lambda: tiny_models.chain(1)},
    ],
)
def test_entries_of_other_data_weights_or_rules_are_not_taken_from_the_cache(other: dict, tmp_path: Path) -> None:
    first = prepare(tiny_models.chain, cache_dir=tmp_path)
    wanted = requests(first)
    first.database.prepare(wanted, 1)
    changed = {"make": tiny_models.chain, "cache_dir": tmp_path} | other
    assert prepare(**changed).database.prepare(wanted, 1) == len(wanted)


@pytest.mark.parametrize("spec", ["w3a4,fine=obs:0.5", "w4a8,coarse=gram:0.3"])
@pytest.mark.parametrize("model", MODELS)
def test_a_stitched_plan_holds_its_layers_entries(model, spec: str) -> None:  # type: ignore[no-untyped-def]
    made = prepare(model)
    database, plan = made.database, uniform(made.graph, parse_spec(spec))
    stitched = database.stitch(plan)
    for layer in made.graph.layers:
        inputs = database.input_keep(layer.key, stitched.keep)
        entry = database.entry(layer.key, plan.layers[layer.key], inputs)
        rows = database.maps.kept(layer, layer.output_axis, stitched.keep)
        expected = entry.weight if rows is None else select_outputs(entry.weight, layer.output_axis, rows)
        found = stitched.weights[layer.key]
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_array_equal(found.bias, expected.bias)
        assert stitched.plan.achieved[layer.key].weight_density == np.count_nonzero(found.codes) / found.codes.size
        assert found.codes.shape[layer.output_axis] == (
            layer.weight_shape[layer.output_axis] if rows is None else len(rows)
        )
    for group in made.graph.activation_groups:
        params = {stitched.activations[t].scale.item() for t in group.tensors if t in stitched.activations}
        assert len(params) <= 1
    if "coarse" in spec:
        assert stitched.keep
        kept = {len(stitched.keep[r]) for r in stitched.keep}
        assert kept == {a.kept_channels for a in stitched.plan.achieved.values() if a.kept_channels} & kept


def test_achieved_ratio_counts_zeros_of_mask_and_of_rounding() -> None:
    made = prepare(tiny_models.chain)
    plan = uniform(made.graph, parse_spec("w2a8,fine=magnitude:0.5"))
    for key, achieved in made.database.stitch(plan).plan.achieved.items():
        assert achieved.ratio == pytest.approx(1 - achieved.weight_density)
        assert plan.layers[key].algorithm == "none" or achieved.ratio >= 0.5 - 1 / 20


def test_a_plan_that_wants_two_widths_for_one_tensor_is_refused() -> None:
    made = prepare(tiny_models.concat)
    plan = uniform(made.graph, parse_spec("w4a8"))
    layers = dict(plan.layers)
    key = made.graph.layers[0].key
    layers[key] = layers[key].model_copy(update={"activation_bits": 4})
    with pytest.raises(PlanError, match=key):
        made.database.stitch(plan.model_copy(update={"layers": layers}))


def test_a_plan_with_a_layer_that_the_graph_lacks_is_refused_with_the_nearest_name() -> None:
    made = prepare(tiny_models.chain)
    plan = uniform(made.graph, parse_spec("w4a8"))
    key = made.graph.layers[1].key
    extra = plan.model_copy(update={"layers": {**plan.layers, key + "x": LayerConfig()}})
    with pytest.raises(PlanError, match=rf"layer '{key}x' is not in the model \(did you mean '{key}'\?\)"):
        made.database.stitch(extra)
    assert set(made.database.stitch(plan).weights) == set(plan.layers)


@pytest.mark.parametrize("position", range(3))
def test_a_plan_without_a_setting_for_some_layer_is_refused_by_name(position: int) -> None:
    made = prepare(tiny_models.chain)
    plan = uniform(made.graph, parse_spec("w4a8"))
    key = made.graph.layers[position].key
    fewer = plan.model_copy(update={"layers": {k: config for k, config in plan.layers.items() if k != key}})
    with pytest.raises(PlanError, match=f"layer '{key}' has no setting"):
        made.database.stitch(fewer)


def test_what_was_finished_before_an_interrupt_is_kept(tmp_path: Path) -> None:
    first = prepare(tiny_models.chain, cache_dir=tmp_path)
    wanted = requests(first)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.database.prepare(wanted, 1, interrupt)
    left = prepare(tiny_models.chain, cache_dir=tmp_path).database.prepare(wanted, 1)
    assert 0 < left < len(wanted)
