"""Accelerator files: the shipped ones by name, others by path; every mistake is explained with its field path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from hwc_onnx.cost.accelerator import (
    AcceleratorProfile,
    Array,
    Axis,
    Format,
    Gate,
    Mac,
    MappingRules,
    Memory,
    Pinned,
    Residency,
    Skip,
    Sparsity,
    Static,
    Vector,
    Wide,
)
from hwc_onnx.cost.consistency import Contradictions
from hwc_onnx.errors import MappingError, ProfileError
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.plugins import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

TEMPLATE = "template.yaml"
"""The commented file to start from; it lies beside the shipped profiles and is none of them."""

Location = tuple[int | str, ...]


def list_profiles() -> list[str]:
    """Names of the profiles that ship with the package, sorted."""
    folder = resources.files("hwc_onnx.accel_profiles")
    names = (entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml") and entry.name != TEMPLATE)
    return sorted(name.removesuffix(".yaml") for name in names)


def template_text() -> str:
    """The commented file to start from."""
    return resources.files("hwc_onnx.accel_profiles").joinpath(TEMPLATE).read_text(encoding="utf-8")


def load_profile(name_or_path: str | Path) -> AcceleratorProfile:
    """The profile of this name, or of this YAML file.

    Raises:
        ProfileError: unknown name, unreadable file, or wrong fields; the message has a line for each, with its path.
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
        twice = list(_written_twice(yaml.compose(text, Loader=yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise ProfileError(f"{where}: not YAML ({error}); copy a shipped profile and change it") from error
    if twice:
        raise _refusal(where, twice)
    return parse_profile(content, where)


def parse_profile(content: object, where: str) -> AcceleratorProfile:
    """Validate the content of an accelerator file; `where` names it in messages (ProfileError)."""
    if not isinstance(content, dict):
        raise ProfileError(
            f"{where}: found {type(content).__name__}, expected a mapping of fields; copy a shipped profile and change it"
        )
    try:
        profile = AcceleratorProfile.model_validate(content)
    except ValidationError as error:
        raise _refusal(where, list(_mistakes(error.errors(), content))) from error
    wrong = list(_wrong_pins(profile))
    if wrong:
        raise _refusal(where, wrong)
    return profile


def _wrong_pins(profile: AcceleratorProfile) -> Iterator[str]:
    """Pinned mappings that do not cover their layer, or name or hold what does not exist or fit."""
    if not profile.mapping.pinned:
        return
    from hwc_onnx.cost.hierarchy import Hierarchy
    from hwc_onnx.cost.layer_mapping import LayerMapping, stated_table
    from hwc_onnx.cost.operands import Nest

    for number, pin in enumerate(profile.mapping.pinned):
        dims = LoopDims(**{str(d): n for d, n in pin.layer.items()})  # type: ignore[arg-type]
        try:
            stated_table(LayerMapping.pinned(pin), Nest(dims), Hierarchy(profile), (profile.mac.bits, profile.mac.bits))
        except MappingError as error:
            yield f"field 'mapping.pinned.{number}': {str(error).removeprefix('mapping, ').removeprefix('mapping: ')}"


def _refusal(where: str, mistakes: list[str]) -> ProfileError:
    """One line for each mistake, and where to read what is allowed."""
    if len(mistakes) == 1:
        return ProfileError(f"{where}: {mistakes[0]}; see accel_profiles/README.md", mistakes)
    lines = (f"  {mistake}" for mistake in mistakes)
    return ProfileError("\n".join([f"{where}: {len(mistakes)} mistakes, see accel_profiles/README.md", *lines]), mistakes)


def _mistakes(errors: list[ErrorDetails], content: Mapping[str, Any]) -> Iterator[str]:
    """Every mistake in words: field path, what was found, what is allowed."""
    groups: dict[Location, list[ErrorDetails]] = {}
    for error in errors:
        if error["type"] == "too_short" and error["input"]:
            continue  # a list whose entries are wrong is not too short besides
        groups.setdefault(_field(error["loc"]), []).append(error)
    misspelt = {
        field: nearest(str(field[-1]), _field_names(field))
        for field, (first, *_) in groups.items()
        if first["type"] == "extra_forbidden"
    }
    for field, (first, *others) in groups.items():
        path = ".".join(_step(content, field, i) for i, _ in enumerate(field))
        if first["type"] == "extra_forbidden":
            yield f"field '{path}' is unknown{misspelt[field]}; allowed: {', '.join(_field_names(field))}"
        elif first["type"] == "missing":
            # a misspelt field is one mistake, not two
            if not any(other[:-1] == field[:-1] and f"'{field[-1]}'" in hint for other, hint in misspelt.items()):
                yield f"field '{path}' is missing; it is required"
        elif isinstance(contradictions := first.get("ctx", {}).get("error"), Contradictions):
            yield from contradictions.mistakes
        else:
            # a field that may be one word or a list fails once for each; both are allowed
            allowed = ", or ".join(dict.fromkeys(_plain(mistake) for mistake in (first, *others)))
            yield f"field '{path}': {allowed}; found {first['input']!r}{_number_hint(first)}"


def _field(loc: Location) -> Location:
    """The part of a location that the file's author wrote, without the names of alternatives that were tried."""
    tried = next((i for i, part in enumerate(loc) if isinstance(part, str) and "[" in part), len(loc))
    return loc[:tried]


def _plain(mistake: ErrorDetails) -> str:
    """A message without the names of Python types."""
    message = mistake["msg"].replace("Input should be", "must be")
    message = message.replace("valid tuple", "list").replace("Tuple", "the list")
    message = re.sub(r"valid dictionary( or instance of \w+)?", "mapping", message)
    return message.replace(" after validation, not 0", "").replace("String should", "must")


def _number_hint(mistake: ErrorDetails) -> str:
    """What to do about a word where a number belongs."""
    if mistake["type"] not in ("float_type", "int_type") or not isinstance(mistake["input"], str):
        return ""
    return "; write the number alone, its unit is in the field's name (and an exponent as 1.0e-3)"


def _step(content: Any, loc: Location, index: int) -> str:
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


def _field_names(loc: Location) -> list[str]:
    """Names of the fields allowed where `loc` points."""
    tables: dict[str, type[BaseModel]] = {
        "mac": Mac, "wide": Wide, "array": Array, "axes": Axis, "memories": Memory, "formats": Format,
        "sparsity": Sparsity, "gate": Gate, "skip": Skip, "vector": Vector, "static": Static, "residency": Residency,
        "mapping": MappingRules, "pinned": Pinned,
    }  # fmt: skip
    parents = [tables[str(part)] for part in loc[:-1] if str(part) in tables]
    model: type[BaseModel] = parents[-1] if parents else AcceleratorProfile
    return sorted(str(field.alias or name) for name, field in model.model_fields.items())


def _written_twice(node: Any, path: str = "") -> Iterator[str]:
    """Fields of a YAML tree that are written more than once, of which a YAML reader would keep the last."""
    if node is None or isinstance(node.value, str):
        return
    seen: dict[str, int] = {}
    for entry in node.value:
        key, value = entry if isinstance(entry, tuple) else (None, entry)
        inside = path
        if key is not None:
            inside = f"{path}.{key.value}" if path else str(key.value)
            line = key.start_mark.line + 1
            if key.value in seen:
                yield f"field '{inside}' is written twice, in lines {seen[key.value]} and {line}; keep one"
            seen[key.value] = line
        yield from _written_twice(value, inside)


__all__ = ["TEMPLATE", "AcceleratorProfile", "list_profiles", "load_profile", "parse_profile", "template_text"]
