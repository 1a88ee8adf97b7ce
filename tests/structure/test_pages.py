"""Commands in the documentation: those in ```sh blocks run, in the order shown; all others name commands and options that exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hwc_onnx.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
SMALLER = {
    "compress": ["--trials", "2", "--calibration-samples", "64", "--search-samples", "128"],
    "why": ["--samples", "64", "--top", "1"],
    "sensitivity": ["--samples", "64"],
    "compare": ["--trials", "3", "--seeds", "1", "--calibration-samples", "64", "--search-samples", "128"],
}
"""Options that keep a command short; a repeated option replaces the one on the page."""


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def lines(text: str) -> list[str]:
    """Whole commands: a line that ends in a backslash goes on."""
    return [line.strip() for line in text.replace("\\\n", " ").splitlines()]


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "sh") for line in lines(block) if re.match(r"(PYTHONPATH=\S+ )?hwc-onnx ", line)]


def mentioned(page: Path) -> list[str]:
    """Commands that are shown but not run here."""
    shown = [line for kind in ("text", "console", "") for block in blocks(page, kind) for line in lines(block)]
    return [line.removeprefix("$ ") for line in shown if re.match(r"(\$ )?hwc-onnx [a-z]", line)]


RUN = [page for page in PAGES if commands(page)]


def shorter(words: list[str]) -> list[str]:
    if "--dry-run" in words:
        return words
    return [*words, *SMALLER.get(words[0], [])]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_commands_of_a_page_run_in_the_order_shown(page: Path, tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "sample_models", tmp_path / "sample_models", ignore=shutil.ignore_patterns("generated", "__pycache__")
    )
    for program in blocks(page, "python"):
        named = re.match(r"# (\w+\.py)\n", program)
        if named is not None:
            (tmp_path / named.group(1)).write_text(program)
    for command in commands(page):
        words = shlex.split(command, comments=True)
        environment = dict(os.environ)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = os.pathsep.join([str(tmp_path / value), str(ROOT)])
        target = None
        if ">" in words:
            place = words.index(">")
            target, words = words[place + 1], words[:place]
        done = subprocess.run(
            [sys.executable, "-m", "hwc_onnx", *shorter(words[1:])],
            cwd=tmp_path, capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        allowed = (0, 3) if words[1] == "compress" else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
        if target is not None:
            (tmp_path / target).write_text(done.stdout)


@pytest.mark.parametrize("page", [page for page in PAGES if mentioned(page)], ids=lambda page: page.name)
def test_commands_that_pages_mention_exist_with_their_options(page: Path) -> None:
    for command in mentioned(page):
        refuse_unknown(shlex.split(command.split(" | ")[0].split(" > ")[0], comments=True)[1:])


def refuse_unknown(words: list[str]) -> None:
    """Walk to the command and look each option up."""
    found: click.Command = cli
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        context = click.Context(found)
        inner = found.get_command(context, words[0])
        assert inner is not None, words
        found, words = inner, words[1:]
    known = {name for option in found.get_params(click.Context(found)) for name in (*option.opts, *option.secondary_opts)}
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-\d.*", word):
            assert word.split("=")[0] in known, f"{word} in {words}"


def test_an_option_that_does_not_exist_is_noticed() -> None:
    refuse_unknown(["compress", "m.onnx", "--max-drop", "1"])
    with pytest.raises(AssertionError):
        refuse_unknown(["compress", "m.onnx", "--max-dorp", "1"])
    with pytest.raises(AssertionError):
        refuse_unknown(["compres", "m.onnx"])
