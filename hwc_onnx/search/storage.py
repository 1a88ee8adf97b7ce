"""The study on disk: one journal file, safe against being killed at any byte.

A kill in the middle of an append leaves half a line; appended to, it would make the journal unreadable for ever. So
the owner of the run folder cuts an unfinished last line off before it opens the journal, and takes away the lock that
the dead process held while it wrote (Optuna would wait half a minute for it, or for ever if the path is relative).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwc_onnx.errors import RuntimeFailure, UsageError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

STUDY_NAME = "hwc-onnx"
SCHEMA = 1
LOCK_SUFFIX = ".lock"
"""What Optuna appends to the journal's name while it writes."""


def open_storage(path: Path | None) -> BaseStorage:
    """A journal file, or memory when `path` is None.

    Raises:
        UsageError: the file cannot be opened, or is not a journal.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if path is None:
        return optuna.storages.InMemoryStorage()
    try:
        path.with_name(path.name + LOCK_SUFFIX).unlink(missing_ok=True)
        _cut_unfinished_line(path)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened ({error.strerror}); choose a writable --run-dir") from error
    except (ValueError, KeyError) as error:
        raise UsageError(f"{path}: is not a study journal ({error}); use --fresh to start anew") from error


def open_study(storage: BaseStorage, identity: Mapping[str, Any], resume: bool | None) -> Study:
    """The study of this run, new or continued; `identity` must equal the stored one.

    Raises:
        UsageError: nothing to resume, or the stored study has another identity (names the first difference).
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
    if STUDY_NAME not in names:
        if resume:
            raise UsageError("search: nothing to resume in this storage; leave --resume out to start")
        study = optuna.create_study(study_name=STUDY_NAME, storage=storage, direction="minimize")
    else:
        study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    agree(study, {"schema": SCHEMA, **identity}, "repeat the old value, or use --fresh to start anew")
    return study


def agree(study: Study, identity: Mapping[str, Any], mend: str) -> None:
    """Write what a study is of, or find that it is of the same (UsageError: of something else; `mend` says what to do then)."""
    stored = study.user_attrs
    for name, value in identity.items():
        if name not in stored:
            study.set_user_attr(name, value)
        elif _given(stored[name]) != _given(value):
            what, old, new = _differing(name, stored[name], value)
            raise UsageError(f"search: the stored study has {what} {old!r}, this run {new!r}; {mend}")


def _given(value: Any) -> Any:
    """A mapping without what is None: an option that was left out, or that an older version did not have."""
    return {key: one for key, one in value.items() if one is not None} if isinstance(value, Mapping) else value


def _differing(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """Where two values differ: of mappings the first entry that does."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return name, old, new
    first = min(key for key in {*old, *new} if old.get(key) != new.get(key))
    return f"{name}.{first}", old.get(first), new.get(first)


def fail_unfinished(study: Study) -> int:
    """Mark trials of a dead owner as failed; returns how many there were."""
    from optuna.trial import TrialState

    unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    for trial in unfinished:
        if trial.state == TrialState.WAITING:
            study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
        study.tell(trial.number, state=TrialState.FAIL)
    return len(unfinished)


def _cut_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    try:
        with open(path, "rb+") as file:
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole != len(data):
                file.truncate(whole)
    except OSError as error:
        if error.errno == 28:
            raise RuntimeFailure(f"{path}: the disk is full; free some space and run again") from error
        raise
