"""The measurements behind `why`: each suspect alone, left out, and under every remedy; then the plan with the best of each."""

from __future__ import annotations

from collections.abc import Sequence

from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.diagnosis.bench import Bench, Damage
from hwc_onnx.diagnosis.causes import Finding, cause_of, findings
from hwc_onnx.diagnosis.gather import Gatherer
from hwc_onnx.diagnosis.remedies import Remedy, Trial, best_of, merged_layers, remedies
from hwc_onnx.diagnosis.shares import (
    Part,
    alone,
    parts_of,
    read_groups,
    removed_group,
    tensors_read,
    with_layer,
    without,
)
from hwc_onnx.diagnosis.suspect import Suspect, Unread
from hwc_onnx.events import Phase, Step
from hwc_onnx.graph.layer_graph import FLOAT_BITS
from hwc_onnx.plan import CompressionPlan, LayerConfig
from hwc_onnx.quantization.ranges import METHODS, Method
from hwc_onnx.rebuild import rebuild
from hwc_onnx.recovery.layer import Recovery

MATTERS = 0.1
"""Remedies are tried on the parts that do at least this share of the largest part's damage."""

NAMED = 3
"""Stored tensors that are named, of those that no layer reads."""

SCREENED, SCREENED_AT_LEAST = 4, 40
"""Layers that are measured alone for each that is looked at, and in all at least."""

NONE = Damage(0.0, 0.0, 0.0)


