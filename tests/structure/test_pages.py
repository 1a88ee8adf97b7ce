"""```sh blocks of the documentation run with the samples of the repository, and ```python blocks run too, in the order shown.

Other blocks: test_commands.py. A program that needs more than the samples runs in test_programs.py, on stand-ins.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.structure.shown import PAGES, ROOT, Shown, blocks, commands_of, name_of

SMALLER = {
    "compress": ["--trials", "2", "--calibration-samples", "64", "--search-samples", "128"],
    "why": ["--samples", "64", "--top", "1"],
    "sensitivity": ["--samples", "64"],
    "compare": ["--trials", "3", "--seeds", "1", "--calibration-samples", "64", "--search-samples", "128"],
}
"""Options that keep a command short; a repeated option replaces the one on the page."""
README = ROOT / "README.md"


def commands(page: Path) -> list[Shown]:
    found = [command for block in blocks(page) for command in commands_of(page, block)]
    return [command for command in found if command.kind == "sh" and command.words[0] == "hwc-onnx"]


RUN = [page for page in PAGES if page != README and commands(page)]


def shorter(words: list[str]) -> list[str]:
    if "--dry-run" in words:
        return words
    return [*words, *SMALLER.get(words[0], [])]


def python(folder: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": path} if path else {})
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False, env=environment)


def run(command: Shown, folder: Path) -> None:
    """Run one command as a shell would; what it prints goes where it says."""
    path = re.search(r"PYTHONPATH=(\S+)", command.text.split("hwc-onnx ")[0])
    words, target = command.words[1:], None
    if ">" in words:
        place = words.index(">")
        words, target = words[:place], words[place + 1]
    places = os.pathsep.join([str(folder / path[1]), str(ROOT)]) if path else ""
    done = python(folder, "-m", "hwc_onnx", *shorter(words), path=places)
    allowed = (0, 3) if words[0] == "compress" else (0,)
    assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
    if target is not None:
        (folder / target).write_text(done.stdout)


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_commands_and_programs_of_a_page_run_in_the_order_shown(page: Path, tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "sample_models", tmp_path / "sample_models", ignore=shutil.ignore_patterns("generated", "__pycache__")
    )
    for block in blocks(page):
        named = re.match(r"# (\w+\.py)\n", block.text)
        if block.kind == "python" and named is not None:
            (tmp_path / named.group(1)).write_text(block.text)
        elif block.kind == "python":
            done = python(tmp_path, "-c", block.text)
            assert done.returncode == 0, done.stderr
            if done.stdout and block.follower:
                assert done.stdout.split() == block.follower.split(), f"{page.name} shows another output"
        elif block.kind == "sh":
            for command in commands_of(page, block):
                if command.words[0] == "hwc-onnx":
                    run(command, tmp_path)
