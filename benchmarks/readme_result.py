"""Writes the result table of README.md from a result.json, so that the README holds only figures a run printed.

make demo
python benchmarks/readme_result.py demo/resnet20.hwc/result.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hwc_onnx.report.result_table import markdown_rows

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- result:begin -->", "<!-- result:end -->"


def filled(readme: str, rows: list[str]) -> str:
    """The README with the rows between its two marks (ValueError when the marks are missing)."""
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"README.md has no {BEGIN} .. {END} block to fill")
    before, _, rest = readme.partition(BEGIN)
    lines = "\n".join(rows)
    return f"{before}{BEGIN}\n{lines}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Fill the block from the file named on the command line."""
    parser = argparse.ArgumentParser(description="Fill README.md's result table from a result.json.")
    parser.add_argument("result", type=Path, help="result.json of the run whose figures the README shows")
    result = json.loads(parser.parse_args().result.read_text(encoding="utf-8"))
    README.write_text(filled(README.read_text(encoding="utf-8"), markdown_rows(result)), encoding="utf-8")


if __name__ == "__main__":
    main()
