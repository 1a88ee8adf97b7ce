"""Replacing a file so that a reader, or a kill at any moment, never leaves half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hwc_onnx.errors import RuntimeFailure, UsageError

CACHE_VARIABLE = "HWC_ONNX_CACHE"


def cache_folder() -> Path | None:
    """Where commands keep searched mappings: $HWC_ONNX_CACHE (empty: nowhere), else the user's cache folder.

    It can be deleted at any time.
    """
    stated = os.environ.get(CACHE_VARIABLE)
    if stated is not None:
        return Path(stated) if stated else None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "hwc-onnx"
    except RuntimeError:  # no home
        return None


def write_atomic(path: Path, data: bytes, option: str = "-o") -> None:
    """Write `data` beside `path`, flush it to the disk, and rename it over `path`.

    `option` is what a user changes to write elsewhere.

    Raises:
        UsageError: the folder does not exist or is not writable.
        RuntimeFailure: the disk is full or failed; the old file is untouched.
    """
    with replacing(path, option) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, option: str = "-o") -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` once the block ends without an error.

    Raises:
        UsageError, RuntimeFailure: as `write_atomic`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError | IsADirectoryError):
            raise UsageError(
                f"{path}: cannot be written ({error.strerror}); choose a writable place with {option}"
            ) from error
        raise RuntimeFailure(
            f"{path}: writing failed ({error.strerror}); the file that was there is untouched: make room, or choose another place with {option}"
        ) from error
