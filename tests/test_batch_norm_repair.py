"""BatchNormalizations that are left, re-estimated: outputs get the original's mean and spread, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import hwc_onnx
from hwc_onnx.accuracy.tensors import with_outputs
from hwc_onnx.candidate import assemble
from hwc_onnx.database import Stitched
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.plan import REPAIRS, CompressionPlan
from hwc_onnx.polish import polished_layers
from hwc_onnx.recovery.batch_norms import BatchNorm, batch_norms, reestimated
from hwc_onnx.rewrite.channel_repair import LEAN
from hwc_onnx.rewrite.float_model import float_model, with_constants
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.statistics_repair import StatisticsRepair
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import calibrate, open_float_model
from tests import tiny_models
from tests.pruning.prepared import Prepared, prepare
from tests.pruning.test_coarse import masked
from tests.test_statistics_repair import IMAGES, error, repair_of


def norm(b: tiny_models.Builder, x: str, channels: int) -> str:
    scale, var = (b.const(b.rng.uniform(0.5, 2, channels)) for _ in range(2))
    return b.node("BatchNormalization", x, scale, b.vector(channels), b.vector(channels), var, epsilon=1e-3)


def preactivation(seed: int = 0) -> onnx.ModelProto:
    """A residual block whose Convs have their normalization before them; the last of them stands behind the Add."""
    b = tiny_models.Builder(["batch", 3, 8, 8], seed)
    trunk = b.conv("x", 3, 8)
    inner = b.conv(b.node("Relu", norm(b, trunk, 8)), 8, 8)
    deep = b.node("Relu", norm(b, b.node("Add", inner, trunk), 8))
    return tiny_models.head(b, b.node("Relu", b.conv(deep, 8, 12)), 12)


def densely(seed: int = 0) -> onnx.ModelProto:
    """A normalization behind a Concat of what came before, then its Conv, twice."""
    b = tiny_models.Builder(["batch", 3, 8, 8], seed)
    trunk, channels = b.node("Relu", b.conv("x", 3, 6)), 6
    for _ in range(2):
        grown = b.conv(b.node("Relu", norm(b, trunk, channels)), channels, 4)
        trunk, channels = b.node("Concat", trunk, grown, axis=1), channels + 4
    return tiny_models.head(b, b.node("Relu", norm(b, trunk, channels)), channels)


BUILDERS = (preactivation, densely)


def damaged(made: Prepared, weight_bits: int = 8) -> Stitched:
    """A plan whose first layer stays in float and is shifted and stretched."""
    plan = uniform(made.graph, parse_spec(f"w{weight_bits}a8"))
    key = made.graph.layers[0].key
    first = plan.layers[key].model_copy(update={"weight_bits": 16})
    stitched = made.database.stitch(plan.model_copy(update={"layers": {**plan.layers, key: first}}))
    weight = stitched.weights[key]
    assert weight.params is None and weight.bias is not None
    moved = replace(weight, codes=weight.codes * np.float32(1.4), bias=weight.bias * np.float32(1.4) + np.float32(0.4))
    return replace(stitched, weights={**stitched.weights, key: moved})


def repairing(made: Prepared, normalizations: bool = True) -> StatisticsRepair:
    """A repair that cannot mend the first layer."""
    samples = made.samples
    repair = StatisticsRepair(made.proto, made.graph, made.database, samples, threads=1, normalizations=normalizations)
    assert repair.possible
    del repair._targets[made.graph.layers[0].key]
    return repair


def tensors(made: Prepared, model: onnx.ModelProto, names: list[str]) -> list[np.ndarray]:
    return tiny_models.run(with_outputs(model, names), {"x": made.x}, names)


def compressed(made: Prepared, stitched: Stitched) -> onnx.ModelProto:
    return assemble(made.proto, made.graph, stitched, "measure").proto


@pytest.mark.parametrize("builder", BUILDERS)
def test_outputs_get_the_mean_and_spread_that_the_formulas_promise(builder: Callable[[], onnx.ModelProto]) -> None:
    """Each node's output before its constants changed, behind all that was mended before it, and after, in numpy."""
    made = prepare(builder, images=IMAGES)
    mended = repairing(made)(damaged(made))
    norms = batch_norms(made.proto)
    assert set(mended.constants) == {name for found in norms for name in (found.scale, found.bias)}
    moved = 0.0
    for found in norms:
        others = {k: v for k, v in mended.constants.items() if k not in (found.scale, found.bias)}
        expected, before, after = (
            tensors(made, model, [found.key])[0].astype(np.float64)
            for model in (made.proto, compressed(made, replace(mended, constants=others)), compressed(made, mended))
        )
        d = (before - expected).mean(axis=(2, 3))
        certain = np.maximum(0.0, 1.0 - d.var(axis=0) / (IMAGES - 1) / d.mean(axis=0) ** 2)
        left = (after - expected).mean(axis=(0, 2, 3))
        size = expected.std()
        np.testing.assert_allclose(left, (1.0 - certain) * d.mean(axis=0), atol=2e-3 * size)
        # what is left is no more than what could be chance
        assert (np.abs(left) <= np.sqrt(d.var(axis=0) / (IMAGES - 1)) + 2e-3 * size).all()
        v0, v1, v2 = (array.var(axis=(0, 2, 3)) for array in (expected, before, after))
        lean = LEAN * v0.mean()
        np.testing.assert_allclose(v2, v1 * np.clip((v0 + lean) / (v1 + lean), 0.25, 4.0), rtol=0.01, atol=1e-4)
        moved = max(moved, float(np.abs(d.mean(axis=0)).max() / size))
    assert moved > 0.1


