"""A run folder read back for its report: the result, the plan, every trial, the front, and the costs before and after.

Nothing is trusted: a file that is missing, damaged or of another schema is named, with the command that makes it again.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from hwc_onnx.configuration import RECORD
from hwc_onnx.errors import UsageError
from hwc_onnx.runfolder import CONFIG
from hwc_onnx.search.history import CLOSING
from hwc_onnx.search.problem import Outcome
from hwc_onnx.search.storage import STUDY_NAME

SCHEMA = 1
PROFILE = "profile.json"
SAME = {
    "model_sha256": "another model",
    "data_sha256": "other data",
    "accelerator_sha256": "another accelerator",
    "max_drop": "another limit",
}
"""What runs have in common whose curves are drawn together."""
MOST_BYTES = 256 << 20
"""A file of a run folder that is larger was not written by a run."""


@dataclass(frozen=True)
class Trial:
    """One finished trial. `evaluations` counts up to it, `energy` is a share of the INT8 baseline's, `drop` in points."""

    number: int
    evaluations: int
    energy: float
    drop: float
    damage: float
    origin: str
    accepted: bool
    complete: bool
    failed: bool
    learning: Mapping[str, float] = field(default_factory=dict)
    """What its strategy expected of it and had learned before (Proposal.learning)."""

    @property
    def refitted(self) -> bool:
        """Whether its layers were refitted one after the other."""
        return self.origin == CLOSING


@dataclass(frozen=True)
class FrontPoint:
    """One row of pareto.csv; `plan` is the file that `apply` takes, `passed` the final gate's verdict where it looked at it."""

    energy: float
    drop: float
    accepted: bool
    origin: str
    plan: Path
    passed: bool | None = None

    @property
    def good(self) -> bool:
        """Passed by the gate, or accepted by the search where the gate did not look."""
        return self.accepted if self.passed is None else self.passed


@dataclass(frozen=True)
class RunRecord:
    """Everything that a report shows. `before` and `after` are the `profile` payloads of the INT8 baseline and the result."""

    folder: Path
    result: Mapping[str, Any]
    plan: Mapping[str, Any]
    config: Mapping[str, Any]
    """What the run is known by."""
    given: Mapping[str, Any]
    """The options of the run by the names of their flags; paths are relative to the folder."""
    trials: tuple[Trial, ...]
    front: tuple[FrontPoint, ...]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    beside: tuple[RunRecord, ...] = ()
    """Runs of the same task by other strategies or seeds."""

    @property
    def strategy(self) -> str:
        """The strategy and its seed, by which runs of one task are told apart."""
        search = self.result["search"]
        return f"{search['sampler']}, seed {self.config.get('seed', 0)}"

    @property
    def limit(self) -> float | None:
        """The largest allowed drop in points, None where there was none."""
        found = self.result["metric"]["limit_points"]
        return None if found is None else float(found)

    def with_beside(self, folders: Sequence[Path]) -> RunRecord:
        """The same run with others to compare it with.

        Raises:
            UsageError: no finished run, or one of another model, other data, another accelerator or another limit.
        """
        others = tuple(RunRecord.load(folder) for folder in folders)
        for other in others:
            for name, words in SAME.items():
                if other.config.get(name) != self.config.get(name):
                    raise UsageError(
                        f"--beside {other.folder}: is a run with {words} than {self.folder}, so their curves cannot be compared; "
                        "name runs of the same model, data, accelerator and limit"
                    )
        return replace(self, beside=others)

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Read a finished run.

        Raises:
            UsageError: the folder holds no finished run, or a file of it cannot be read (which, why, what to do).
        """
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; name the run folder of a `hwc-onnx compress`, such as model.hwc")
        if not (folder / "result.json").is_file():
            raise UsageError(
                f"{folder}: holds no finished run (no result.json); finish it with the `hwc-onnx compress` that began it, or "
                "name another run folder"
            )
        result = _json(folder / "result.json")
        costs = _json(folder / PROFILE)
        return cls(
            folder,
            result,
            _json(folder / "plan.json"),
            *_config(folder / CONFIG),
            _trials(folder / "study.journal", float(result["metric"]["limit_points"] or 0.0)),
            _front(folder),
            costs["baseline_int8"],
            costs["compressed"],
        )


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _damaged(path, f"more than {MOST_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, getattr(error, "strerror", None) or "not text") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise _damaged(path, f"not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise _damaged(path, f"not of schema {SCHEMA}")
    return found


def _config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the run is known by, and its options."""
    try:
        found = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise _damaged(path, f"not YAML: {error}") from error
    given = found if isinstance(found, dict) else {}
    record = given.get(RECORD)
    return record if isinstance(record, dict) else {}, {name: value for name, value in given.items() if name != RECORD}


def _trials(path: Path, limit_points: float) -> tuple[Trial, ...]:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, f"not a study journal: {error}") from error
    known = {field.name for field in fields(Outcome)}
    made: list[Trial] = []
    evaluations = 0
    for trial in finished:
        if "outcome" not in trial.user_attrs:
            continue
        outcome = Outcome(**{name: value for name, value in trial.user_attrs["outcome"].items() if name in known})
        evaluations += bool(trial.user_attrs.get("counted", True))
        made.append(
            Trial(
                trial.number,
                evaluations,
                outcome.energy,
                outcome.drop_points,
                outcome.damage,
                str(trial.user_attrs.get("origin", "referee")),
                outcome.accepted(limit_points),
                outcome.complete,
                outcome.failure is not None,
                {name: float(value) for name, value in trial.user_attrs.get("learning", {}).items()},
            )
        )
    return tuple(made)


def _front(folder: Path) -> tuple[FrontPoint, ...]:
    rows = csv.DictReader(_text(folder / "pareto.csv").splitlines())
    try:
        return tuple(
            FrontPoint(
                float(row["energy_vs_int8"]),
                float(row["drop_points"]),
                row["accepted"] == "true",
                row["origin"],
                folder / Path(row["plan"]),
                {"passed": True, "failed": False}.get(row.get("holdout") or ""),
            )
            for row in rows
        )
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(folder / "pareto.csv", f"column {error}") from error


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path}: cannot be read ({why}); run the `hwc-onnx compress` of this folder again with --fresh, or name another folder"
    )
