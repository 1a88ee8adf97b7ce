"""The run folder: one search, its inputs, its record and its best file so far, safe against being killed.

A run is continued when it is started again with the same inputs; a lock names the host and process that owns it, and
locks of dead processes are broken. Files are replaced by rename, so that a reader never sees half a file.
"""

from __future__ import annotations

import enum
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hwc_onnx.configuration import MOST_BYTES, RECORD, compress_call, file_text
from hwc_onnx.errors import UsageError
from hwc_onnx.files import write_atomic

EXTENDABLE = frozenset({"trials", "timeout", "jobs"})
"""Options that may change when a run is continued: more work, not other work."""
JUDGED = frozenset({"objective", "max_drop", "max_energy", "max_latency", "max_bytes", "max_memory"})
"""Options that finished trials can be judged by anew."""
FILES = {"model_sha256": "the model", "data_sha256": "the data", "accelerator_sha256": "the accelerator"}
"""What digests of a run stand for."""
MOST_NAMED = 6
"""Differences that a message names."""


CONFIG = "config.resolved.yaml"
"""The options of the run, for `--config`, and under `RECORD` what it is known by."""
LOCK = ".lock"
"""Where the owner of a run folder is written."""


class RunState(enum.Enum):
    """What a run would do with its folder."""

    NEW = "new"
    CONTINUES = "continues"
    REPLACES = "moves the old run aside"


class RunFolder:
    """A folder that one process owns while it works.

    Args:
        path: the folder; created if missing.
        config: the resolved inputs and options of this run, plain YAML values; digests stand for files.
        fresh: move an existing run aside and start anew.
        resume: True demands that a run exists.
        call: arguments of `hwc_onnx.compress` that repeat the run, its output and folder included; written beside `config`, so
            that `hwc-onnx compress --config` takes the file.

    `continued` tells that there was a run with these inputs.

    Raises:
        UsageError: the folder cannot be made, another live process owns it, there is nothing to resume, or the
            existing run has other inputs (the message names them).
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        *,
        fresh: bool = False,
        resume: bool | None = None,
        call: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.config = dict(config)
        exists = self.continued = (path / CONFIG).is_file()
        if resume and not exists:
            raise _nothing_there(path)
        if fresh and path.exists():
            self.continued = False
            owner_must_be_gone(self.path)
            path.rename(path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
            exists = False
        try:
            (path / "cache").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be made ({error.strerror}); choose another place with --run-dir"
            ) from error
        _take(self.path)
        if exists:
            try:
                _same_inputs(path, self.config)
            except UsageError:
                self.release()
                raise
        self.write(CONFIG, self._content(call))

    @property
    def lock_file(self) -> Path:
        """Where the owner is written."""
        return self.path / LOCK

    def release(self) -> None:
        """Give the folder up; safe to call twice."""
        _give_up(self.path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def write(self, name: str, data: str | bytes) -> Path:
        """Replace a file of the run."""
        path = self.path / name
        write_atomic(path, data.encode() if isinstance(data, str) else data, "--run-dir")
        return path

    def _content(self, call: Mapping[str, Any] | None) -> str:
        """The text of config.resolved.yaml."""
        if call is None:
            return file_text(None, {}, record=self.config)
        keys, objects = compress_call(call, self.path / CONFIG)
        comments = [f"hwc-onnx compress --config {CONFIG}"]
        if objects:
            comments.append(f"given as objects of Python, which a file cannot hold: {', '.join(objects)}")
        return file_text("compress", keys, comments, self.config)


def state_of(
    path: Path, config: Mapping[str, Any], *, fresh: bool = False, resume: bool | None = None
) -> RunState:
    """What `RunFolder` would do with these arguments, without touching the folder (its errors)."""
    exists = (path / CONFIG).is_file()
    if resume and not exists:
        raise _nothing_there(path)
    owner_must_be_gone(path)
    if fresh and path.exists():
        return RunState.REPLACES
    if exists:
        _same_inputs(path, config)
    return RunState.CONTINUES if exists else RunState.NEW


def _nothing_there(path: Path) -> UsageError:
    return UsageError(f"{path}: nothing to resume there; leave --resume out to start, or give --run-dir")


def _same_inputs(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder of a run with other inputs, naming what differs (UsageError). A run that failed before it measured anything is no reason."""
    if "own_study" not in config and {item.name for item in path.iterdir()} <= {CONFIG, LOCK, "cache"}:
        return
    try:
        old = read_record(path)
    except UsageError as error:
        mend = "give another run_dir" if "own_study" in config else "use --fresh to start anew, or give another --run-dir"
        raise UsageError(f"{error}; {mend}") from error
    # what a digest stands for is an input too, but its value tells nobody anything: options first
    names = sorted((set(old) | set(config)) - EXTENDABLE, key=lambda name: (name in FILES, name))
    differing = [name for name in names if old.get(name) != config.get(name)]
    if not differing:
        return
    said = [
        f"{FILES[name]} is another ({name})" if name in FILES else f"{name} was {_shown(old.get(name))}, now {_shown(config.get(name))}"
        for name in differing[:MOST_NAMED]
    ]
    more = len(differing) - len(said)
    if "own_study" in config:
        raise UsageError(
            f"{path}: holds a problem with other inputs: {', '.join(said)}{f' and {more} more' if more else ''}; repeat the old ones, or give"
            " another run_dir"
        )
    judged = (
        f"; to judge its trials by another limit without a search, give --from-run {path} and another -o"
        if JUDGED.issuperset(differing) and "comparison" not in config
        else ""
    )
    raise UsageError(
        f"{path}: holds a run with other inputs: {', '.join(said)}{f' and {more} more' if more else ''}; repeat the old"
        f" {'value' if len(differing) == 1 else 'values'}, use --fresh to move the old run aside, or give another --run-dir{judged}"
    )


