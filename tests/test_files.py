from __future__ import annotations

import pytest

from hwc_onnx.errors import RuntimeFailure, UsageError
from hwc_onnx.files import write_atomic


def test_write_atomic_into_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="choose a writable place"):
        write_atomic(tmp_path / "missing" / "file", b"x")


def test_write_atomic_on_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hwc_onnx.files.os.fsync", full)
    with pytest.raises(RuntimeFailure, match="No space left"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
