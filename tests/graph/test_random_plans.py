"""Random networks under uniform plans: the written file is what the plan foretold, and opens at every level."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwc_onnx.candidate import build
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.graph.parse import parse
from hwc_onnx.plan import with_plan
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import prepare
from tests.random_graphs import random_graph

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


def opened(proto: onnx.ModelProto, level: str) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, tiny_models.feeds(proto))[0]
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["w16a16,coarse=l2:0.3", "w4a6,coarse=l1:0.4", "w8a8", "w3a4"]))
def test_a_random_network_costs_what_its_plan_foretold(seed: int, spec: str) -> None:
    made = prepare(lambda: random_graph(seed))
    found = build(made.proto, made.graph, made.database, uniform(made.graph, parse_spec(spec)))
    foretold, read = with_plan(made.graph, found.plan), parse(found.proto, densities=found.plan.activation_density)
    # a tensor of one channel left is taken for a gate that is as large as what it multiplies
    assume(all(min(t.shape, default=2) > 1 or made.graph.tensors[n].shape == t.shape for n, t in foretold.tensors.items()))
    model = CostModel(load_profile("edge-flex"))
    assert model.cost(foretold).total == pytest.approx(model.cost(read).total, rel=1e-9)
    results = [opened(found.proto, level) for level in LEVELS]
    assert all(np.isfinite(result).all() and result.shape == results[0].shape for result in results)
