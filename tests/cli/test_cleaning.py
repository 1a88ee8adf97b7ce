"""Cleaning run folders: caches and leftovers go, results and everything outside stay."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from hwc_onnx.cleaning import clean, folder_bytes
from hwc_onnx.errors import UsageError
from hwc_onnx.runfolder import RunFolder
from tests.cli.running import Case, Run, compress_arguments, hwc

KEPT = {"best.onnx": 100, "plan.json": 10, "result.json": 20, "study.journal": 30, "report.html": 40}
SCHEMA = Path(__file__).parents[2] / "hwc_onnx" / "clean.schema.json"


def run_folder(path: Path) -> Path:
    with RunFolder(path, {"seed": 0}) as folder:
        for name, count in KEPT.items():
            folder.write(name, b"x" * count)
    (path / "cache" / "entries").mkdir()
    for number, name in enumerate(("old", "new")):
        file = path / "cache" / "entries" / f"{name}.safetensors"
        file.write_bytes(b"x" * 1000)
        os.utime(file, (number + 1, number + 1))
    (path / ".result.json.999.tmp").write_bytes(b"x" * 7)
    (path / "cache" / "entries" / ".half.1.2.tmp").write_bytes(b"x" * 5)
    return path


def test_caches_and_unfinished_files_go_and_results_stay(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a.hwc")
    before = folder_bytes(folder)
    said = clean(folder, dry_run=True)
    assert folder_bytes(folder) == before
    done = clean(folder)
    assert done == said and done.freed == {"cache": 2005, "temporary": 7} and done.files == {"cache": 3, "temporary": 1}
    assert before - folder_bytes(folder) == 2012 and done.stays == folder_bytes(folder)
    assert {name: (folder / name).stat().st_size for name in KEPT} == KEPT
    assert (folder / "config.resolved.yaml").is_file() and not (folder / ".lock").exists()
    assert sum(clean(folder).freed.values()) == 0


def test_a_limit_takes_what_was_used_longest_ago_and_no_more(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a.hwc")
    clean(folder, limit=folder_bytes(folder) - 900)
    left = [path.name for path in (folder / "cache" / "entries").glob("*.safetensors")]
    assert left == ["new.safetensors"] and (folder / ".result.json.999.tmp").is_file()
    clean(folder, limit=0)
    assert not list((folder / "cache").rglob("*.safetensors")) and set(KEPT) <= {path.name for path in folder.iterdir()}


def test_what_is_no_run_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    other = tmp_path / "project"
    (other / "cache").mkdir(parents=True)
    (other / "cache" / "mine").write_text("mine")
    for text in (None, "a: 1\n", "- 1\n", "run: 5\n"):
        if text is not None:
            (other / "config.resolved.yaml").write_text(text)
        with pytest.raises(UsageError, match="is no run folder"):
            clean(other)
    with pytest.raises(UsageError, match="no such folder"):
        clean(tmp_path / "none")
    assert (other / "cache" / "mine").read_text() == "mine"


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    folder = run_folder(tmp_path / "a.hwc")
    (folder / "cache" / "entries" / "link").symlink_to(outside, target_is_directory=True)
    clean(folder)
    linked = run_folder(tmp_path / "b.hwc")
    (linked / "cache").rename(tmp_path / "elsewhere")
    (linked / "cache").symlink_to(outside, target_is_directory=True)
    clean(linked)
    assert (outside / "mine").read_text() == "mine"


def test_a_folder_of_a_running_process_is_refused_with_its_number_and_nothing_is_removed(tmp_path: Path) -> None:
    outer = run_folder(tmp_path / "a.compare")
    inner = run_folder(outer / "seed-0")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (inner / ".lock").write_text(json.dumps({"pid": sleeper.pid, "host": platform.node()}))
        before = folder_bytes(outer)
        result = hwc("clean", outer)
        assert result.exit_code == 2 and f"process {sleeper.pid}" in result.stderr
        assert folder_bytes(outer) == before and not (outer / ".lock").exists()
    finally:
        sleeper.kill()
        sleeper.wait()
    assert clean(outer).freed == {"cache": 4010, "temporary": 14}


def test_command_cleans_the_folders_here_and_prints_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no run folders here" in hwc("clean").stdout
    run_folder(tmp_path / "a.hwc")
    run_folder(tmp_path / "b.hwc")
    assert "4024 bytes would be freed (nothing was removed)" in hwc("clean", "--dry-run").stdout
    result = hwc("clean", "--json")
    payload = json.loads(result.stdout)
    jsonschema.validate(payload, json.loads(SCHEMA.read_text()))
    assert payload["freed_bytes"] == 4024 and [one["folder"] for one in payload["folders"]] == ["a.hwc", "b.hwc"]
    shown = hwc("clean", "a.hwc").stdout
    assert "0 bytes freed" in shown and "a.hwc" in shown


def test_a_run_keeps_within_its_room_and_finds_the_same(case: Case, compressed: Run, tmp_path: Path) -> None:
    arguments = compress_arguments(case, tmp_path)
    result = hwc(*arguments, "--run-dir-limit", "1KB")
    assert result.exit_code == 0, result.stderr
    assert not [path for path in (tmp_path / "tiny.hwc" / "cache").rglob("*") if path.is_file()]
    assert [path for path in (compressed.run_dir / "cache").rglob("*") if path.is_file()]
    assert (tmp_path / "tiny.hwc.onnx").read_bytes() == compressed.output.read_bytes()
    assert "run-dir-limit: 1000" in (tmp_path / "tiny.hwc" / "config.resolved.yaml").read_text()


def test_a_folder_in_use_does_not_keep_the_others_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    used, idle = run_folder(tmp_path / "a.hwc"), run_folder(tmp_path / "b.hwc")
    (used / ".lock").write_text(json.dumps({"pid": 1, "host": platform.node()}))
    done = hwc("clean")
    assert done.exit_code == 2 and "in use by process 1" in done.stderr and "b.hwc" in done.stdout
    assert list((used / "cache" / "entries").iterdir()) and not list(idle.rglob("*.safetensors"))
