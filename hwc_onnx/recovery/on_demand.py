"""Values by key that are made when they are asked for: a large model's arrays are never in memory all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from hwc_onnx.recovery.byte_cache import ByteCache

V = TypeVar("V")


class OnDemand(Mapping[str, V]):
    """A mapping over fixed `keys`; `make` gives a key's value, `size` its bytes. What was used last is kept, up to
    `limit_bytes` in all.
    """

    def __init__(self, keys: Iterable[str], make: Callable[[str], V], size: Callable[[V], int], limit_bytes: int) -> None:
        self._keys = dict.fromkeys(keys)
        self._make, self._size = make, size
        self._made = ByteCache(limit_bytes)

    def __getitem__(self, key: str) -> V:
        if key not in self._keys:
            raise KeyError(key)
        found: V | None = self._made.get(key)
        if found is None:
            found = self._make(key)
            self._made.put(key, found, self._size(found))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys
