"""`accel`: the drawing and the tables of an accelerator, its payloads, and a file with several mistakes."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hwc_onnx.cost.profile import list_profiles, load_profile, parse_profile
from hwc_onnx.report.accel_table import (
    check_payload,
    list_payload,
    show_payload,
    show_tables,
    template_payload,
)
from hwc_onnx.report.console import tables_text
from tests.cli.running import hwc
from tests.cost.tiny_accelerator import content, tiny

DRAWING = """\
  I  W  O
  |  |  |  multiplier, fixed, 8 bits, sums of 24 bits
in each PE of rows 2 (C FY) x columns 2 (K OY): 4
  *  |  |  i_reg           2 B  8 16 bit
one for all rows, 2 in the array
  |  *  |  w_reg           4 B  8 16 bit, double-buffered
in each PE of rows 2 (C FY) x columns 2 (K OY): 4
  |  |  *  o_reg          12 B  24 bit
one for the array
  *  |  *  buffer         2 KB  2 4 8 24 bit, home
  |  *  |  w_buffer       32 B  2 4 8 16 bit, W bitmask
  *  *  *  dram      unlimited  any width, W 4 8 bit
"""

LEVELS = """\
from            read I  read W  partial sum  together  x MAC
the MAC itself                                    0.5      1
i_reg            0.088                          0.088  0.176
w_reg                    0.136                  0.136  0.272
o_reg                                 1.248     1.248  2.496
buffer            2.48                16.32      18.8   37.6
w_buffer                  3.28                   3.28   6.56
dram                40      40          288       368    736
"""

CHANGES = {
    "memories.w_reg.spans": ["rows"],
    "memories.w_reg.double_buffered": True,
    "memories.buffer.bytes": 2048,
    "memories.w_buffer.formats": {"W": {"kind": "bitmask"}},
    "memories.dram.pack_weights": [4, 8],
}


def shown(changes: dict[str, Any]) -> str:
    lines = tables_text(show_tables(show_payload(tiny(changes)))).splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def test_drawing_and_levels_of_the_tiny_accelerator_are_those_drawn_by_hand() -> None:
    assert DRAWING in shown(CHANGES)
    assert LEVELS in shown(CHANGES)


def test_drawing_of_another_accelerator_is_noticed() -> None:
    """The broken twin."""
    assert DRAWING not in shown({**CHANGES, "memories.w_reg.spans": ["columns"]})
    assert LEVELS not in shown({**CHANGES, "memories.w_buffer.read_pj_per_bit": 0.42})


@pytest.mark.parametrize("name", list_profiles())
def test_shipped_accelerator_is_shown_within_80_columns_but_for_its_sources(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = tables_text(show_tables(show_payload(load_profile(name)))).splitlines()
    assert [line for line in lines if len(line.rstrip()) > 80 and not line.startswith("[")] == []
    assert not any("…" in line for line in lines)


def validate(payload: Any) -> None:
    jsonschema.validate(payload, json.loads(files("hwc_onnx").joinpath("accel.schema.json").read_text()))


@pytest.mark.parametrize("name", list_profiles())
def test_payloads_fit_the_published_schema(name: str) -> None:
    profile = load_profile(name)
    for payload in (
        show_payload(profile),
        list_payload([profile]),
        check_payload(profile, name),
        template_payload("#"),
    ):
        validate(payload)


def test_payload_without_its_memories_is_refused() -> None:
    payload = show_payload(tiny())
    del payload["memories"]
    with pytest.raises(jsonschema.ValidationError):
        validate(payload)


def test_mac_that_costs_nothing_has_no_ratios_to_it() -> None:
    payload = show_payload(load_profile("interstellar-16x16"))
    assert {memory["relative_to_mac"] for memory in payload["memories"]} == {None}
    assert "the MAC itself" in tables_text(show_tables(payload))


def test_units_of_a_normalised_accelerator_are_macs_but_for_the_reference() -> None:
    units = {item["field"]: item["unit"] for item in show_payload(load_profile("eyeriss-v1"))["constants"]}
    assert units["mac.energy_pj"] == "MAC"
    assert units["memories.dram.read_pj_per_bit"] == "MAC/bit"
    assert units["reference_mac_pj"] == "pJ"


def test_check_names_every_mistake_of_a_file_on_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "chip.yaml"
    file.write_text(yaml.safe_dump(content({"mac.bits": 0, "memories.buffer.bytes": "64 KB", "unit": "nJ"})))
    result = hwc("accel", "check", file)
    head, *mistakes = result.stderr.splitlines()
    assert result.exit_code == 4
    assert head.startswith("error: ") and "chip.yaml: 3 mistakes" in head
    assert [line.split("'")[1] for line in mistakes] == ["unit", "mac.bits", "memories.buffer.bytes"]
    assert "Traceback" not in result.output


def test_template_is_printed_as_a_file_that_checks(tmp_path: Path) -> None:
    file = tmp_path / "my-chip.yaml"
    file.write_text(hwc("accel", "template").stdout)
    result = hwc("accel", "check", file)
    assert result.exit_code == 0, result.stderr
    assert "valid accelerator 'my-chip'" in result.stdout


def test_check_counts_the_figures_that_the_file_states() -> None:
    """A source turns an assumed figure into one with a source; a default that nobody wrote is none; a mapping has none."""
    base = content({"sources": {}})
    whole = check_payload(parse_profile(base, "tiny"), "tiny")
    assert (whole["figures"], whole["figures"] - whole["assumed"]) == (whole["assumed"], 0)
    stated = content({"sources": {"mac.energy_pj": "a paper"}})
    assert check_payload(parse_profile(stated, "tiny"), "tiny") | {"sha256": ""} == whole | {
        "sha256": "", "assumed": whole["assumed"] - 1
    }  # fmt: skip
    del base["residency"]["weights_bytes"]
    assert check_payload(parse_profile(base, "tiny"), "tiny")["figures"] == whole["figures"] - 1
    pinned = content({"mapping": {"pinned": [{"layer": {"K": 2}, "spatial": {"columns": {"K": 2}}, "temporal": []}]}})
    assert check_payload(parse_profile(pinned, "tiny"), "tiny")["figures"] == whole["figures"]


def test_check_json_of_a_file_with_mistakes_lists_them(tmp_path: Path) -> None:
    file = tmp_path / "chip.yaml"
    file.write_text(yaml.safe_dump(content({"mac.bits": 0, "vector.lanes": "many"})))
    result = hwc("accel", "check", file, "--json")
    payload = json.loads(result.stdout)
    jsonschema.validate(payload, json.loads(files("hwc_onnx").joinpath("accel.schema.json").read_text()))
    assert result.exit_code == 4 and result.stderr == ""
    assert payload["valid"] is False and payload["file"] == str(file)
    assert [words.split("'")[1] for words in payload["problems"]] == ["mac.bits", "vector.lanes"]
    missing = json.loads(hwc("accel", "check", tmp_path / "none.yaml", "--json").stdout)
    assert len(missing["problems"]) == 1 and "cannot be read" in missing["problems"][0]
