"""Make room in run folders: their caches, then what killed processes left half-written. Results are never touched.

A cache holds what can be computed again: layers under each setting, and mappings. A finished run does not need it; a run that is
continued makes it anew. Nothing is followed through symbolic links.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwc_onnx.errors import UsageError
from hwc_onnx.runfolder import CONFIG, LOCK, owned, owner_must_be_gone, read_record

CACHE = "cache"
UNFINISHED = ".tmp"
Kind = Literal["cache", "temporary"]


@dataclass(frozen=True)
class Removable:
    """One file that can go, its size in bytes, and why it can."""

    path: Path
    size: int
    used: float
    kind: Kind


@dataclass(frozen=True)
class Cleaned:
    """What was removed from a run folder, or would be: files and bytes of each kind, and the bytes that stay."""

    folder: Path
    files: dict[Kind, int]
    freed: dict[Kind, int]
    stays: int

    def payload(self) -> dict[str, object]:
        """Plain values."""
        return {
            "folder": str(self.folder),
            "files": dict(self.files),
            "bytes": dict(self.freed),
            "freed_bytes": sum(self.freed.values()),
            "remaining_bytes": self.stays,
        }


def run_folders(parent: Path) -> list[Path]:
    """The run folders directly in a folder."""
    try:
        inside = sorted(parent.iterdir())
    except OSError:
        return []
    return [path for path in inside if not path.is_symlink() and is_run_folder(path)]


def is_run_folder(folder: Path) -> bool:
    """Whether a run of `compress` or `compare` wrote this folder."""
    if not (folder / CONFIG).is_file():
        return False
    try:
        read_record(folder)
    except UsageError:
        return False
    return True


def clean(folder: Path, *, limit: int | None = None, dry_run: bool = False) -> Cleaned:
    """Remove the caches and unfinished files of a run folder and of the runs inside it (those of `compare`).

    Args:
        folder: the run folder.
        limit: remove only until the folder takes at most so many bytes: caches first, used longest ago first.
        dry_run: remove nothing, only say what would be.

    Raises:
        UsageError: it is no run folder, or a live process owns it or a run inside (named); then nothing is removed.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise UsageError(f"{folder}: no such folder; name a run folder of `compress` or `compare`, such as model.hwc")
    if not is_run_folder(folder):
        raise UsageError(f"{folder}: is no run folder (no {CONFIG} with the record of a run); nothing there is touched")
    runs = [folder, *run_folders(folder)]
    with ExitStack() as locks:
        for run in runs:
            if dry_run:
                owner_must_be_gone(run)
            else:
                locks.enter_context(owned(run))
        return shrink(folder, limit=limit, dry_run=dry_run)


def shrink(folder: Path, *, limit: int | None = None, dry_run: bool = False, unfinished: bool = True) -> Cleaned:
    """As `clean`, for a caller that owns the folder; `unfinished` False leaves files that are being written."""
    runs = (folder, *run_folders(folder)) if unfinished else (folder,)  # inner runs have owners of their own
    found = [item for run in runs for item in removable(run)]
    found = [item for item in found if unfinished or not item.path.name.endswith(UNFINISHED)]
    left = folder_bytes(folder)
    files: dict[Kind, int] = {"cache": 0, "temporary": 0}
    freed: dict[Kind, int] = {"cache": 0, "temporary": 0}
    for item in sorted(found, key=lambda item: (item.kind, item.used, str(item.path))):
        if limit is not None and left <= limit:
            break
        if not dry_run:
            try:
                item.path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UsageError(f"{item.path}: cannot be removed ({error.strerror}); check its owner and mode") from error
        files[item.kind] += 1
        freed[item.kind] += item.size
        left -= item.size
    if not dry_run and limit is None:
        for run in (folder, *run_folders(folder)):
            _remove_empty(run / CACHE)
    return Cleaned(folder, files, freed, left)


def removable(run: Path) -> Iterator[Removable]:
    """The files of one run that can go."""
    if not (run / CACHE).is_symlink():
        yield from _files(run / CACHE, "cache")
    for item in _files(run, "temporary", deep=False):
        if item.path.name.startswith(".") and item.path.name.endswith(UNFINISHED):
            yield item


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder without its locks; links are not followed."""
    return sum(item.size for item in _files(folder, "cache") if item.path.name != LOCK)


def _files(folder: Path, kind: Kind, deep: bool = True) -> Iterator[Removable]:
    """Regular files; what vanishes meanwhile is left out."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield Removable(Path(entry.path), status.st_size, status.st_mtime, kind)
                elif deep and entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path), kind)


def _remove_empty(folder: Path) -> None:
    """Take the empty folders inside away; the cache itself stays."""
    if folder.is_symlink():
        return
    for path in sorted((path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()), reverse=True):
        with suppress(OSError):
            path.rmdir()
