"""What the search learned: how well trials were predicted before they were measured, and how the agents' training went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwc_onnx.report.origins import origin
from hwc_onnx.report.page_figures import BEST, GREY, MARKS
from hwc_onnx.report.page_parts import clear, figure, folded, paragraph, section, table
from hwc_onnx.report.run_record import RunRecord, Trial

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FEWEST = 4
"""Predicted trials from which on a correlation is shown."""
RECENT = 20
"""Trials that one value of the running correlation covers."""
LOSSES = (("critic_loss", "critic"), ("actor_loss", "actor"), ("rainbow_loss", "Rainbow"))


def learned(record: RunRecord) -> str | None:
    """Predictions beside measurements, and the agents' curves; None where the strategy predicts nothing."""
    seen = predicted(record)
    if len(seen) < FEWEST:
        return None
    parts = [
        figure("predicted", forecasts(seen), _said(seen)),
        folded("The same as a table", _listing(seen)),
    ]
    taught = [trial for trial in record.trials if "policy_weight" in trial.learning]
    if taught:
        weight = taught[-1].learning["policy_weight"]
        parts += [
            figure(
                "learning",
                curves(record),
                f"How the agents' training went, trial by trial. At the end their opinion about damages weighs {100.0 * weight:.0f} %, "
                "the surrogate's the rest: the weight follows who predicted earlier trials better.",
            ),
            folded("The same as a table", _course(record)),
        ]
    parts.append(
        paragraph(
            "Damage is the mean Kullback-Leibler divergence (or what the task has in its place) between the original's outputs and the "
            "plan's, on the search samples. Credit is what a plan gained over the solver's, scaled to between -1 and 1.",
            "soft",
        )
    )
    return section("learning", "What the search learned", *parts)


def predicted(record: RunRecord) -> list[Trial]:
    """Trials whose damage was predicted before it was measured on all samples."""
    return [trial for trial in record.trials if "damage" in trial.learning and trial.complete and not trial.failed]


def rank_correlation(trials: Sequence[Trial]) -> float:
    """Spearman's correlation of predicted and measured damage; NaN where either is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata([value(trial) for trial in trials]) for value in (_expected, _measured)]
    if any(np.ptp(each) == 0.0 for each in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def forecasts(trials: Sequence[Trial]) -> Figure:
    """Measured over predicted damage of each trial, by who proposed it; on the line both agree."""
    from plotly.graph_objects import Figure, Scatter

    made = Figure()
    values = [value(trial) for trial in trials for value in (_expected, _measured)]
    ends = [min(values) / 1.3, max(values) * 1.3]
    made.add_trace(
        Scatter(x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dash", "width": 1}, name="as predicted", hoverinfo="skip")
    )
    for name in dict.fromkeys(trial.origin for trial in trials):
        colour, mark = MARKS.get(name, (GREY, "circle"))
        found = [trial for trial in trials if trial.origin == name]
        made.add_trace(
            Scatter(
                x=[_expected(trial) for trial in found],
                y=[_measured(trial) for trial in found],
                mode="markers",
                marker={"size": 8, "color": colour, "symbol": mark},
                name=origin(name),
                customdata=[f"trial {trial.number}" for trial in found],
                hovertemplate="%{customdata}: %{x:.3g} predicted, %{y:.3g} measured<extra>" + origin(name) + "</extra>",
            )
        )
    made.update_xaxes(title_text="damage predicted", type="log")
    made.update_yaxes(title_text="damage measured", type="log")
    return clear(made, 400)


def curves(record: RunRecord) -> Figure:
    """Running correlation of the predictions, weight of the policy's opinion, credit and losses over the trials."""
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    titles = (f"rank correlation, last {RECENT} trials", "weight of the policy's opinion", "credit of the measured plan", "losses")
    made: Figure = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.07, subplot_titles=titles)
    running = _running(record)
    made.add_trace(Scatter(x=[at for at, _ in running], y=[value for _, value in running], line_color=BEST, showlegend=False), row=1, col=1)
    for row, name, mode in ((2, "policy_weight", "lines"), (3, "credit", "markers")):
        found = _of(record, name)
        made.add_trace(
            Scatter(x=[at for at, _ in found], y=[value for _, value in found], mode=mode, line_color=BEST, showlegend=False), row=row, col=1
        )
    for (name, words), colour in zip(LOSSES, ("#4269d0", "#d9480f", "#3ca951"), strict=True):
        found = _of(record, name)
        made.add_trace(Scatter(x=[at for at, _ in found], y=[value for _, value in found], line_color=colour, name=words), row=4, col=1)
    made.update_xaxes(title_text="trial", row=4, col=1)
    made.update_annotations(font_size=12, x=0.0, xanchor="left")
    return clear(made, 620, margin={"l": 10, "r": 10, "t": 60, "b": 45}, legend={"orientation": "h", "y": -0.12, "x": 0.0})


def _running(record: RunRecord) -> list[tuple[int, float]]:
    """Rank correlation of the latest predictions after each trial."""
    seen = predicted(record)
    return [(trial.number, rank_correlation(seen[max(end - RECENT, 0) : end])) for end, trial in enumerate(seen, 1) if end >= FEWEST]


def _of(record: RunRecord, name: str) -> list[tuple[int, float]]:
    """A figure of the agents after each trial: it is kept with the next one."""
    return [(trial.number - 1, trial.learning[name]) for trial in record.trials if name in trial.learning]


def _said(trials: Sequence[Trial]) -> str:
    ratio = np.exp(np.median(np.abs(np.log([_measured(trial) / _expected(trial) for trial in trials]))))
    return (
        f"{len(trials)} plans were predicted before they were measured: rank correlation {rank_correlation(trials):.2f}, and half of "
        f"them within a factor of {ratio:.2f}."
    )


def _listing(trials: Sequence[Trial]) -> str:
    rows = [(trial.number, origin(trial.origin), f"{_expected(trial):.4g}", f"{_measured(trial):.4g}") for trial in trials]
    return table("Damage of each trial", ("trial", "proposed by", "predicted", "measured"), rows, words=(1,))


def _course(record: RunRecord) -> str:
    """The curves as a table, a dash where a trial has no value."""
    columns = [dict(_running(record)), *(dict(_of(record, name)) for name in ("policy_weight", "credit", *(name for name, _ in LOSSES)))]
    trials = sorted({number for column in columns for number in column})
    rows = [(number, *(f"{column[number]:.3g}" if number in column else "-" for column in columns)) for number in trials]
    head = ("trial", "rank correlation", "weight of the policy", "credit", *(f"{words} loss" for _, words in LOSSES))
    return table("Training, trial by trial", head, rows)


def _expected(trial: Trial) -> float:
    return max(trial.learning["damage"], 1e-7)


def _measured(trial: Trial) -> float:
    return max(trial.damage, 1e-7)

