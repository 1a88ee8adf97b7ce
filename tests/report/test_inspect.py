"""What `inspect` says of channels that can go: shares counted one by one, members with their places, a figure."""

from __future__ import annotations

from itertools import product
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import pytest

import hwc_onnx
from hwc_onnx.errors import UsageError
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.report.group_figure import checked_svg, group_figure
from hwc_onnx.report.payloads import inspect_payload
from hwc_onnx.report.prunable import prunable_share
from tests import tiny_models

NAMES = ["chain", "residual", "depthwise", "concat", "grouped", "attention", "mlp_block", "flatten_gemm"]


def counted(graph: LayerGraph) -> float:
    """The share of weights on a channel that can go, every weight looked at by itself."""
    free: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    for group in graph.channel_groups:
        if group.locked_because is None:
            for member in group.members:
                free.setdefault(member.tensor, []).append((member.axis, member.index))
    found = total = 0
    for layer in graph.layers:
        if layer.weight is None:
            continue
        for place in product(*(range(size) for size in layer.weight_shape)):
            total += 1
            found += any(index[place[axis]] >= 0 for axis, index in free.get(layer.weight, []))
    return found / total


@pytest.mark.parametrize("name", NAMES)
def test_share_of_weights_equals_looking_at_each(name: str) -> None:
    graph = hwc_onnx.inspect(tiny_models.ALL[name]())
    assert prunable_share(graph, graph.channel_groups).params == pytest.approx(counted(graph), rel=1e-12)


def test_share_without_one_group_is_smaller() -> None:
    graph = hwc_onnx.inspect(tiny_models.residual())
    fewer = prunable_share(graph, graph.channel_groups[1:])
    assert fewer.params < counted(graph)


def test_energy_counts_the_layers_that_channels_can_leave() -> None:
    graph = hwc_onnx.inspect(tiny_models.chain())
    energy = {node.key: 1.0 for node in graph.nodes}
    # all weights of three layers out of seven nodes lie on channels that can go, but the logits' own channels
    assert prunable_share(graph, graph.channel_groups, energy).energy == pytest.approx(3 / len(graph.nodes))


def test_members_say_where_a_group_lies_on_a_joined_axis() -> None:
    graph = hwc_onnx.inspect(tiny_models.concat())
    payload = inspect_payload(graph)
    places = {
        (group["id"], member["tensor"]): (member["offset"], member["positions"])
        for group in payload["groups"]
        for member in group["members"]
    }
    weight = graph.layer("t5").weight
    assert places["t0", weight] == (0, 6) and places["t2", weight] == (6, 4)


def test_figure_is_an_svg_with_a_block_for_each_layer_and_group() -> None:
    payload = inspect_payload(hwc_onnx.inspect(tiny_models.residual()))
    root = ElementTree.fromstring(group_figure(payload, "a <model> & more"))
    boxes = [box for box in root.iter("{http://www.w3.org/2000/svg}rect") if box.get("rx")]
    reads = sum(len(group["consumers"]) for group in payload["groups"])
    makes = sum(len(group["producers"]) for group in payload["groups"])
    assert len(boxes) == reads + makes + len(payload["groups"])
    hatched = [box for box in boxes if box.get("fill") == "url(#locked)"]
    assert len(hatched) == 2 * sum(bool(group["locked_because"]) for group in payload["groups"])
    assert prod(float(root.get(side)) for side in ("width", "height")) > 0


def test_figure_must_be_an_svg_in_a_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.svg"):
        checked_svg(str(tmp_path / "figure.png"))
    with pytest.raises(UsageError, match="does not exist"):
        checked_svg(str(tmp_path / "nowhere" / "figure.svg"))
