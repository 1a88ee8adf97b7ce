"""Writes what README's commands print into README.md: run by `make docs`, checked by a test.

A block is `<!-- output: COMMAND -->` .. `<!-- /output -->`; between the two stand the command and its output.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"<!-- output: (?P<command>.+?) -->\n(?P<body>.*?)<!-- /output -->", re.DOTALL)


def printed(command: str) -> str:
    """Standard output of a `hwc-onnx` command, run in the checkout at 80 columns (CalledProcessError if it fails)."""
    words = shlex.split(command)
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "hwc_onnx", *words[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def filled(text: str) -> str:
    """The README with each block made anew."""

    def block(match: re.Match[str]) -> str:
        command = match["command"]
        return f"<!-- output: {command} -->\n```console\n$ {command}\n{printed(command)}\n```\n<!-- /output -->"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
