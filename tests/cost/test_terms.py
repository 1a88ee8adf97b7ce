"""The terms that `--explain` prints add up to the energy, and their constants are those of the accelerator file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwc_onnx.cost.accelerator import Format, Static
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.graph.parse import parse
from hwc_onnx.graph.zero_pattern import Blocks
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import with_plan
from tests import tiny_models
from tests.graph.written import random_plan

SAMPLES = sorted((Path(__file__).parents[2] / "sample_models").glob("*.onnx"))
MODELS = {name: CostModel(load_profile(name)) for name in list_profiles()}
GRAPHS = {name: parse(normalize(build())) for name, build in tiny_models.ALL.items()}


def sparse(graph):
    """A plan of few bits with many zeros, some in an N:M pattern."""
    rng = np.random.default_rng(5)
    plan = random_plan(graph, rng)
    stored = [name for group in graph.activation_groups for name in group.tensors]
    made = with_plan(
        graph, plan.model_copy(update={"activation_density": {name: rng.uniform(0.05, 0.9) for name in stored}})
    )
    patterned = replace(made.layers[0], nm_pattern=(2, 4), weight_density=0.4)
    blocked = replace(made.layers[1], nm_pattern=Blocks(0.6, 4), weight_density=0.5)
    return replace(made, layers=(patterned, blocked, *made.layers[2:]))


def sums(terms):
    """Energy by component of some terms."""
    found = dict.fromkeys(COMPONENTS, 0.0)
    for term in terms:
        found[term.component] += term.energy
    return found


def agrees(node, terms):
    """Whether terms add up to a node's energy, component by component."""
    found = sums(terms)
    tolerance = {"rel": 1e-12, "abs": 1e-12 * node.total}
    return all(found[name] == pytest.approx(node.energy.get(name, 0.0), **tolerance) for name in COMPONENTS)


def check(cost):
    for node in cost.nodes:
        assert agrees(node, node.terms), node.key
        assert sum(term.energy for term in node.terms) == pytest.approx(node.total, rel=1e-12)


@pytest.mark.parametrize("accelerator", MODELS)
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_terms_add_up_to_the_energy_of_each_node_of_the_sample_models(path, accelerator):
    graph = parse(normalize(onnx.load(path)))
    model = MODELS[accelerator]
    for variant in (graph, sparse(graph)):
        check(model.cost(variant))
    check(model.baseline(graph))


def changed(profile):
    """Features that no shipped profile combines: skipping beside gating, patterns, every format, static power."""
    formats = (
        {"A": Format(kind="rlc", run_bits=3)},
        {"A": Format(kind="csc")},
        {"W": Format(kind="nm", selectable=False)},
    )
    memories = [
        memory.model_copy(update={"formats": formats[i % 3] if memory.kind != "register" else {}})
        for i, memory in enumerate(profile.memories)
    ]
    skip = {"operands": ("I",), "saves": ("mac", "read_W", "psum"), "imbalance": 1.3}
    sparsity = profile.sparsity.model_copy(update={"patterns": ("2:4", "1x4"), "decode_pj": 0.01})
    sparsity = type(sparsity).model_validate(sparsity.model_dump() | {"skip": skip})
    changes = {"memories": tuple(memories), "sparsity": sparsity, "static": Static(power_mw=3.0)}
    return profile.model_copy(update=changes)


@pytest.mark.parametrize("accelerator", MODELS)
@pytest.mark.parametrize("name", GRAPHS)
def test_terms_add_up_whatever_the_accelerator_has(name, accelerator):
    model = CostModel(changed(MODELS[accelerator].profile))
    for graph in (GRAPHS[name], sparse(GRAPHS[name])):
        cost = model.cost(graph)
        check(cost)
        assert cost.energy["leakage"] > 0


