"""Mapping tables remembered in memory and, if a folder is given, on disk.

A table depends on the layer shape, the accelerator and the code of the search; nothing else, so it can be shared by
all settings, runs and processes. A file that cannot be read is made again, so none is flushed to the disk.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hwc_onnx.cost.clip import clipped, rounded
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.layer_mapping import LayerMapping, stated_table
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.operands import DIMS, Nest
from hwc_onnx.cost.scenarios import scenarios
from hwc_onnx.cost.search import search
from hwc_onnx.errors import ModelError
from hwc_onnx.events import Listener, Step, silent
from hwc_onnx.graph.loop_dims import LoopDims

_log = logging.getLogger(__name__)

VERSION = 10
"""Raised when counting or search change, so that older files are not used."""


LARGEST = 1 << 20
"""The largest loop dimension whose mappings are searched: tables have an entry for each size of a tile."""


SAID_SECONDS = 5.0
"""So much time spent on searches is said, with how many shapes are mapped: a model of few shapes says nothing."""


def check_size(dims: LoopDims) -> None:
    """Refuse a layer that no memory could hold the search of.

    Raises:
        ModelError: a loop dimension is larger than `LARGEST`.
    """
    for name, size in zip(DIMS, Nest(dims).sizes, strict=True):
        if size > LARGEST:
            raise ModelError(
                f"loop dimension {name}: found {size}, mappings are searched up to {LARGEST}; divide the layer into smaller ones"
            )


class TableCache:
    """Mapping tables of one profile by layer shape; `on_event` hears of searches now and then."""

    def __init__(self, hierarchy: Hierarchy, folder: Path | None = None, on_event: Listener = silent) -> None:
        self.hierarchy = hierarchy
        self._tell = on_event
        self._searches, self._unsaid = 0, 0.0
        self.folder = None if folder is None else folder / "mappings" / hierarchy.profile.digest()[:16]
        self._found: dict[LoopDims, MappingTable] = {}
        self._tables: dict[LoopDims, MappingTable] = {}

    def table(self, dims: LoopDims) -> MappingTable:
        """The table of a shape: what its own search found, and what that of the next rounded shape found."""
        table = self._tables.get(dims)
        if table is None:
            check_size(dims)
            table = self._pinned(dims)
            larger = dims if table is not None else rounded(dims)
            if table is None:
                table = self._searched(dims)
            if larger != dims:
                table = table.with_rows_of(clipped(self._searched(larger), Nest(dims), self.hierarchy))
            self._tables[dims] = table
        return table

    def _pinned(self, dims: LoopDims) -> MappingTable | None:
        """The mapping that the accelerator file gives for this shape, for every width that memories store."""
        for pin in self.hierarchy.profile.mapping.pinned:
            sizes = {str(d): n for d, n in pin.layer.items()}
            if Nest(dims).sizes == tuple(sizes.get(d, 1) for d in DIMS):
                mapping, widths = LayerMapping.pinned(pin), scenarios(self.hierarchy).widths
                tables = [stated_table(mapping, Nest(dims), self.hierarchy, (bits, bits)) for bits in widths]
                first, *others = tables
                for other in others:
                    first = first.with_rows_of(other)
                return first
        return None

    def _searched(self, dims: LoopDims) -> MappingTable:
        """The result of one search: from memory, else from disk, else made now (and stored)."""
        table = self._found.get(dims)
        if table is None:
            table = self._read(dims)
            if table is None:
                started = time.monotonic()
                table = search(Nest(dims), self.hierarchy)
                self._say(time.monotonic() - started)
                self._write(dims, table)
            self._found[dims] = table
        return table

    def _say(self, seconds: float) -> None:
        """Counts a search that took so long, and says how many there were when it is time."""
        self._searches, self._unsaid = self._searches + 1, self._unsaid + seconds
        if self._unsaid >= SAID_SECONDS:
            self._unsaid = 0.0
            # how many shapes a search will ask for is not known
            self._tell(Step(self._searches, 0, f"layer shapes mapped on {self.hierarchy.profile.name}: {self._searches}"))

    def _path(self, dims: LoopDims) -> Path | None:
        if self.folder is None:
            return None
        name = hashlib.sha256(f"{VERSION} {dims!r}".encode()).hexdigest()[:32]
        return self.folder / f"{name}.npz"

    def _read(self, dims: LoopDims) -> MappingTable | None:
        path = self._path(dims)
        if path is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as content:
                table = MappingTable(**{name: content[name] for name in MappingTable.__dataclass_fields__})
            return table if self._belongs(table) else None
        except (OSError, EOFError, ValueError, KeyError, BadZipFile):
            return None

    def _belongs(self, table: MappingTable) -> bool:
        """Whether the arrays of a file have the shapes of this accelerator."""
        rows, loops, held = len(table.columns), table.loop_dims.shape[-1], len(self.hierarchy.held)
        axes = len(self.hierarchy.profile.array.axes)
        return [array.shape for array in table.arrays().values()] == [
            (rows, len(self.hierarchy.columns)), (rows, held), (rows, held), (rows,), (rows,), (rows, axes, len(DIMS)),
            (rows, loops), (rows, loops),
        ]  # fmt: skip

    def _write(self, dims: LoopDims, table: MappingTable) -> None:
        path = self._path(dims)
        if path is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **table.arrays())
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(buffer.getvalue())
            os.replace(temporary, path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            _log.warning(
                "mapping cache %s: not written (%s); mappings are searched again next time", self.folder, error
            )
            self.folder = None
