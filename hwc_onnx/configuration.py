"""Command lines as YAML files: options by the names of their flags, on top of those of another file (`extends`).

A file is untrusted: read with YAML's safe loader, limited in size, and followed through `extends` to a limited depth. Paths
in a file are relative to it, so that a folder of models and configurations can be moved.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwc_onnx.errors import UsageError
from hwc_onnx.files import write_atomic

if TYPE_CHECKING:
    import yaml

SCHEMA = 1
MOST_BYTES = 1 << 20
RECORD = "run"
"""The key of what a run is known by, which a run folder's file has beside its options."""
DEEPEST = 16
"""Files that one may extend, one after the other."""
PATHS = frozenset(
    {"model", "compressed", "against", "plan", "output", "save_plan", "run_dir", "from_run", "figure", "cache", "beside"}
)
"""Options that name a file or folder, by the name under which commands take them."""
ACCELERATORS = frozenset({"accelerator", "accelerators", "compare_accelerators"})
PAIRS = frozenset({"input_shapes", "min_channels", "ratio_bounds", "fixed_inputs"})
"""Options whose values are by name or pattern."""
BITS = frozenset({"weight_bits", "activation_bits"})
KEYS = {"accelerator": "accel", "compare_accelerators": "compare-accel", "input_shapes": "input-shape"}
"""Arguments of `hwc_onnx.compress` whose flags have other names."""


@dataclass(frozen=True)
class Layer:
    """One file of a chain: where it is, and its keys as they are written."""

    path: Path
    content: Mapping[str, Any]


def read_chain(path: Path) -> list[Layer]:
    """The files that a configuration consists of, from the one that extends nothing to `path` itself.

    Raises:
        UsageError: a file that is missing, too large, not YAML, not a mapping or written for another schema, a key that is
            written twice, or an `extends` that leads back to a file of the chain or through more than `DEEPEST` files.
    """
    found: list[Layer] = []
    seen: list[Path] = []
    current: Path | None = path
    while current is not None:
        real = Path(os.path.realpath(current))
        if real in seen:
            names = " -> ".join(str(layer.path) for layer in reversed(found))
            raise UsageError(f"{found[0].path}: field 'extends' leads in a circle ({names} -> {current}); remove one of them")
        if len(found) > DEEPEST:
            raise UsageError(f"{path}: extends more than {DEEPEST} files one after the other; put some of them together")
        seen.append(real)
        content = _read(current, found[0].path if found else None)
        found.insert(0, Layer(current, content))
        base = content.get("extends")
        if base is not None and not isinstance(base, str):
            raise UsageError(f"{current}: field 'extends' is a {_kind(base)}; name one file")
        current = None if base is None else current.parent / base
    return found


def _read(path: Path, extended_by: Path | None) -> dict[str, Any]:
    import yaml

    asked = "" if extended_by is None else f" (extended by {extended_by})"
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is no file{asked}; write one with --save-config")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise UsageError(f"{path}: cannot be read ({why}){asked}; write one with --save-config") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path}: more than {MOST_BYTES >> 20} MiB{asked}; shorten it, a configuration is a list of options")
    try:
        content = yaml.safe_load(text)
        twice = _twice(yaml.compose(text, Loader=yaml.SafeLoader))
    except Exception as error:  # tags of wrong content raise all kinds
        raise UsageError(f"{path}: not YAML ({error}){asked}; write `option: value`, one on a line") from error
    if content is None:
        content = {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path}: holds a {_kind(content)}, expected options as `name: value`, one on a line{asked}")
    if twice is not None:
        raise UsageError(f"{path}: field '{twice}' is written twice; keep one of them")
    if content.get("schema", SCHEMA) != SCHEMA:
        found = content["schema"]
        shown = found if isinstance(found, int) else f"a {_kind(found)}"
        raise UsageError(f"{path}: field 'schema' is {shown}; this version reads schema {SCHEMA}: write that, or update hwc-onnx")
    return content


