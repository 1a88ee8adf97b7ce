"""Single layers: a mapping that is found can be stated again, one that is stated is checked, rules and pins are kept."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.cost.mapper import LayerMapping, LayerOptions, evaluate_mapping, map_layer
from hwc_onnx.cost.profile import list_profiles, load_profile, parse_profile
from hwc_onnx.errors import MappingError, ModelError, ProfileError
from hwc_onnx.graph.loop_dims import LoopDims
from tests.cost.loop_walk import NAMES, Mapping, walk
from tests.cost.tiny_accelerator import content, tiny

LAYERS = {
    "convolution": LoopDims(K=24, C=12, OY=9, OX=9, FY=3, FX=3, pads=(1, 1, 1, 1)),
    "strided": LoopDims(K=17, C=5, OY=7, OX=6, FY=3, FX=1, stride=(2, 1)),
    "dilated": LoopDims(K=8, C=4, OY=5, OX=5, FY=3, FX=3, dilation=(2, 2)),
    "depthwise": LoopDims(G=19, OY=7, OX=7, FY=3, FX=3),
    "grouped": LoopDims(G=3, K=5, C=7, OY=6, OX=6, FY=1, FX=1),
    "product": LoopDims(K=33, C=20, OY=11),
    "transposed": LoopDims(K=6, C=5, OY=4, OX=4, FY=2, FX=2, stride=(2, 2), transposed=True),
}


@pytest.mark.parametrize("accelerator", list_profiles())
@pytest.mark.parametrize("name", LAYERS)
def test_found_mapping_stated_again_costs_the_same(name, accelerator):
    for options in (LayerOptions(), LayerOptions(4, 2, weight_density=0.3, activation_density=0.5)):
        found = map_layer(LAYERS[name], accelerator, options)
        again = evaluate_mapping(LAYERS[name], LayerMapping.from_json(found.mapping), accelerator, options)
        assert again.total == pytest.approx(found.total, rel=1e-12)
        assert again.accesses == {
            memory: {operand: pytest.approx(counts) for operand, counts in operands.items()}
            for memory, operands in found.accesses.items()
        }


def test_options_and_mappings_can_be_given_as_they_are_printed():
    layer = LAYERS["convolution"]
    found = map_layer(layer, "edge-flex", activation_bits=4, weight_bits=2)
    assert found.total == map_layer(layer, "edge-flex", LayerOptions(4, 2)).total
    again = evaluate_mapping(layer, found.mapping, "edge-flex", LayerOptions(4), weight_bits=2)
    assert again.total == pytest.approx(found.total, rel=1e-12)
    with pytest.raises(MappingError, match="no 'temporal'"):
        evaluate_mapping(layer, {"spatial": {}}, "edge-flex")


@pytest.mark.parametrize("name", LAYERS)
def test_open_placements_are_never_dearer_than_stated_ones(name):
    found = map_layer(LAYERS[name], "edge-flex")
    stated = LayerMapping.from_json(found.mapping)
    opened = evaluate_mapping(LAYERS[name], replace(stated, inside={}), "edge-flex")
    assert opened.total <= found.total * (1 + 1e-9)


def test_another_mapping_costs_something_else():
    """The broken twin: a stated nest turned inside out is another mapping."""
    stated = LayerMapping.from_json(map_layer(LAYERS["convolution"], "eyeriss-v1").mapping)
    turned = LayerMapping(stated.spatial, stated.temporal[::-1])
    assert evaluate_mapping(LAYERS["convolution"], turned, "eyeriss-v1").total > 1.01 * map_layer(
        LAYERS["convolution"], "eyeriss-v1"
    ).total


@st.composite
def stated_nests(draw):
    """A small layer, an unroll of the tiny accelerator, and loops in any order with any placement of the inputs."""
    sizes = {d: draw(st.integers(1, 4)) for d in ("K", "C", "OY", "OX", "FY")}
    dims = LoopDims(**sizes, FX=1, stride=(draw(st.integers(1, 2)), 1))
    spatial = {"rows": {"C": min(2, dims.C)}, "columns": {"K": min(2, dims.K)}}
    left = {d: -(-size // (min(2, size) if d in "KC" else 1)) for d, size in sizes.items()}
    inner_to_outer = []
    for d in draw(st.permutations([*sizes, *sizes])):
        last = sum(name == d for name, _ in inner_to_outer)
        trips = left[d] if last else draw(st.integers(1, left[d]))
        left[d] = -(-left[d] // trips)
        inner_to_outer.append((d, trips))
    return dims, spatial, tuple((d, n) for d, n in reversed(inner_to_outer) if n > 1)


@settings(max_examples=60, deadline=None)
@given(stated_nests())
def test_accesses_of_a_stated_mapping_equal_walking_its_loops(case):
    dims, spatial, temporal = case
    cost = evaluate_mapping(dims, LayerMapping(spatial, temporal), tiny(), LayerOptions(channel_constants=False))
    held = {(t["memory"], t["operand"]): t["loops"] for t in cost.mapping["tiles"]}
    pes = dict.fromkeys(NAMES, 1) | {d: n for axis in spatial.values() for d, n in axis.items()}
    loops, alone = tuple(reversed(temporal)), dict.fromkeys(NAMES, 1)
    for operand, register in (("I", "i_reg"), ("W", "w_reg")):
        entered, _, _ = walk(operand, dims, Mapping(loops, alone, pes), held[register, operand])
        assert cost.accesses[register][operand]["write"] == entered


WRONG = {
    "too few": ({"rows": {"C": 2}}, (("C", 5), ("K", 20)), r"covers 20 of 24 of K .* need 24 trips"),
    "too many": ({"rows": {"C": 2}}, (("K", 25), ("C", 6), ("OX", 9), ("OY", 9), ("FX", 3), ("FY", 3)), r"K has 24"),
    "unknown dimension": ({"rows": {"Q": 2}}, (), r"no loop dimension 'Q'; choose from B, G, K"),
    "unknown axis": ({"row": {"C": 2}}, (), r"no array axis 'row'.*did you mean 'rows'"),
    "axis full": ({"rows": {"C": 3}}, (), r"spatial.rows: takes 3 PEs, the axis has 2"),
    "not along this axis": ({"rows": {"K": 2}}, (), r"K cannot be spread over this axis; allowed: C, FY"),
    "no number": ({"rows": {"C": 2}}, (("K", 2.5),), r"found 2.5, expected a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_mapping_is_refused_with_the_place_and_what_is_allowed(name):
    spatial, temporal, message = WRONG[name]
    with pytest.raises(MappingError, match=message):
        evaluate_mapping(LAYERS["convolution"], LayerMapping(spatial, temporal), tiny())


def test_tile_that_does_not_fit_is_refused():
    layer = LoopDims(K=4, C=4)
    stated = LayerMapping({}, (("C", 4), ("K", 4)), {"W": {"w_reg": 2, "w_buffer": 2}})
    with pytest.raises(MappingError, match=r"inside.W.w_reg: a tile of 16 words, w_reg has room for 4"):
        evaluate_mapping(layer, stated, tiny())
    with pytest.raises(MappingError, match=r"inside.W: 'w_rag' does not hold W \(did you mean 'w_reg'"):
        evaluate_mapping(layer, replace(stated, inside={"W": {"w_rag": 1}}), tiny())


@pytest.mark.parametrize("sizes", [{"K": "N"}, {"C": 0}, {"OY": 2.5}, {"B": None}])
def test_layer_with_an_open_or_impossible_size_is_refused(sizes):
    (name,) = sizes
    with pytest.raises(ModelError, match=rf"loop dimension {name}: found .* expected a whole number") as refused:
        LoopDims(**sizes)
    assert ("--input-shape" in str(refused.value)) == (sizes[name] in ("N", None))


def test_array_that_is_too_full_for_a_buffer_is_used_in_part():
    """256 PEs along C ask for more inputs at once than the buffer holds; a part of them does not."""
    changes = {"array.axes.rows.size": 256, "array.axes.rows.dims": ["C"]}
    cost = map_layer(LoopDims(K=4, C=256), tiny(changes))
    assert 1 <= cost.mapping["spatial"]["rows"].get("C", 1) < 256


WRONG_OPTIONS = {
    "bits": (dict(weight_bits=0), r"weight_bits: found 0, expected a whole number from 1"),
    "density": (dict(activation_density=1.5), r"activation_density: found 1.5, expected a share"),
    "nan": (dict(output_density=float("nan")), r"output_density: found nan"),
    "pattern": (dict(pattern=(4, 2)), r"pattern: found \(4, 2\)"),
}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_wrong_option_is_refused(name):
    fields, message = WRONG_OPTIONS[name]
    with pytest.raises(MappingError, match=message):
        map_layer(LAYERS["product"], "edge-flex", **fields)


def test_tensor_can_only_stay_where_there_is_room_for_it():
    large = LoopDims(K=64, C=64, OY=112, OX=112)
    with pytest.raises(MappingError, match="'nvdla-large' has no home memory"):
        map_layer(LAYERS["product"], "nvdla-large", input_stays=True)
    with pytest.raises(MappingError, match=r"that are to stay take .* bytes, activation_buffer has"):
        map_layer(large, "edge-flex", input_stays=True, output_stays=True)
    assert map_layer(LAYERS["product"], "edge-flex", input_stays=True).total > 0


@pytest.mark.parametrize("accelerator", ["bitfusion-32x16", "ethos-u55-256"])
def test_edge_of_the_array_moves_words_in_every_iteration_however_the_loops_are_cut(accelerator):
    """C takes 16 passes on 32 rows: cut into 16, 8 x 2 or ragged 6 x 3, each moves every sum."""
    layer, counts = LoopDims(K=32, C=512, OX=14), set()
    for inner, outer in ((16, 1), (8, 2), (6, 3)):
        temporal = (*((("C", outer),) if outer > 1 else ()), ("K", 2), ("OX", 14), ("C", inner))
        stated = LayerMapping({"rows": {"C": 32}, "columns": {"K": 16}}, temporal)
        if accelerator == "bitfusion-32x16":
            counts.add(evaluate_mapping(layer, stated, accelerator).accesses["output_buffer"]["O"]["write"])
    found = map_layer(LoopDims(K=64, C=512, OY=14, OX=14), accelerator)
    again = evaluate_mapping(
        LoopDims(K=64, C=512, OY=14, OX=14), LayerMapping.from_json(found.mapping), accelerator
    )  # fmt: skip
    assert again.total == pytest.approx(found.total, rel=1e-12)
    assert counts == ({32 * 14 * 16} if accelerator == "bitfusion-32x16" else set())


def test_rules_of_a_row_stationary_array_are_followed():
    for layer in (LAYERS["convolution"], LAYERS["depthwise"], LoopDims(K=64, C=64, OY=28, OX=28, FY=3, FX=3)):
        mapping = map_layer(layer, "eyeriss-v1", LayerOptions(16, 16)).mapping
        spread = {d for dims in mapping["spatial"].values() for d in dims}
        assert {"FY", "OY"} <= spread
        inner = []
        for d, _ in reversed(mapping["temporal"]):
            if d == "OX":
                break
            inner.append(d)
        assert inner == [d for d in ("FX", "C", "K") if d in inner]
        assert "FX" in inner


def test_rules_cost_energy():
    """The broken twin: without the rules some layer is mapped otherwise and cheaper."""
    profile = load_profile("eyeriss-v1")
    free = profile.model_copy(update={"mapping": type(profile.mapping)()})
    layer, options = LoopDims(K=64, C=64, OY=28, OX=28, FY=3, FX=3), LayerOptions(16, 16)
    assert map_layer(layer, free, options).total < map_layer(layer, profile, options).total


def test_pinned_shape_uses_the_given_mapping():
    pin = {"layer": {"K": 4, "C": 4}, "spatial": {}, "temporal": [["K", 4], ["C", 4]]}
    changes = {"mapping": {"pinned": [pin]}, "assumed": [*content()["assumed"], "mapping"]}
    profile = parse_profile(content(changes), "tiny")
    found = map_layer(LoopDims(K=4, C=4), profile)
    assert not any(found.mapping["spatial"].values())
    assert found.mapping["temporal"] == [["K", 4], ["C", 4]]
    assert map_layer(LoopDims(K=4, C=4), tiny()).total < found.total
    assert map_layer(LoopDims(K=4, C=8), profile).total == map_layer(LoopDims(K=4, C=8), tiny()).total


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        ({"layer": {"K": 4}, "spatial": {}, "temporal": [["K", 3]]}, r"field 'mapping.pinned.0': covers 3 of 4 of K"),
        ({"layer": {"K": 4}, "spatial": {"raws": {"C": 2}}, "temporal": [["K", 4]]}, r"pinned.0': .*no array axis 'raws'"),
    ],
)
def test_pinned_mapping_that_cannot_be_is_refused_with_the_file(pin, message):
    changes = {"mapping": {"pinned": [pin]}, "assumed": [*content()["assumed"], "mapping"]}
    with pytest.raises(ProfileError, match=message):
        parse_profile(content(changes), "tiny")
