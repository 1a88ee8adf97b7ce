"""Accelerator files: the shipped ones by name, others by path; mistakes are explained with the field path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hwc_onnx.cost.accelerator import (
    AcceleratorProfile,
    Array,
    Axis,
    Format,
    Gate,
    Mac,
    Memory,
    Residency,
    Skip,
    Sparsity,
    Static,
    Vector,
    Wide,
)
from hwc_onnx.errors import ProfileError
from hwc_onnx.plugins import nearest


def list_profiles() -> list[str]:
    """Names of the profiles that ship with the package, sorted."""
    folder = resources.files("hwc_onnx.accel_profiles")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_profile(name_or_path: str | Path) -> AcceleratorProfile:
    """The profile of this name, or of this YAML file.

    Raises:
        ProfileError: unknown name, unreadable file, or a wrong field; the message has the field path.
    """
    import yaml

    where = str(name_or_path)
    known = list_profiles()
    if where in known:
        text = resources.files("hwc_onnx.accel_profiles").joinpath(f"{where}.yaml").read_text(encoding="utf-8")
    elif where.endswith((".yaml", ".yml")) or "/" in where:
        try:
            text = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(
                f"{where}: cannot be read as text ({error}); expected an accelerator file in YAML"
            ) from error
    else:
        raise ProfileError(
            f"unknown accelerator '{where}'{nearest(where, known)}; choose from {', '.join(known)}, or name a YAML file"
        )
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProfileError(f"{where}: not YAML ({error}); copy a shipped profile and change it") from error
    return parse_profile(content, where)


def parse_profile(content: object, where: str) -> AcceleratorProfile:
    """Validate the content of an accelerator file; `where` names it in messages (ProfileError)."""
    if not isinstance(content, dict):
        raise ProfileError(
            f"{where}: found {type(content).__name__}, expected a mapping of fields; copy a shipped profile and change it"
        )
    try:
        return AcceleratorProfile.model_validate(content)
    except ValidationError as error:
        raise ProfileError(f"{where}: {_explain(error, content)}; see accel_profiles/README.md") from error


def _explain(error: ValidationError, content: Mapping[str, Any]) -> str:
    """The first mistake in words: field path, what was found, what is allowed."""
    mistakes = error.errors()
    first = next((mistake for mistake in mistakes if mistake["type"] == "extra_forbidden"), mistakes[0])
    field = _field(first["loc"])
    path = ".".join(_step(content, field, i) for i, _ in enumerate(field))
    if first["type"] == "extra_forbidden":
        fields = _field_names(field)
        return f"field '{path}' is unknown{nearest(str(field[-1]), fields)}; allowed: {', '.join(fields)}"
    if first["type"] == "missing":
        return f"field '{path}' is missing; it is required"
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    # a field that may be one word or a list fails once for each; both are allowed
    same = [_plain(mistake["msg"]) for mistake in mistakes if _field(mistake["loc"]) == field]
    return f"field '{path}': {', or '.join(dict.fromkeys(same))}; found {first['input']!r}"


def _field(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of a location that the file's author wrote, without the names of alternatives that were tried."""
    tried = next((i for i, part in enumerate(loc) if isinstance(part, str) and "[" in part), len(loc))
    return loc[:tried]


def _plain(message: str) -> str:
    """A message without the names of Python types."""
    message = message.replace("Input should be", "must be").replace("valid tuple", "list").replace("Tuple", "the list")
    message = re.sub(r"valid dictionary( or instance of \w+)?", "mapping", message)
    return message.replace(" after validation, not 0", "").replace("String should match pattern", "must match")


def _step(content: Any, loc: tuple[int | str, ...], index: int) -> str:
    """One step of a field path; a list entry is named by its `name`."""
    for part in loc[:index]:
        content = _inside(content, part)
    part = loc[index]
    if isinstance(part, int) and isinstance(content, list) and part < len(content) and isinstance(content[part], dict):
        return str(content[part].get("name", part))
    return str(part)


def _inside(content: Any, part: int | str) -> Any:
    """An entry of a mapping or list, nothing where it is missing."""
    if isinstance(content, list):
        return content[part] if isinstance(part, int) and part < len(content) else {}
    return content.get(part, {}) if isinstance(content, dict) else {}


def _field_names(loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields allowed where `loc` points."""
    tables: dict[str, type[BaseModel]] = {
        "mac": Mac, "wide": Wide, "array": Array, "axes": Axis, "memories": Memory, "formats": Format,
        "sparsity": Sparsity, "gate": Gate, "skip": Skip, "vector": Vector, "static": Static, "residency": Residency,
    }  # fmt: skip
    parents = [tables[str(part)] for part in loc[:-1] if str(part) in tables]
    model: type[BaseModel] = parents[-1] if parents else AcceleratorProfile
    return sorted(str(field.alias or name) for name, field in model.model_fields.items())


__all__ = ["AcceleratorProfile", "list_profiles", "load_profile", "parse_profile"]
