import json
from importlib import resources

import jsonschema
import pytest
import yaml

from docs.accelerator_schema import schema
from hwc_onnx.cost.profile import list_profiles, load_profile, parse_profile, template_text
from hwc_onnx.errors import ProfileError
from tests.cost.tiny_accelerator import CONTENT, content, tiny, without

REQUIRED = [
    "schema", "name", "description", "node_nm", "unit", "frequency_mhz", "mac", "array", "memories", "vector", "sources",
    "mac.law", "mac.bits", "mac.min_bits", "mac.energy_pj", "mac.accumulator_bits", "array.axes", "array.axes.rows.size",
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

WRONG = [
    ("memories.buffer.spans", "some", "must be 'all', or must be a list"),
    ("memories.buffer.pack", [], "at least 1 item"),
    ("memories.buffer.pack", [4, 0], "greater than 0"),
    ("memories.buffer.operands", ["I", "X"], "'I', 'W' or 'O'"),
    ("memories.dram.formats", {"W": {"kind": "zip"}}, "'bitmask', 'csc', 'rlc', 'nm' or 'blocks'"),
    ("memories.buffer.bytes", 0, "greater than 0"),
    ("memories.buffer.bytes", -64, "greater than 0"),
    ("memories.buffer.bytes", 64.5, "valid integer"),
    ("memories.buffer.bytes", "64 KB", "write the number alone"),
    ("memories.buffer.home", "perhaps", "valid boolean"),
    ("memories.buffer.read_pj_per_bit", -0.3, "greater than or equal to 0"),
    ("memories.buffer.bits_per_cycle", 0, "greater than 0"),
    ("name", "my chip", "must match"),
    ("memories", [5], "must be a mapping"),
    ("mac", 5, "must be a mapping"),
    ("mac.law", "magic", "'fixed', 'gated_bits', 'composable'"),
    ("mac.energy_pj", -0.1, "greater than or equal to 0"),
    ("mac.energy_pj", "0.5 pJ", "its unit is in the field's name"),
    ("mac.energy_pj", "0.5", "write the number alone"),
    ("mac.energy_pj", True, "valid number"),
    ("mac.bits", 7.5, "valid integer"),
    ("mac.bits", 0, "greater than or equal to 1"),
    ("mac.bits", 65, "less than or equal to 64"),
    ("mac.accumulator_bits", 0, "greater than or equal to 1"),
    ("mac.lanes_reduce", 1, "valid boolean"),
    ("unit", "nJ", "'pJ' or 'normalised'"),
    ("frequency_mhz", 0, "greater than 0"),
    ("frequency_mhz", -100, "greater than 0"),
    ("node_nm", float("inf"), "finite"),
    ("array.axes.rows.dims", ["Z"], "'FY' or 'FX'"),
    ("array.axes.rows.dims", [], "at least 1 item"),
    ("array.axes.rows.size", 0, "greater than 0"),
    ("array.axes.rows.size", -2, "greater than 0"),
    ("array.hops", {"X": 1}, "'I', 'W' or 'O'"),
    ("sparsity.patterns", ["2of4"], "must match"),
    ("sparsity.gate", {"operands": ["I"], "saves": ["read_O"]}, "'mac', 'read_I', 'read_W' or 'psum'"),
    ("sparsity.gate", {"operands": ["I"], "saves": ["mac"], "residual": 1.5}, "less than or equal to 1"),
    ("sparsity.skip", {"operands": ["I"], "imbalance": 0.9}, "greater than or equal to 1"),
    ("vector.lanes", 0, "greater than 0"),
    ("schema", 2, "must be 1"),
]

INCONSISTENT = {
    "dims named twice": ({"array.axes.rows.dims": ["C", "C"]}, "array.axes.rows.dims"),
    "operands named twice": ({"memories.buffer.operands": ["I", "O", "I"]}, "memories.buffer.operands"),
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
    "too small for a native weight": ({"memories.w_reg.bytes": 1, "memories.w_reg.pack": [16]}, "memories.w_reg.bytes"),
    "too small for its two halves": ({"memories.w_reg.bytes": 1, "memories.w_reg.double_buffered": True}, "memories.w_reg.bytes"),
    "too small for an input and a sum": ({"memories.buffer.bytes": 3}, "memories.buffer.bytes"),
    "buffer inside a register": ({"memories.w_reg.kind": "buffer", "memories.w_buffer.kind": "register"}, "memories.w_buffer.kind"),
    "larger memory inside": ({"memories.w_reg.spans": "all", "memories.w_reg.bytes": 64}, "memories.w_buffer.bytes"),
    "weights packed apart on chip": ({"memories.buffer.pack_weights": [4]}, "memories.buffer.pack_weights"),
    "two homes": ({"memories.w_buffer.home": True}, "memories"),
    "home without outputs": ({"memories.buffer.home": False, "memories.w_buffer.home": True}, "memories.w_buffer"),
    "memory between home and dram": (
        {"memories.buffer.home": False, "memories.o_reg.home": True, "memories.o_reg.operands": ["I", "O"], "memories.o_reg.spans": "all",
         "memories.w_reg.spans": "all", "memories.i_reg.spans": "all"}, "memories.o_reg.home"
    ),
    "no home to stay in": ({"memories.buffer.home": False}, "residency.activations"),
    "least width above the full one": ({"mac.min_bits": 16}, "mac.min_bits"),
    "least width of a fixed unit": ({"mac.min_bits": 4}, "mac.min_bits"),
    "least width that is no brick": ({"mac.law": "composable", "mac.min_bits": 3}, "mac.min_bits"),
    "least width below a brick": ({"mac.law": "subword", "mac.min_bits": 1}, "mac.min_bits"),
    "width that is made of no bricks": ({"mac.law": "composable", "mac.bits": 12}, "mac.bits"),
    "sum narrower than an operand": ({"mac.accumulator_bits": 7}, "mac.accumulator_bits"),
    "overhead of a unit that never splits": ({"mac.overhead": 0.2}, "mac.overhead"),
    "static share of another law": ({"mac.static_share": 0.3}, "mac.static_share"),
    "gated bits without static share": ({"mac.law": "gated_bits"}, "mac.static_share"),
    "one lane that reduces": ({"mac.lanes_reduce": True}, "mac.lanes_reduce"),
    "wider than the widest": (
        {"mac.bits": 16, "mac.min_bits": 16, "mac.wide": {"passes": 2.0, "energy_factor": 2.0}}, "mac.wide"
    ),
    "reference beside pJ": ({"reference_mac_pj": 0.5}, "reference_mac_pj"),
    "gate of a register that is not there": (
        {"memories.i_reg.spans": ["rows"], "sparsity.gate": {"operands": ["I"], "saves": ["mac", "read_I"]}},
        "sparsity.gate.saves",
    ),
    "weight format where no weights are": ({"memories.buffer.formats": {"W": {"kind": "csc"}}}, "memories.buffer.formats.W"),
    "counts of a bitmask": (
        {"memories.dram.formats": {"W": {"kind": "bitmask", "run_bits": 5}}}, "memories.dram.formats.W.run_bits"
    ),
    "unpacking of nothing": ({"sparsity.decode_pj": 0.1}, "sparsity.decode_pj"),
    "origin of two kinds": ({"sources": {"mac": "a paper"}}, "assumed.mac"),
    "normalised without reference": ({"unit": "normalised"}, "reference_mac_pj"),
    "pattern that keeps too many": ({"sparsity.patterns": ["4:2"]}, "sparsity.patterns"),
    "number without origin": ({"assumed": ["mac", "array", "memories", "vector"]}, "node_nm"),
    "origin of no field": ({"assumed": [*CONTENT["assumed"], "mac.enrgy_pj"]}, "assumed.mac.enrgy_pj"),
    "source of no field": ({"sources": {"memories.sram": "a paper"}}, "sources.memories.sram"),
}  # fmt: skip


def message(made):
    with pytest.raises(ProfileError) as caught:
        parse_profile(made, "chip.yaml")
    text = str(caught.value)
    several = text.count("\n")
    assert text.startswith(f"chip.yaml: {several} mistakes, see" if several else "chip.yaml: field '")
    return text


def fields(made):
    """Fields that are named as wrong, one for each line."""
    lines = message(made).splitlines()
    return [line.split("'")[1] for line in (lines if len(lines) == 1 else lines[1:])]


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


@pytest.mark.parametrize(("path", "value", "allowed"), WRONG)
def test_wrong_value_is_refused_with_path_what_is_allowed_and_what_was_found(path, value, allowed):
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
    others = [path for path in CONTENT["assumed"] if path != "mac"]
    made = parse_profile(content({"sources": {"mac": "a paper"}, "assumed": others}), "chip.yaml")
    assert made.sources == {"mac": "a paper"}


def test_each_mistake_has_its_own_line_and_a_misspelt_field_is_one_mistake():
    made = content({"frequency_mhz": -1, "memories.buffer.bytes": 0, "mac.law": "magic", "vector.ops_pj": 1})
    del made["vector"]["op_pj"]
    assert sorted(fields(made)) == ["frequency_mhz", "mac.law", "memories.buffer.bytes", "vector.ops_pj"]


def test_each_contradiction_has_its_own_line():
    made = content(
        {"mac.min_bits": 4, "memories.dram.spans": ["rows"], "sparsity.patterns": ["4:2"], "assumed": ["array"]}
    )
    found = fields(made)
    assert {"mac.min_bits", "memories.dram.spans", "sparsity.patterns"} < set(found)
    assert "memories" in found and "memories.buffer.bytes" not in found, "a section without any origin is one mistake"


@pytest.mark.parametrize("case", INCONSISTENT)
def test_a_contradiction_alone_is_reported_at_its_field_first(case):
    changes, path = INCONSISTENT[case]
    assert fields(content(changes))[0] == path


def test_field_that_is_written_twice_is_refused_with_its_lines(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text(yaml.safe_dump(CONTENT).replace("  bits: 8\n", "  bits: 8\n  bits: 4\n"))
    with pytest.raises(ProfileError, match=r"field 'mac\.bits' is written twice, in lines \d+ and \d+; keep one"):
        load_profile(path)


def test_template_is_valid_and_is_none_of_the_profiles(tmp_path):
    path = tmp_path / "my-chip.yaml"
    path.write_text(template_text())
    assert load_profile(path).name == "my-chip"
    assert "template" not in list_profiles()


def test_published_schema_is_the_one_of_the_class():
    published = json.loads(resources.files("hwc_onnx").joinpath("accelerator.schema.json").read_text(encoding="utf-8"))
    assert published == schema(), "run: python docs/accelerator_schema.py"


def shipped_contents():
    folder = resources.files("hwc_onnx.accel_profiles")
    return {
        name: yaml.safe_load(folder.joinpath(f"{name}.yaml").read_text()) for name in [*list_profiles(), "template"]
    }


@pytest.mark.parametrize("name", [*list_profiles(), "template"])
def test_published_schema_accepts_the_shipped_files(name):
    jsonschema.validate(shipped_contents()[name], schema())


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, value, _ in WRONG if value != float("inf")])
def test_published_schema_refuses_what_is_refused(path, value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content({path: value}), schema())


