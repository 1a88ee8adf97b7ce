"""The real problem: a model's layer database, an accelerator's cost model and ONNX Runtime on the search split."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.early_stop import EarlyStop
from hwc_onnx.accuracy.measure import measure_paired
from hwc_onnx.accuracy.reference import Reference, chunks
from hwc_onnx.accuracy.runner import open_session
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.candidate import assemble
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.events import Listener, Step
from hwc_onnx.export import file_bytes
from hwc_onnx.graph.external import without_mapped
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.selection import selected
from hwc_onnx.limits import Limits
from hwc_onnx.plan import CompressionPlan, with_plan
from hwc_onnx.rebuild import SAMPLES, rebuild
from hwc_onnx.search.costing import Costing
from hwc_onnx.search.gains import probe_plan, probe_size
from hwc_onnx.search.gate import Judging
from hwc_onnx.search.guard import contrasts
from hwc_onnx.search.layer_table import LayerTable
from hwc_onnx.search.problem import ACCEPTED_ERRORS, STEP_ERRORS, Choices, Factor, Outcome, Unit
from hwc_onnx.search.remembered import Remembered
from hwc_onnx.search.space import Space
from hwc_onnx.search.units import (
    Freedom,
    build_units,
    demanded,
    plan_with,
    searched_channels,
    searched_layers,
    searched_tensors,
)
from hwc_onnx.statistics_repair import StatisticsRepair


class Objective:
    """What `run_search` searches for one model, one accelerator and one data set (see `Problem`).

    Building it makes the database entries that the menus need and measures how much each layer's error matters.

    Args:
        proto: the normalised float model.
        graph: its layer graph.
        database: its layer database.
        cost_model: the accelerator.
        reference: the original on the search split.
        limit_points: largest allowed drop.
        baseline: the INT8 plan with the facts it achieved; what is not searched stays as there.
        algorithms: pruning algorithms that may be used.
        weight_bits: narrowest and widest weight.
        activation_bits: narrowest and widest stored tensor.
        first_last: "keep" leaves network inputs and the last layer's input at 8 bits.
        include: patterns of layers that may be compressed (none: all).
        exclude: patterns of layers that may not.
        lanes: channels are removed in multiples of this.
        dialect: how quantizers are written.
        portable: limit 8-bit weights for processors without wide dot products.
        limits: further limits (limits.py).
        seed: kept in the digests.
        calibration_samples: what the database was calibrated on; plans are refitted on them.
        repair: mends stitched plans; None leaves them.
        complete: adds its provenance to a plan.
        remembered: what was measured before the search, for a continued run.
        judging: the final gate to come (None: there is none).
        on_event: hears about progress.

    `options` may be set to what else the problem was made with: a study of the user's own is refused with others.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        graph: LayerGraph,
        database: LayerDatabase,
        cost_model: CostModel,
        reference: Reference,
        *,
        limit_points: float,
        baseline: CompressionPlan,
        algorithms: Sequence[str],
        weight_bits: tuple[int, int] = (2, 8),
        activation_bits: tuple[int, int] = (4, 8),
        first_last: str = "keep",
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        lanes: int = 1,
        dialect: str = "ort",
        portable: bool = False,
        limits: Limits | None = None,
        seed: int = 0,
        calibration_samples: Samples | None = None,
        repair: StatisticsRepair | None = None,
        complete: Callable[[CompressionPlan], CompressionPlan] = lambda plan: plan,
        remembered: Remembered | None = None,
        judging: Judging | None = None,
        on_event: Listener | None = None,
    ) -> None:
        self.limit_points = limit_points
        self.search_size, self.judging = len(reference), judging
        self.baseline = baseline.model_copy(update={"lanes": lanes, "dialect": dialect, "portable": portable})
        self._proto, self._graph, self._database = proto, graph, database
        self._cost_model, self._reference, self._on_event = cost_model, reference, on_event
        self._limits = limits or Limits()
        self._seed, self._remembered = seed, remembered or Remembered()
        self._forwards = self.search_size + (len(calibration_samples) if calibration_samples is not None else 0)
        self._table = LayerTable(database, graph, algorithms, weight_bits)
        chosen = frozenset(selected(graph, include, exclude))
        freedom = Freedom(chosen, weight_bits, activation_bits, first_last == "free")
        self._freedom = demanded(graph, self._table, freedom)
        self._table.prepare(
            searched_layers(graph, self._freedom),
            searched_tensors(graph, self._freedom).values(),
            activation_bits,
            [group for group in graph.channel_groups if searched_channels(group, self._freedom)],
            lambda done, total: self._tell(Step(done, total, "layers: what each becomes under its settings")),
        )
        self.gains = self._measure_gains()
        self._costing = Costing(graph, database, cost_model, self.baseline)
        self._menus = build_units(graph, self._table, self._costing, self.gains, self._freedom, self._tell)
        self._space = Space(self._menus.units)
        self._costing.bind(self._menus, self._space)
        self.options: Mapping[str, Any] = {}
        self._exact: dict[bytes, float] = {}
        self._calibration, self._repair, self._complete = calibration_samples, repair, complete
        self._refitted: dict[bytes, Stitched] = {}

    @property
    def units(self) -> Sequence[Unit]:
        """The decisions, in network order."""
        return self._menus.units

    @property
    def damage(self) -> Sequence[NDArray[np.float64]]:
        """Predicted smooth loss per unit and option."""
        return self._menus.damage

    @cached_property
    def start(self) -> Choices:
        """The INT8 baseline."""
        return np.array(self._menus.start, dtype=np.int64)

    @cached_property
    def factors(self) -> Sequence[Factor]:
        """The energy as a sum of local parts."""
        return self._costing.factors()

    @property
    def shares(self) -> Mapping[str, float]:
        """Shares of the INT8 baseline's energy by component (features.py)."""
        return self._costing.shares

    @property
    def setup_forwards(self) -> int:
        """Images forwarded before the search: calibration, the original's reference run, the probes."""
        return self._forwards

    @property
    def digests(self) -> Mapping[str, str]:
        """What must be the same for a study to continue."""
        options = [[unit.kind, unit.name, [repr(option) for option in unit.options]] for unit in self.units]
        limits = self._limits
        further = [limits.energy, limits.latency, limits.bytes, *([limits.memory] if limits.memory is not None else [])]
        text = json.dumps([options, *further, self._seed])
        return {
            "model": self._graph.source_digest,
            "accelerator": self._cost_model.profile.digest(),
            "space": hashlib.sha256(text.encode()).hexdigest(),
        }

    def energy(self, choices: Choices) -> float:
        """Energy as a fraction of the INT8 baseline's: exact once measured or where no channels leave; otherwise with
        the weight densities that the layers have with all their inputs.
        """
        canonical = self._space.canonical(choices)
        known = self._exact.get(canonical.tobytes())
        return known if known is not None else self._costing.energy(canonical)

    def recall(self, plans: Sequence[Choices], energies: Sequence[float]) -> None:
        """Know these exact energies and no others."""
        self._exact = {plan.tobytes(): energy for plan, energy in zip(plans, energies, strict=True)}

    def plan_of(self, choices: Choices) -> CompressionPlan:
        """The compression plan that these choices mean."""
        return self._complete(plan_with(self._menus, self.baseline, self._space.canonical(choices), self._graph))

    @property
    def refits(self) -> bool:
        """Whether there are calibration samples to refit plans on."""
        return self._calibration is not None and self._database.recovery == "full"

    @property
    def refit_forwards(self) -> int:
        """Images forwarded to refit one plan: original, compressed and once more to fit."""
        return 3 * min(SAMPLES, len(self._calibration or ())) if self.refits else 0

    def stitched(self, choices: Choices, refitted: bool = False) -> Stitched:
        """The weights of a plan, as the database has them or refitted layer after layer (remembered)."""
        canonical = self._space.canonical(choices)
        if not refitted or self._calibration is None:
            stitched = self._database.stitch(self.plan_of(canonical))
            return stitched if self._repair is None else self._repair(stitched)
        key = canonical.tobytes()
        if key not in self._refitted:
            plan = self.plan_of(canonical)
            self._refitted[key] = rebuild(self._proto, self._graph, plan, self._database, self._calibration)
        return self._refitted[key]

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        """Stitch, cost exactly, and measure until the paired loss or the energy says that it cannot be accepted."""
        began = time.perf_counter()
        stitched = self.stitched(choices)
        cost = self._cost_model.cost(with_plan(self._graph, stitched.plan))
        self._exact[self._space.canonical(choices).tobytes()] = cost.total / self._costing.baseline_total
        energy = cost.total / self._costing.baseline_total
        return self._measured(stitched, cost, EarlyStop(self.limit_points, energy >= energy_limit, ACCEPTED_ERRORS), began)

    def refit(self, choices: Choices) -> Outcome:
        """As `evaluate`, of the plan refitted layer after layer, whatever its energy, until it cannot be a step of the ladder (ladder.py) either."""
        began = time.perf_counter()
        stitched = self.stitched(choices, refitted=True)
        cost = self._cost_model.cost(with_plan(self._graph, stitched.plan))
        outcome = self._measured(stitched, cost, EarlyStop(self.limit_points, margin=-STEP_ERRORS), began)
        return replace(outcome, image_forwards=outcome.image_forwards + self.refit_forwards)

    def _measured(self, stitched: Stitched, cost: ModelCost, stop: EarlyStop, began: float) -> Outcome:
        energy = cost.total / self._costing.baseline_total
        candidate = assemble(self._proto, self._graph, stitched, "measure")
        figures = self._figures(stitched, cost, written=self._limits.bytes is not None)
        measured = measure_paired(candidate.proto, self._reference, stop=stop)
        evaluation = measured.evaluation
        return Outcome(
            energy=float(energy),
            drop_points=float(evaluation.drop_points),
            standard_error=float(evaluation.standard_error),
            damage=float(evaluation.damage),
            ce_shift=float(evaluation.ce_shift),
            n_samples=int(evaluation.n_samples),
            complete=measured.complete,
            limits=self._limits.excesses(figures),
            figures=figures,
            image_forwards=int(evaluation.n_samples),
            seconds=time.perf_counter() - began,
            contrasts=contrasts(measured.differences, self._reference.metric.scale) if measured.complete else (),
        )

    def figures(self, choices: Choices, refitted: bool) -> dict[str, float]:
        """What limits.py asks about a plan, its file included; nothing is run."""
        stitched = self.stitched(choices, refitted)
        return self._figures(stitched, self._cost_model.cost(with_plan(self._graph, stitched.plan)), written=True)

    def _figures(self, stitched: Stitched, cost: ModelCost, written: bool) -> dict[str, float]:
        energy = cost.total / self._costing.baseline_total
        figures = {"energy": float(energy), "latency": cost.latency_s, "memory": float(cost.memory_bytes)}
        if written:
            figures["bytes"] = float(file_bytes(assemble(self._proto, self._graph, stitched).proto))
        return figures

    def _measure_gains(self) -> dict[str, float]:
        """How much smooth loss one unit of relative output error causes, per layer: one strongly compressed layer at a
        time, on the first images of the search split.
        """
        keys = [layer.key for layer in self._graph.layers if layer.key in self._freedom.layers]
        size = min(probe_size(len(keys)), self.search_size)
        reference = first_samples(self._reference, size)
        about = f"{len(reference)} of {_fingerprint(reference)}"
        base = self._probe(self.baseline, reference, about)
        gains: dict[str, float] = {}
        for done, key in enumerate(keys):
            self._tell(Step(done, len(keys), f"how much {key} matters"))
            plan, error = probe_plan(self.baseline, self._graph, self._table, key)
            if error <= 0.0:
                continue
            damage = self._probe(plan, reference, about)
            gains[key] = max(damage - base, 1e-3 * max(base, 1e-6)) / error
        self._forwards += size * (len(gains) + 1)
        typical = float(np.median(list(gains.values()))) if gains else 1.0
        return {layer.key: gains.get(layer.key, typical) for layer in self._graph.layers}

    def _probe(self, plan: CompressionPlan, reference: Reference, about: str) -> float:
        """Mean smooth loss of a plan on the probe's images, remembered for what is said `about` them; a candidate that cannot run teaches nothing."""
        proto = assemble(self._proto, self._graph, self._database.stitch(plan), "measure").proto
        key = f"{hashlib.sha256(without_mapped(proto).SerializeToString(deterministic=True)).hexdigest()} on {about}"
        known = self._remembered.get(key)
        if known is not None:
            return known
        try:
            session = open_session(proto, level="fake_quant")
            damages = [reference.divergence(outputs, start)[0] for start, outputs in chunks(session, reference)]
        except RuntimeFailure:
            return 0.0
        return self._remembered.keep(key, float(np.concatenate(damages).mean()))

    def _tell(self, event: Step) -> None:
        if self._on_event is not None:
            self._on_event(event)


def _fingerprint(reference: Reference) -> str:
    """What decides a smooth loss on the original's side: its outputs on these samples, and which are classes."""
    digest = hashlib.sha256(repr(reference.classes).encode())
    for name, values in sorted(reference.outputs.items()):
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def first_samples(reference: Reference, size: int) -> Reference:
    """The original's outputs on the first `size` samples, for damages only."""
    outputs = {name: values[:size] for name, values in reference.outputs.items()}
    return replace(reference, samples=reference.samples.take(slice(0, size)), outputs=outputs)
