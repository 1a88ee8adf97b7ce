"""The main job on models that come in parts or with open sizes: the written file stands on its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import hwc_onnx
from hwc_onnx.options import Options
from hwc_onnx.plan import CompressionPlan
from tests.cli.tiny_case import tiny_case

MODEL, SAMPLES = tiny_case(np.random.default_rng(0))
SHAPES = {"x": (1, 1, 8, 8)}


def compress(model: object, folder: Path, **options: object) -> hwc_onnx.result.Result:
    chosen = {"trials": 2, "max_drop": 60.0, "gate": "point"} | options
    return hwc_onnx.compress(model, data=SAMPLES, output=folder / "out.onnx", **chosen)


@pytest.fixture
def in_parts(tmp_path: Path) -> Path:
    """The tiny model with its weights in a second file."""
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "tiny.onnx"
    onnx.save_model(onnx.ModelProto.FromString(MODEL.SerializeToString()), path, save_as_external_data=True,
                    location="tiny.bin", size_threshold=0)  # fmt: skip
    return path


def test_compress_with_external_data_is_checked_against_what_was_loaded(in_parts: Path, tmp_path: Path) -> None:
    compress(in_parts, tmp_path)
    report = hwc_onnx.verify(tmp_path / "out.onnx", against=in_parts)
    assert report.passed, report.checks
    assert report.original_bytes == sum(file.stat().st_size for file in in_parts.parent.iterdir())


def test_pareto_front_is_that_of_all_accepted_trials_by_brute_force(tmp_path: Path) -> None:
    result = compress(MODEL, tmp_path, trials=8)
    assert result.study is not None
    storage = JournalStorage(JournalFileBackend(str(result.study)))
    outcomes = [trial.user_attrs["outcome"] for trial in optuna.load_study(study_name=None, storage=storage).trials]
    seen = {(o["energy"], o["drop_points"]) for o in outcomes if o["complete"] and o["drop_points"] <= 60.0}
    beaten = {a for a in seen for b in seen if a != b and b[0] <= a[0] and b[1] <= a[1]}
    assert len(seen) < len(outcomes) or beaten
    assert result.pareto == tuple(sorted(seen - beaten))
    rows = next(tmp_path.glob("*.hwc/pareto.csv")).read_text().splitlines()
    assert rows[0] == "energy_vs_int8,drop_points,accepted,origin,plan,holdout"
    accepted = [row.split(",") for row in rows[1:] if row.split(",")[2] == "true"]
    assert [(float(energy), float(drop)) for energy, drop, *_ in accepted] == list(result.pareto)


def test_each_row_of_the_front_is_a_plan_that_apply_turns_into_a_file_of_that_energy(tmp_path: Path) -> None:
    compress(MODEL, tmp_path, trials=14, max_drop=60.0)
    (folder,) = tmp_path.glob("*.hwc")
    rows = [row.split(",") for row in (folder / "pareto.csv").read_text().splitlines()[1:]]
    assert len(rows) > 1 and len(list((folder / "pareto").iterdir())) == len(rows)
    for energy, _, _, _, name, _ in rows:
        applied = hwc_onnx.apply_plan(MODEL, plan=folder / name, data=SAMPLES)
        assert applied.cost.total / applied.baseline.total == pytest.approx(float(energy), rel=1e-9)


def test_the_front_knows_what_the_gate_said_of_each_plan(tmp_path: Path) -> None:
    result = compress(MODEL, tmp_path, trials=14, max_drop=60.0)
    looks = {look["trial"]: look["passed"] for look in result.to_json()["looks"] if look["trial"] is not None}
    (folder,) = tmp_path.glob("*.hwc")
    rows = [row.split(",") for row in (folder / "pareto.csv").read_text().splitlines()[1:]]
    said = {int(Path(row[4]).stem): row[5] for row in rows}
    assert {trial: word for trial, word in said.items() if word} == {
        trial: "passed" if passed else "failed" for trial, passed in looks.items() if trial in said
    }
    assert "passed" in said.values() and "" in said.values()


def test_plan_is_that_of_the_best_file_where_the_original_was_written(tmp_path: Path) -> None:
    result = compress(MODEL, tmp_path, trials=1, max_drop=0.0, gate="upper")
    assert result.to_json()["output"]["kind"] == "original" and result.plan is None and result.pareto == ()
    (folder,) = tmp_path.glob("*.hwc")
    named = {entry.key: entry.value for entry in onnx.load(folder / "best.onnx").metadata_props}["hwc.plan"]
    assert CompressionPlan.load(folder / "plan.json").digest() == named


def test_int8_beyond_the_limit_is_said_after_the_first_trial_and_a_search_without_plans_says_how_near_it_came(tmp_path: Path) -> None:
    said: list[str] = []
    result = compress(
        MODEL, tmp_path, trials=6, max_drop=0.0, gate="point", on_event=lambda event: said.append(getattr(event, "text", str(event)))
    )
    assert result.to_json()["output"]["kind"] != "compressed"
    first = next(place for place, text in enumerate(said) if text.startswith("INT8 without pruning already loses"))
    assert sum("evaluations=" in text for text in said[:first]) == 1 and "--max-drop" in said[first]
    assert any("refused the mildest has" in text and "limit 0.00" in text for text in said)
    calm: list[str] = []
    compress(MODEL, tmp_path, fresh=True, on_event=lambda event: calm.append(getattr(event, "text", "")))
    assert not any("INT8 without pruning" in text for text in calm)


def test_original_written_elsewhere_takes_its_external_data_along(in_parts: Path, tmp_path: Path) -> None:
    result = compress(in_parts, tmp_path, trials=1, max_drop=0.0, gate="upper")
    assert result.to_json()["output"]["kind"] == "original"
    found = hwc_onnx.evaluate(tmp_path / "out.onnx", data=SAMPLES)
    assert found.value == hwc_onnx.evaluate(in_parts, data=SAMPLES).value == 1.0


def test_saved_result_is_the_written_file(tmp_path: Path) -> None:
    result = compress(MODEL, tmp_path)
    assert result.save(tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_model_with_open_sizes_is_evaluated_and_verified_at_the_given_ones(tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(MODEL.SerializeToString())
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    compress(model, tmp_path, input_shapes=SHAPES)
    written = tmp_path / "out.onnx"
    assert hwc_onnx.evaluate(written, data=SAMPLES, against=model).n_samples == 1200  # sizes come from the samples
    assert hwc_onnx.evaluate(written, data=SAMPLES, against=model, input_shapes=SHAPES).n_samples == 1200
    assert hwc_onnx.verify(written, against=model, input_shapes=SHAPES).passed


def test_continued_run_is_never_behind_its_best_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compress(MODEL, tmp_path)
    best = next(tmp_path.glob("*.hwc/best.onnx"))
    before = best.read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwc_onnx.job.running.Running.objective", stop)
    with pytest.raises(KeyboardInterrupt):
        compress(MODEL, tmp_path, trials=3)
    assert best.read_bytes() == before


def test_config_names_a_callable_metric_as_the_next_process_will() -> None:
    def score(outputs: object, labels: object) -> float:
        return 0.0

    named = Options(metric=score).config("", "", "")["metric"]
    assert named.endswith("score") and "0x" not in named


def test_same_data_in_another_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "samples.npz", **SAMPLES)
        applied = hwc_onnx.apply_plan(
            MODEL, plan=hwc_onnx.uniform_plan(MODEL, "w8a8"), data=str(tmp_path / name / "samples.npz")
        )
        contents.append(applied.save(tmp_path / name / "out.onnx").path.read_bytes())
    assert contents[0] == contents[1]


def test_applied_plan_of_a_run_with_its_own_split_sizes_gives_the_same_file_without_a_note(tmp_path: Path) -> None:
    found = compress(MODEL, tmp_path, calibration_samples=100, search_samples=200)
    assert found.plan is not None
    again = hwc_onnx.apply_plan(MODEL, plan=found.plan, data=SAMPLES)
    assert again.plan.calibration.samples == 100
    assert not [note for note in again.notes if "other calibration samples" in note]
    stored = [{t.name: t.raw_data for t in proto.graph.initializer} for proto in (found.proto, again.proto)]
    assert stored[0] == stored[1]
    other = hwc_onnx.apply_plan(MODEL, plan=found.plan, data={name: array[::-1] for name, array in SAMPLES.items()})
    assert [note for note in other.notes if "other calibration samples" in note]


def test_options_take_one_name_for_a_list_and_numbers_of_numpy() -> None:
    options = Options(include="Gemm", algorithms="l1", seed=np.int64(3), max_drop=np.float64(0.5))
    assert (options.include, options.algorithms, options.drop_limit) == (("Gemm",), ("l1",), (0.5, False))
    assert type(options.config("", "", "")["seed"]) is int


def test_without_data_compress_and_apply_leave_out_the_same_repair(tmp_path: Path) -> None:
    chosen = {"data": "synthetic:300", "trials": 2, "max_drop": 60.0, "gate": "point"}
    result = hwc_onnx.compress(MODEL, output=tmp_path / "out.onnx", **chosen)
    assert result.plan.calibration.repairs == ("equalize", "attention", "bias", "statistics", "normalizations")
    again = hwc_onnx.apply_plan(MODEL, plan=result.plan, data="synthetic:300")
    assert again.plan.calibration == result.plan.calibration
    stored = [{t.name: t.raw_data for t in proto.graph.initializer} for proto in (result.proto, again.proto)]
    assert stored[0] == stored[1]
    fresh = hwc_onnx.apply_plan(MODEL, plan=hwc_onnx.uniform_plan(MODEL, "w4a4"), data="synthetic:300")
    asked = hwc_onnx.apply_plan(MODEL, plan=hwc_onnx.uniform_plan(MODEL, "w4a4"), data="synthetic:300", repairs=["absorb"])
    real = hwc_onnx.apply_plan(MODEL, plan=hwc_onnx.uniform_plan(MODEL, "w4a4"), data=SAMPLES)
    made = [applied.plan.calibration.repairs for applied in (fresh, asked, real)]
    rest = ("bias", "statistics", "normalizations")
    assert made == [("equalize", "attention", *rest), ("absorb",), ("equalize", "attention", "absorb", *rest)]