def test_published_schema_describes_every_field():
    published = schema()
    tables = [published, *(table for table in published["$defs"].values() if "properties" in table)]
    bare = [name for table in tables for name, field in table["properties"].items() if not field.get("description")]
    assert bare == []


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
    assert tiny().digest() == tiny({"description": "another text", "sources": {"mac.law": "a paper"}}).digest()
    changed = [{"mac.energy_pj": 0.51}, {"memories.buffer.bytes": 65}, {"residency.activations": "never"}]
    assert len({tiny().digest(), *(tiny(change).digest() for change in changed)}) == 4


def test_without_home_and_residency_everything_travels():
    made = without("residency")
    for memory in made["memories"]:
        memory.pop("home", None)
    profile = parse_profile(made | {"assumed": [name for name in made["assumed"] if name != "residency"]}, "chip")
    assert profile.home is None
    assert "leave it out" in message({**made, "residency": {"activations": "auto"}})


def test_a_section_that_states_no_number_needs_no_source():
    made = content({"residency": {"activations": "never"}})
    made["assumed"].remove("residency")
    assert parse_profile(made, "chip").residency.activations == "never"
    made["residency"]["weights_bytes"] = 8
    assert "field 'residency': no source" in message(made)


def test_a_mapping_needs_no_source_and_its_own_mistakes_are_named():
    pin = {"layer": {"K": 4}, "spatial": {"columns": {"K": 2}}, "temporal": [["K", 2]]}
    assert len(parse_profile(content({"mapping": {"pinned": [pin]}}), "chip").mapping.pinned) == 1
    found = message(content({"mapping": {"pinned": [pin | {"spatial": {"columns": {"K": 3}}}]}}))
    assert "mapping.pinned.0" in found and "no source" not in found


def test_an_unroll_that_no_axis_takes_is_named():
    found = message(content({"mapping": {"unroll": ["FY", "OX"]}}))
    assert "mapping.unroll" in found and "no array axis takes OX" in found
    assert parse_profile(content({"mapping": {"unroll": ["FY", "OY"]}}), "chip").mapping.unroll == ("FY", "OY")


def test_a_list_with_a_wrong_entry_is_not_too_short_besides():
    found = message(content({"memories.buffer.operands": ["X"]}))
    assert "memories.buffer.operands" in found and "at least 1" not in found and "2 mistakes" not in found
    assert "at least 1" in message(content({"memories.buffer.operands": []}))
