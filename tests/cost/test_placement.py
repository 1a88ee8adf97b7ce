"""The tiles that are shown are those whose words were counted."""

from math import prod

import pytest

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.operands import DIMS
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.cost.loop_walk import Mapping, walk
from tests.cost.tiny_accelerator import tiny
from tests.tiny_models import Builder

GRAPHS = {name: parse(normalize(build())) for name, build in tiny_models.ALL.items()}


def small_layers():
    """A few convolutions small enough to walk; without padding, which a tile's room counts and its words do not."""
    for channels, size, kernel, stride in ((4, 5, 3, 1), (6, 6, 1, 1), (3, 7, 3, 2)):
        b = Builder([1, channels, size, size])
        y = b.conv("x", channels, 5, kernel, strides=[stride, stride], pads=[0, 0, 0, 0])
        out = (size - kernel) // stride + 1
        yield parse(normalize(b.finish(y, [1, 5, out, out])))


def mapping_of(node, memory, profile):
    """The walk's mapping for one memory: temporal loops inner to outer, PEs under and beside an instance."""
    spans = [axis.name for axis in profile.array.axes] if memory.spans == "all" else list(memory.spans)
    inside, outside = dict.fromkeys(DIMS, 1), dict.fromkeys(DIMS, 1)
    for axis, unroll in node.mapping["spatial"].items():
        for name, n in unroll.items():
            target = inside if axis in spans else outside
            target[name] *= n
    return Mapping(tuple((name, n) for name, n in reversed(node.mapping["temporal"])), inside, outside)


def test_tiles_hold_what_the_walk_holds_and_fill_as_often():
    """Words of the largest tile, and words that enter the memory, from looking at every element."""
    profile = tiny()
    seen = 0
    for graph in small_layers():
        (node,) = CostModel(profile).cost(graph).nodes
        for tile in node.mapping["tiles"]:
            memory = profile.memory(tile["memory"])
            mapping = mapping_of(node, memory, profile)
            entered, _, largest = walk(tile["operand"], graph.layers[0].loop_dims, mapping, tile["loops"])
            assert tile["words"] == largest, tile
            if tile["operand"] != "O":
                assert node.accesses[memory.name][tile["operand"]]["write"] == entered, tile
            seen += 1
    assert seen > 10


def test_a_tile_one_loop_further_out_is_another():
    """The broken twin: held across one more loop, some tile is larger or moves other words."""
    profile = tiny()
    differs = 0
    for graph in small_layers():
        (node,) = CostModel(profile).cost(graph).nodes
        for tile in node.mapping["tiles"]:
            mapping = mapping_of(node, profile.memory(tile["memory"]), profile)
            if tile["loops"] < len(mapping.loops):
                *_, largest = walk(tile["operand"], graph.layers[0].loop_dims, mapping, tile["loops"] + 1)
                differs += largest != tile["words"]
    assert differs


@pytest.mark.parametrize("accelerator", list_profiles())
@pytest.mark.parametrize("name", GRAPHS)
def test_each_memory_shows_its_tiles_and_they_fit(name, accelerator):
    profile = load_profile(accelerator)
    for node in CostModel(profile).cost(GRAPHS[name]).nodes:
        if node.method != "mapped":
            continue
        tiles = node.mapping["tiles"]
        for memory in profile.memories[:-1]:
            for operand in memory.operands:
                shown = [tile for tile in tiles if tile["memory"] == memory.name and tile["operand"] == operand]
                passing = operand == "O" and not memory.accumulator
                stays = operand == "I" and memory.home and node.mapping["input"] == "stays on chip"
                assert len(shown) == 1 or ((passing or stays) and not shown), (node.key, memory.name, operand)
        for tile in tiles:
            assert 0 <= tile["loops"] <= len(node.mapping["temporal"])
            assert 1 <= tile["words"] <= prod(node.mapping["dims"].values()) * 4
