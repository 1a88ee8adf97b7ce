"""The record of one layer that `why` looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwc_onnx.diagnosis.bench import Damage
from hwc_onnx.diagnosis.causes import Finding
from hwc_onnx.diagnosis.remedies import Trial
from hwc_onnx.diagnosis.shares import Part
from hwc_onnx.plan import LayerConfig


@dataclass(frozen=True)
class Unread:
    """Stored tensors that no layer reads: the damage of all `count` of them, and of the `worst` alone, most first.

    `worst` is empty where all together do little.
    """

    all: Damage
    count: int
    worst: tuple[tuple[str, Damage], ...]

    def to_json(self) -> dict[str, Any]:
        """`unread_tensors` in `why --json`."""
        worst = [{"tensor": name, **found.to_json()} for name, found in self.worst]
        return {**self.all.to_json(), "count": self.count, "worst": worst}


@dataclass(frozen=True)
class Suspect:
    """One layer that was measured.

    `output_error` is what it was ranked by; `alone` its damage with everything else in float, `parts` that of each part;
    `left_out` the plan's damage with this layer back in float, `after` with its best remedy. `tied` are other layers that
    read the same tensors or make the same channels, so that their widths or channels are the same.
    """

    key: str
    op_type: str
    setting: LayerConfig
    output_error: float
    alone: Damage
    left_out: Damage
    parts: dict[Part, Damage]
    tied: tuple[str, ...]
    cause: Finding | None
    remarks: tuple[Finding, ...]
    trials: tuple[Trial, ...]
    best: Trial | None
    after: Damage

    def to_json(self) -> dict[str, Any]:
        """One entry of `layers` in `why --json`."""
        return {
            "key": self.key,
            "op_type": self.op_type,
            "setting": self.setting.model_dump(),
            "output_error": self.output_error,
            "alone": self.alone.to_json(),
            "left_out": self.left_out.to_json(),
            "parts": {part: found.to_json() for part, found in self.parts.items()},
            "tied": list(self.tied),
            "cause": None if self.cause is None else _finding(self.cause),
            "remarks": [_finding(found) for found in self.remarks],
            "remedies": [
                {
                    "name": trial.remedy.name,
                    "part": trial.remedy.part,
                    "change": trial.remedy.change,
                    "energy": trial.energy,
                    **trial.damage.to_json(),
                }
                for trial in self.trials
            ],
            "best": None if self.best is None else self.best.remedy.name,
            "after": self.after.to_json(),
        }


def _finding(found: Finding) -> dict[str, Any]:
    return {"name": found.name, "part": found.part, "text": found.text, "numbers": found.numbers}
