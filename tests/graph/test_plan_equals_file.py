"""What `with_plan` foretells is what `parse` reads from the written file: every fact that the cost model uses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import CompressionPlan, LayerConfig, check_plan, with_plan
from tests import tiny_models
from tests.graph.written import random_plan, write
from tests.tiny_models import Builder


def facts(graph: LayerGraph) -> dict[str, object]:
    """Everything that may enter an energy figure."""
    return {
        "layers": [replace(layer, algorithm="") for layer in graph.layers],
        "nodes": [(node.key, node.op_type, node.inputs, node.outputs, dict(node.attributes)) for node in graph.nodes],
        "tensors": {t.name: t for t in graph.tensors.values() if t.kind != "constant"},
        "weights": {layer.weight: graph.tensors[layer.weight] for layer in graph.layers if layer.weight},
        "fused": dict(graph.fused),
        "groups": graph.activation_groups,
    }


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
@pytest.mark.parametrize("seed", range(4))
def test_with_plan_random_plan_equals_parse_of_written_file(name: str, seed: int) -> None:
    proto = normalize(tiny_models.ALL[name]())
    graph = parse(proto)
    rng = np.random.default_rng([seed, len(name)])
    plan = random_plan(graph, rng)
    check_plan(graph, plan)
    written, plan = write(proto, graph, plan, rng)
    foretold, found = facts(with_plan(graph, plan)), facts(parse(written))
    for part, value in foretold.items():
        assert found[part] == value, part


def shared_gate(gate_last: bool, bias: bool) -> onnx.ModelProto:
    """A map of one channel scales, or is added to, four channels that can leave; made before them or after."""
    b = Builder(["batch", 3, 6, 6])
    made = {}
    for name, channels in (("four", 4), ("one", 1)) if gate_last else (("one", 1), ("four", 4)):
        made[name] = b.node("Sigmoid", b.conv("x", 3, channels))
    gated = b.node("Add" if bias else "Mul", made["four"], made["one"])
    return tiny_models.head(b, b.conv(gated, 4, 4), 4)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_with_plan_one_channel_left_is_stored_as_in_the_written_file(last: bool, bias: bool) -> None:
    proto = normalize(shared_gate(last, bias))
    graph = parse(proto)
    free = [group for group in graph.channel_groups if group.locked_because is None]
    layers = {layer.key: LayerConfig(weight_bits=8, activation_bits=8) for layer in graph.layers}
    for key in (key for group in free for key in group.producers):
        layers[key] = layers[key].model_copy(update={"algorithm": "l1", "ratio": 0.9})
    rng = np.random.default_rng(0)
    written, plan = write(proto, graph, CompressionPlan(layers=layers), rng)
    foretold, found = with_plan(graph, plan), parse(written)
    assert any(info.shape[1] == 1 for name, info in found.tensors.items() if graph.tensors[name].shape[1:2] == (4,))
    for part, value in facts(foretold).items():
        assert facts(found)[part] == value, part


def test_with_plan_one_weight_zeroed_in_file_is_noticed() -> None:
    proto = normalize(tiny_models.chain())
    graph = parse(proto)
    rng = np.random.default_rng(0)
    written, plan = write(proto, graph, random_plan(graph, rng), rng)
    layer = graph.layers[0]
    record = plan.achieved[layer.key]
    changed = record.model_copy(update={"weight_density": record.weight_density - 1 / np.prod(layer.weight_shape)})
    other = plan.model_copy(update={"achieved": {**plan.achieved, layer.key: changed}})
    assert facts(with_plan(graph, plan)) == facts(parse(written))
    assert facts(with_plan(graph, other))["layers"] != facts(parse(written))["layers"]


def test_parse_declared_pattern_that_integers_break_is_ignored() -> None:
    proto = normalize(tiny_models.chain())
    proto.metadata_props.add(key="hwc.nm_pattern", value='{"t2": [2, 4]}')
    assert parse(proto).layer("t2").nm_pattern is None
