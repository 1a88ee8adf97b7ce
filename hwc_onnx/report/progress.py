"""Progress on stderr: one line for each improvement, and a moving line underneath when a person is watching.

In a terminal the current phase and trial move on one line; elsewhere (a log, a pipe) only whole lines are written, and
inside a long phase one now and then.
"""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.status import Status

from hwc_onnx.events import Event, Note, Phase, Step, TrialDone
from hwc_onnx.report.quantities import duration, percent, points, size

QUIET_SECONDS = 10.0
"""In a log, a phase says where it is when nothing was written for so long."""
TRIAL_SECONDS = 30.0
"""The same for a search."""
KEPT = "every finished trial is kept, and once the baseline is measured best.onnx in the run folder is the best so far"


class Pace:
    """What is left of a search at its pace so far. The first trial waits for preparation, so time counts from there."""

    def __init__(self) -> None:
        self._first: TrialDone | None = None

    def __call__(self, trial: TrialDone) -> float | None:
        """Seconds until the budget is used up, None before two trials; a search may stop earlier."""
        if self._first is None or trial.evaluations <= self._first.evaluations:
            self._first = trial
            return None
        each = (trial.seconds - self._first.seconds) / (trial.evaluations - self._first.evaluations)
        return max(each * (trial.budget - trial.evaluations), 0.0)


class Progress:
    """A listener for `on_event`. Use as a context manager, so that the moving line is cleared on any exit."""

    def __init__(self, stream: TextIO, quiet: bool = False) -> None:
        self._console = Console(file=stream, highlight=False, quiet=quiet)
        self._status: Status | None = None
        if self._console.is_terminal and not quiet:
            self._status = self._console.status("starting")
        self._phase = ""
        self._header_shown = False
        self._pace = Pace()
        self._written = time.monotonic()
        self._counted: str | None = None

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Phase):
            self._phase, self._counted = event.name, None
            self._line(f"{event.name}: {event.detail}" if event.detail else event.name)
            self._move(event.name)
        elif isinstance(event, Step):
            share = f"{event.done} of {event.total}" if event.total else ""
            text = " ".join(filter(None, (self._phase, share, event.detail)))
            self._move(text)
            ended = event.done == event.total and event.detail == self._counted  # what was begun in words ends in words
            if self._status is None and (ended or self._silent(QUIET_SECONDS)):
                self._line(text)
                self._counted = event.detail
        elif isinstance(event, TrialDone):
            self._trial(event)
        elif isinstance(event, Note):
            self._line(f"{'warning' if event.warning else 'note'}: {event.text}")

    def interrupted(self, command: str, kept: str = KEPT) -> None:
        """Say what is kept, and how to go on."""
        self._line(f"interrupted; {kept}")
        self._line(f"to continue: {command}")

    def _trial(self, trial: TrialDone) -> None:
        left = self._pace(trial)
        to_go = "-" if left is None else duration(left)
        if trial.improved:
            if not self._header_shown:
                self._line(f"{'trial':>9}  {'of INT8 energy':>14}  {'drop':>7}  {'file':>8}  {'elapsed':>10}  {'left':>10}  from")
                self._header_shown = True
            written = size(trial.file_bytes) if trial.file_bytes else "-"
            self._line(
                f"{f'{trial.evaluations}/{trial.budget}':>9}  {percent(trial.energy):>14}  {points(trial.drop_points):>7}"
                f"  {written:>8}  {duration(trial.seconds):>10}  {to_go:>10}  {trial.origin}"
            )
        best = f"best {percent(trial.best_energy)} of INT8's energy" if math.isfinite(trial.best_energy) else "none accepted yet"
        ahead = "" if left is None else f", about {duration(left)} left"
        text = f"trial {trial.evaluations} of {trial.budget}, {best}, {duration(trial.seconds)}{ahead}"
        self._move(text)
        if self._status is None and self._silent(TRIAL_SECONDS):
            self._line(text)

    def _silent(self, seconds: float) -> bool:
        return time.monotonic() - self._written >= seconds

    def _line(self, text: str) -> None:
        self._written = time.monotonic()
        self._console.print(text, soft_wrap=True, markup=False)

    def _move(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