def _shown(value: Any) -> str:
    """A value of the configuration, for people."""
    return "not given" if value is None else repr(value)


def read_record(folder: Path) -> dict[str, Any]:
    """What the run of a folder is known by: its inputs as digests, and its options.

    Raises:
        UsageError: config.resolved.yaml cannot be read, or has no such record.
    """
    file = folder / CONFIG
    try:
        with file.open("rb") as stream:
            found = yaml.safe_load(stream.read(MOST_BYTES).decode("utf-8"))
    except Exception as error:  # tags of wrong content raise all kinds
        raise UsageError(f"{file}: cannot be read as the record of a run ({error})") from error
    record = found.get(RECORD) if isinstance(found, dict) else None
    if not isinstance(record, dict):
        raise UsageError(f"{file}: has no record of its run (field '{RECORD}'), which `compress` writes")
    return record


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own an existing run folder for the length of a block (UsageError where a live process owns it)."""
    _take(folder)
    try:
        yield
    finally:
        _give_up(folder)


def _take(folder: Path) -> None:
    owner_must_be_gone(folder)
    owner = json.dumps({"pid": os.getpid(), "host": platform.node()})
    write_atomic(folder / LOCK, owner.encode(), "--run-dir")


def _give_up(folder: Path) -> None:
    try:
        owner = json.loads((folder / LOCK).read_text())
    except (OSError, ValueError):
        return
    if isinstance(owner, dict) and owner.get("pid") == os.getpid() and owner.get("host") == platform.node():
        (folder / LOCK).unlink(missing_ok=True)


def owner_must_be_gone(folder: Path) -> None:
    """Refuse a folder that a live process owns, naming it (UsageError)."""
    try:
        owner = json.loads((folder / LOCK).read_text())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(owner, dict):
        return
    pid = owner.get("pid")
    same_host = owner.get("host") == platform.node()
    if not isinstance(pid, int) or pid == os.getpid():
        return
    if not same_host or _alive(pid):
        raise UsageError(
            f"{folder}: in use by process {pid} on host {owner.get('host')}; wait for it, stop it, or give"
            f" another --run-dir (if that host is gone for good, delete {LOCK} in the folder)"
        )


def _alive(pid: int) -> bool:
    """Whether a process with this number runs on this host."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
