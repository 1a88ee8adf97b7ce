"""Progress for programs: each event as one line of JSON on stderr (`progress.schema.json`)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from types import TracebackType
from typing import Any, TextIO

from hwc_onnx.events import Event, Note, Phase, Step, TrialDone
from hwc_onnx.report.progress import KEPT, Pace

SCHEMA = 1
NAMES = {Phase: "phase", Step: "step", TrialDone: "trial", Note: "note"}


class JsonProgress:
    """A listener for `on_event`, used as `Progress` is; every event is written, not improvements alone."""

    def __init__(self, stream: TextIO, quiet: bool = False) -> None:
        self._stream, self._quiet, self._pace = stream, quiet, Pace()

    def __enter__(self) -> JsonProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def __call__(self, event: Event) -> None:
        """Write one event."""
        fields: dict[str, Any] = {"event": NAMES[type(event)], **asdict(event)}
        if isinstance(event, TrialDone):
            fields["seconds_left"] = self._pace(event)
        self._write(fields)

    def interrupted(self, command: str, kept: str = KEPT) -> None:
        """Say what is kept, and how to go on."""
        self._write({"event": "interrupted", "kept": kept, "command": command})

    def _write(self, fields: dict[str, Any]) -> None:
        if not self._quiet:
            finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in fields.items()}
            self._stream.write(json.dumps({"schema": SCHEMA, **finite}, allow_nan=False) + "\n")
            self._stream.flush()
