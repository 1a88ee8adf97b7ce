"""The samples of a run: loaded, divided, and said where they are fewer or others than a user may expect."""

from __future__ import annotations

from hwc_onnx.accuracy.choose import check_declared, check_metric
from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.outputs import check_task
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.presets import parse_preset
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.accuracy.types import Splits
from hwc_onnx.events import Listener, Note, Phase
from hwc_onnx.options import Options
from hwc_onnx.workspace import Opened


def check_names(options: Options) -> None:
    """Refuse an unknown metric, task or preset (UsageError) before data or an earlier run: their errors would hide the mistake."""
    check_metric(options.metric)
    check_task(options.task)
    if options.preset is not None:
        parse_preset(options.preset)


def samples_of(opened: Opened, options: Options, tell: Listener) -> tuple[Data, Splits]:
    """The source and its calibration, search and holdout samples (DataError)."""
    tell(Phase("data", "load and split the samples"))
    data = load_data(
        options.data,
        input_specs(opened.proto),
        preset=options.preset,
        input_shapes=options.input_shapes,
        seed=options.split_seed,
        model=opened.proto,
    )
    check_declared(opened.proto, data, options.metric, options.task)
    splits = make_splits(data, options.split_seed, options.calibration_samples, options.search_samples)
    for text in (*data.notes, *splits.notes, splits.description):
        tell(Note(text))
    if not splits.real:
        tell(
            Note(
                f"no data given: {len(data.pool)} synthetic {data.unit} stand in for real ones; accuracy figures say how "
                "well the compressed model follows the original on them, real samples (--data) would be better",
                warning=True,
            )
        )
    return data, splits
