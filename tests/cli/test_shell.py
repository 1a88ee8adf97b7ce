"""What a shell sees: completion in a real bash, the manual page in a real groff, and `--version`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest

from hwc_onnx.cli.main import COMMANDS, cli
from hwc_onnx.cli.manual import commands, page
from tests.cli.running import hwc

PROGRAM = Path(sys.executable).with_name("hwc-onnx")


@pytest.mark.skipif(shutil.which("bash") is None or not PROGRAM.is_file(), reason="needs bash and the installed program")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("comp", {"compress", "compare", "completion"}),
        ("compress m.onnx --max-", {"--max-drop", "--max-energy", "--max-latency", "--max-bytes", "--max-memory"}),
        ("profile m.onnx --accel edge-f", {"edge-flex", "edge-flex-fixed8"}),
        ("compress m.onnx --gate ", {"upper", "point"}),
        ("compress m.onnx --sampler t", {"thompson", "tpe", "tpe-univariate"}),
        ("compare m.onnx --sampler kn", {"knapsack"}),
        ("evaluate m.onnx --metric m", {"miou", "mse"}),
        ("data check m.onnx --preset s", {"signed"}),
        ("apply m.onnx --dialect q", {"qcdq", "qonnx"}),
        ("compress m.onnx --task seg", {"segmentation"}),
        ("compress m.onnx --algorithms magnitude,l", {"magnitude,l1", "magnitude,l2"}),
        ("compress m.onnx --granularity fine,", {"fine,coarse"}),
        ("data ", {"check"}),
        ("nonsense ", set(COMMANDS)),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, offered: set[str]) -> None:
    words = line.split(" ")
    script = tmp_path / "complete.bash"
    script.write_text(
        f"eval \"$('{PROGRAM}' completion bash)\"\n"
        "complete -p hwc-onnx > /dev/null || exit 9\n"
        f"COMP_WORDS=(hwc-onnx {' '.join(words)}{' ' + chr(39) * 2 if words[-1] == '' else ''})\nCOMP_CWORD={len(words)}\n"
        "_hwc_onnx_completion hwc-onnx\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", script], capture_output=True, text=True, env=environment, check=True)
    assert set(done.stdout.split()) == offered and done.stderr == ""


@pytest.mark.parametrize("words", ["evaluate mod", "evaluate m.onnx --data v", "evaluate --config c", "accel check my", "report r"])
def test_files_are_completed_by_the_shell(words: str) -> None:
    environment = os.environ | {
        "_HWC_ONNX_COMPLETE": "bash_complete", "COMP_WORDS": f"hwc-onnx {words}", "COMP_CWORD": str(len(words.split())),
    }  # fmt: skip
    done = subprocess.run([PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == f"file,{words.split()[-1]}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_ask_the_program(shell: str, schema: Callable[[str, Any], None]) -> None:
    result = hwc("completion", shell)
    assert result.exit_code == 0 and f"_HWC_ONNX_COMPLETE={shell}_complete" in result.stdout
    found = json.loads(hwc("completion", shell, "--json").stdout)
    schema("completion", found)
    assert found["script"] == result.stdout.rstrip("\n")


def test_completion_of_another_shell_is_refused() -> None:
    assert hwc("completion", "tcsh").exit_code == 2


def test_manual_page_names_every_command_and_option(schema: Callable[[str, Any], None]) -> None:
    schema("man", json.loads(hwc("man", "--json").stdout))
    text = "\n".join(page(cli)).replace("\\-", "-")
    for path, command, context in commands(cli, click.Context(cli, info_name="hwc-onnx")):
        assert f".SS {path}\n" in text
        for option in command.params:
            record = option.get_help_record(context) if isinstance(option, click.Option) else None
            assert record is None or f".B {' '.join(record[0].split())}\n" in text
    assert all(f"hwc-onnx {name}" in text for name in COMMANDS)


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_manual_page_has_no_warnings_in_groff() -> None:
    shown = hwc("man")
    assert shown.exit_code == 0
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8"], input=shown.stdout, capture_output=True, text=True, check=True)
    shown_text = re.sub(".\b", "", done.stdout)  # bold is overstruck
    assert done.stderr == "" and "EXIT STATUS" in shown_text and "HWC_ONNX_THREADS" in shown_text


def test_version_names_what_results_depend_on() -> None:
    lines = hwc("--version").stdout.splitlines()
    assert lines[0].split(", commit ")[0] == f"hwc-onnx {version('hwc-onnx')}" and lines[1].startswith("Python 3")
    for name in ("onnx", "onnxruntime", "torch", "optuna"):
        assert f"{name} {version(name)}" in lines[2]
    assert "/" not in "".join(lines)


def test_version_is_not_asked_for_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWC_ONNX_VERSION", "1")
    assert "Print the manual page" in hwc("man", "--help").stdout
