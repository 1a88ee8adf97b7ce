"""What all measurements of a diagnosis share: the calibrated model, the samples, and the damage of any variant of it.

A variant is a plan in which most layers are left in float; only what is compressed is rewritten, so that a measurement
shows the damage of that and of nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwc_onnx.accuracy.choose import check_declared
from hwc_onnx.accuracy.damage import ClassReference
from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import Reference, make_reference
from hwc_onnx.accuracy.sanity import check_reference
from hwc_onnx.accuracy.splits import calibration_size, make_splits
from hwc_onnx.accuracy.synthetic import served
from hwc_onnx.accuracy.types import Evaluation, Splits
from hwc_onnx.candidate import assemble
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Event, Listener, Note, Phase
from hwc_onnx.graph.layer_graph import FLOAT_BITS
from hwc_onnx.plan import MENDED, REPAIRS, CompressionPlan, LayerConfig, with_plan
from hwc_onnx.quantization.ranges import Method
from hwc_onnx.recovery.layer import Recovery
from hwc_onnx.workspace import Calibrated, Model, Opened, calibrate, load_samples, open_float_model

IN_FLOAT = LayerConfig(weight_bits=FLOAT_BITS, activation_bits=FLOAT_BITS)
SAMPLES = 512
"""Samples that each variant is measured on, unless told otherwise: damage is smooth, so a few hundred tell layers apart."""


@dataclass(frozen=True)
class Damage:
    """What a variant loses against the original on the same samples.

    `damage` is the mean divergence KL(original || variant) where an output holds scores per class, else the squared
    error relative to the outputs' mean square; `drop_points` is the metric's drop with its paired standard error, in
    points, positive is worse.
    """

    damage: float
    drop_points: float
    standard_error: float

    def to_json(self) -> dict[str, float]:
        """The three numbers."""
        return {"damage": self.damage, "drop_points": self.drop_points, "standard_error": self.standard_error}


@dataclass(frozen=True)
class Options:
    """What both commands can be told of the model and its data, with the names and defaults of the command line."""

    data: Any = None
    metric: Any = None
    task: str | None = None
    preset: str | None = None
    accelerator: str | Path = "edge-flex"
    input_shapes: Mapping[str, Sequence[int]] | None = None
    split_seed: int = 0
    samples: int = SAMPLES
    cache_dir: str | Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be measured (UsageError)."""
        if self.samples < 1:
            raise UsageError(f"samples: {self.samples}; at least 1 sample has to be measured")


