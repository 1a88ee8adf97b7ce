"""The rows of benchmarks/recovery.py: a model, a setting, and the bar that ours is held to.

`spec` is written as for `hwc-onnx apply --uniform`; `plain` is the same with the selection that looks at the weights alone
(magnitude, L1), which `--recovery none` gets. `peers` names the setting under which other tools are compared, None where
none of them has it. Bars are points of top-1 lost: the mean over seeds at w8a8, the median elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERYWHERE, INSIDE, STREAM = "everywhere", "inside", "stream"
W8_MEAN, W8_DISAGREEMENT = 0.1, 1.0


@dataclass(frozen=True)
class Setting:
    """One row.

    `scope` says which channel groups lose channels: all, those inside a block (one producer) or those on the residual
    stream (several). `points` is the largest loss, `disagreement` the largest share of changed answers in percent,
    `of_plain` the largest loss as a share of the plain loss, `agreement` the least agreement with the float model in
    percent, `ahead` how many points of it ours must be above the best peer.
    """

    model: str
    spec: str
    peers: str | None = None
    plain: str | None = None
    scope: str = EVERYWHERE
    points: float | None = None
    mean: bool = False
    disagreement: float | None = None
    of_plain: float | None = None
    agreement: float | None = None
    ahead: float | None = None

    @property
    def name(self) -> str:
        """Unique, and a file name."""
        scope = "" if self.scope == EVERYWHERE else f",{self.scope}"
        return f"{self.model}/{self.spec}{scope}"

    @property
    def bar(self) -> str:
        """The bar in words."""
        parts = []
        if self.points is not None:
            parts.append(f"<= {self.points:g}{' mean' if self.mean else ''}")
        if self.of_plain is not None:
            parts.append(f"<= {self.of_plain:g} of plain")
        if self.disagreement is not None:
            parts.append(f"<= {self.disagreement:g} % differ")
        if self.agreement is not None:
            parts.append(f">= {self.agreement:g} %")
        if self.ahead is not None:
            parts.append(f"{self.ahead:g} above peers")
        return ", ".join(parts) or "-"


def _whole(model: str) -> Setting:
    return Setting(model, "w8a8", "w8a8", points=W8_MEAN, mean=True, disagreement=W8_DISAGREEMENT)


def _narrow(model: str) -> tuple[Setting, ...]:
    bars = {"w4a8": 0.25, "w3a8": 0.7, "w4a4": 0.6, "w2a8": 5.0}
    return tuple(Setting(model, spec, spec, points=points) for spec, points in bars.items())


def _zeros(widths: str, points: float) -> Setting:
    return Setting("resnet20", f"{widths},fine=obs:0.5", plain=f"{widths},fine=magnitude:0.5", points=points)


def _channels(ratio: float, scope: str, points: float | None = None, of_plain: float | None = None) -> Setting:
    spec, plain = (f"w8a8,coarse={name}:{ratio:g}" for name in ("gram", "l1"))
    return Setting("resnet20", spec, plain=plain, scope=scope, points=points, of_plain=of_plain)


ROWS = (
    _whole("resnet20"),
    *_narrow("resnet20"),
    _zeros("w8a8", 0.15),
    _zeros("w4a8", 0.6),
    _zeros("w4a4", 0.8),
    Setting("resnet20", "w8a8,fine=block4:0.5"),
    Setting("resnet20", "w4a8,fine=block4:0.5"),
    _channels(0.3, INSIDE, 1.2, 0.1),
    _channels(0.5, INSIDE, 2.0),
    _channels(0.3, STREAM),
    _whole("vgg_small"),
    *_narrow("vgg_small"),
    _whole("mobilenetv2_small"),
    Setting("mobilenetv2_small", "w4a8", "w4a8", points=1.5),
    Setting("vit_tiny", "w8a8", "w8a8", points=0.3),
    Setting("efficientnet_lite0", "w8a8", "w8a8", agreement=94.0, ahead=5.0),
)
