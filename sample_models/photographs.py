"""Photographs that installable packages ship, and random crops of them: natural images without a download of their own."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 224
SEARCH, HOLDOUT, JUDGED = "search", "holdout", "judged"
MATE = "/usr/share/backgrounds/mate/nature"
LOMIRI = "/usr/share/backgrounds"
PLASMA = "/usr/share/wallpapers"
DEBIAN = {MATE: "mate-backgrounds", LOMIRI: "lomiri-wallpapers-16.04", PLASMA: "plasma-workspace-wallpapers"}


@dataclass(frozen=True)
class Photograph:
    """One photograph: the package or folder that ships it, its file, its licence and the split it belongs to.

    Photographs of the split "judged" are in no data of ours; together with the holdout's they judge what tools wrote.
    """

    package: str
    file: str
    licence: str
    split: str

    @property
    def debian(self) -> str | None:
        """The Debian package that ships it, None for a Python package."""
        return DEBIAN.get(self.package)


PHOTOGRAPHS = (
    Photograph("skimage", "data/chelsea.png", "CC0, Stefan van der Walt", SEARCH),
    Photograph("skimage", "data/rocket.jpg", "public domain, SpaceX", SEARCH),
    Photograph("skimage", "data/camera.png", "CC0, Lav Varshney", SEARCH),
    Photograph("skimage", "data/brick.png", "CC0, CC0Textures", SEARCH),
    Photograph("skimage", "data/grass.png", "CC0, LinolafettTextures", SEARCH),
    Photograph("sklearn", "datasets/images/china.jpg", "CC-BY-2.0, danielbuechele", SEARCH),
    Photograph("skimage", "data/astronaut.png", "public domain, NASA", HOLDOUT),
    Photograph("skimage", "data/coffee.png", "CC0, Rachel Michetti", HOLDOUT),
    Photograph("skimage", "data/motorcycle_left.png", "CC0, Middlebury stereo 2014", HOLDOUT),
    Photograph("skimage", "data/gravel.png", "CC0, CC0Textures", HOLDOUT),
    Photograph("sklearn", "datasets/images/flower.jpg", "CC-BY-2.0, vultilion", HOLDOUT),
    Photograph(MATE, "Aqua.jpg", "GPL-2+, Charles Barbin", SEARCH),
    Photograph(MATE, "Dune.jpg", "GPL-2+, Marco Cogoni", SEARCH),
    Photograph(MATE, "Garden.jpg", "GPL-2+, Charles Barbin", SEARCH),
    Photograph(MATE, "Storm.jpg", "GPL-2+, MATE backgrounds authors", SEARCH),
    Photograph(MATE, "TwoWings.jpg", "GPL-2+, MATE backgrounds authors", SEARCH),
    Photograph(MATE, "Blinds.jpg", "GPL-2+, Lennart Poettering", SEARCH),
    Photograph(MATE, "LadyBird.jpg", "GPL-2+, Charles Barbin", HOLDOUT),
    Photograph(MATE, "RainDrops.jpg", "GPL-2+, MATE backgrounds authors", HOLDOUT),
    Photograph(MATE, "YellowFlower.jpg", "GPL-2+, Charles Barbin", HOLDOUT),
    Photograph(MATE, "FreshFlower.jpg", "GPL-2+, Jens Ansorg", HOLDOUT),
    Photograph(MATE, "Wood.jpg", "GPL-2+, MATE backgrounds authors", HOLDOUT),
    Photograph(LOMIRI, "Bridge_by_Sander_Klootwijk.jpg", "CC-BY-SA-4.0, Sander Klootwijk", JUDGED),
    Photograph(LOMIRI, "Dragonfly_by_Bolly.jpg", "CC-BY-SA-4.0, Bolly", JUDGED),
    Photograph(LOMIRI, "Picture_0B_by_freespace.jpg", "CC-BY-4.0, Trevor Freespace", JUDGED),
    Photograph(LOMIRI, "Picture_1A_by_freespace.jpg", "CC-BY-4.0, Trevor Freespace", JUDGED),
    Photograph(LOMIRI, "Wine_by_Jakkub_Mede.jpg", "CC-BY-4.0, Jakub Mede", JUDGED),
    Photograph(LOMIRI, "aitzgorri_by_Aitzol_Berasategi.jpg", "CC-BY-4.0, Aitzol Berasategi", JUDGED),
    Photograph(LOMIRI, "free_by_Peter_Nerlich.jpg", "CC-BY-SA-4.0, Peter Nerlich", JUDGED),
    Photograph(LOMIRI, "friends_by_Aitzol_Berasategi.jpg", "CC-BY-4.0, Aitzol Berasategi", JUDGED),
    Photograph(LOMIRI, "greentock_by_Peter_Nerlich.jpg", "CC-BY-SA-4.0, Peter Nerlich", JUDGED),
    Photograph(LOMIRI, "life_by_Aitzol_Berasategi.jpg", "CC-BY-4.0, Aitzol Berasategi", JUDGED),
    Photograph(LOMIRI, "picosdeeuropa_by_Aitzol_Berasategi.jpg", "CC-BY-4.0, Aitzol Berasategi", JUDGED),
    Photograph(LOMIRI, "seeding_by_Clements_Engelhardt.jpg", "CC0-1.0, Clemens Engelhardt", JUDGED),
    Photograph(LOMIRI, "sunset_by_Aitzol_Berasategi.jpg", "CC-BY-4.0, Aitzol Berasategi", JUDGED),
    Photograph(PLASMA, "BytheWater/contents/images/2560x1600.jpg", "LGPL-3, Maciej Wiklo", JUDGED),
    Photograph(PLASMA, "ColdRipple/contents/images/2560x1600.jpg", "LGPL-3, Risto Saukonpää", JUDGED),
    Photograph(PLASMA, "ColorfulCups/contents/images/2560x1600.jpg", "LGPL-3, Dmitri Popov", JUDGED),
    Photograph(PLASMA, "DarkestHour/contents/images/2560x1600.jpg", "LGPL-3, Risto Saukonpää", JUDGED),
    Photograph(PLASMA, "EveningGlow/contents/images/2560x1600.jpg", "LGPL-3, Ian Hex", JUDGED),
    Photograph(PLASMA, "FallenLeaf/contents/images/2560x1600.jpg", "LGPL-3, Martin Klapetek", JUDGED),
    Photograph(PLASMA, "Grey/contents/images/2560x1600.jpg", "LGPL-3, Risto Saukonpää", JUDGED),
    Photograph(PLASMA, "Kite/contents/images/2560x1600.jpg", "LGPL-3, Sigi Sagi", JUDGED),
    Photograph(PLASMA, "OneStandsOut/contents/images/2560x1600.jpg", "LGPL-3, Risto Saukonpää", JUDGED),
    Photograph(PLASMA, "Path/contents/images/2560x1600.jpg", "LGPL-3, Risto Saukonpää", JUDGED),
    Photograph(PLASMA, "summer_1am/contents/images/2560x1600.jpg", "LGPL-3, Risto Saukonpää", JUDGED),
)


def locate(photo: Photograph) -> Path | None:
    """Where the photograph lies on this machine; None when its Debian package is not installed."""
    if photo.debian is not None:
        path = Path(photo.package) / photo.file
        return path if path.is_file() else None
    spec = importlib.util.find_spec(photo.package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{photo.package} is not installed; run: pip install -e '.[samples]'")
    return Path(spec.origin).parent / photo.file


def crops(splits: Collection[str], count: int, seed: int) -> np.ndarray:
    """`count` random square crops [count, 3, 224, 224] uint8, in turn from each photograph of these splits.

    The side is 35 to 100 percent of the photograph's shorter side, resized to 224 with bicubic filtering; half are
    mirrored.
    """
    found = [locate(photo) for photo in PHOTOGRAPHS if photo.split in splits]
    images = [Image.open(path).convert("RGB") for path in found if path is not None]
    digest = hashlib.sha256("+".join(splits).encode()).digest()[:4]
    rng = np.random.default_rng([seed, int.from_bytes(digest, "big")])
    out = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for i in range(count):
        image = images[i % len(images)]
        side = int(min(image.size) * rng.uniform(0.35, 1.0))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels = np.asarray(crop)
        out[i] = (pixels[:, ::-1] if rng.random() < 0.5 else pixels).transpose(2, 0, 1)
    return out
