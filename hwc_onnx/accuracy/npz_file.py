"""Read the arrays of an .npz, believing nothing that it says of itself: a small file may announce any size.

An .npz is a zip of .npy files, so sizes are announced twice: by the zip's directory for each member, and by the shape
in each member's own header, which is what memory is reserved for. The sum of the first must stay below a limit, and
the second must be the bytes that the member really has. Nothing is decompressed before both have been checked, except
headers; a member that turns out longer than announced is cut off there and fails its checksum.

Format: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays", versions 1.0 and 2.0.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hwc_onnx.errors import DataError

LIMIT_BYTES = 16 << 30
"""Arrays of one file may take this much memory in all."""

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_BROKEN_ZIP = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What zipfile raises for damaged, encrypted or unknown content (RuntimeError stands for the last two)."""

_BROKEN_HEADER = (ValueError, SyntaxError, TypeError, MemoryError, TokenError)
"""What NumPy raises for a header that is not the literal it should be."""


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of the file, by name.

    Raises:
        DataError: not an .npz, damaged, larger than `LIMIT_BYTES` once unpacked, or it holds something else than plain
            arrays.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise DataError(f"{path}: a single array, not an .npz; save it as np.savez(path, x=images, y=labels)")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_total(path, members)
            for member in members:
                with archive.open(member) as stream:
                    _check_header(path, member, stream)
            return {member.filename.removesuffix(".npy"): _array(path, archive, member) for member in members}
    except _BROKEN_ZIP as error:
        raise DataError(
            f"{path}: cannot be read as .npz ({error}); save it with np.savez(path, x=images, y=labels)"
        ) from error


def read_npy(path: Path) -> NDArray[np.generic]:
    """The array of the file, mapped: what is not read takes no memory.

    Raises:
        DataError: not an .npy, damaged, or it holds something else than a plain array.
    """
    try:
        found: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*_BROKEN_ZIP, *_BROKEN_HEADER) as error:
        raise DataError(f"{path}: cannot be read as .npy ({error}); save it with np.save(path, images)") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path}: an archive of several arrays; name it .npz")
    return found


def _check_total(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse a file whose directory announces too much."""
    total = sum(member.file_size for member in members)
    if total <= LIMIT_BYTES:
        return
    largest = max(members, key=lambda member: member.file_size)
    raise DataError(
        f"{path}: its arrays take {_gib(total)} unpacked, at most {_gib(LIMIT_BYTES)} are read (the largest, "
        f"'{largest.filename}', announces {_gib(largest.file_size)}); give fewer samples, images as uint8, or a "
        "module:function that yields them"
    )


def _check_header(path: Path, member: zipfile.ZipInfo, stream: IO[bytes]) -> None:
    """Refuse a member that is no plain array, or whose shape needs more bytes than it has."""
    where = f"{path}: member '{member.filename}'"
    only = "only plain arrays are read, never pickled objects: save numeric arrays with np.savez"
    try:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
            raise DataError(f"{where}: array format {version[0]}.{version[1]}; {only}")
        shape, _, dtype = _HEADERS[version](stream)
    except _BROKEN_HEADER as error:
        raise DataError(f"{where}: {' '.join(str(error).split())}; {only}") from error
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects ({dtype}); {only}")
    needed, there = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if min(shape, default=0) < 0 or needed != there:
        raise DataError(
            f"{where}: its header announces {dtype} {list(shape)}, {needed} bytes, but {there} follow; the file is "
            "damaged or was not written by NumPy: save it again with np.savez"
        )


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    try:
        with archive.open(member) as stream:
            array: NDArray[np.generic] = npy.read_array(stream, allow_pickle=False)
            return array
    except (ValueError, MemoryError) as error:
        reason = f"{member.file_size} bytes do not fit in memory" if isinstance(error, MemoryError) else error
        raise DataError(
            f"{path}: member '{member.filename}': {reason}; save the file again, or fewer samples"
        ) from error


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
