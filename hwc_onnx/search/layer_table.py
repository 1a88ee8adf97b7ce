"""What the database says about every option of every unit: relative output error and density, before any search.

Entries are costly, options are many. So each layer's error is read from entries for every width without pruning and
for every algorithm at 8 bits; a pruned option at a narrower width starts as their sum, which is close,

    error(algorithm, ratio, bits) ~ error(algorithm, ratio, 8) + 1.3 * (error(none, bits) - error(none, 8))

and is replaced by its own entry if it makes it into the menu. Algorithms other than the reference of their kind are
read at one ratio and follow the reference's curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hwc_onnx.database import LayerDatabase, Request
from hwc_onnx.graph.layer_graph import MOST_REMOVED, ActivationGroup, ChannelGroup, LayerGraph
from hwc_onnx.graph.pruned import pattern_of
from hwc_onnx.plan import LayerConfig, kept_of, width_fields
from hwc_onnx.pruning.table import granularity
from hwc_onnx.search.problem import Option

FINE_RATIOS = (0.4, 0.6, 0.75, 0.88)
COARSE_RATIOS = (0.125, 0.25, 0.375, 0.5)
APART = 0.04
"""A bound this far from every usual ratio is one more."""
READ_AT = 0.6
COMBINED = 1.3
ROUNDED_TO_ZERO = 0.3
"""Share of the zeros that rounding alone would make which are still made among the weights that pruning left."""


@dataclass(frozen=True)
class Fact:
    """Relative output error on held-out images and the share of codes that are not zero; `exact` when from an entry."""

    error: float
    density: float
    exact: bool = True


class LayerTable:
    """Facts about one model's options."""

    def __init__(
        self, database: LayerDatabase, graph: LayerGraph, algorithms: Sequence[str], weight_bits: tuple[int, int]
    ) -> None:
        self.database = database
        self.graph = graph
        self.widths = tuple(sorted(range(weight_bits[0], weight_bits[1] + 1), reverse=True))
        self.fine = tuple(name for name in algorithms if granularity(name) == "fine")
        self._facts: dict[str, dict[Option, Fact]] = {}
        self.coarse = tuple(name for name in algorithms if granularity(name) == "coarse")

    def fine_options(self, key: str) -> dict[Option, Fact]:
        """Every (algorithm, ratio, bits) of a layer with its facts, exact or composed."""
        if key not in self._facts:
            self._facts[key] = self._fine_options(key)
        return self._facts[key]

    def can_prune(self, key: str) -> bool:
        """Whether some fine-grained algorithm has a ratio within the layer's bounds."""
        return bool(self._read_settings(key))

    def can_remove(self, group: ChannelGroup) -> bool:
        """Whether some coarse-grained algorithm can take channels of the group within its bounds."""
        ratios = self._coarse_ratios(group) if self.coarse else ()
        low = max(self.graph.layer(key).ratio_bounds[0] for key in group.producers)
        # whole channels and lanes come within one step of a ratio, a floor may hold back more
        least = group.channels * low - max(1, self.database.lanes)
        gone = [group.channels - kept_of(group, ratio, self.database.lanes) for ratio in ratios]
        return any(count > 0 and count >= least for count in gone)

    def prepare(
        self,
        keys: Iterable[str],
        groups: Iterable[ActivationGroup],
        activation_bits: tuple[int, int],
        channels: Iterable[ChannelGroup],
        on_done: Callable[[int, int], None] | None = None,
    ) -> None:
        """Make all entries that the other methods read, each layer's together; `on_done` hears about each layer."""
        top = self.widths[0]
        requests: list[Request] = []
        for key in keys:
            requests += [(key, LayerConfig(weight_bits=bits), None, "none") for bits in self.widths]
            requests += [
                (key, _config(Option(name, ratio, top)), None, "none") for name, ratio in self._read_settings(key)
            ]
        for group in groups:
            widths = range(activation_bits[0], activation_bits[1] + 1)
            readers = [key for key in group.readers if key in self.database.views]
            requests += [(key, LayerConfig(activation_bits=bits), None, "none") for key in readers for bits in widths]
        for cut in channels:
            for name, ratio in self._removals(cut):
                keep = {cut.root: self.database.keep(cut.root, name, ratio)}
                for key in cut.consumers:
                    if key in self.database.views:
                        requests.append((key, LayerConfig(), self.database.input_keep(key, keep), name))
        self.database.prepare(requests, on_done=on_done)

    def prepare_options(
        self, options: Mapping[str, Iterable[Option]], on_done: Callable[[int, int], None] | None = None
    ) -> None:
        """Make the entries of these options of each layer; `on_done` hears about each layer."""
        requests: list[Request] = [
            (key, _config(option), None, "none") for key, wanted in options.items() for option in wanted
        ]
        self.database.prepare(requests, on_done=on_done)

    def _fine_options(self, key: str) -> dict[Option, Fact]:
        top = self.widths[0]
        plain = {bits: self.exact(key, Option(bits=bits)) for bits in self.widths}
        options = {Option(bits=bits): fact for bits, fact in plain.items()}
        for name, ratio, fact in self._pruned(key, top):
            for bits in self.widths:
                extra = max(plain[bits].error - plain[top].error, 0.0)
                zeros = ROUNDED_TO_ZERO * (1.0 - plain[bits].density / max(plain[top].density, 1e-9))
                options[Option(name, ratio, bits)] = (
                    fact
                    if bits == top and fact.exact
                    else Fact(fact.error + COMBINED * extra, fact.density * (1.0 - zeros), False)
                )
        return options

    def exact(self, key: str, option: Option) -> Fact:
        """The entry of one option."""
        entry = self.database.entry(key, _config(option))
        return Fact(entry.error_heldout, entry.density)

    def _read_settings(self, key: str) -> list[tuple[str, float]]:
        """(algorithm, ratio) of the entries that a layer's curves are read from: the first algorithm's at every ratio."""
        low, high = self.graph.layer(key).ratio_bounds
        ratios = usual_ratios(FINE_RATIOS, low, high)
        free = self._by_ratio()
        found = [(name, ratio) for name in free[:1] for ratio in ratios]
        if ratios:
            found += [(name, read_at(ratios)) for name in free[1:]]
        fixed = [(name, pattern) for name in self.fine if (pattern := pattern_of(name)) is not None]
        patterns = [(name, 1.0 - pattern[0] / pattern[1]) for name, pattern in fixed]
        return found + [(name, ratio) for name, ratio in patterns if low <= ratio <= high]

    def _by_ratio(self) -> list[str]:
        """Algorithms with a free ratio, the one whose curve the others follow first."""
        return sorted((name for name in self.fine if pattern_of(name) is None), key=lambda name: name != "obs")

    def _removals(self, group: ChannelGroup) -> list[tuple[str, float]]:
        """(algorithm, ratio) of channel removals that the curves are read from."""
        ratios = self._coarse_ratios(group)
        if not self.coarse or not ratios:
            return []
        reference = self._coarse_reference()
        others = [(name, _second(ratios)) for name in self.coarse if name != reference]
        return [(reference, ratio) for ratio in ratios] + others

    def _coarse_ratios(self, group: ChannelGroup) -> tuple[float, ...]:
        bounds = [self.graph.layer(key).ratio_bounds for key in group.producers]
        return usual_ratios(COARSE_RATIOS, max(low for low, _ in bounds), min(high for _, high in bounds))

    def _coarse_reference(self) -> str:
        return "reconstruct" if "reconstruct" in self.coarse else self.coarse[0]

    def _pruned(self, key: str, bits: int) -> list[tuple[str, float, Fact]]:
        """(algorithm, ratio, fact at `bits`) of every fine-grained setting."""
        read = {(name, ratio): self.exact(key, Option(name, ratio, bits)) for name, ratio in self._read_settings(key)}
        found = [(name, ratio, fact) for (name, ratio), fact in read.items()]
        free = self._by_ratio()
        ratios = [ratio for name, ratio in read if free and name == free[0]]
        for name in free[1:] if ratios else ():
            same = read_at(ratios)
            scale = read[name, same].error / max(read[free[0], same].error, 1e-12)
            for ratio in ratios:
                if ratio != same:
                    followed = read[free[0], ratio]
                    found.append((name, ratio, Fact(followed.error * scale, followed.density, False)))
        return found

    def coarse_options(self, group: ChannelGroup, gains: Mapping[str, float]) -> dict[Option, float]:
        """Predicted smooth loss of removing channels: what it does to the layers that read them, at 8 bits."""
        ratios = self._coarse_ratios(group)
        if not self.coarse or not ratios:
            return {}
        reference = self._coarse_reference()
        curve = {ratio: self._removal(group, reference, ratio, gains) for ratio in ratios}
        options: dict[Option, float] = {}
        for name in self.coarse:
            scale = 1.0
            if name != reference:
                read = self._removal(group, name, _second(ratios), gains)
                scale = read / max(curve[_second(ratios)], 1e-12)
            for ratio in ratios:
                if kept_of(group, ratio, self.database.lanes) < group.channels:
                    options[Option(name, ratio)] = scale * curve[ratio]
        return options

    def _removal(self, group: ChannelGroup, name: str, ratio: float, gains: Mapping[str, float]) -> float:
        keep = {group.root: self.database.keep(group.root, name, ratio)}
        total = 0.0
        for key in group.consumers:
            if key not in self.database.views:
                continue
            config = LayerConfig()
            whole = self.database.entry(key, config).error_heldout
            inputs = self.database.input_keep(key, keep)
            cut = self.database.entry(key, config, inputs, name).error_heldout
            total += gains.get(key, 1.0) * max(cut - whole, 0.0)
        return total

    def width_damage(self, group: ActivationGroup, bits: int, gains: Mapping[str, float]) -> float:
        """Predicted smooth loss of storing a tensor at `bits` instead of 8, over the layers that read it."""
        total = 0.0
        for key in group.readers:
            if key in self.database.views:
                narrow = self.database.entry(key, LayerConfig(activation_bits=bits)).error_heldout
                total += gains.get(key, 1.0) * max(narrow - self.database.entry(key, LayerConfig()).error_heldout, 0.0)
            else:
                total += gains.get(key, 1.0) * self.operand_error(group.tensor, bits)
        return total

    def operand_error(self, tensor: str, bits: int) -> float:
        """Rounding error of a stored tensor relative to its variance: what a product of two activations sees."""
        histogram = self.database.calibration.histograms[tensor]
        error = histogram.squared_error(self.database.activation_params(tensor, bits))
        return error / max(histogram.variance, 1e-30)


def usual_ratios(usual: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    """Ratios to choose from within the bounds: the usual ones, and bounds that are far from each of them."""
    within = [ratio for ratio in usual if low <= ratio <= high]
    inner = [bound for bound, open_end in ((low, low <= 0.0), (high, high >= MOST_REMOVED)) if not open_end and bound > 0.0]
    for bound in inner:
        if all(abs(bound - ratio) >= APART for ratio in within):
            within.append(bound)
    return tuple(sorted(within))


def read_at(ratios: Sequence[float]) -> float:
    """The ratio that algorithms are compared at."""
    return min(ratios, key=lambda ratio: abs(ratio - READ_AT))


def _second(ratios: Sequence[float]) -> float:
    return ratios[min(1, len(ratios) - 1)]


def _config(option: Option) -> LayerConfig:
    return LayerConfig(algorithm=option.algorithm, ratio=option.ratio, weight_bits=option.bits)


def reader_fields(graph: LayerGraph, group: ActivationGroup) -> list[tuple[str, str]]:
    """(layer key, field of its setting) pairs that state the group's width."""
    return [(key, field) for key in group.readers for field in width_fields(graph.layer(key), group)]
