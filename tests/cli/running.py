"""Running the command line in this process, on a tiny model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from hwc_onnx.cli.main import cli


@dataclass(frozen=True)
class Case:
    """A folder with tiny.onnx and tiny.npz."""

    folder: Path
    model: str
    data: str


@dataclass(frozen=True)
class Run:
    """A finished compression: the command's result and where its files are."""

    result: Result
    output: Path
    run_dir: Path


def hwc(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def compress_arguments(case: Case, folder: Path) -> list[object]:
    """A compress command that takes seconds."""
    return [
        "compress", case.model, "--data", case.data, "--trials", 4, "--max-drop", "60", "--gate", "point",
        "--output", folder / "tiny.hwc.onnx", "--json",
    ]  # fmt: skip
