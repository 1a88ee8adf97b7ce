"""What becomes of an error: one line on stderr, the right exit code, a traceback only with --debug."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hwc_onnx import errors
from hwc_onnx.cli.main import cli


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `api.inspect` raise."""

    def install(error: BaseException) -> None:
        def inspect(*_: Any, **__: Any) -> None:
            raise error

        fake = ModuleType("hwc_onnx.api")
        fake.inspect = inspect  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "hwc_onnx.api", fake)
        monkeypatch.setattr("hwc_onnx.api", fake, raising=False)

    return install


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("-o: not writable"), 2),
        (errors.ModelError("model.onnx: truncated"), 4),
        (errors.DataError("x: wrong shape"), 4),
        (errors.ProfileError("field mac: missing"), 4),
        (errors.PlanError("field ratio: too large"), 4),
        (errors.VerifyError("does not open"), 5),
        (errors.RuntimeFailure("disk full"), 1),
        (errors.SearchError("no trial"), 1),
    ],
)
def test_known_error_is_one_line_with_its_exit_code(
    raising: Callable[[BaseException], None], error: errors.HwcError, code: int
) -> None:
    raising(error)
    result = run("inspect", "model.onnx")
    assert result.exit_code == code
    assert result.stderr == f"error: {error}\n"
    assert result.stdout == ""


def test_each_error_kind_has_a_code_of_the_table() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HwcError)]
    assert len(kinds) >= 9
    assert all(kind.exit_code in (1, 2, 3, 4, 5) for kind in kinds)


def test_unknown_error_is_an_apology_without_traceback(raising: Callable[[BaseException], None]) -> None:
    raising(ZeroDivisionError("division by zero"))
    result = run("inspect", "model.onnx")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "bug in hwc-onnx" in result.stderr and "--debug" in result.stderr and "Traceback" not in result.stderr


def test_debug_shows_the_traceback(raising: Callable[[BaseException], None]) -> None:
    raising(ZeroDivisionError("division by zero"))
    result = run("inspect", "model.onnx", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "ZeroDivisionError" in result.stderr


def test_operating_system_error_names_the_file(raising: Callable[[BaseException], None]) -> None:
    raising(OSError(28, "No space left on device", "plan.json"))
    result = run("inspect", "model.onnx")
    assert (result.exit_code, result.stderr) == (1, "error: plan.json: No space left on device\n")


def test_interrupt_exits_with_130(raising: Callable[[BaseException], None]) -> None:
    raising(KeyboardInterrupt())
    result = run("inspect", "model.onnx")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compres", "m.onnx"], "did you mean 'compress'"),
        (["compress"], "Missing argument 'MODEL'"),
        (["compress", "m.onnx", "--trails", "3"], "--trials"),
        (["compress", "m.onnx", "--trials", "0"], "x>=1"),
        (["compress", "m.onnx", "--max-drop", "low"], "points such as 1.0"),
        (["compress", "m.onnx", "--max-drop", "-1"], "points such as 1.0"),
        (["compress", "m.onnx", "--max-energy", "40"], "such as 40%"),
        (["compress", "m.onnx", "--max-latency", "5 parsecs"], "such as 5ms"),
        (["compress", "m.onnx", "--max-bytes", "500XB"], "KB"),
        (["compress", "m.onnx", "--timeout", "soon"], "such as 30m"),
        (["compress", "m.onnx", "--weight-bits", "8-2"], "from 2 to 8"),
        (["compress", "m.onnx", "--weight-bits", "1-8"], "from 2 to 8"),
        (["compress", "m.onnx", "--granularity", "medium"], "fine, coarse"),
        (["compress", "m.onnx", "--input-shape", "x:1xAx3"], "x:1x3x224x224"),
        (["compress", "m.onnx", "--input-shape", "x:0x3"], "above 0"),
        (["compress", "m.onnx", "--resume", "--fresh"], "give one of them"),
        (["apply", "m.onnx"], "either --plan FILE or --uniform SPEC"),
        (["apply", "m.onnx", "--plan", "p.json", "--uniform", "w8a8"], "either --plan FILE or --uniform SPEC"),
        (["verify", "m.onnx"], "--against"),
        (["accel", "lst"], "list"),
    ],
)
def test_usage_error_exits_with_2_and_says_what_is_allowed(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_closed_pipe_ends_quietly(options: tuple[str, ...]) -> None:
    """As `head` closes it: nobody reads any more."""
    command = [sys.executable, "-m", "hwc_onnx", "accel", "show", "edge-flex", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()
        assert (running.wait(), said) == (141, b"")
