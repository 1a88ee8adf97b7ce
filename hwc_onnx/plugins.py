"""Plug points: a short name from a literal table, or `module:attribute`, becomes an object.

Nothing is registered by importing it. A table maps a short name to a `module:attribute` string, which is imported only
when asked for.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from hwc_onnx.errors import UsageError


def nearest(name: str, known: list[str]) -> str:
    """A hint " (did you mean 'x'?)" for the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def resolve(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """The object behind `name`: a key of `table`, or `module:attribute`.

    Raises:
        UsageError: the name is unknown, its module cannot be imported, or its attribute does not exist.
    """
    target = table.get(name, name)
    if ":" not in target:
        known = sorted(table)
        raise UsageError(
            f"unknown {kind} '{name}'{nearest(name, known)}; choose from {', '.join(known)}, or name your own as module:attribute"
        )
    module, _, attribute = target.partition(":")
    if not (all(part.isidentifier() for part in module.split(".")) and attribute.isidentifier()):
        raise UsageError(f"{kind} '{name}': is no module:attribute; give names as in `import`, such as mypackage.mymodule:MyClass")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{kind} '{name}': no module '{error.name}'; it must be importable from the current environment"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the code of a module of the user's own does
        raise UsageError(f"{kind} '{name}': importing '{module}' ends in {type(error).__name__}: {error}; mend it and try again") from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise UsageError(f"{kind} '{name}': module '{module}' has no '{attribute}'; name an attribute that it has") from error
    except Exception as error:
        raise UsageError(f"{kind} '{name}': asking for it ends in {type(error).__name__}: {error}; mend the module and try again") from error
