import pytest
import yaml

from hwc_onnx.cost.profile import list_profiles, load_profile, parse_profile
from hwc_onnx.errors import ProfileError
from tests.cost.tiny_accelerator import CONTENT, content, tiny, without

REQUIRED = [
    "schema", "name", "description", "node_nm", "frequency_mhz", "mac", "array", "memories", "vector", "sources",
    "mac.law", "mac.bits", "mac.energy_pj", "mac.accumulator_bits", "array.axes", "array.axes.rows.size",
    "memories.buffer.operands", "memories.buffer.bytes", "memories.buffer.kind", "memories.buffer.read_pj_per_bit",
    "vector.op_pj", "vector.lanes",
]  # fmt: skip

UNKNOWN = {
    "frequency": "frequency_mhz",
    "mac.energy": "energy_pj",
    "array.hop": "hop_pj_per_bit",
    "array.axes.rows.length": "size",
    "memories.buffer.byte": "bytes",
    "memories.buffer.read_pj": "read_pj_per_bit",
    "sparsity.gated": "gate",
    "vector.ops_pj": "op_pj",
    "residency.weight_bytes": "weights_bytes",
}

WRONG = {
    "memories.buffer.spans": ("some", "must be 'all', or must be a list"),
    "memories.buffer.pack": ([], "at least 1 item"),
    "memories.buffer.operands": (["I", "X"], "'I', 'W' or 'O'"),
    "memories.dram.formats": ({"W": {"kind": "zip"}}, "'bitmask', 'csc', 'rlc' or 'nm'"),
    "mac.law": ("magic", "'fixed', 'composable'"),
    "mac.energy_pj": (-0.1, "greater than or equal to 0"),
    "mac.bits": (7.5, "valid integer"),
    "frequency_mhz": (0, "greater than 0"),
    "node_nm": (float("inf"), "finite"),
    "array.axes.rows.dims": (["Z"], "'FY' or 'FX'"),
    "sparsity.patterns": (["2of4"], "must match"),
    "schema": (2, "must be 1"),
}

INCONSISTENT = {
    "two axes of one name": ({"array.axes.rows.name": "columns"}, "array.axes"),
    "two memories of one name": ({"memories.i_reg.name": "buffer"}, "memories"),
    "unlimited memory inside": ({"memories.buffer.bytes": None}, "memories.buffer.bytes"),
    "limited last memory": ({"memories.dram.bytes": 64}, "memories.dram"),
    "last memory without weights": ({"memories.dram.operands": ["I", "O"]}, "memories.dram.operands"),
    "last memory of one row": ({"memories.dram.spans": ["rows"]}, "memories.dram.spans"),
    "dram inside": ({"memories.w_buffer.kind": "dram"}, "memories.w_buffer.kind"),
    "unknown axis": ({"memories.i_reg.spans": ["rings"]}, "memories.i_reg.spans"),
    "outer memory of fewer PEs": ({"memories.w_reg.spans": ["rows"], "memories.w_buffer.spans": []}, "memories.w_buffer.spans"),
    "outer memory of other PEs": (
        {"memories.w_reg.spans": ["rows"], "memories.w_buffer.spans": ["columns"]}, "memories.w_buffer.spans"
    ),
    "accumulator too narrow": ({"memories.o_reg.bytes": 2}, "memories.o_reg.bytes"),
    "two homes": ({"memories.w_buffer.home": True}, "memories"),
    "home without outputs": ({"memories.buffer.home": False, "memories.w_buffer.home": True}, "memories.w_buffer"),
    "memory between home and dram": (
        {"memories.buffer.home": False, "memories.o_reg.home": True, "memories.o_reg.operands": ["I", "O"], "memories.o_reg.spans": "all",
         "memories.w_reg.spans": "all", "memories.i_reg.spans": "all"}, "memories.o_reg.home"
    ),
    "no home to stay in": ({"memories.buffer.home": False}, "residency.activations"),
    "least width above the full one": ({"mac.min_bits": 16}, "mac.min_bits"),
    "normalised without reference": ({"unit": "normalised"}, "reference_mac_pj"),
    "pattern that keeps too many": ({"sparsity.patterns": ["4:2"]}, "sparsity.patterns"),
    "number without origin": ({"assumed": ["mac", "array", "memories", "vector"]}, "node_nm"),
    "origin of no field": ({"assumed": [*CONTENT["assumed"], "mac.enrgy_pj"]}, "assumed.mac.enrgy_pj"),
    "source of no field": ({"sources": {"memories.sram": "a paper"}}, "sources.memories.sram"),
}  # fmt: skip


def message(made):
    with pytest.raises(ProfileError) as caught:
        parse_profile(made, "chip.yaml")
    assert str(caught.value).startswith("chip.yaml: field '")
    return str(caught.value)


def test_tiny_accelerator_is_valid_so_that_each_change_below_is_the_mistake():
    assert tiny().name == "tiny"


@pytest.mark.parametrize("name", list_profiles())
def test_shipped_profile_loads_and_says_its_own_name(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.memories[-1].kind == "dram"


@pytest.mark.parametrize("path", REQUIRED)
def test_missing_field_is_named_with_its_path(path):
    assert f"field '{path}' is missing" in message(without(path))


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_field_is_named_with_nearest_and_allowed_ones(path):
    text = message(content({path: 1}))
    assert f"field '{path}' is unknown" in text
    assert UNKNOWN[path] in text.split("allowed:")[1]


@pytest.mark.parametrize("path", WRONG)
def test_wrong_value_is_refused_with_path_what_is_allowed_and_what_was_found(path):
    value, allowed = WRONG[path]
    text = message(content({path: value}))
    assert f"field '{path}" in text
    assert allowed in text
    assert "found" in text and "literal[" not in text and "tuple" not in text.lower()


@pytest.mark.parametrize("case", INCONSISTENT)
def test_fields_that_contradict_each_other_are_refused_with_a_remedy(case):
    changes, path = INCONSISTENT[case]
    text = message(content(changes))
    assert f"field '{path}'" in text
    assert ";" in text


def test_sources_and_descriptions_are_refused_where_numbers_have_neither():
    assert "no source" in message(content({"assumed": [], "sources": {"mac": "a paper"}}))
    assert parse_profile(content({"sources": {"mac": "a paper"}}), "chip.yaml").sources == {"mac": "a paper"}


def test_load_unknown_name_lists_known_ones_and_the_nearest():
    with pytest.raises(ProfileError, match=r"did you mean 'edge-flex'.*eyeriss-v2-sparse"):
        load_profile("edge-flx")


def test_load_missing_file_and_broken_yaml_and_a_list_are_refused(tmp_path):
    with pytest.raises(ProfileError, match=r"missing\.yaml: cannot be read"):
        load_profile(tmp_path / "missing.yaml")
    for text, words in (("a: [1", "not YAML"), ("- 1", "found list, expected a mapping"), ("", "expected a mapping")):
        path = tmp_path / "chip.yaml"
        path.write_text(text)
        with pytest.raises(ProfileError, match=words):
            load_profile(path)


def test_load_own_file_equals_the_parsed_content(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    assert load_profile(path) == tiny()


def test_digest_follows_numbers_and_ignores_words():
    assert tiny().digest() == tiny({"description": "another text", "sources": {"mac": "a paper"}}).digest()
    changed = [{"mac.energy_pj": 0.51}, {"memories.buffer.bytes": 65}, {"residency.activations": "never"}]
    assert len({tiny().digest(), *(tiny(change).digest() for change in changed)}) == 4