class Examination:
    """One plan on one bench. `whole` is its damage with each layer by itself; `sequential` says that the plan is rebuilt layer after
    layer instead, which `as_is` measures.
    """

    def __init__(self, bench: Bench, plan: CompressionPlan, sequential: bool = False) -> None:
        self.bench, self.plan, self.graph = bench, plan, bench.graph
        self.sequential = sequential
        self._databases: dict[tuple[Recovery | None, Method | None], LayerDatabase] = {(None, None): bench.database}
        self._screened: dict[str, Damage] = {}
        self._sequential: Damage | None = None
        self._whole: dict[tuple[Recovery | None, Method | None], Damage] = {}
        plain, full = (
            bench.database if bench.database.recovery == wanted else self._database(wanted)
            for wanted in ("ranges", "full")
        )
        self.gatherer = Gatherer(self.graph, plan, bench.database, plain, full)
        bench.database.prepare([(key, plan.layers[key], None, "none") for key in bench.database.views])
        stitched = bench.database.stitch(plan)
        self._energy = bench.cost(stitched.plan).total
        self.whole = self._whole[None, None] = bench.measured(stitched)

    @property
    def as_is(self) -> Damage:
        """The plan's damage with the recovery that it asks for."""
        return self._rebuilt_damage() if self.sequential else self.whole

    def ranked(self, top: int) -> tuple[list[tuple[str, float]], int]:
        """The layers to look at with their output errors, those that lose most alone first; and how many are compressed.

        Of the `SCREENED` x `top` layers (at least 40) with the largest output error each is measured alone, and the first
        `top` stay: how much an output error matters differs from layer to layer.
        """
        errors = [
            (layer.key, self.gatherer.output_error(layer.key))
            for layer in self.graph.layers
            if parts_of(self.graph, self.plan, layer.key)
        ]
        screened = sorted(errors, key=lambda item: -item[1])[: max(SCREENED * top, SCREENED_AT_LEAST)]
        self.bench.tell(Phase("screen", f"{len(screened)} of {len(errors)} layers alone"))
        for number, (key, _) in enumerate(screened):
            self.bench.tell(Step(number, len(screened), key))
            self._screened[key] = self._alone(key, self.plan)
        return sorted(screened, key=lambda item: -self._screened[item[0]].damage)[:top], len(errors)

    def suspect(self, key: str, error: float) -> Suspect:
        """Measure one layer and look for its cause and remedy."""
        layer = self.graph.layer(key)
        which = parts_of(self.graph, self.plan, key)
        found = self._screened[key]
        parts = {part: found if len(which) == 1 else self._alone(key, self.plan, (part,)) for part in which}
        worst = max(parts, key=lambda part: parts[part].damage)
        matter = [part for part in which if parts[part].damage >= MATTERS * parts[worst].damage]
        seen = findings(self.gatherer.facts(key))
        cause = cause_of(seen, worst)
        trials = tuple(
            self._trial(key, remedy) for remedy in remedies(self.graph, self.plan, key, matter, self.bench.database)
        )
        best = best_of([trial for trial in trials if self._suits_all(trial.remedy)], found.damage)
        left_out = self.bench.evaluate(without(self.graph, self.plan, key))
        return Suspect(
            key,
            layer.op_type,
            self.plan.layers[key],
            error,
            found,
            left_out,
            parts,
            self._tied(key, which),
            cause,
            _remarks(seen, cause),
            trials,
            best,
            left_out if best is None or best.remedy.part is None else self._in_plan(best.remedy),
        )

    def unread(self) -> Unread | None:
        """Damage of the stored tensors that no layer reads, alone (None where there is none); where that is a good part of the
        plan's, of each of them.
        """
        stored = set(self.bench.database.stitch(self.plan).activations)
        groups = [group for group in self.graph.activation_groups if not group.readers and set(group.tensors) & stored]
        if not groups:
            return None
        weighted = [layer.key for layer in self.graph.layers if layer.weight is not None]
        plan = with_layer(self.plan, weighted, algorithm="none", ratio=0.0, weight_bits=FLOAT_BITS)
        found = self.bench.evaluate(plan, {name for group in groups for name in group.tensors})
        single = {}
        if found.damage >= MATTERS * self.whole.damage and len(groups) > 1:
            for number, group in enumerate(groups):
                self.bench.tell(Step(number, len(groups), group.tensor))
                single[group.tensor] = self.bench.evaluate(plan, set(group.tensors))
        elif len(groups) == 1:
            single[groups[0].tensor] = found
        worst = sorted(single.items(), key=lambda item: -item[1].damage)[:NAMED]
        return Unread(found, len(groups), tuple(worst))

    def planwide(self) -> list[tuple[str, str, Damage]]:
        """(name, change, the plan's damage) of each option that concerns the whole plan; where it is `sequential`, without it."""
        database = self.bench.database
        options: list[tuple[str, Recovery | None, Method | None]] = []
        if database.recovery != "full" or self.sequential:
            options.append(("recovery full", "full", None))
        options += [(f"ranges {method}", None, method) for method in METHODS if method != database.ranges]
        found = []
        for number, (name, recovery, ranges) in enumerate(options):
            self.bench.tell(Step(number, len(options) + 1, name))
            found.append((name, f"--{name}", self._with(recovery, ranges)))
        if self.sequential:
            return found
        self.bench.tell(Step(len(options), len(options) + 1, "recovery sequential"))
        return [*found, ("recovery sequential", "--recovery sequential", self._rebuilt_damage())]

    def mended(self, suspects: Sequence[Suspect]) -> tuple[CompressionPlan, str, Damage, float]:
        """The plan with the best remedy of each layer, options beside it, its damage and its energy over the old plan's.

        A remedy is taken where the plan has less damage with it, an option of the whole plan included, and recovery
        "sequential" on top where that lowers it further.
        """
        options: list[Remedy] = []
        changed: list[CompressionPlan] = []
        for suspect in suspects:
            if suspect.best is None or suspect.after.damage >= self.whole.damage:
                continue
            remedy = suspect.best.remedy
            if remedy.planwide:
                options.append(remedy)
            changed.append(remedy.plan)
        layers = merged_layers(self.plan, changed)
        repair = next((remedy.recovery for remedy in options if remedy.recovery is not None), None)
        ranged = [remedy.ranges for remedy in options if remedy.ranges is not None]
        ranges = min(ranged, key=lambda method: self._with(None, method).damage) if ranged else None
        plan = self._recorded(layers, repair or self.bench.database.recovery, ranges)
        stitched = self._database(repair, ranges).stitch(plan)
        damage = self.bench.measured(stitched)
        if self._rebuilt_damage().damage < self.whole.damage:
            refitted = self._recorded(layers, "sequential", ranges)
            rebuilt = self._rebuilt(refitted, ranges)
            better = self.bench.measured(rebuilt)
            if better.damage < damage.damage:
                plan, stitched, damage = refitted, rebuilt, better
        asked, recovery = "sequential" if self.sequential else self.bench.database.recovery, plan.calibration.recovery
        change = [f"--recovery {recovery}"] if recovery != asked else []
        change += [f"--ranges {ranges}"] if ranges else []
        return plan, " ".join(change), damage, self._over(stitched.plan)

    def _recorded(self, layers: dict[str, LayerConfig], recovery: str, ranges: Method | None) -> CompressionPlan:
        """The plan with other settings and options."""
        record = self.plan.calibration
        options = record.model_copy(
            update={"recovery": recovery, "ranges": ranges or record.ranges, "split_seed": self.bench.split_seed}
        )
        return self.plan.model_copy(update={"layers": layers, "calibration": options})

    def _rebuilt_damage(self) -> Damage:
        """The plan's damage with recovery "sequential"."""
        if self._sequential is None:
            self._sequential = self.bench.measured(self._rebuilt(self.plan, None))
        return self._sequential

    def _rebuilt(self, plan: CompressionPlan, ranges: Method | None) -> Stitched:
        """A plan with recovery "sequential"."""
        full = self.bench.database.recovery == "full"
        database = self._database(None if full else "full", ranges)
        return rebuild(
            self.bench.calibrated.proto,
            self.graph,
            plan,
            database,
            self.bench.splits.calibration,
            on_layer=lambda done, total, key: self.bench.tell(Step(done, total, f"{key}, rebuilt")),
        )

    def _alone(
        self,
        key: str,
        plan: CompressionPlan,
        parts: Sequence[Part] | None = None,
        database: LayerDatabase | None = None,
    ) -> Damage:
        which = ("weights", "input", "channels") if parts is None else parts
        tensors = tensors_read(self.graph, key) if "input" in which else set()
        return self.bench.evaluate(alone(self.graph, plan, key, which), tensors, database)

    def _trial(self, key: str, remedy: Remedy) -> Trial:
        database = self._database(remedy.recovery, remedy.ranges)
        energy = None if remedy.planwide else self._over(database.stitch(remedy.plan).plan)
        damage = NONE if remedy.part is None else self._alone(key, remedy.plan, database=database)
        return Trial(remedy, damage, energy)

    def _suits_all(self, remedy: Remedy) -> bool:
        """Whether an option of the whole plan does not harm other layers more than it helps this one."""
        return not remedy.planwide or self._with(remedy.recovery, remedy.ranges).damage < self.whole.damage

    def _in_plan(self, remedy: Remedy) -> Damage:
        if remedy.planwide:
            return self._with(remedy.recovery, remedy.ranges)
        return self.bench.evaluate(remedy.plan)

    def _with(self, recovery: Recovery | None, ranges: Method | None) -> Damage:
        """The plan's damage with other options."""
        if (recovery, ranges) not in self._whole:
            self._whole[recovery, ranges] = self.bench.evaluate(self.plan, None, self._database(recovery, ranges))
        return self._whole[recovery, ranges]

    def _database(self, recovery: Recovery | None = None, ranges: Method | None = None) -> LayerDatabase:
        if (recovery, ranges) not in self._databases:
            self._databases[recovery, ranges] = self.bench.other(recovery=recovery, ranges=ranges)
        return self._databases[recovery, ranges]

    def _over(self, plan: CompressionPlan) -> float:
        """Energy of a plan over that of the plan looked at."""
        return self.bench.cost(plan).total / self._energy if self._energy else 1.0

    def _tied(self, key: str, which: Sequence[Part]) -> tuple[str, ...]:
        found: list[str] = []
        if "input" in which:
            found += [reader for group in read_groups(self.graph, self.graph.layer(key)) for reader in group.readers]
        cut = removed_group(self.graph, self.plan, key)
        if "channels" in which and cut is not None:
            found += cut.producers
        return tuple(dict.fromkeys(other for other in found if other != key))


def _remarks(seen: Sequence[Finding], cause: Finding | None) -> tuple[Finding, ...]:
    """The other findings, one of each kind, without those that say no more than that there is rounding."""
    kinds = {} if cause is None else {cause.name: cause}
    for finding in seen:
        if not finding.name.startswith("coarse_"):
            kinds.setdefault(finding.name, finding)
    return tuple(finding for finding in kinds.values() if finding is not cause)
