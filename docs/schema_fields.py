"""Records the fields of every JSON schema in tests/golden/schema_fields.txt: what programs that read the outputs may rely on.

Run by `make docs`. New fields are added; one that is gone stays recorded, and a test says so (docs/compatibility.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "hwc_onnx"
RECORD = ROOT / "tests" / "golden" / "schema_fields.txt"


def fields(schema: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, what is promised of it) of each field; [] stands for any entry, $ for a definition."""
    if not isinstance(schema, dict):
        return
    for name, below in schema.get("properties", {}).items():
        needed = " required" if name in schema.get("required", []) else ""
        yield f"{path}.{name}".lstrip("."), kind(below) + needed
        yield from fields(below, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        yield from fields(schema.get(word), f"{path}[]")
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for below in schema.get(word, []):
            yield from fields(below, path)
    for name, below in schema.get("$defs", {}).items():
        yield from fields(below, f"${name}")


def kind(schema: Any) -> str:
    """The type of a field in one word."""
    if not isinstance(schema, dict):
        return "any"
    if "$ref" in schema:
        return "$" + str(schema["$ref"]).rsplit("/", 1)[-1]
    if "type" in schema:
        found = schema["type"]
        return "|".join(sorted(found)) if isinstance(found, list) else str(found)
    inner = {kind(below) for word in ("anyOf", "oneOf", "allOf") for below in schema.get(word, [])}
    return "|".join(sorted(inner)) or ("constant" if "const" in schema or "enum" in schema else "any")


def number(schema: Any) -> int | None:
    """The schema number that a schema asks for: that of its outermost field `schema`."""
    if isinstance(schema, dict):
        stated = schema.get("properties", {}).get("schema", {}).get("const")
        nested = [*schema.values()] if stated is None else []
        return int(stated) if stated is not None else next(filter(None, map(number, nested)), None)
    return next(filter(None, map(number, schema)), None) if isinstance(schema, list) else None


def found() -> set[str]:
    """A line for each field: schema, number, path, promise."""
    lines = set()
    for file in sorted(SCHEMAS.glob("*.schema.json")):
        name = file.name.removesuffix(".schema.json")
        if name != "config":  # options, which docs/cli.md lists
            schema = json.loads(file.read_text(encoding="utf-8"))
            lines |= {f"{name} {number(schema)} {path} {promise}" for path, promise in fields(schema)}
    return lines


def recorded() -> set[str]:
    """The lines that were recorded before."""
    return set(RECORD.read_text(encoding="utf-8").splitlines()) if RECORD.exists() else set()


if __name__ == "__main__":
    RECORD.write_text("".join(f"{line}\n" for line in sorted(recorded() | found())), encoding="utf-8")