class Bench:
    """One model, ready to be measured in any variant.

    Attributes:
        opened: the float model.
        database: its layers under any setting, with the recovery asked for.
        calibrated: statistics, and the INT8 baseline's plan.
        reference: the original's outputs on the samples that variants are measured on.
        cost_model: of the accelerator.
        splits, split_seed: the samples, and the seed that divided them.
        real: whether samples were given.
        notes: what the user should know.
    """

    def __init__(
        self,
        model: Model,
        options: Options,
        on_event: Listener | None = None,
        *,
        recovery: Recovery = "full",
        ranges: Method = "mse",
        lanes: int = 1,
        portable: bool = False,
        calibration: int | None = None,
        opened: Opened | None = None,
        repairs: Collection[str] = REPAIRS,
        settled: bool = False,
        power_of_two: bool = False,
        dialect: str = "ort",
    ) -> None:
        self._listener = on_event
        self.notes: list[str] = []
        self.cost_model = CostModel(load_profile(options.accelerator), options.cache_dir, self.tell)
        shapes = shapes_from_data(model, options.data, options.input_shapes)
        self.opened = opened or open_float_model(model, shapes)
        self.graph = self.opened.graph
        source = "synthetic" if options.data is None else options.data
        loaded = load_samples(source, self.opened.proto, options.preset, shapes, seed=options.split_seed)
        check_declared(self.opened.proto, loaded, options.metric, options.task)
        self.splits: Splits = make_splits(
            loaded, options.split_seed, None if calibration is None else calibration_size(loaded, calibration)
        )
        self.split_seed = options.split_seed
        self.real = self.splits.real
        chosen = repairs if settled else served(repairs, self.real)
        for text in (*loaded.notes, *self.splits.notes):
            self.note(text)
        if not self.real:
            self.note(
                f"no data given: damage is measured on {min(options.samples, len(self.splits.search))} synthetic {loaded.unit}, "
                "which tells layers apart and little more; real samples (--data) give figures that you can rely on"
            )
        self.tell(Phase("calibrate", f"{len(self.splits.calibration)} samples through the float model"))
        self.calibrated: Calibrated = calibrate(
            self.opened,
            self.splits.calibration,
            seed=options.split_seed,
            lanes=lanes,
            recovery=recovery,
            portable=portable,
            ranges=ranges,
            repairs=[name for name in chosen if name not in MENDED],
            power_of_two=power_of_two,
            dialect=dialect,
            on_event=self.tell,
        )
        self.database = self.calibrated.database
        for text in self.calibrated.calibration.remarks() if recovery == "full" else ():
            self.note(text)
        self.reference = self._reference(options)

    def tell(self, event: Event) -> None:
        """Pass an event on."""
        if self._listener is not None:
            self._listener(event)

    def note(self, text: str) -> None:
        """Keep something that the user should know, and say it."""
        self.notes.append(text)
        self.tell(Note(text))

    @property
    def kind(self) -> str:
        """What `Damage.damage` is: "kl" or "squared_error" ("mixed" where outputs differ)."""
        kinds = {isinstance(part, ClassReference) for part in self.reference.divergence.parts}
        return "mixed" if len(kinds) > 1 else "kl" if kinds == {True} else "squared_error"

    def other(self, *, recovery: Recovery | None = None, ranges: Method | None = None) -> LayerDatabase:
        """The same layers and statistics repaired otherwise, or with other activation ranges."""
        return LayerDatabase(
            self.calibrated.proto,
            self.graph,
            self.calibrated.calibration,
            lanes=self.database.lanes,
            recovery=recovery or self.database.recovery,
            portable=self.database.portable,
            ranges=ranges or self.database.ranges,
            taken=self.database.taken,
            symmetric=self.database.symmetric,
            power_of_two=self.database.power_of_two,
            corrects_bias=self.database.corrects_bias,
        )

    def evaluate(
        self, plan: CompressionPlan, tensors: Collection[str] | None = None, database: LayerDatabase | None = None
    ) -> Damage:
        """Measure a plan; of its stored tensors only `tensors` are quantized (None: all that it names)."""
        return self.measured((database or self.database).stitch(plan), tensors)

    def measured(self, stitched: Stitched, tensors: Collection[str] | None = None) -> Damage:
        """Measure what was stitched; layers that the plan leaves in float are not rewritten."""
        if tensors is not None:
            activations = {name: params for name, params in stitched.activations.items() if name in tensors}
            stitched = replace(stitched, activations=activations)
        if not stitched.keep:
            plan = stitched.plan
            changed = {
                key: weight
                for key, weight in stitched.weights.items()
                if weight.params is not None or plan.layers[key].algorithm != "none"
            }
            stitched = replace(stitched, weights=changed)
        found = self.evaluation(stitched)
        return Damage(found.damage, found.drop_points, found.standard_error)

    def evaluation(self, stitched: Stitched) -> Evaluation:
        """The whole measurement of what was stitched."""
        return measure(assemble(self.calibrated.proto, self.graph, stitched, "measure").proto, self.reference)

    def cost(self, plan: CompressionPlan) -> ModelCost:
        """The cost of a plan that records what it achieved (as `Stitched.plan` does)."""
        return self.cost_model.cost(with_plan(self.graph, plan))

    def _reference(self, options: Options) -> Reference:
        samples = self.splits.search.take(slice(0, options.samples))
        self.tell(Phase("reference", f"{len(samples)} samples through the original"))
        reference = make_reference(self.opened.proto, samples, options.metric, task=options.task)
        if reference.note:
            self.note(reference.note)
        check_reference(reference, options.split_seed)
        if not reference.needs_baseline:
            return reference
        if options.metric is not None:
            raise UsageError(
                f"metric {reference.metric.name}: its drop is measured from the INT8 baseline, and layers are compared with the "
                "original here; choose cosine, or leave the metric out"
            )
        self.note("metric cosine: there are no labels and no classes, so outputs are compared with the original's")
        return make_reference(self.opened.proto, samples, "cosine", task=options.task)
