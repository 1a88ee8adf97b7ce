"""`python -m hwc_onnx` is the command line."""

from __future__ import annotations

from hwc_onnx.cli.main import cli

if __name__ == "__main__":
    cli(prog_name="hwc-onnx")
