"""A rewrite pass is a contract: require, do, ensure.

Whatever a pass does, afterwards the model must satisfy the ONNX checker, declare the same inputs and outputs (names,
types, dynamic axes), and open in ONNX Runtime. A pass that breaks this is named, with the node that gave it away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.graph.external import without_mapped

logger = logging.getLogger(__name__)

Rewrite = Callable[[onnx.ModelProto], onnx.ModelProto]


@dataclass(frozen=True)
class Pass:
    """One rewrite: `do` returns a new model, `require` a reason why the pass cannot run on a model, or None."""

    name: str
    do: Rewrite
    require: Callable[[onnx.ModelProto], str | None] = lambda _: None


def run(proto: onnx.ModelProto, passes: Sequence[Pass]) -> onnx.ModelProto:
    """Apply the passes in order and check the contract after each.

    Raises:
        RuntimeFailure: a requirement is not met, or a pass broke the contract; the message names the pass, the node
            and the passes that had run before it.
    """
    done: list[str] = []
    for step in passes:
        before = f" (after {', '.join(done)})" if done else ""
        reason = step.require(proto)
        if reason is not None:
            raise RuntimeFailure(f"pass '{step.name}'{before} cannot run: {reason}")
        result = step.do(proto)
        problem = broken_contract(proto, result)
        if problem is not None:
            raise RuntimeFailure(f"pass '{step.name}'{before} {problem}; please report it with the model")
        logger.info("pass %s: %d nodes became %d", step.name, len(proto.graph.node), len(result.graph.node))
        proto = result
        done.append(step.name)
    return proto


def broken_contract(before: onnx.ModelProto, after: onnx.ModelProto) -> str | None:
    """What `after` breaks, in words that complete "pass ...", or None."""
    for kind in ("input", "output"):
        declared, now = _declared(before, kind), _declared(after, kind)
        for name in sorted(set(declared) | set(now)):
            if declared.get(name) != now.get(name):
                return f"changed the declaration of {kind} '{name}'"
    for refused in (_fails_the_checker, _does_not_open):
        problem = refused(after)
        # what was refused before the pass is not its doing
        if problem is not None and refused(before) is None:
            return problem
    return None


def _fails_the_checker(proto: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(without_mapped(proto))
    except onnx.checker.ValidationError as error:
        return f"made a model that the ONNX checker refuses at {_culprit(proto, str(error))}: {_first_line(error)}"
    return None


def _declared(proto: onnx.ModelProto, kind: str) -> dict[str, bytes]:
    constants = {tensor.name for tensor in proto.graph.initializer}
    values = getattr(proto.graph, kind)
    return {
        value.name: value.type.SerializeToString(deterministic=True) for value in values if value.name not in constants
    }


def _does_not_open(proto: onnx.ModelProto) -> str | None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = without_mapped(proto).SerializeToString()
    try:
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        return f"made a model that ONNX Runtime refuses at {_culprit(proto, str(error))}: {_first_line(error)}"
    return None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _culprit(proto: onnx.ModelProto, message: str) -> str:
    """The node an error message speaks of: the longest node name or output name that occurs in it."""
    names = {name: node for node in proto.graph.node for name in (node.name, *node.output) if name and name in message}
    if not names:
        return "an unnamed node"
    node = names[max(names, key=len)]
    return f"node '{node.name or node.output[0]}' ({node.op_type})"
