"""Table of `clean`: what each run folder gave back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.quantities import size

if TYPE_CHECKING:
    from hwc_onnx.cleaning import Cleaned


def clean_payload(cleaned: Sequence[Cleaned], dry_run: bool) -> dict[str, Any]:
    """The content of `clean --json` (`clean.schema.json`)."""
    folders = [one.payload() for one in cleaned]
    freed = sum(sum(one.freed.values()) for one in cleaned)
    return {"schema": 1, "dry_run": dry_run, "folders": folders, "freed_bytes": freed}


def clean_tables(payload: Mapping[str, Any]) -> list[RenderableType]:
    """Bytes by folder, and all together."""
    if not payload["folders"]:
        return [wrapped("no run folders here; name them, such as hwc-onnx clean model.hwc")]
    made = table(None, "run folder", "cache", "unfinished", "stays")
    for one in payload["folders"]:
        cells = (one["bytes"]["cache"], one["bytes"]["temporary"], one["remaining_bytes"])
        made.add_row(one["folder"], *(size(value) for value in cells))
    verb = "would be freed (nothing was removed)" if payload["dry_run"] else "freed"
    return [made, f"{payload['freed_bytes']} bytes {verb}"]