def _twice(root: yaml.Node | None) -> str | None:
    """A key of the outermost mapping that is written twice."""
    pairs = root.value if root is not None and isinstance(root.value, list) else []
    seen: set[str] = set()
    for key in (pair[0].value for pair in pairs if isinstance(pair, tuple) and isinstance(pair[0].value, str)):
        if key in seen:
            return str(key)
        seen.add(key)
    return None


def _kind(value: object) -> str:
    kinds = {dict: "mapping", list: "list", str: "text", bool: "true or false", int: "number", float: "number"}
    return kinds.get(type(value), type(value).__name__)


def names_path(name: str, value: str) -> bool:
    """Whether the value of the option that commands take as `name` is a path, not the name of something."""
    if name in PATHS:
        return True
    if name in ACCELERATORS:
        return value.endswith((".yaml", ".yml")) or "/" in value
    if name == "policy":
        return value not in ("pretrained", "none")
    if name == "data":
        source = value.partition(":")[0]
        return source != "synthetic" and (":" not in value or "/" in value or value.endswith(".npz"))
    return False


def from_file(name: str, value: str, file: Path) -> str:
    """A value as it is meant in `file`: its paths, relative to that file, as the current folder sees them."""
    if not names_path(name, value):
        return value
    full = os.path.normpath(os.path.join(os.path.realpath(file.parent), value))
    near = os.path.relpath(full)
    return full if near.startswith("..") else near


def into_file(name: str, value: str, file: Path) -> str:
    """The reverse of `from_file`."""
    if not names_path(name, value):
        return value
    folder, last = os.path.split(os.path.abspath(value))
    return os.path.relpath(os.path.join(os.path.realpath(folder), last), os.path.realpath(file.parent))


def written(name: str, value: Any, file: Path) -> Any:
    """A value of the option that commands take as `name`, as it is written into `file`; None where nothing is.

    Raises:
        TypeError: the value is an object of Python that a file cannot hold.
    """
    if value is None or (isinstance(value, list | tuple | dict) and not value):
        return None
    if name in BITS:
        return f"{value[0]}-{value[1]}"
    if isinstance(value, Mapping) and name in PAIRS:
        return [_pair(name, str(key), entry) for key, entry in value.items()]
    if isinstance(value, list | tuple):
        return [written(name, entry, file) for entry in value]
    if isinstance(value, str | Path):
        return into_file(name, str(value), file)
    if isinstance(value, bool | int | float):
        return value
    raise TypeError(f"{name}: a {type(value).__name__}")


def _pair(name: str, key: str, entry: Any) -> str:
    if name == "input_shapes":
        return f"{key}:{'x'.join(str(size) for size in entry)}"
    return f"{key}={entry[0]!r}-{entry[1]!r}" if isinstance(entry, Sequence) else f"{key}={entry}"


def compress_call(arguments: Mapping[str, Any], file: Path) -> tuple[dict[str, Any], list[str]]:
    """Arguments of `hwc_onnx.compress` as `file` holds them, by key; and the names of those that it cannot hold."""
    keys: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in arguments.items():
        try:
            text = written(name, value, file)
        except TypeError:
            left_out.append(name)
            continue
        if text is not None:
            keys[KEYS.get(name, name.replace("_", "-"))] = text
    return keys, left_out


def file_text(
    command: str | None, keys: Mapping[str, Any], comments: Sequence[str] = (), record: Mapping[str, Any] | None = None
) -> str:
    """The content of a configuration file; `record` is what a run is known by."""
    import yaml

    content = {"schema": SCHEMA} | ({} if command is None else {"command": command}) | dict(keys)
    content |= {} if record is None else {RECORD: dict(record)}
    lines = "".join(f"# {line}\n" for line in comments)
    return lines + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def write(path: Path, text: str) -> None:
    """Write a configuration that `--save-config` named (UsageError where it cannot be)."""
    write_atomic(path, text.encode(), "--save-config")
