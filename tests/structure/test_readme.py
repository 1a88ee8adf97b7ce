"""README's commands, programs, targets and links are real."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.readme_result import BEGIN, END, filled
from docs import readme_outputs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALLER = {
    "compress": ["--trials", "2", "--calibration-samples", "128", "--search-samples", "256"],
    "evaluate": [],
    "verify": [],
    "apply": [],
    "accel": [],
    "profile": [],
}
"""Options that keep a command of the README short; a repeated option replaces the one in the README."""


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("hwc-onnx ")]


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("readme")
    shutil.copytree(
        ROOT / "sample_models", made / "sample_models", ignore=shutil.ignore_patterns("generated", "__pycache__")
    )
    return made


def test_readme_commands_run_in_the_order_shown(folder: Path) -> None:
    assert len(commands()) >= 4
    for command in commands():
        words = shlex.split(command)
        done = subprocess.run(
            [sys.executable, "-m", "hwc_onnx", *words[1:], *SMALLER[words[1]]],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        allowed = (0, 3) if words[1] == "compress" else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
    opens = next(program for program in programs() if "onnxruntime" in program)
    done = subprocess.run([sys.executable, "-c", opens], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "array" in done.stdout, done.stderr


def test_readme_outputs_are_what_the_commands_print() -> None:
    assert readme_outputs.filled(README) == README, "run `make docs`"


def test_programs_in_the_documentation_are_python() -> None:
    for page in PAGES:
        for program in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            compile(program, page.name, "exec")


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join(page.read_text() for page in PAGES), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_each_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page.name


def test_result_block_is_filled_from_a_result() -> None:
    block = filled(README, ["| a |"]).split(BEGIN)[1].split(END)[0]
    assert block == "\n| a |\n"
    assert filled(filled(README, ["| a |"]), ["| b |"]) == filled(README, ["| b |"])
    with pytest.raises(ValueError, match="block to fill"):
        filled("no marks", ["| a |"])
