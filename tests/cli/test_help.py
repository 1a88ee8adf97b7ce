"""Every command has help with examples, is documented, and answers at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from docs.cli_reference import PAGE, commands, page, reference
from hwc_onnx.accuracy.metrics import METRICS
from hwc_onnx.cli.main import COMMANDS, cli
from hwc_onnx.search.strategy import SAMPLERS

ROOT = Path(__file__).parents[2]
ALL = dict(commands(cli, "hwc-onnx"))
HEAVY = (
    "torch",
    "optuna",
    "onnxruntime",
    "onnx",
    "numpy",
    "scipy",
    "gymnasium",
    "pydantic",
    "onnx_graphsurgeon",
    "plotly",
)


def live(path: str) -> click.Command:
    """The command object behind a full name such as `hwc-onnx accel list`."""
    found: click.Command = cli
    for name in path.split()[1:]:
        assert isinstance(found, click.Group)
        below = found.get_command(click.Context(found), name)
        assert below is not None
        found = below
    return found


@pytest.mark.parametrize("path", ALL)
def test_help_has_a_sentence_and_examples(path: str) -> None:
    text = live(path).help or ""
    assert len(text.strip().splitlines()[0]) > 20, f"{path} needs a sentence of help"
    assert "Examples:" in text and "hwc-onnx " in text.split("Examples:")[1], f"{path} needs examples"


@pytest.mark.parametrize("path", ALL)
def test_each_option_says_what_it_does(path: str) -> None:
    for parameter in live(path).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.opts[0]} needs help"


def test_help_names_samplers_and_metrics_in_the_order_of_the_errors() -> None:
    options = {option.name: option.help or "" for option in live("hwc-onnx compress").params if isinstance(option, click.Option)}
    for name, known in (("sampler", SAMPLERS), ("metric", METRICS)):
        assert options[name].replace(", or ", " or ").split(" or module:")[0].split(", ") == list(known)


@pytest.mark.parametrize("path", [path for path in ALL if not isinstance(live(path), click.Group)])
def test_each_command_takes_the_shared_options(path: str) -> None:
    options = {name for parameter in live(path).params for name in parameter.opts}
    assert {"--json", "--quiet", "--debug", "--log-level"} <= options


@pytest.mark.parametrize("path", ALL)
def test_each_command_is_documented(path: str) -> None:
    assert f"### {path}\n" in PAGE.read_text()


def test_reference_equals_help() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_reference_lists_each_command_of_the_table() -> None:
    assert all(f"### hwc-onnx {name}\n" in reference() for name in COMMANDS)


@pytest.mark.parametrize("path", ALL)
def test_examples_name_real_options(path: str) -> None:
    command = live(path)
    for line in (command.help or "").split("Examples:")[1].splitlines():
        words = line.split()
        if not words or words[0] != "hwc-onnx" or words[1] not in COMMANDS:
            continue
        depth = 3 if words[1] in ("accel", "data") and len(words) > 2 else 2
        options = {name for parameter in live(" ".join(words[:depth])).params for name in parameter.opts}
        used = {word for word in words if word.startswith("-")} - {"--help"}
        assert used <= options, f"{line.strip()} uses {used - options}"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom hwc_onnx.cli.main import cli\n"
        f"for name in {[path.split()[1:] for path in ALL]!r}:\n"
        "    try:\n        cli([*name, '--help'])\n    except SystemExit:\n        pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_import_of_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, hwc_onnx\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
