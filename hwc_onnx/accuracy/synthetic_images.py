"""Images made of nothing, with the statistics of natural ones.

White noise excites a network as no photograph does: neighbouring pixels of a photograph agree, its spectrum falls as
1/f, and it is made of objects that hide each other. Three families have these properties without any data: noise with a
falling spectrum, "dead leaves" (random shapes painted over each other with sizes of a power law), and few shapes on a plain
background, as drawings, scans and photographs of products have: these reach black and white, where ranges end.

Source: Field, J. Opt. Soc. Am. A 4 (1987), 2379-2394 (spectrum); Lee, Mumford and Huang, Int. J. Computer Vision 41
(2001), 35-59 (dead leaves); Baradad et al., NeurIPS 2021 (both as training images for networks).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_BLOCK = 32
_FAMILIES = 3


def images(count: int, channels: int, rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pixels [count, channels, rows, columns]: a third noise, a third dead leaves, a third plain scenes, in random order."""
    made = np.empty((count, channels, rows, columns), np.uint8)
    kinds = rng.permutation(count) % _FAMILIES
    noisy = np.flatnonzero(kinds == 0)
    for start in range(0, len(noisy), _BLOCK):
        part = noisy[start : start + _BLOCK]
        made[part] = _pixels(fractal_noise(len(part), channels, rows, columns, rng))
    textures = fractal_noise(_BLOCK, 1, rows, columns, rng)[:, 0]
    for kind, paint in ((1, dead_leaves), (2, plain_scene)):
        for position in np.flatnonzero(kinds == kind):
            texture = textures[int(rng.integers(_BLOCK))]
            made[position] = _pixels(paint(channels, rows, columns, rng, texture))
    return made


def fractal_noise(count: int, channels: int, rows: int, columns: int, rng: np.random.Generator) -> F32:
    """Images [count, channels, rows, columns] in 0..1 whose amplitude falls as 1/f^a, a in 0.8..1.6.

    The channels share one field, so that they correlate as the colours of photographs do.
    """
    from scipy.fft import irfft2

    vertical = np.fft.fftfreq(rows)[:, None] * rows
    horizontal = np.fft.rfftfreq(columns)[None, :] * columns
    frequency = np.sqrt(vertical**2 + horizontal**2)
    frequency[0, 0] = np.inf
    slopes = rng.uniform(0.8, 1.6, (count, 1, 1, 1))
    shape = (count, channels, *frequency.shape)
    spectrum = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    spectrum *= (frequency**-slopes).astype(np.float32)
    fields: F32 = np.asarray(irfft2(spectrum, s=(rows, columns), overwrite_x=True), np.float32)
    fields /= _spread(fields)
    mixed = rng.uniform(0.6, 0.95, (count, 1, 1, 1)).astype(np.float32) * fields[:, :1] + np.float32(0.4) * fields
    contrast = rng.uniform(0.08, 0.28, (count, 1, 1, 1)).astype(np.float32)
    centre = rng.uniform(0.3, 0.7, (count, 1, 1, 1)).astype(np.float32)
    return np.clip(centre + contrast / _spread(mixed) * mixed, 0.0, 1.0)


def dead_leaves(channels: int, rows: int, columns: int, rng: np.random.Generator, texture: F32) -> F32:
    """One image [channels, rows, columns] in 0..1: discs and rectangles over each other, as many of size r as r^-3.

    `texture` [rows, columns] is laid faintly over all of it.
    """
    side = min(rows, columns)
    smallest, largest = max(1.0, side / 24), max(2.0, side / 2)
    count = int(rng.integers(30, 80))
    # inverse transform of a density ~ r^-3 between the two sizes
    radii = (smallest**-2 - rng.random(count) * (smallest**-2 - largest**-2)) ** -0.5
    centres = rng.random((count, 2)) * (rows, columns)
    colours = _colours(count + 1, channels, rng)
    corners = np.concatenate([centres - radii[:, None], centres + radii[:, None] + 1], axis=1)
    limits = np.clip(corners.astype(np.int64), 0, [rows, columns, rows, columns]).tolist()
    square = (rng.random(count) < 0.5).tolist()
    image = np.empty((channels, rows, columns), np.float32)
    image[:] = colours[count][:, None, None]
    for leaf, (top, left, bottom, right) in enumerate(limits):
        patch = image[:, top:bottom, left:right]
        colour = colours[leaf][:, None, None]
        if square[leaf]:
            patch[:] = colour
            continue
        down = np.arange(top, bottom) - centres[leaf, 0]
        along = np.arange(left, right) - centres[leaf, 1]
        np.copyto(patch, colour, where=(down**2)[:, None] + (along**2)[None, :] <= radii[leaf] ** 2)
    image += np.float32(0.06) * (texture - np.float32(0.5))
    return np.clip(image, 0.0, 1.0)


def plain_scene(channels: int, rows: int, columns: int, rng: np.random.Generator, texture: F32) -> F32:
    """One image [channels, rows, columns] in 0..1: one to five turned ellipses and rectangles near the middle of a background
    that is black, white or grey.

    `texture` [rows, columns] shows on the shapes.
    """
    count = int(rng.integers(1, 6))
    background = (0.0, 1.0, rng.random())[int(rng.integers(3))]
    image = np.full((channels, rows, columns), background, np.float32)
    colours = _colours(count, channels, rng)
    halves = rng.uniform(0.08, 0.45, (count, 2)) * (rows, columns)
    centres = rng.uniform(0.3, 0.7, (count, 2)) * (rows, columns)
    angles, strengths = rng.uniform(0.0, np.pi, count), rng.random(count)
    for shape in range(count):
        down = (np.arange(rows, dtype=np.float32) - np.float32(centres[shape, 0]))[:, None]
        along = (np.arange(columns, dtype=np.float32) - np.float32(centres[shape, 1]))[None, :]
        sine, cosine = np.float32(np.sin(angles[shape])), np.float32(np.cos(angles[shape]))
        u = np.abs(cosine * down + sine * along) / np.float32(max(halves[shape, 0], 0.5))
        v = np.abs(cosine * along - sine * down) / np.float32(max(halves[shape, 1], 0.5))
        inside = np.maximum(u, v) <= 1 if rng.random() < 0.5 else u**2 + v**2 <= 1
        shade = np.float32(0.5 * strengths[shape]) * (texture[inside] - np.float32(0.5))
        image[:, inside] = np.clip(colours[shape][:, None] + shade, 0.0, 1.0)
    return image


def _colours(count: int, channels: int, rng: np.random.Generator) -> F32:
    """Colours [count, channels] in 0..1: those of natural images are strongly correlated, a grey level plus a little tint."""
    tint = np.float32(0.12) * rng.standard_normal((count, channels), np.float32)
    return np.clip(rng.random((count, 1), np.float32) + tint, 0.0, 1.0)


def _pixels(values: F32) -> NDArray[np.uint8]:
    """Values in 0..1 as 0..255."""
    return np.rint(255 * values).astype(np.uint8)


def _spread(fields: F32) -> F32:
    """Standard deviation of each image, kept above zero."""
    spread: F32 = fields.std(axis=tuple(range(1, fields.ndim)), keepdims=True)
    return np.maximum(spread, np.float32(1e-12))
