"""What benchmarks/recovery.py prints: one line per setting, then every peer and every photograph interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from recovery_peers.figures import Figure, best, interval, misses
from recovery_peers.ours import PLAIN, VARIANTS
from recovery_peers.settings import Setting

Results = Mapping[Setting, Sequence[Figure]]
MISSED = "!"


def lines(results: Results) -> Iterator[str]:
    """The whole output."""
    yield "Points of accuracy lost (% of answers that differ from float's), medians over seeds; ! misses the bar"
    yield ""
    labelled = {setting: figures for setting, figures in results.items() if setting.agreement is None}
    yield from _summary(labelled)
    for setting, figures in results.items():
        if setting.agreement is not None:
            yield ""
            yield from _agreement(setting, figures)
    yield ""
    yield "Every tool: median (lowest .. highest over seeds) points lost, % that differ, seconds to quantize"
    for setting, figures in labelled.items():
        if any(figure.rows for figure in figures):
            yield ""
            yield setting.name
            yield from (_every(figure) for figure in figures if figure.rows)


def _summary(results: Results) -> Iterator[str]:
    yield f"{'setting':46} {'bar':30}" + "".join(f"{name:>16}" for name in VARIANTS) + "  best peer"
    for setting, figures in results.items():
        ours, peers = _sides(figures)
        plain, peer = ours[PLAIN], best(peers)
        cells = []
        for name in VARIANTS:
            missed = name != PLAIN and ours[name].good and misses(setting, ours[name], plain, peer)
            cells.append(f"{_lost(ours[name])}{MISSED if missed else ' '}")
        beside = f"{_lost(peer)} {peer.name}" if peer is not None else "none"
        yield f"{setting.name:46} {setting.bar:30}" + "".join(f"{text:>16}" for text in cells) + f"  {beside}"


def _lost(figure: Figure) -> str:
    if not figure.good:
        return "failed" if figure.rows else "-"
    return f"{figure.median('drop'):+.2f} ({figure.median('disagreement'):.2f})"


def _agreement(setting: Setting, figures: Sequence[Figure]) -> Iterator[str]:
    """One line per variant and method, with the difference to the best peer on the same photographs."""
    ours, peers = _sides(figures)
    peer = best(peers)
    ran = next((figure for figure in figures if figure.good), None)
    if ran is not None:
        of = f"{len(ran.same)} crops of {ran.photographs} photographs"
        yield f"{setting.name}: % of answers that are float's on {of}, 95 % interval over photographs"
        yield ""
    yield f"bar: {setting.bar}; best peer: {peer.name if peer is not None else 'none'}"
    for figure in figures:
        if not figure.good:
            if figure.rows:
                yield f"{figure.name:28} {figure.error}"
            continue
        missed = figure.name in ours and figure.name != PLAIN and misses(setting, figure, ours[PLAIN], peer)
        low, high = interval(figure.same, figure.photographs)
        text = f"{figure.name:28} {100 - figure.median('disagreement'):6.2f}{MISSED if missed else ' '} ({low:.1f} .. {high:.1f})"
        if peer is not None and figure is not peer:
            low, high = interval(figure.same - peer.same, figure.photographs)
            mean = 100 * float((figure.same - peer.same).mean())
            text += f"  to best peer {mean:+.2f} ({low:+.1f} .. {high:+.1f})"
        yield f"{text}  {figure.median('seconds'):.0f} s"


def _every(figure: Figure) -> str:
    if not figure.good:
        return f"  {figure.name:30} {figure.error}"
    drops = [row["drop"] for row in figure.good]
    text = f"{figure.median('drop'):+6.2f} ({min(drops):+.2f} .. {max(drops):+.2f}) {figure.median('disagreement'):6.2f} %"
    failed = f"  {len(figure.rows) - len(figure.good)} failed: {figure.error}" if figure.error else ""
    return f"  {figure.name:30} {text} {figure.median('seconds'):6.0f} s{failed}"


def _sides(figures: Sequence[Figure]) -> tuple[dict[str, Figure], list[Figure]]:
    """Ours by name, and the peers'."""
    ours = {figure.name: figure for figure in figures if figure.name in VARIANTS}
    return ours, [figure for figure in figures if figure.name not in VARIANTS]
