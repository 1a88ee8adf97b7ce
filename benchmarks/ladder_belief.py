"""How much damage the holdout bore, over what the search made expect: what the gate's ladder believes (hwc_onnx/search/ladder.py), looked at afterwards.

    python benchmarks/ladder_belief.py FOLDER        # the FOLDER of equal_budget.py on the machine that ran it: its studies are needed

For each finished search the ladder is made again from its trials. The last plan that passed bounds what the holdout bore from below,
the first that failed from above (`-`: all passed). Ratios are to the damage at which the search samples show the drop that the gate can let
pass, before the refitted plans are heard; behind them stands the ratio that their drops on the search samples tell. Last comes the log-normal distribution
that makes these intervals most likely, with a tenth of the searches far off as the ladder believes, for each network and for all: searches of a network share
its split, so their ratios are hardly independent. `power` is how far the logarithm should follow what the refitted plans tell by the same likelihood.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from scipy.special import ndtr

from hwc_onnx.search.gate import MOST_LOOKS, Judging
from hwc_onnx.search.history import History
from hwc_onnx.search.ladder import HEARD, MIDDLE, SPREADS, Ladder
from hwc_onnx.search.space import Space

SAME = 1e-5
"""Difference of energies that a line of `rows.jsonl` rounds away."""


class Numbers:
    """Stands for the search's space: choices are told apart, not read."""

    def choices_of(self, params: dict[str, Any]) -> np.ndarray:
        """One number for each parameter."""
        return np.array([params[name] for name in sorted(params)], dtype=np.int64)


def history_of(study: Path, limit: float) -> History:
    """The trials in a search's folder."""
    found = History(cast("Space", Numbers()), limit)
    found.sync(optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(study / "study.journal")))))
    return found


def options(description: str) -> argparse.ArgumentParser:
    """What every look at finished searches is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--holdout", type=int, default=10_000, help="holdout samples of these searches")
    parser.add_argument("--max-drop", type=float, default=1.0)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return parser


def interval(folder: Path, holdout: int, limit: float) -> tuple[float, float, float, float] | None:
    """Damage of the last plan that passed (0: none did) and of the first that did not, the damage expected before the refitted plans are heard, and by
    which factor they say that it is larger; None where there was no plan to judge, or where an earlier version's gate let one pass that this ladder leaves out.
    """
    row = json.loads((folder / "row.json").read_text(encoding="utf-8"))
    history = History(cast("Space", Numbers()), limit)
    for record in history_of(folder, limit).records:  # the gate of equal_budget.py sees the trials within the budget alone
        if history.evaluations + record.counted <= row["evaluations"]:
            history.append(record)
    ladder = Ladder.of(history, history.records[0].choices, Judging(holdout))
    steps = ladder.climbed(MOST_LOOKS)
    if not steps:
        return None
    saved = row["delivered_reduction_vs_int8"] or 0.0
    passed = [i for i, step in enumerate(steps) if abs(1.0 - step.outcome.energy - saved) < SAME]
    if saved > 0.0 and not passed:
        return None
    damages = [0.0, *(step.outcome.damage for step in steps), np.inf]
    place = passed[-1] + 1 if passed else 0
    before = Ladder.of(history.searched(), history.records[0].choices, Judging(holdout)).belief.expected
    return damages[place], damages[place + 1], before, (ladder.belief.expected / before) ** (1.0 / HEARD)


def likeliest(intervals: np.ndarray) -> tuple[float, float, float]:
    """Median, standard deviation of the logarithm and the logarithm of the likelihood, [n, 2] bounds of the logarithm."""
    (_, _), (far, wide) = SPREADS

    def likelihood(middle: float, spread: float) -> float:
        below = (1 - far) * ndtr((intervals - middle) / spread) + far * ndtr((intervals - middle) / wide)
        return float(np.log(np.maximum(below[:, 1] - below[:, 0], 1e-12)).sum())

    grid = [(float(m), float(s)) for m in np.linspace(-1.0, 1.5, 51) for s in np.arange(0.2, 1.05, 0.1)]
    middle, spread = max(grid, key=lambda one: likelihood(*one))
    return float(np.exp(middle)), spread, likelihood(middle, spread)


def lines(args: argparse.Namespace) -> Iterator[str]:
    """One for each search, then the fit."""
    found: dict[str, list[list[float]]] = {}
    for path in sorted(args.folder.glob("work/*/seed-*/*/row.json")):
        one = interval(path.parent, args.holdout, args.max_drop)
        name = f"{path.parts[-4]:<46} {path.parts[-3]} {path.parts[-2]:<20}"
        if one is None:
            yield f"{name} nothing to judge, or judged on another ladder"
            continue
        low, high, expected, told = one
        with np.errstate(divide="ignore"):
            found.setdefault(path.parts[-4].split("-")[0], []).append([*np.log(np.array([low, high]) / expected), float(np.log(told))])
        yield f"{name} {low / expected:5.2f} .. {f'{high / expected:.2f}' if np.isfinite(high) else '-':<5} told {told:.2f}"
    if not found:
        return
    everything = np.concatenate([np.array(rows) for rows in found.values()])
    fits = {power: likeliest(everything[:, :2] - power * everything[:, 2:]) for power in np.arange(11) / 10.0}
    for network, rows in found.items():
        middle, spread, _ = likeliest(np.array(rows)[:, :2] - HEARD * np.array(rows)[:, 2:])
        yield f"{network}: {len(rows)} searches, median {middle:.2f}, standard deviation of the logarithm {spread:.1f}"
    middle, spread, _ = likeliest(everything[:, :2] - HEARD * everything[:, 2:])
    yield f"all, refitted plans heard: median {middle:.2f}, standard deviation of the logarithm {spread:.1f} (believed: {MIDDLE}, {SPREADS[0][1]})"
    power = max(fits, key=lambda one: fits[one][2])
    yield f"power {power:.1f} (believed: {HEARD}), likelihood {np.exp(fits[power][2] - fits[0.0][2]):.3g} times that of 0"


def main() -> None:
    """Command line."""
    for line in lines(options("What the holdout bore, over what the search made expect.").parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