@pytest.mark.parametrize("builder", BUILDERS)
def test_damage_falls_and_without_normalizations_it_falls_less(builder: Callable[[], onnx.ModelProto]) -> None:
    made = prepare(builder, images=IMAGES)
    broken = damaged(made)
    mended, less = repairing(made)(broken), repairing(made, normalizations=False)(broken)
    assert mended.constants and not less.constants
    assert error(made, mended) < 0.7 * error(made, less) and error(made, less) < 0.1 * error(made, broken)


def test_constants_in_the_order_of_other_channels_are_noticed() -> None:
    """Broken twin: what was found for the first channel goes to the last."""
    made = prepare(preactivation, images=IMAGES)
    broken = damaged(made)
    mended = repairing(made)(broken)
    turned = replace(mended, constants={name: values[::-1].copy() for name, values in mended.constants.items()})
    assert error(made, turned) > 3 * error(made, mended)


def test_the_constants_are_those_of_the_corrected_output() -> None:
    """(y - m) a + m - d from the node itself, with other constants."""
    rng = np.random.default_rng(0)
    b = tiny_models.Builder(["batch", 5, 4, 4])
    proto = b.finish(norm(b, "x", 5))
    (found,) = batch_norms(proto)
    feeds = tiny_models.feeds(proto, 7)
    (y,) = tiny_models.run(proto, feeds)
    mean, shift, factor = rng.normal(size=5), rng.normal(size=5), rng.uniform(0.5, 2.0, 5)
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    scale, bias = reestimated(given[found.scale], given[found.bias], mean, shift, factor)
    (new,) = tiny_models.run(with_constants(proto, {found.scale: scale, found.bias: bias}), feeds)
    m, d, a = (part.reshape(1, 5, 1, 1) for part in (mean, shift, factor))
    np.testing.assert_allclose(new, (y - m) * a + m - d, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("builder", BUILDERS)
def test_removed_channels_compute_what_masked_ones_do(builder: Callable[[], onnx.ModelProto]) -> None:
    made = prepare(builder, images=IMAGES)
    plan = uniform(made.graph, parse_spec("w4a16,coarse=l1:0.4"))
    mended = repair_of(made)(made.database.stitch(plan))
    assert mended.keep and mended.constants
    whole = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in made.proto.graph.initializer}
    wide, cut = {}, 0
    for name, values in mended.constants.items():
        kept = made.database.maps.kept_at(name, 0, mended.keep)
        cut += kept is not None
        wide[name] = whole[name]
        wide[name][slice(None) if kept is None else kept] = values
    assert cut
    expected = insert_qdq(with_constants(made.proto, wide), made.graph, masked(made, mended), {})
    (found,), (same,) = (tiny_models.run(model, {"x": made.x}) for model in (compressed(made, mended), expected))
    np.testing.assert_allclose(found, same, rtol=1e-3, atol=1e-4)


def test_what_nothing_compressed_precedes_stays_bit_by_bit() -> None:
    made = prepare(preactivation, images=IMAGES)
    mended = repair_of(made)(made.database.stitch(uniform(made.graph, parse_spec("w16a16"))))
    assert not mended.constants
    assert compressed(made, mended).graph.initializer == compressed(made, replace(mended, constants={})).graph.initializer


def test_the_file_has_the_same_nodes_and_two_other_constants_a_normalization() -> None:
    made = prepare(preactivation, images=IMAGES)
    mended = repair_of(made)(made.database.stitch(uniform(made.graph, parse_spec("w3a8"))))
    with_them, without = (
        assemble(made.proto, made.graph, plan).proto for plan in (mended, replace(mended, constants={}))
    )
    assert with_them.graph.node == without.graph.node
    pairs = zip(with_them.graph.initializer, without.graph.initializer, strict=True)
    assert {one.name for one, other in pairs if one != other} == set(mended.constants)
    (file,), (measured,) = (tiny_models.run(model, {"x": made.x}) for model in (with_them, compressed(made, mended)))
    np.testing.assert_allclose(file, measured, rtol=1e-3, atol=1e-3)
    again = repair_of(made)(made.database.stitch(uniform(made.graph, parse_spec("w3a8"))))
    assert assemble(made.proto, made.graph, again).proto.SerializeToString() == with_them.SerializeToString()


