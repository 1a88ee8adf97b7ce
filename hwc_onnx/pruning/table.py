"""The literal table of pruning algorithms. A name with a colon is `module:attribute` of your own."""

from __future__ import annotations

from hwc_onnx.errors import UsageError
from hwc_onnx.plugins import resolve
from hwc_onnx.pruning.base import CoarseAlgorithm, FineAlgorithm

NONE = "none"

FINE: dict[str, str] = {
    "magnitude": "hwc_onnx.pruning.magnitude:ALGORITHM",
    "sensitivity": "hwc_onnx.pruning.sensitivity:ALGORITHM",
    "wanda": "hwc_onnx.pruning.wanda:ALGORITHM",
    "obs": "hwc_onnx.pruning.obs:ALGORITHM",
    "nm24": "hwc_onnx.pruning.pattern:TWO_OF_FOUR",
    "nm48": "hwc_onnx.pruning.pattern:FOUR_OF_EIGHT",
    "block4": "hwc_onnx.pruning.block:BLOCKS_OF_FOUR",
}

COARSE: dict[str, str] = {
    "l1": "hwc_onnx.pruning.l1:ALGORITHM",
    "l2": "hwc_onnx.pruning.l2:ALGORITHM",
    "fpgm": "hwc_onnx.pruning.fpgm:ALGORITHM",
    "bernoulli": "hwc_onnx.pruning.bernoulli:ALGORITHM",
    "reconstruct": "hwc_onnx.pruning.reconstruct:ALGORITHM",
    "gram": "hwc_onnx.pruning.gram:ALGORITHM",
    "fold": "hwc_onnx.pruning.fold:ALGORITHM",
}

WEIGHTS_ALONE = frozenset({NONE, "magnitude", "sensitivity", "l1", "l2", "fpgm", "bernoulli", "fold"})
"""Names whose choice does not depend on the layers' inputs: they need no calibration."""

ON_REQUEST = frozenset({"fold", "block4"})
"""Names that a search takes up only where they are asked for."""

def algorithm(name: str) -> FineAlgorithm | CoarseAlgorithm | None:
    """The algorithm called `name`, None for "none".

    Raises:
        UsageError: unknown name (with the nearest known one), or a plug-in of the wrong type.
    """
    if name == NONE:
        return None
    found = resolve("pruning algorithm", name, FINE | COARSE)
    if not isinstance(found, FineAlgorithm | CoarseAlgorithm):
        raise UsageError(
            f"pruning algorithm '{name}' is a {type(found).__name__}; it must be a FineAlgorithm or CoarseAlgorithm "
            "(see hwc_onnx/pruning/base.py)"
        )
    return found


def granularity(name: str) -> str:
    """ "fine", "coarse" or "none" (UsageError for an unknown name)."""
    if name in FINE:
        return "fine"
    if name in COARSE:
        return "coarse"
    found = algorithm(name)
    return NONE if found is None else found.granularity
