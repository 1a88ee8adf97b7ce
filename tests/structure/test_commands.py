"""Every command that a page shows is run, here or in test_pages.py or test_readme.py, or listed in not_run.py with the reason.

```sh blocks run with the samples of the repository (test_pages.py, test_readme.py). What other blocks show runs here on small
stand-ins for the files that it names. What is not run, and commands in the running text, name options, scripts, targets and files
that exist.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from docs import readme_outputs
from hwc_onnx.cli.main import cli
from tests.cli.running import hwc
from tests.structure.not_run import NOT_RUN
from tests.structure.shown import MARKDOWN, PAGES, ROOT, Shown, blocks, inline, name_of, shown
from tests.structure.stand_ins import shorter, write_stand_ins

QUICK = ("python benchmarks/startup.py --runs 9",)
"""Benchmarks that take a second."""
OUTPUTS = [match["command"] for match in readme_outputs.BLOCK.finditer((ROOT / "README.md").read_text())]


def reason(command: Shown) -> str | None:
    """Why no test runs this command; None where one does."""
    return next((why for page, begins, why in NOT_RUN if page == command.page and re.match(begins, command.text)), None)


def run_elsewhere(command: Shown) -> bool:
    """Whether test_pages.py or test_readme.py runs it."""
    if command.page == "README.md" and command.text in OUTPUTS:
        return True
    return command.kind == "sh" and command.words[0] == "hwc-onnx" and ROOT / command.page in PAGES


WRITES = {"-o", "--output", "--save-plan", "--save-config", ">"}


def here(page: Path) -> list[Shown]:
    """Commands of the page that run here: those that run nowhere else, and those that write files, which others may read."""
    kept = [command for command in shown(page) if reason(command) is None and command.words[0] == "hwc-onnx"]
    if all(run_elsewhere(command) for command in kept):
        return []
    return [command for command in kept if not run_elsewhere(command) or WRITES & set(command.words)]


ALL = [command for page in MARKDOWN for command in shown(page)]
HERE = {page: here(page) for page in MARKDOWN if here(page)}


def test_each_command_is_run_or_listed_with_a_reason() -> None:
    runs = {id(command) for commands in HERE.values() for command in commands}
    texts = {str(command) for commands in HERE.values() for command in commands}
    for command in ALL:
        found = str(command) in texts or run_elsewhere(command) or command.text in QUICK
        assert found != (reason(command) is not None), f"{command}: run it or list it in not_run.py"
    assert len(ALL) > 150 and len(runs) > 80


def test_each_listed_row_fits_a_command_and_gives_a_reason() -> None:
    for page, begins, why in NOT_RUN:
        assert why and any(command.page == page and re.match(begins, command.text) for command in ALL), (page, begins)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand_ins") / "files"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_stand_ins(folder)
    return folder


@pytest.mark.parametrize("page", HERE, ids=name_of)
def test_commands_run_in_the_order_shown_on_stand_ins(
    page: Path, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files"
    shutil.copytree(stand_ins, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for block in blocks(page):
        named = re.match(r"# (\w+\.py)\n", block.text)
        if block.kind == "python" and named is not None:
            (folder / named.group(1)).write_text(block.text)
    for number, command in enumerate(HERE[page]):
        words, target = command.words[1:], None
        if ">" in words:
            place = words.index(">")
            words, target = words[:place], words[place + 1]
        done = hwc(*shorter(words, f"run{number}.hwc"))
        assert done.exit_code in ((0, 3) if words[0] == "compress" else (0,)), f"{command}\n{done.stdout}\n{done.stderr}"
        if target is not None and not target.startswith("~"):
            (folder / target).write_text(done.stdout)


@pytest.mark.parametrize("text", QUICK)
def test_quick_benchmarks_run(text: str) -> None:
    words = [sys.executable, *text.split()[1:-1], "1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "median" in done.stdout, done.stderr


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_what_is_not_run_names_what_exists(page: Path) -> None:
    for command in [command for command in shown(page) if reason(command) is not None] + inline(page):
        mistake = mistake_in(command)
        assert mistake is None, f"{command}: {mistake}"


def mistake_in(command: Shown) -> str | None:
    """What a command names that does not exist."""
    words = command.words
    if words[0] == "hwc-onnx":
        return None if " median " in command.text or words[1].isupper() else unknown(words[1:])
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if "." in words[1] or words[1] in targets else f"no target {words[1]}"
    here = (ROOT / command.page).parent
    script = next((word for word in words if word.endswith(".py")), None)
    if script is not None and not script.isupper():
        file = next((folder / script for folder in (ROOT, here) if (folder / script).is_file()), None)
        if file is None:
            return f"no {script}"
        text = file.read_text()
        options = [word.split("=")[0] for word in words[words.index(script) :] if word.startswith("--")]
        return next((f"{script} has no {option}" for option in options if f'"{option}"' not in text), None)
    files = [word for flag, word in itertools.pairwise(words) if flag in ("-r", "-c", "-f") and words[1] != "-c" and "." in word]
    return next((f"no {file}" for file in files if not (ROOT / file).is_file() and not (here / file).is_file()), None)


def unknown(words: list[str]) -> str | None:
    """The command or option of `hwc-onnx WORDS` that does not exist."""
    found: click.Command = cli
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(click.Context(found), words[0])
        if inner is None:
            return f"no command {words[0]}"
        found, words = inner, words[1:]
    known = {name for option in found.get_params(click.Context(found)) for name in (*option.opts, *option.secondary_opts)}
    options = [word.split("=")[0] for word in words if word.startswith("-") and not re.fullmatch(r"-\d.*", word)]
    return next((f"no option {option}" for option in options if option not in known), None)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("hwc-onnx compress m.onnx --max-drop 1", None),
        ("hwc-onnx compress m.onnx --max-dorp 1", "no option --max-dorp"),
        ("hwc-onnx compres m.onnx", "no command compres"),
        ("hwc-onnx accel shw edge-flex", "no command shw"),
        ("python benchmarks/startup.py --runs 9", None),
        ("X=1 python benchmarks/startup.py --rnus 9", "benchmarks/startup.py has no --rnus"),
        ("python benchmarks/start_up.py", "no benchmarks/start_up.py"),
        ("make demo", None),
        ("make dmeo", "no target dmeo"),
        ("pip install -c constraints.txt torch", None),
        ("pip install -c constrains.txt torch", "no constrains.txt"),
    ],
)
def test_what_does_not_exist_is_noticed(text: str, mistake: str | None) -> None:
    assert mistake_in(Shown("README.md", "text", text)) == mistake


def test_commands_are_found_in_every_kind_of_block(tmp_path: Path) -> None:
    page = ROOT / "docs" / "cli.md"
    assert {command.kind for command in ALL} >= {"sh", "text", "console", "plain", "indented"}
    assert any(command.words[:2] == ["hwc-onnx", "fix"] and command.page == name_of(page) for command in ALL)