def test_a_term_left_out_or_a_format_ignored_is_seen():
    """The broken twins: without its least term, or with one density forgotten, no node's sum is its energy."""
    cost = MODELS["edge-flex"].cost(sparse(GRAPHS["residual"]))
    for node in cost.nodes:
        if node.terms:
            least = min(node.terms, key=lambda term: term.energy)
            assert not agrees(node, [term for term in node.terms if term is not least]), node.key
    compressed = [node for node in cost.nodes if any("bitmask: " in " ".join(term.why) for term in node.terms)]
    assert compressed
    for node in compressed:
        plain = [replace(term, bits=8.0) if "bitmask: " in " ".join(term.why) else term for term in node.terms]
        assert not agrees(node, plain), node.key


def at(profile, field):
    """The value at a field path; entries of a list are called by their names."""
    found = profile
    for part in field.split("."):
        found = (
            next(entry for entry in found if entry.name == part) if isinstance(found, tuple) else getattr(found, part)
        )
    return found


@pytest.mark.parametrize("accelerator", MODELS)
def test_each_constant_is_the_value_at_its_field(accelerator):
    model = CostModel(changed(MODELS[accelerator].profile))
    seen = set()
    for graph in GRAPHS.values():
        for node in model.cost(sparse(graph)).nodes:
            for term in node.terms:
                seen.add(term.component)
                value = at(model.profile, term.field)
                if term.component == "leakage":
                    value *= 1e3 / model.profile.frequency_mhz / (model.profile.reference_mac_pj or 1.0)
                assert term.constant == pytest.approx(value, rel=1e-12), term
    assert seen >= {"register", "dram", "leakage"}


def test_why_names_the_numbers_of_gate_law_and_format():
    graph = sparse(GRAPHS["chain"])
    node = MODELS["edge-flex"].cost(graph).nodes[0]
    layer = graph.layers[0]
    whys = {term.what: " ".join(term.why) for term in node.terms}
    density = graph.tensors[layer.inputs[0]].density
    gate = f"gated where I x W = 0: 0.05 + 0.95 x {density:.6g} x {layer.weight_density:.6g}"
    assert gate in whys["multiply-accumulate"] and "law composable" in whys["multiply-accumulate"]
    assert f"bitmask: 1 + {density:.6g} x {layer.activation_bits}" in whys["dram: read I for activation_buffer"]
    assert "products meet one sum" in whys["psum_registers: read sums of MACs"]


def never_free(profile):
    """The accelerator with an energy on each access, so that each has its term."""
    memories = [
        memory.model_copy(
            update={name: getattr(memory, name) or 0.001 for name in ("read_pj_per_bit", "write_pj_per_bit")}
        )
        for memory in profile.memories
    ]
    return profile.model_copy(update={"memories": tuple(memories)})


@pytest.mark.parametrize("accelerator", MODELS)
@pytest.mark.parametrize("name", ["residual", "attention", "depthwise"])
def test_accesses_are_the_words_that_the_terms_charge_for(name, accelerator):
    model = CostModel(never_free(MODELS[accelerator].profile))
    for graph in (GRAPHS[name], sparse(GRAPHS[name])):
        for node in model.cost(graph).nodes:
            for memory in model.profile.memories:
                for direction in ("read", "write"):
                    field = f"memories.{memory.name}.{direction}_pj_per_bit"
                    terms = [term for term in node.terms if term.field == field and "flags" not in term.what]
                    counted = sum(counts[direction] for counts in node.accesses.get(memory.name, {}).values())
                    assert counted == pytest.approx(sum(term.count for term in terms)), (node.key, field)


def test_spared_register_accesses_are_stated_beside_all():
    dense = MODELS["edge-flex"].cost(GRAPHS["chain"]).nodes[0].accesses["input_registers"]["I"]
    assert "read_done" not in dense
    graph = sparse(GRAPHS["chain"])
    node = MODELS["edge-flex"].cost(graph).nodes[0]
    layer = graph.layers[0]
    share = graph.tensors[layer.inputs[0]].density * layer.weight_density
    counts = node.accesses["input_registers"]["I"]
    assert counts["read"] == layer.macs
    assert counts["read_done"] == pytest.approx(layer.macs * share)
    sums = node.accesses["psum_registers"]["O"]
    assert sums["write_done"] < sums["write"] and sums["read_done"] < sums["read"]
