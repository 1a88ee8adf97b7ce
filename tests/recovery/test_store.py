"""Rows survive the cache bit by bit; a damaged file is made again; both caches are bounded."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.setting import RepairedRows
from hwc_onnx.recovery.store import EntryStore, decode, encode


def rows(seed: int = 0, real: bool = False, bias: bool = True) -> RepairedRows:
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(2, 3, 4)).astype(np.float32) if real else rng.integers(-8, 8, (2, 3, 4)).astype(np.int8)
    scale = None if real else rng.random((2, 3)).astype(np.float32)
    return RepairedRows(codes, scale, rng.random(6).astype(np.float32) if bias else None, rng.random(), rng.random())


def same(a: RepairedRows, b: RepairedRows) -> bool:
    pairs = ((a.codes, b.codes), (a.scale, b.scale), (a.bias, b.bias))
    arrays = all(
        (x is None and y is None) or (x is not None and y is not None and x.dtype == y.dtype and np.array_equal(x, y))
        for x, y in pairs
    )
    return arrays and (a.error_fit, a.error_heldout) == (b.error_fit, b.error_heldout)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_rows_come_back_from_a_new_process_bit_by_bit(real: bool, bias: bool, tmp_path: Path) -> None:
    made = rows(1, real, bias)
    assert same(decode(encode(made)), made)
    EntryStore(tmp_path).put("k", made)
    found = EntryStore(tmp_path).get("k")
    assert found is not None and same(found, made)
    assert not same(found, rows(2, real, bias))
    assert [p.name for p in tmp_path.iterdir()] == ["k.safetensors"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_damaged_file_counts_as_absent(damage, tmp_path: Path) -> None:
    EntryStore(tmp_path).put("k", rows())
    path = tmp_path / "k.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    store = EntryStore(tmp_path)
    assert store.get("k") is None
    store.put("k", rows(3))
    assert same(store.get("k"), rows(3))


def test_the_folder_loses_what_was_used_longest_ago(tmp_path: Path) -> None:
    store = EntryStore(tmp_path)
    for number in range(6):
        store.put(str(number), rows(number))
        os.utime(tmp_path / f"{number}.safetensors", (number, number))
    size = (tmp_path / "0.safetensors").stat().st_size
    assert EntryStore(tmp_path).get("0") is not None
    EntryStore(tmp_path, disk_bytes=3 * size)
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["0", "4", "5"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_memory_keeps_the_most_recent_that_fit(puts: list[tuple[int, int]]) -> None:
    cache, recent = ByteCache(100), dict[int, int]()
    for key, size in puts:
        cache.put(key, size, size)
        recent.pop(key, None)
        recent[key] = size
        while sum(recent.values()) > 100 and len(recent) > 1:
            recent.pop(next(iter(recent)))
        assert len(cache) == len(recent)
    for key in range(6):
        assert cache.get(key) == recent.get(key)


def test_the_folder_stays_below_its_limit_while_it_is_written(tmp_path: Path) -> None:
    size = len(encode(rows()))
    limit = 20 * size
    store = EntryStore(tmp_path, disk_bytes=limit)
    for number in range(100):
        store.put(f"k{number}", rows(number))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1.1 * limit + size
    assert EntryStore(tmp_path).get("k99") is not None and EntryStore(tmp_path).get("k0") is None


def test_what_a_dead_process_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    stale, fresh = tmp_path / ".a.99999.1.tmp", tmp_path / ".b.99999.1.tmp"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    EntryStore(tmp_path)
    assert not stale.exists() and fresh.exists()


def test_threads_that_put_the_same_rows_do_not_end_the_caching(tmp_path: Path) -> None:
    store = EntryStore(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.put(f"k{number % 3}", rows(number % 3)), range(60)))
    assert all(EntryStore(tmp_path).get(f"k{number}") is not None for number in range(3))
