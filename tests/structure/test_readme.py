"""README's commands run; links and files named in every page exist."""

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
from tests.structure.shown import FENCE, MARKDOWN, ROOT, name_of

README = (ROOT / "README.md").read_text()
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


def test_readme_begins_with_installing_and_one_compression() -> None:
    head = "\n".join(README.splitlines()[:30])
    assert re.search(r"```sh\n(.*\n)*pip install .*\nhwc-onnx compress .*\n```", head)


def test_readme_outputs_are_what_the_commands_print() -> None:
    assert readme_outputs.filled(README) == README, "run `make docs`"


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings; the second of the same name has -1 behind it."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        name = slug(heading)
        found.append(name if name not in found else f"{name}-{sum(one.rsplit('-', 1)[0] == name for one in found) + 1}")
    return set(found)


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a text on this page that lead to no file or to no heading."""
    found = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))):
        if "://" in target or target.startswith("mailto:"):
            continue
        file = page.parent / target if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            found.append(f"{target}#{anchor}" if anchor else target)
    return found


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


OTHERS = {"docs/operators.md"}
"""Files of other projects: onnx-tensorrt's, in docs/dialects.md."""


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_files_named_in_the_text_exist(page: Path) -> None:
    named = re.findall(r"`((?:docs|benchmarks|tests|examples|sample_models|hwc_onnx|cli|accel_profiles)/[\w./-]+)`", page.read_text())
    missing = [name for name in named if not (ROOT / name).exists() and "/generated/" not in f"{name}/" and name not in OTHERS]
    assert missing == []


def test_broken_links_are_noticed() -> None:
    page = ROOT / "docs" / "index.md"
    good = "[a](files.md) [b](files.md#plan.json) [c](../README.md#use-it) [d](#words) [e](https://a.b/c#d)"
    assert broken_links(page, good.replace("plan.json", "planjson")) == []
    assert broken_links(page, "[a](file.md) [b](files.md#plan) [c](../README.md#install) [d](#letters)") == [
        "file.md", "files.md#plan", "../README.md#install", "#letters",
    ]  # fmt: skip


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