def test_polish_works_behind_the_new_constants_and_keeps_them() -> None:
    made = prepare(preactivation, images=IMAGES)
    start = repair_of(made)(damaged(made, 3))
    runs = [
        polished_layers(made.proto, made.graph, made.database, plan, made.samples, threads=1)
        for plan in (start, replace(start, constants={}))
    ]
    assert runs[0][0].constants == start.constants
    behind, missing = (layers[0].before for _, layers in runs)
    assert behind < 0.9 * missing


def test_a_second_repair_goes_on_from_the_first() -> None:
    made = prepare(preactivation, images=IMAGES)
    repair, broken = repair_of(made), damaged(made)
    once = repair(broken)
    twice = repair(once)
    assert error(made, twice) < 1.2 * error(made, once) < 0.5 * error(made, broken)


@pytest.mark.parametrize("repairs", [(), ("equalize",), ("statistics",), ("normalizations",), REPAIRS])
def test_repairs_say_whether_it_is_done(repairs: tuple[str, ...]) -> None:
    opened = open_float_model(preactivation())
    samples = prepare(preactivation, images=IMAGES).samples
    made = calibrate(opened, samples, seed=0, repairs=repairs)
    candidate = made.candidate(plan_of(opened.graph))
    names = {name for found in batch_norms(made.proto) for name in (found.scale, found.bias)}
    written = {tensor.name: tensor for tensor in candidate.proto.graph.initializer}
    changed = {tensor.name for tensor in made.proto.graph.initializer if tensor.name in names and tensor != written[tensor.name]}
    assert changed == (names if "normalizations" in repairs else set())


def test_a_sequential_plan_of_float_layers_has_its_normalizations_mended(tmp_path: Path) -> None:
    """Nothing is refitted there, so recovery "sequential" gives what "full" does, and "normalizations" still switches it off."""
    np.savez(tmp_path / "data.npz", x=tiny_models.feeds(preactivation(), 256, seed=1)["x"])
    plan = hwc_onnx.uniform_plan(preactivation(), "w16a16,coarse=l1:0.4")
    found = [
        hwc_onnx.apply_plan(preactivation(), plan=plan, data=tmp_path / "data.npz", recovery=recovery, repairs=repairs)
        for recovery, repairs in (("sequential", ("normalizations",)), ("full", ("normalizations",)), ("sequential", ()))
    ]
    sequential, full, without = (applied.proto.graph.initializer for applied in found)
    assert sequential == full and sequential != without


def plan_of(graph: object) -> CompressionPlan:
    return uniform(graph, parse_spec("w3a8"))  # type: ignore[arg-type]


def test_only_normalizations_with_constants_of_their_own_are_taken() -> None:
    b = tiny_models.Builder(["batch", 4, 3, 3])
    scale, other = b.vector(4), b.vector(4)
    rest = [b.vector(4), b.const(np.ones(4))]
    own = b.node("BatchNormalization", "x", b.vector(4), b.vector(4), *rest)
    two = b.node("BatchNormalization", own, scale, b.vector(4), *rest)
    two = b.node("BatchNormalization", two, scale, b.vector(4), *rest)
    twice = b.node("BatchNormalization", two, other, other, *rest)
    computed = b.node("BatchNormalization", twice, b.node("Abs", b.vector(4)), b.vector(4), *rest)
    learns = b.node("BatchNormalization", computed, b.vector(4), b.vector(4), *rest, outs=3, training_mode=1)[0]
    proto = b.finish(b.node("Relu", learns))
    first = proto.graph.node[0]
    assert batch_norms(proto) == (BatchNorm(own, first.input[1], first.input[2]),)
    proto.graph.output.append(helper.make_tensor_value_info(first.input[2], onnx.TensorProto.FLOAT, [4]))
    assert batch_norms(proto) == ()


def test_a_shared_normalization_is_left_alone_by_the_repair() -> None:
    made = prepare(preactivation, images=IMAGES)
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    first, second = (node for node in proto.graph.node if node.op_type == "BatchNormalization")
    second.input[1] = first.input[1]
    repair = StatisticsRepair(proto, made.graph, made.database, made.samples, threads=1)
    assert not repair(damaged(made)).constants


def test_constants_that_do_not_fit_are_refused() -> None:
    made = prepare(preactivation)
    name = batch_norms(made.proto)[0].scale
    with pytest.raises(RuntimeFailure, match="shape"):
        float_model(made.proto, made.graph, {}, {name: np.ones(3, np.float32)})
    with pytest.raises(RuntimeFailure, match="not in the model"):
        float_model(made.proto, made.graph, {}, {"nothing": np.ones(3, np.float32)})
