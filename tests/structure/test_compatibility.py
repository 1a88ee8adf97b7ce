"""docs/compatibility.md keeps its word: fields stay under their schema number, other numbers are refused, changes have their headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.schema_fields import RECORD, fields, found, recorded
from hwc_onnx.search import policy
from tests.cli.running import hwc

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def broken(promised: set[str], now: set[str]) -> list[str]:
    """Promised fields that are gone or of another type, of schemas whose number is what it was, or that are gone themselves."""
    numbers, names = {tuple(line.split()[:2]) for line in now}, {line.split()[0] for line in now}
    return sorted(line for line in promised - now if tuple(line.split()[:2]) in numbers or line.split()[0] not in names)


def test_no_field_is_lost_under_its_schema_number() -> None:
    assert len(recorded()) > 500
    advice = f"a field that readers rely on: raise the schema number, or, if it was in no release, take its line out of {RECORD.name}"
    assert broken(recorded(), found()) == [], advice


def test_a_field_that_changes_is_noticed_and_one_that_is_added_is_not() -> None:
    old = {"result 1 a integer required", "result 1 b string"}
    assert broken(old, {*old, "result 1 c number"}) == []
    assert broken(old, {"result 1 a integer|null required", "result 1 b string"}) == ["result 1 a integer required"]
    assert broken(old, {"result 1 b string"}) == ["result 1 a integer required"]
    assert broken(old, {"result 2 b string"}) == []
    assert broken(old, {"verify 1 b string"}) == sorted(old)


def test_fields_below_lists_mappings_and_definitions_are_seen() -> None:
    below = {"type": "object", "required": ["a"], "properties": {"a": {"type": ["null", "number"]}, "b": {"$ref": "#/$defs/d"}}}
    schema = {"properties": {"rows": {"type": "array", "items": below}}, "$defs": {"d": {"additionalProperties": below}}}
    assert set(fields(schema)) == {
        ("rows", "array"), ("rows[].a", "null|number required"), ("rows[].b", "$d"), ("$d[].a", "null|number required"), ("$d[].b", "$d"),
    }  # fmt: skip


def test_page_states_the_numbers_that_are_written_and_read() -> None:
    block = PAGE.split("<!-- schemas:begin -->")[1].split("<!-- schemas:end -->")[0]
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+)[^|]* \|", block, re.MULTILINE)
    written = {line.split()[1] for line in found()}
    assert len(rows) == 6 and {row[1] for row in rows} == {row[2] for row in rows} == written == {policy.SCHEMA}


TEMPLATE = (ROOT / "accel_profiles" / "template.yaml").read_text().replace("schema: 1", "schema: 2")
RESNET = ROOT / "sample_models" / "resnet20.onnx"


@pytest.mark.parametrize(
    ("command", "file", "text", "code"),
    [
        (["inspect", "--config"], "c.yaml", "schema: 2\n", 2),
        (["accel", "check"], "a.yaml", TEMPLATE, 4),
        (["apply", RESNET, "--plan"], "plan.json", '{"schema": 2, "layers": {}}', 4),
        (["report"], "result.json", '{"schema": 2}', 2),
    ],
)
def test_another_number_is_refused_and_the_one_that_is_read_is_named(
    tmp_path: Path, command: list[object], file: str, text: str, code: int
) -> None:
    (tmp_path / file).write_text(text)
    result = hwc(*command, tmp_path if command[0] == "report" else tmp_path / file)
    assert result.exit_code == code and re.search(r"schema.*\b1\b", result.stderr), result.stderr


def test_changelog_uses_the_headings_that_the_page_names() -> None:
    allowed = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= allowed
    assert set(re.findall(r"`### (\w+)`", PAGE)) <= allowed
    assert ("### Deprecated" in CHANGELOG) != ("Nothing is deprecated at present." in PAGE)
