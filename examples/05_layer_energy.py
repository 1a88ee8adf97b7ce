"""One layer without a model: its best mapping on several accelerators, and what a mapping of your own would cost.

python examples/05_layer_energy.py
"""

from __future__ import annotations

import argparse

from hwc_onnx.cost import LayerMapping, LoopDims, evaluate_mapping, load_profile, map_layer


def main() -> None:
    """Map a 3 x 3 convolution, then state a mapping with another order of its outer loops."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--accelerators", nargs="+", default=["edge-flex", "eyeriss-v1", "edge-tpu-64x64"])
    parser.add_argument("--channels", type=int, default=64)
    arguments = parser.parse_args()

    layer = LoopDims(K=arguments.channels, C=64, OY=28, OX=28, FY=3, FX=3, pads=(1, 1, 1, 1))
    for name in arguments.accelerators:
        bits = load_profile(name).mac.bits
        best = map_layer(layer, name, activation_bits=bits, weight_bits=bits)
        loops = " ".join(f"{d}{n}" for d, n in best.mapping["temporal"])
        print(f"{name}: {best.total / best.macs:.3f} per MAC, {100 * best.utilisation:.0f}% of the array, loops {loops}")
        found = LayerMapping.from_json(best.mapping)
        turned = LayerMapping(found.spatial, found.temporal[::-1])
        other = evaluate_mapping(layer, turned, name, activation_bits=bits, weight_bits=bits)
        print(f"  the same loops inside out: {other.total / best.total:.2f} times the energy")


if __name__ == "__main__":
    main()
