"""The report of a real run: complete, self-contained, escaped, and refused where the folder is no finished run."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

import hwc_onnx
from hwc_onnx.errors import UsageError
from hwc_onnx.report import page_figures
from hwc_onnx.report.page import page, write_report
from hwc_onnx.report.page_energy import component_sums, components, nodes
from hwc_onnx.report.page_figures import best_so_far
from hwc_onnx.report.page_front import drawn, front, parted
from hwc_onnx.report.page_learning import predicted, rank_correlation
from hwc_onnx.report.page_search import gains
from hwc_onnx.report.page_sections import accuracy, own_interval
from hwc_onnx.report.run_record import RunRecord
from tests.report.conftest import EVIL
from tests.report.test_profile_figure import check_products


class Read(HTMLParser):
    """What a browser would build: headings, ids, links, what is loaded, scripts, and tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.scripts = 0
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loaded += [found[name] or "" for name in ("src", "data", "poster", "srcset") if name in found]
        if tag == "a":
            self.links.append(found.get("href") or "")
        elif "href" in found and tag != "a":
            self.loaded.append(found["href"] or "")
        if "id" in found:
            self.ids.append(found["id"] or "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if found.get("role") == "img":
            self.images.append(found)
        self.scripts += tag == "script"


def test_the_page_is_complete_and_loads_nothing(run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    read = Read(text)
    assert [source for source in read.loaded if source != "data:,"] == []
    assert all(link.startswith("#") and link[1:] in read.ids for link in read.links)
    assert len(read.ids) == len(set(read.ids))
    assert read.headings[0] == 1 and all(b - a <= 1 for a, b in zip(read.headings, read.headings[1:], strict=False))
    assert read.images and all(image["aria-label"] for image in read.images)
    for name in ("verdict", "accuracy", "energy", "layers", "front", "search", "learning", "size", "why", "limits", "provenance"):
        assert name in read.ids
    assert len(text) < 6e6


def test_every_figure_has_its_numbers_in_a_table(run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text(encoding="utf-8").split('<main id="content">')[1]
    after = re.split(r'<div id="figure-', text)[1:]
    assert len(after) >= 9
    for part in after:
        beside = re.split(r"<figure>|</section>", part)[0]
        assert re.search("<caption>.*<tbody>", beside, re.DOTALL), part[: part.index('"')]


def test_parts_of_an_energy_show_products_that_can_be_checked_by_hand(run_folder: Path) -> None:
    record = RunRecord.load(run_folder)
    for made in (components(record), nodes(record)):
        assert sum(check_products(shown.replace("<br>", " ")) for trace in made.data for shown in trace.customdata) > 20
    silent = [{**payload, "nodes": [{**node, "terms": []} for node in payload["nodes"]]} for payload in (record.before, record.after)]
    older = nodes(replace(record, before=silent[0], after=silent[1]))  # a run folder of an earlier version
    assert any("read, " in shown for trace in older.data for shown in trace.customdata)


def test_points_beneath_the_front_keep_still(run_folder: Path) -> None:
    record = RunRecord.load(run_folder)
    point = record.front[0]
    one = replace(record.trials[0], number=99_999, energy=point.energy, drop=point.drop)
    far = replace(one, number=99_998, energy=point.energy + 0.5)
    own = replace(one, number=int(point.plan.stem))
    assert parted([one, far, own], record.front[:1], 1.0, 1.0) == ([far], [one])


def test_float_has_the_interval_of_a_proportion(run_folder: Path) -> None:
    low, high = own_interval("top1", 0.9, 400) or (0.0, 0.0)
    assert low == pytest.approx(-2.57, abs=0.01) and high == pytest.approx(3.33, abs=0.01)  # 86.67 % to 92.57 %
    assert own_interval("cosine", 0.9, 400) is own_interval("agreement", 1.0, 400) is own_interval("top1", None, 400) is None
    record = RunRecord.load(run_folder)
    metric = {**record.result["metric"], "name": "top1", "original": 0.9, "n_holdout": 400}
    text = page(replace(record, result={**record.result, "metric": metric}))
    assert "<td>90.00%</td><td>+0.00</td><td>-2.57 .. +3.33</td>" in text


def test_predictions_are_those_made_before_the_measurement(run_folder: Path) -> None:
    record = RunRecord.load(run_folder)
    seen = predicted(record)
    assert 4 <= len(seen) < len(record.trials)  # seeds and closing plans are nobody's prediction
    damages = [trial.learning["damage"] for trial in seen]
    order = [float(np.argsort(np.argsort(values))[i]) for values in (damages, [t.damage for t in seen]) for i in range(len(seen))]
    half = len(order) // 2
    assert rank_correlation(seen) == pytest.approx(np.corrcoef(order[:half], order[half:])[0, 1])
    assert rank_correlation([replace(trial, damage=-trial.learning["damage"] + 1e3) for trial in seen]) == pytest.approx(-1.0)
    assert all(0.0 < trial.learning["policy_weight"] < 1.0 for trial in seen)
    assert {"credit", "critic_loss", "rainbow_loss"} <= seen[-1].learning.keys()
    assert len(set(damages)) > 1


def test_names_of_the_model_are_escaped(run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    assert EVIL not in text and "&lt;script&gt;alert(1)" in text
    assert "alert(1)</script>" not in text.replace("\\u003c", "<").split("<body>")[0]


def test_figures_of_the_page_are_those_of_the_run(run_folder: Path) -> None:
    record = RunRecord.load(run_folder)
    result = json.loads((run_folder / "result.json").read_text())
    for payload, kind in ((record.before, "baseline_int8"), (record.after, "compressed")):
        assert sum(component_sums(payload).values()) == pytest.approx(result["energy_pj"][kind])
    counted = sum(tried for tried, _ in gains(record).values())
    assert counted == len(record.trials)
    best = best_so_far(record)
    assert sum(gain for _, gain in gains(record).values()) == pytest.approx(1.0 - best[-1][1])
    accepted = [trial.energy for trial in record.trials if trial.accepted]
    assert best[-1][1] == min(accepted)
    assert [point.plan.is_file() for point in record.front] == [True] * len(record.front)


def test_the_page_begins_with_a_plan_that_the_gate_let_pass_and_marks_one_that_failed(run_folder: Path) -> None:
    record = RunRecord.load(run_folder)
    assert any(point.passed for point in record.front)
    best = min((point for point in record.front if point.passed), key=lambda point: point.energy)
    assert f"Plan {best.plan.name}:" in str(front(record))
    # the same plan, had the gate refused it
    refused = replace(record, front=tuple(replace(one, passed=False) if one is best else one for one in record.front))
    assert f"Plan {best.plan.name}:" not in str(front(refused)) and "failed on the holdout" in str(front(refused))
    assert "<td class=\"words\">failed on the holdout" not in str(front(record))
    good = [trace for trace in drawn(refused).data if trace.name == "front, accepted or passed on the holdout"]
    assert best.plan.name not in good[0].customdata
    assert replace(best, accepted=False).good, "the holdout has the last word"


def test_one_plan_is_marked_as_written_even_where_others_have_the_same_accuracy(run_folder: Path) -> None:
    record = RunRecord.load(run_folder)
    passed = [look for look in record.result["looks"] if look["passed"]]
    assert record.result["output"]["kind"] == "compressed" and passed
    same = {name: passed[-1][name] for name in ("at_disable_all", "at_enable_all")}
    alike = replace(record, result=record.result | {"looks": [passed[0] | same, *record.result["looks"]]})
    shown = str(accuracy(alike))
    assert shown.count(f"(trial {passed[-1]['trial']}, written)") >= 1 and len(set(re.findall(r"plan \d+ \([^)]*written\)", shown))) == 1


def test_the_report_can_be_written_again_and_elsewhere(run_folder: Path, tmp_path: Path) -> None:
    place = write_report(run_folder, tmp_path / "again.html")
    assert place.read_bytes() == (run_folder / "report.html").read_bytes()
    assert page(RunRecord.load(run_folder)) == place.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("result.json", None, "holds no finished run"),
        ("result.json", b"{", "result.json: cannot be read .not JSON"),
        ("profile.json", None, "profile.json: cannot be read"),
        ("profile.json", b'{"schema": 7}', "not of schema 1"),
        ("plan.json", b"\xff\xfe", "plan.json: cannot be read .not text"),
        ("study.journal", b"no journal", "study.journal: cannot be read"),
        ("pareto.csv", b"a,b\n1,2\n", "pareto.csv: cannot be read"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused(
    run_folder: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("cache"))
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    with pytest.raises(UsageError, match=said):
        write_report(copy)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        RunRecord.load(tmp_path / "nope")


@pytest.fixture(scope="module")
def other_run(run_folder: Path) -> Path:
    """The same task, searched at random."""
    home = run_folder.parent
    hwc_onnx.compress(
        home / "m.onnx", data=home / "x.npz", metric="cosine", max_drop=2.0, trials=6, output=home / "other.onnx",
        run_dir=home / "random", sampler="random",
    )  # fmt: skip
    return home / "random"


def test_searches_of_other_runs_are_drawn_beside(run_folder: Path, other_run: Path, tmp_path: Path) -> None:
    place = write_report(run_folder, tmp_path / "both.html", [other_run])
    record = RunRecord.load(run_folder).with_beside([other_run])
    names = [trace.name for trace in page_figures.search(record).data]
    assert {"best accepted, composite, seed 0", "best accepted, random, seed 0"} <= set(names)
    written = place.read_text(encoding="utf-8")
    assert "Runs of the same task" in written
    assert "Runs of the same task" not in page(RunRecord.load(run_folder))


@pytest.mark.parametrize(("field", "said"), [("model_sha256", "another model"), ("max_drop", "another limit")])
def test_runs_of_another_task_are_not_drawn_beside(
    run_folder: Path, other_run: Path, tmp_path: Path, field: str, said: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(other_run, copy, ignore=shutil.ignore_patterns("cache"))
    config = yaml.safe_load((copy / "config.resolved.yaml").read_text(encoding="utf-8"))
    config["run"][field] = "other"
    (copy / "config.resolved.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(UsageError, match=f"is a run with {said}"):
        write_report(run_folder, tmp_path / "no.html", [copy])
    assert not (tmp_path / "no.html").exists()
