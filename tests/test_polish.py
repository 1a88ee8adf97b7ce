"""Polished networks: no layer worse on held-out images, worse networks turned down, masks and bits kept, the same bytes again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwc_onnx import polish as polishing
from hwc_onnx.accuracy.reference import Reference, make_reference
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.database import Stitched
from hwc_onnx.graph.layer_graph import FLOAT_BITS
from hwc_onnx.polish import Polished, PolishedLayer, polish, polished_layers
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import EVERY_POSITION, Prepared, prepare
from tests.test_rebuild import IMAGES, MODELS, error_of


def stitched(made: Prepared, spec: str) -> Stitched:
    return made.database.stitch(uniform(made.graph, parse_spec(spec)))


def layers_of(made: Prepared, start: Stitched) -> tuple[Stitched, tuple[PolishedLayer, ...]]:
    return polished_layers(
        made.proto, made.graph, made.database, start, made.samples, threads=1, gram_rows=EVERY_POSITION
    )


def reference(made: Prepared) -> Reference:
    x = tiny_models.feeds(made.proto, 128, seed=7)["x"]
    return make_reference(made.proto, Samples({"x": x}, None), "cosine", threads=1)


def whole(made: Prepared, start: Stitched) -> Polished:
    return polish(made.proto, made.graph, made.database, start, made.samples, reference(made), threads=1)


@pytest.mark.parametrize("spec", ["w2a8", "w3a8,coarse=l1:0.5", "w3a8,fine=obs:0.5"])
@pytest.mark.parametrize("model", MODELS)
def test_no_layer_gets_worse_on_held_out_images_given_what_comes_before(model: str, spec: str) -> None:
    made = prepare(tiny_models.ALL[model], images=IMAGES)
    start = stitched(made, spec)
    after, layers = layers_of(made, start)
    weights = dict(start.weights)
    assert any(layer.changed for layer in layers)
    for layer in layers:
        assert layer.after <= layer.before * (1 + 1e-9)
        node = next(found for found in made.graph.layers if found.key == layer.key)
        old = error_of(made, node, replace(start, weights=weights), fitted=False, behind=False)
        weights[layer.key] = after.weights[layer.key]
        new = error_of(made, node, replace(start, weights=weights), fitted=False, behind=False)
        assert new <= old * (1 + 1e-4) + 1e-9


def test_a_layer_that_takes_worse_rows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: the held-out error is not asked, so that rows which only fit better are taken."""
    made = prepare(tiny_models.residual, images=IMAGES)
    monkeypatch.setattr(polishing, "picked", lambda variants, errors, tied: variants[1])
    _, layers = layers_of(made, stitched(made, "w2a8"))
    assert any(layer.after > layer.before for layer in layers)


def test_layers_gain_on_held_out_images() -> None:
    made = prepare(tiny_models.residual, images=IMAGES)
    _, layers = layers_of(made, stitched(made, "w2a8"))
    assert sum(layer.after for layer in layers) < 0.97 * sum(layer.before for layer in layers)


def test_what_was_zero_by_a_mask_stays_zero_and_wide_layers_stay_as_they_are() -> None:
    made = prepare(tiny_models.chain, images=IMAGES)
    start = stitched(made, "w3a8,fine=magnitude:0.5")
    after, _ = layers_of(made, start)
    for key, weight in start.weights.items():
        assert not after.weights[key].codes[weight.codes == 0].any()
        assert after.plan.achieved[key].weight_density == after.weights[key].weight_density
    wide = stitched(made, "w8a8")
    same, layers = layers_of(made, wide)
    assert same is wide and layers == ()


def test_codes_stay_within_their_width() -> None:
    made = prepare(tiny_models.chain, images=IMAGES)
    after, _ = layers_of(made, stitched(made, "w2a8"))
    for key, weight in after.weights.items():
        bits = after.plan.layers[key].weight_bits
        if bits < FLOAT_BITS:
            assert np.abs(weight.codes.astype(int)).max() <= 2 ** (bits - 1)


def test_polishing_twice_gives_the_same_bytes() -> None:
    first, again = (
        layers_of(made, stitched(made, "w3a8"))[0]
        for made in (prepare(tiny_models.depthwise, images=IMAGES) for _ in range(2))
    )
    for key, weight in first.weights.items():
        other = again.weights[key]
        assert weight.codes.tobytes() == other.codes.tobytes()
        assert weight.params is None or other.params is None or weight.params.scale.tobytes() == other.params.scale.tobytes()
    assert first.plan == again.plan


def test_the_better_network_is_kept_and_both_are_told() -> None:
    made = prepare(tiny_models.residual, images=IMAGES)
    start = stitched(made, "w2a8")
    found = whole(made, start)
    assert found.kept == (found.after.damage < found.before.damage)
    assert (found.stitched is start) != found.kept
    told = found.payload()
    assert told["n_samples"] == 128 and len(told["layers"]) == len(found.layers)
    assert f"{found.after.damage:.4g}" in found.note()


def test_a_network_that_measures_worse_is_turned_down(monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(tiny_models.residual, images=IMAGES)
    start = stitched(made, "w3a8")

    def spoiled(*args: object, **kwargs: object) -> tuple[Stitched, tuple[PolishedLayer, ...]]:
        key = next(iter(start.weights))
        wrong = replace(start.weights[key], codes=np.ascontiguousarray(start.weights[key].codes[::-1]))
        return replace(start, weights={**start.weights, key: wrong}), (PolishedLayer(key, 3, 1.0, 0.9, 0.5, 0.1),)

    monkeypatch.setattr(polishing, "polished_layers", spoiled)
    found = whole(made, start)
    assert not found.kept and found.stitched is start
    assert "not kept" in found.note()
