"""Write the accuracy table of README.md from the training logs.

python sample_models/accuracy_table.py
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<!-- accuracy:begin -->", "<!-- accuracy:end -->"


def table() -> str:
    """The table in Markdown, one row per training log."""
    rows = [
        "| model | 5,000 kept-out images | 10,000 test images | parameters | epochs | seed |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((HERE / "training_logs").glob("*.json")):
        log = json.loads(path.read_text())
        rows.append(
            f"| `{log['model']}.onnx` | {log['kept_out_top1']} | {log['test_top1']} | {log['parameters']:,} "
            f"| {log['recipe']['epochs']} | {log['seed']} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Replace what stands between the two markers."""
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{table()}\n{END}{tail}", encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
