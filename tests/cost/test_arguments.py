"""Arguments from Python: what is no width, share, pattern, layer or mapping is refused with its name and what is allowed."""

import numpy as np
import pytest

from hwc_onnx.cost import LayerMapping, LayerOptions, LoopDims, TableOption, energy_table, evaluate_mapping, map_layer
from hwc_onnx.cost.cache import LARGEST
from hwc_onnx.errors import HwcError, MappingError, ModelError
from hwc_onnx.graph.parse import parse
from hwc_onnx.graph.zero_pattern import Blocks
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.cost.tiny_accelerator import tiny

LAYER = LoopDims(K=2, C=2, OY=2)
GRAPH = parse(normalize(tiny_models.chain()))
STATED = LayerMapping({"rows": {"C": 2}, "columns": {"K": 2}}, (("OY", 2),))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"weight_bits": 0}, "weight_bits: found 0.*1 to 64"),
        ({"activation_bits": 8.0}, "activation_bits: found 8.0.*whole number"),
        ({"weight_bits": None}, "weight_bits: found None"),
        ({"weight_density": "half"}, "weight_density: found 'half'.*share from 0 to 1"),
        ({"weight_density": float("nan")}, "weight_density: found nan"),
        ({"output_density": 1.5}, "output_density: found 1.5"),
        ({"pattern": "2:4"}, r"pattern: found '2:4', expected \(N, M\)"),
        ({"pattern": (4, 2)}, "pattern: found"),
        ({"pattern": Blocks(1.5, 4)}, "pattern, share: found 1.5"),
        ({"pattern": Blocks(0.5, 0)}, "pattern: found blocks of 0"),
        ({"pattern": (1, 2, 3)}, "pattern: found"),
        ({"input_density": 1}, "no field 'input_density'.*choose from activation_bits"),
        ({"weighted": "no"}, "weighted: found 'no', expected True or False"),
        ({"options": 8}, "options: found int, expected LayerOptions"),
    ],
)
def test_options_out_of_range_are_refused(fields, words):
    with pytest.raises(MappingError, match=words):
        map_layer(LAYER, tiny(), **fields)
    with pytest.raises(MappingError, match=words):
        evaluate_mapping(LAYER, STATED, tiny(), **fields)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: evaluate_mapping(LAYER, None, tiny()), "mapping: found NoneType, expected a LayerMapping"),
        (lambda: map_layer({"K": 2}, tiny()), "layer: found dict, expected LoopDims"),
        (lambda: energy_table("file.onnx", tiny(), []), r"found str.*hwc_onnx\.inspect"),
        (lambda: energy_table(GRAPH, tiny(), [(8, 8)]), "found tuple, expected TableOption"),
        (lambda: LoopDims(K=3, stride=2), "stride: found 2, expected 2 whole numbers"),
        (lambda: LoopDims(K=3, pads="1111"), "pads: found '1111', expected 4 whole numbers"),
    ],
)
def test_what_is_no_layer_mapping_or_graph_is_refused(call, words):
    with pytest.raises(HwcError, match=words):
        call()


def test_a_size_of_zero_is_no_open_size():
    with pytest.raises(ModelError, match=r"found 0, expected a whole number of at least 1$"):
        LoopDims(K=0)
    with pytest.raises(ModelError, match=r"fix open sizes with --input-shape"):
        LoopDims(K="N")


def test_numbers_of_numpy_are_numbers():
    found = map_layer(
        LAYER, tiny(), weight_bits=np.int64(4), weight_density=np.float32(0.5), pattern=np.array([2, 4]).tolist()
    )
    assert found.total == map_layer(LAYER, tiny(), weight_bits=4, weight_density=0.5, pattern=(2, 4)).total
    options = LayerOptions(activation_bits=np.int8(4), pattern=[np.int64(1), np.int64(2)])
    assert options == LayerOptions(activation_bits=4, pattern=(1, 2))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (TableOption(weight_bits=0), "weight_bits: found 0"),
        (TableOption(weight_bits="8"), "weight_bits: found '8'"),
        (TableOption(activation_bits=100), "activation_bits: found 100.*1 to 64"),
        (TableOption(zeros=2.0), "zeros: found 2.0.*0 to 1"),
        (TableOption(zeros=-0.1), "zeros: found -0.1"),
        (TableOption(removed=1.0), "removed: found 1.0.*0 to less than 1"),
        (TableOption(removed=-0.5), "removed: found -0.5"),
        (TableOption(pattern=(4, 2)), "pattern: found"),
    ],
)
def test_options_of_a_table_are_held_to_the_same_ranges(option, words):
    with pytest.raises(MappingError, match=words):
        energy_table(GRAPH, tiny(), [option])


def test_a_table_of_a_graph_without_layers_is_empty():
    b = tiny_models.Builder([1, 4])
    assert energy_table(parse(b.finish(b.node("Relu", "x"))), tiny(), [TableOption()]).shape == (0, 1)


def test_a_dimension_that_no_memory_could_search_is_refused():
    with pytest.raises(ModelError, match=f"loop dimension C: found 1000000000, mappings are searched up to {LARGEST}"):
        map_layer(LoopDims(K=LARGEST, C=10**9), tiny())
    with pytest.raises(ModelError, match="loop dimension K"):
        evaluate_mapping(LoopDims(K=LARGEST + 1), STATED, tiny())
