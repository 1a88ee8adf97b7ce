"""Accuracy after compression without retraining: ours beside the tools that users would pick, on the same samples.

    OMP_NUM_THREADS=1 python benchmarks/recovery.py FOLDER --peers-python PEERS/bin/python --seeds 3
    OMP_NUM_THREADS=1 python benchmarks/recovery.py FOLDER --only 'resnet20/w4*'
    OMP_NUM_THREADS=1 python benchmarks/recovery.py FOLDER --table --write docs/recovery-results.md

Rows and bars are in recovery_peers/settings.py, our variants in recovery_peers/ours.py, what the peers do in
recovery_peers/with_*.py; their environment is described in recovery_peers/README.md. A seed decides which samples
calibrate. Every file is judged by the same code (recovery_peers/judge.py). Each result is a file of FOLDER/results, so
that an interrupted run goes on where it was; --again computes results anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from recovery_peers import ours, theirs
from recovery_peers.figures import Figure, Row
from recovery_peers.judge import Judge
from recovery_peers.settings import ROWS, Setting
from recovery_peers.table import lines

SAMPLES = Path(__file__).parent.parent / "sample_models"
ERROR_CHARACTERS = 200
BEGIN, END = "<!-- recovery:begin -->", "<!-- recovery:end -->"
Writer = Callable[..., str | None]
"""Writes the file `out` of a model that `judge` knows; what went wrong, or None."""


class Run:
    """The results of one folder and what it takes to add to them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.judges: dict[str, Judge] = {}
        self.peers = theirs.methods(args.peers_python) if args.peers_python else {}

    def judge(self, model: str) -> Judge:
        """The judge of a model, made when it is first needed."""
        if model not in self.judges:
            if (SAMPLES / f"{model}.onnx").exists():
                self.judges[model] = Judge(SAMPLES / f"{model}.onnx", SAMPLES / "fashion_mnist.npz")
            else:
                self.judges[model] = self._photographs(model)
        return self.judges[model]

    def _photographs(self, model: str) -> Judge:
        home = self.args.generated
        needed = [home / name for name in (f"{model}.onnx", "natural_crops.npz", "judged_crops.npz")]
        missing = [path.name for path in needed if not path.exists()]
        if missing:
            advice = "run `make samples` with the Debian packages that sample_models/README.md names, or leave it out by --only"
            raise SystemExit(f"{model}: {', '.join(missing)} missing in {home}; {advice}")
        return Judge(*needed)

    def setting(self, setting: Setting, seed: int) -> None:
        """Compute what is missing of a row for one seed."""
        for name in ours.VARIANTS:
            self._one(setting, name, seed, partial(ours.write, setting=setting, variant=name, seed=seed))
        for name, facts in self.peers.items():
            if facts["setting"] == setting.peers:
                python, seconds = self.args.peers_python, self.args.timeout
                write = partial(theirs.write, python=python, method=name, seed=seed, seconds=seconds)
                self._one(setting, name, seed, write)

    def _one(self, setting: Setting, name: str, seed: int, write: Writer) -> None:
        record = self._record(setting, name, seed)
        known = record.exists() and not fnmatchcase(name, self.args.again)
        if known or any(fnmatchcase(name, pattern) for pattern in self.args.skip):
            return
        with tempfile.TemporaryDirectory() as folder:
            out, judge = Path(folder) / "out.onnx", self.judge(setting.model)
            start = time.monotonic()
            try:
                error = write(judge=judge, out=out)
                seconds = time.monotonic() - start
                row: Row = {"error": error} if error else judge.file(out)
            except Exception as failure:
                seconds, row = time.monotonic() - start, {"error": f"{type(failure).__name__}: {failure}"}
            if "error" in row:
                row["error"] = row["error"].replace(f"{folder}/", "")[:ERROR_CHARACTERS]
        row |= {"seconds": seconds, "name": name, "seed": seed}
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(row))
        shown = {key: row[key] for key in ("drop", "disagreement", "error", "seconds") if key in row}
        print(f"{setting.name} {name} seed {seed}: {shown}", flush=True)

    def _record(self, setting: Setting, name: str, seed: int) -> Path:
        return self.args.folder / "results" / setting.name / f"{name}-{seed}.json"

    def figures(self, setting: Setting) -> list[Figure]:
        """What is recorded for a row: our variants, then the peers' methods by name."""
        rows: dict[str, list[Row]] = {name: [] for name in ours.VARIANTS}
        for path in sorted((self.args.folder / "results" / setting.name).glob("*.json")):
            row = json.loads(path.read_text())
            if row["seed"] < self.args.seeds:
                rows.setdefault(row["name"], []).append(row)
        return [Figure(name, tuple(found)) for name, found in rows.items()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Accuracy after compression without retraining, beside other tools.")
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--only", default="*", metavar="GLOB", help="rows to run and print, as model/setting")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers-python", type=Path, metavar="PATH", help="the Python of the peers' environment")
    parser.add_argument("--generated", type=Path, default=SAMPLES / "generated", help="where `make samples` wrote")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for one method of a peer")
    parser.add_argument("--again", default="", metavar="GLOB", help="variants or methods to compute anew")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="GLOB", help="variants or methods to leave out of this run"
    )
    parser.add_argument("--table", action="store_true", help="print what is recorded, run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the output between the marks of this page")
    args = parser.parse_args()
    run = Run(args)
    chosen = [setting for setting in ROWS if fnmatchcase(setting.name, args.only)]
    for seed in range(0 if args.table else args.seeds):
        for setting in chosen:
            run.setting(setting, seed)
    shown = list(lines({setting: run.figures(setting) for setting in chosen}))
    if not args.peers_python and not args.table:
        shown.append("The peers were left out: --peers-python names the Python of their environment.")
    print("\n".join(shown))
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        text = f"{head}{BEGIN}\n```text\n" + "\n".join(shown) + f"\n```\n{END}{rest.split(END)[1]}"
        args.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
