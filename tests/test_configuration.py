"""Configuration files: chains, what is refused, and paths that are relative to the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from hwc_onnx.configuration import DEEPEST, MOST_BYTES, compress_call, file_text, from_file, into_file, read_chain
from hwc_onnx.errors import UsageError
from hwc_onnx.options import Options


def put(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_a_chain_comes_from_its_base_to_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    put(tmp_path, base="trials: 5\n", middle="extends: base.yaml\ntrials: 6\n")
    put(tmp_path / "sub", top="extends: ../middle.yaml\nseed: 1\n")
    found = read_chain(tmp_path / "sub" / "top.yaml")
    assert [layer.path.name for layer in found] == ["base.yaml", "middle.yaml", "top.yaml"]
    assert [layer.content.get("trials") for layer in found] == [5, 6, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: a.yaml\n", "a.yaml: field 'extends' leads in a circle"),
        ("extends: [b.yaml]\n", "field 'extends' is a list; name one file"),
        ("extends: none.yaml\n", r"none.yaml: cannot be read \(No such file or directory\) \(extended by .*a.yaml\)"),
        ("- 1\n", "holds a list, expected options"),
        ("1: 2\n", "expected options"),
        ("trials: 5\ntrials: 6\n", "field 'trials' is written twice"),
        ("schema: 2\n", "field 'schema' is 2; this version reads schema 1"),
        ("a: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("a: [" + "[" * 5000, "not YAML"),
        ("a: 2001-13-99\n", "not YAML"),
        ("a: \x00\n", "not YAML"),
        ("#" * (MOST_BYTES + 1), "more than 1 MiB"),
    ],
)
def test_what_is_refused_names_the_file_and_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    put(tmp_path, a=text)
    with pytest.raises(UsageError, match=words):
        read_chain(tmp_path / "a.yaml")


def test_a_circle_through_another_name_and_a_chain_too_deep_are_refused(tmp_path: Path) -> None:
    put(tmp_path, a="extends: link.yaml\n")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "a.yaml")
    with pytest.raises(UsageError, match="circle"):
        read_chain(tmp_path / "a.yaml")
    put(tmp_path, **{f"f{n}": f"extends: f{n + 1}.yaml\n" for n in range(DEEPEST + 2)})
    with pytest.raises(UsageError, match="extends more than 16 files"):
        read_chain(tmp_path / "f0.yaml")


@pytest.mark.parametrize(
    ("name", "value", "moves"),
    [
        ("model", "model.onnx", True),
        ("data", "val.npz", True),
        ("data", "images", True),
        ("data", "synthetic:512", False),
        ("data", "my_data:samples", False),
        ("accelerator", "edge-flex", False),
        ("accelerator", "chip.yaml", True),
        ("policy", "pretrained", False),
        ("policy", "agent.safetensors", True),
        ("metric", "top1", False),
    ],
)
def test_paths_move_with_the_file_and_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, moves: bool
) -> None:
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    kept = into_file(name, value, Path("conf/a.yaml"))
    assert kept == (os.path.join("..", value) if moves else value)
    assert from_file(name, kept, Path("conf/a.yaml")) == value
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert from_file(name, kept, tmp_path / "conf" / "a.yaml") == (str(tmp_path / value) if moves else value)


def test_arguments_from_python_are_written_as_flags_take_them(tmp_path: Path) -> None:
    options = Options(
        min_channels={"Conv": 4}, ratio_bounds={"*": (0.0, 0.5)}, input_shapes={"x": (1, 3)}, max_drop="1%", data={"x": 1}
    )
    arguments = {name: getattr(options, name) for name in ("min_channels", "ratio_bounds", "input_shapes", "max_drop", "data")}
    keys, objects = compress_call(arguments | {"model": tmp_path / "m.onnx", "accelerator": "edge-flex"}, tmp_path / "c.yaml")
    assert keys == {
        "min-channels": ["Conv=4"],
        "ratio-bounds": ["*=0.0-0.5"],
        "input-shape": ["x:1x3"],
        "max-drop": "1%",
        "model": "m.onnx",
        "accel": "edge-flex",
    }
    assert objects == ["data"]
    assert yaml.safe_load(file_text("compress", keys, ["a"])) == {"schema": 1, "command": "compress"} | keys
