"""The facts of one layer under a plan, put together from the layer database and the calibration histograms."""

from __future__ import annotations

from hwc_onnx.database import LayerDatabase
from hwc_onnx.diagnosis.bench import IN_FLOAT
from hwc_onnx.diagnosis.facts import CutFacts, Facts
from hwc_onnx.diagnosis.layer_facts import layer_facts, strongest_input
from hwc_onnx.diagnosis.shares import parts_of, read_groups, removed_group
from hwc_onnx.diagnosis.tensor_facts import feeds_softmax, tensor_facts
from hwc_onnx.graph.layer_graph import FLOAT_BITS, LayerGraph
from hwc_onnx.plan import CompressionPlan, group_bits
from hwc_onnx.pruning.base import CoarseAlgorithm
from hwc_onnx.pruning.table import algorithm


class Gatherer:
    """Facts of a model's layers under one plan.

    `database` is the one that the plan is built from, `plain` and `full` those with recovery "ranges" and "full".
    """

    def __init__(
        self,
        graph: LayerGraph,
        plan: CompressionPlan,
        database: LayerDatabase,
        plain: LayerDatabase,
        full: LayerDatabase,
    ) -> None:
        self.graph, self.plan, self.database, self.plain, self.full = graph, plan, database, plain, full
        self._bits = {
            group.tensor: bits for group, bits in zip(graph.activation_groups, group_bits(graph, plan), strict=True)
        }

    def output_error(self, key: str) -> float:
        """Relative output error that a layer's share of the plan makes, on held-out calibration images.

        That of its entry (rounding of weights and input, zeros), and the largest of the layers that read channels it loses.
        Of a product of two activations, and where the weights stay in float, the rounding error of what it reads.
        """
        layer, config = self.graph.layer(key), self.plan.layers[key]
        parts = parts_of(self.graph, self.plan, key)
        error = 0.0
        if "weights" in parts:
            error = self.database.damage(key, config)
        elif "input" in parts:
            widths = ((group, self._bits[group.tensor]) for group in read_groups(self.graph, layer))
            error = sum(
                tensor_facts(self.graph, self.database, group, bits).error
                for group, bits in widths
                if bits < FLOAT_BITS
            )
        cut = self.cut(key) if "channels" in parts else None
        return error + max((found for _, found, _ in cut.readers), default=0.0) if cut is not None else error

    def facts(self, key: str) -> Facts:
        """Everything that the causes are decided from."""
        layer, config = self.graph.layer(key), self.plan.layers[key]
        parts = parts_of(self.graph, self.plan, key)
        groups = read_groups(self.graph, layer)
        input_bits = next((self._bits[group.tensor] for group in groups), FLOAT_BITS)
        weighted = "weights" in parts
        return Facts(
            layer,
            config,
            self.database.recovery,
            layer_facts(layer, config, self.database, self.plain, input_bits) if weighted else None,
            self.full.damage(key, config) if weighted else 0.0,
            self.database.damage(key, config.model_copy(update={"weight_bits": config.weight_bits + 1}))
            if weighted and config.weight_bits < 8
            else None,
            tuple(
                tensor_facts(self.graph, self.database, group, self._bits[group.tensor])
                for group in groups
                if self._bits[group.tensor] < FLOAT_BITS
            ),
            strongest_input(layer, self.database),
            layer.weight is None and feeds_softmax(self.graph, layer),
            self.cut(key) if "channels" in parts else None,
        )

    def cut(self, key: str) -> CutFacts | None:
        """What the channels that the plan removes from a layer's outputs mean for those who read them."""
        group, config = removed_group(self.graph, self.plan, key), self.plan.layers[key]
        if group is None:
            return None
        keep = {group.root: self.database.keep(group.root, config.algorithm, config.ratio)}
        readers = []
        for reader in group.consumers:
            if reader not in self.database.views:
                continue
            inputs = self.database.input_keep(reader, keep)
            if inputs is not None:
                error = self.database.entry(reader, IN_FLOAT, inputs, config.algorithm).error_heldout
                readers.append((reader, error, self._stuck(reader, config.algorithm)))
        return CutFacts(len(keep[group.root]), group.channels, tuple(readers))

    def _stuck(self, reader: str, name: str) -> str | None:
        """Why a layer is not refitted to the inputs that are left."""
        view, chosen = self.database.views[reader], algorithm(name)
        if view.layout.stack > 1:
            return "is a stack of matrices"
        if view.measured is None:
            return "was not calibrated"
        refits = isinstance(chosen, CoarseAlgorithm) and chosen.refits
        return None if self.database.recovery == "full" or refits else f"has recovery '{self.database.recovery}'"
