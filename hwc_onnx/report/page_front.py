"""The section of a run's page on its other plans: what more or less accuracy would cost, and the command that makes each file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwc_onnx.report.origins import origin
from hwc_onnx.report.page_commands import apply_command, is_complete
from hwc_onnx.report.page_figures import BAD, GOOD, GREY
from hwc_onnx.report.page_parts import clear, figure, folded, paragraph, section, text
from hwc_onnx.report.page_search import ACCEPTED
from hwc_onnx.report.quantities import percent, points, unit_of
from hwc_onnx.report.run_record import FrontPoint, RunRecord, Trial

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

REACH = 0.02
"""Share of an axis from a point of the front within which other points keep still: of two marks the smaller would be hovered."""


def front(record: RunRecord) -> str | None:
    """Other plans of the search, each with the command that makes its file."""
    if not record.front:
        return None
    rows = "\n".join(
        f'<tr id="plan-{text(point.plan.name)}" data-command="{text(apply_command(record, point.plan))}">'
        f'<th scope="row">{text(point.plan.name)}</th><td>{percent(point.energy)}</td><td>{points(point.drop)}</td>'
        f'<td class="words">{text(origin(point.origin))}</td>'
        f'<td class="words">{verdict_of(point)}</td>'
        f'<td><button type="button" data-plan="{text(point.plan.name)}">command</button></td></tr>'
        for point in record.front
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("plan", "energy vs INT8", "drop", "proposed by", "", ""))
    listing = (
        '<div class="wide" tabindex="0" role="region" aria-label="Plans of the front"><table><caption>Plans of the front</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
    )
    said = (
        f"{len(record.front)} plans that no other beats in both energy and drop on the search samples. Click one for its command. "
        f"Accepted: {ACCEPTED}. The holdout has the last word on those that the final gate looked at."
    )
    first = min(record.front, key=lambda point: (point.passed is not True, not point.good, point.energy))
    return section(
        "front",
        "Other trade-offs",
        figure("front", drawn(record), said),
        f'<p id="picked" aria-live="polite">Plan {text(first.plan.name)}:</p>\n<pre id="command" tabindex="-1">{text(apply_command(record, first.plan))}</pre>',
        paragraph(
            ("" if is_complete(record) else "Put what the run was given in Python in place of the words in capitals. ")
            + "Paths are those of the folder in which this page was written. Drops here are those of the search samples; apply measures "
            "its file on the holdout.",
            "soft",
        ),
        folded("All plans", listing),
    )


def verdict_of(point: FrontPoint) -> str:
    """What search and gate said of a plan."""
    if point.passed is not None:
        return "passed on the holdout" if point.passed else "failed on the holdout"
    return "accepted" if point.accepted else "not accepted"


def drawn(record: RunRecord) -> Figure:
    """Every plan measured on all search samples, and the fronts; points of the front name their plan when clicked."""
    from plotly.graph_objects import Figure, Scatter

    made, unit, limit = Figure(), unit_of(record.result["metric"]["name"]), record.limit
    seen = [trial for trial in record.trials if trial.complete and not trial.failed]
    near = [trial.drop for trial in seen if trial.energy <= 1.0]
    top = max(2.5 * (limit or 1.0), 0.5)
    low, high = min([0.0, *near]) - 0.2, min(max([top, *near]), top) + 0.2
    apart, close = parted(seen, record.front, max((trial.energy for trial in seen), default=1.0), high - low)
    for found, how in ((close, {"hoverinfo": "skip", "showlegend": False}), (apart, _hovered(apart, unit))):
        made.add_trace(
            Scatter(
                x=[100.0 * trial.energy for trial in found],
                y=[trial.drop for trial in found],
                mode="markers",
                marker={"size": 5, "color": GREY, "opacity": 0.5},
                name="plans measured",
                **how,
            )
        )
    for good, name, colour, mark in ((False, "front, not accepted or failed on the holdout", BAD, "x"), (True, "front, accepted or passed on the holdout", GOOD, "circle")):
        shown = [point for point in record.front if point.good is good]
        made.add_trace(
            Scatter(
                x=[100.0 * point.energy for point in shown],
                y=[point.drop for point in shown],
                mode="markers",
                marker={"size": 11, "color": colour, "symbol": mark},
                name=name,
                customdata=[point.plan.name for point in shown],
                text=[verdict_of(point) for point in shown],
                hovertemplate="%{customdata}: %{x:.1f} % of INT8's energy, %{y:.2f} " + unit + "<br>%{text}; click for the command<extra></extra>",
            )
        )
    if limit is not None:
        made.add_hline(y=limit, line={"color": BAD, "dash": "dash", "width": 1.5}, annotation_text=f"limit {limit:.2f}")
    made.update_yaxes(title_text=f"{unit} lost, search samples", range=[low, high])
    made.update_xaxes(title_text="energy, % of INT8", rangemode="tozero")
    return clear(made, 430)


def parted(trials: Sequence[Trial], front: Sequence[FrontPoint], width: float, height: float) -> tuple[list[Trial], list[Trial]]:
    """Trials that stand apart from the front, and those so close to a point of it that they would be hovered in its place; the
    points themselves are neither. `width` and `height` are the spans of the axes.
    """
    own = {point.plan.stem for point in front}
    apart: list[Trial] = []
    close: list[Trial] = []
    for trial in trials:
        if f"{trial.number:04d}" in own:
            continue
        covered = any(
            abs(trial.energy - point.energy) <= REACH * width and abs(trial.drop - point.drop) <= REACH * height for point in front
        )
        (close if covered else apart).append(trial)
    return apart, close


def _hovered(trials: Sequence[Trial], unit: str) -> dict[str, object]:
    return {
        "customdata": [f"trial {trial.number}" for trial in trials],
        "hovertemplate": "%{customdata}: %{x:.1f} % of INT8's energy, %{y:.2f} " + unit + "<extra></extra>",
    }
