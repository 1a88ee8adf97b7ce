"""What a newcomer gets: the ONNX model of a package on PyPI, at most three commands, and what they print in short.

    OMP_NUM_THREADS=1 HWC_ONNX_THREADS=1 python benchmarks/new_user.py rapidocr-onnxruntime --folder FOLDER --trials 10
    python benchmarks/new_user.py PACKAGE --file PART_OF_ITS_NAME --option=--input-shape=x:1x3x224x224      # any other package

The package is downloaded as a wheel and neither installed nor imported: one ONNX file is taken out of it. None of the models
was made or changed for this project. Each known package (`RECIPES`) comes with samples that are made here, as the
package prepares its own; they are no test set of the model's authors, so figures say how much the model's answers change on
them. A package that is not known is compressed without data, on made-up inputs, as the command line does by itself.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES = 1 << 30
"""Bytes of a model that is taken out of a wheel."""
WORDS = ("invoice", "total", "page", "street", "open", "closed", "room", "exit", "please", "number", "date", "name", "city", "fresh")


def rendered_text(path: Path, count: int = 4000) -> None:
    """Lines of text in Pillow's own font, on 48 x 192 pixels; every other one upside down, which is the label."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(0)
    images = []
    for number in range(count):
        image = Image.new("RGB", (192, 48), tuple(int(value) for value in rng.integers(150, 256, 3)))
        font = ImageFont.load_default(size=int(rng.integers(18, 36)))
        text = f"{' '.join(rng.choice(WORDS, 2))} {rng.integers(0, 10000)}"
        ink = tuple(int(value) for value in rng.integers(0, 100, 3))
        ImageDraw.Draw(image).text((int(rng.integers(0, 20)), int(rng.integers(0, 10))), text, fill=ink, font=font)
        images.append(np.asarray(image.rotate(180 if number % 2 else 0)).transpose(2, 0, 1))
    np.savez_compressed(path, x=np.stack(images), y=np.arange(count) % 2, mean=np.float32([0.5]), std=np.float32([0.5]))


def files_of_python(path: Path, count: int = 600) -> None:
    """The first and last 1,024 bytes of files of this Python installation, as magika reads them; all kinds of files in turn."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "purelib")}
    found: dict[str, list[Path]] = {}
    # one of these folders may lie inside the other
    for file in sorted({file for place in places for file in Path(place).resolve().rglob("*")}):
        if file.is_file() and not file.is_symlink() and 16 < file.stat().st_size < 5_000_000:
            found.setdefault(file.suffix, []).append(file)
    rng = np.random.default_rng(0)
    queues = [list(rng.permutation(np.array(files, object))) for _, files in sorted(found.items())]
    rows: list[np.ndarray] = []
    while len(rows) < count and any(queues):
        for queue in queues:
            if queue and len(rows) < count:
                rows.append(_ends(queue.pop().read_bytes()))
    np.savez(path, bytes=np.stack(rows))


def _ends(content: bytes) -> np.ndarray:
    """What magika's network sees of a file: 256 stands for what a short file lacks."""
    row = np.full(2048, 256, np.int32)
    first, last = content[:4096].lstrip(), content[-4096:].rstrip()
    if len(content) <= 4096:
        first = last = content.strip()
    first, last = first[:1024], last[-1024:]
    row[: len(first)] = list(first)
    row[2048 - len(last) :] = list(last)
    return row


def tones_and_noise(path: Path, count: int = 600) -> None:
    """576 samples at 16 kHz: voices of some harmonics in noise, or noise alone, with states from a normal distribution."""
    rng = np.random.default_rng(0)
    seconds = np.arange(576) / 16000
    waves = []
    for _ in range(count):
        wave = rng.normal(0.0, rng.uniform(1e-4, 0.05), 576)
        pitch, loudness = rng.uniform(80, 300), rng.uniform(0.0, 0.5)
        for harmonic in range(1, int(rng.integers(0, 8)) + 1):
            wave += loudness * rng.uniform() / harmonic * np.sin(2 * np.pi * pitch * harmonic * seconds + rng.uniform(0, 6))
        waves.append(wave)
    states = rng.normal(0.0, 0.3, (count, 2, 1, 128))
    np.savez(path, input=np.float32(waves), state=np.float32(states))


@dataclass(frozen=True)
class Recipe:
    """A package at a version: which file, inputs to fix, options of every command, samples and what they are."""

    version: str
    file: str
    fix: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    samples: Callable[[Path], None] | None = None
    what: str = "made-up inputs (no --data)"


RECIPES = {
    "rapidocr-onnxruntime": Recipe(
        "1.4.4",
        "ch_ppocr_mobile_v2.0_cls",
        options=("--input-shape", "x:1x3x48x192"),
        samples=rendered_text,
        what="lines of text drawn with Pillow, half of them upside down, which is the label",
    ),
    "magika": Recipe("1.0.3", "model.onnx", samples=files_of_python, what="files of this Python installation, without labels"),
    "silero-vad": Recipe(
        "6.2.3",
        "data/silero_vad.onnx",
        fix=("sr=16000",),
        options=("--input-shape", "input:1x576", "--input-shape", "state:2x1x128"),
        samples=tones_and_noise,
        what="voices of some harmonics in noise, made up, without labels",
    ),
}


def download(package: str, version: str, folder: Path) -> Path:
    """The wheel of a package, from the index that pip is set up for; nothing is installed."""
    wanted = f"{package}=={version}" if version else package
    found = _wheels(package, version, folder)
    if not found:
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), wanted]
        subprocess.run(command, check=True)
        found = _wheels(package, version, folder)
    if not found:
        raise SystemExit(f"pip downloaded no wheel of {wanted} into {folder}")
    return found[-1]


def _wheels(package: str, version: str, folder: Path) -> list[Path]:
    wanted = re.sub(r"[-_.]+", "_", package).lower()
    found = []
    for file in sorted(folder.glob("*.whl")):
        name, its_version = file.name.split("-")[:2]
        if re.sub(r"[-_.]+", "_", name).lower() == wanted and version in ("", its_version):
            found.append(file)
    return found


def take_model(wheel: Path, part: str, target: Path) -> str:
    """Copy the ONNX file whose name contains `part` (the largest of several) out of a wheel; returns its name there.

    The name inside the wheel decides nothing about where the file goes, and no other file is written.
    """
    with zipfile.ZipFile(wheel) as archive:
        models = [info for info in archive.infolist() if info.filename.endswith(".onnx") and part in info.filename]
        if not models:
            listed = ", ".join(info.filename for info in archive.infolist() if info.filename.endswith(".onnx"))
            raise SystemExit(f"{wheel.name}: no ONNX file with '{part}' in its name; it has {listed or 'none'}")
        chosen = max(models, key=lambda info: (info.file_size, info.filename))
        if chosen.file_size > MOST_BYTES:
            raise SystemExit(f"{chosen.filename}: {chosen.file_size:,} bytes; more than {MOST_BYTES:,} are not taken out of a wheel")
        with archive.open(chosen) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    return chosen.filename


@dataclass(frozen=True)
class Done:
    """A command that was run: its exit code, seconds and JSON."""

    words: tuple[str, ...]
    code: int
    seconds: float
    payload: dict[str, Any]

    def __str__(self) -> str:
        return f"$ hwc-onnx {shlex.join(self.words)}\n  exit code {self.code}, {self.seconds:.0f} s"


def run(words: Sequence[str], folder: Path) -> Done:
    """Run one command in `folder`; --json is added, and progress goes into a log beside the model."""
    began = time.perf_counter()
    with (folder / f"{words[0]}.log").open("w") as log:
        command = [sys.executable, "-m", "hwc_onnx", *words, "--json"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    seconds = time.perf_counter() - began
    try:
        payload = json.loads(done.stdout)
    except ValueError:
        tail = (folder / f"{words[0]}.log").read_text().strip().splitlines()[-3:]
        raise SystemExit("\n".join([f"$ hwc-onnx {shlex.join(words)}", f"  exit code {done.returncode}", *tail])) from None
    return Done(tuple(words), done.returncode, seconds, payload)


def summary(result: dict[str, Any], verified: dict[str, Any], report: str, what: str) -> list[str]:
    """Lines about the file that was written, from result.json and `verify --json`."""
    metric, energy, output = result["metric"], result["energy_pj"], result["output"]
    low, high = metric["drop_ci95"] or (None, None)
    interval = "" if low is None else f" (95 % interval {low:+.2f} .. {high:+.2f})"
    unit = result.get("energy_unit", "pJ")
    ratio = metric["name"] == "sqnr"  # of INT8 against the original, so that the original has none of its own
    before = "" if ratio else f"{metric['original']:.4g} -> "
    levels = [level for level in verified["levels"] if level["opens"]]
    same = "" if verified["agreement"] is None else f", same answer for {verified['agreement']:.1%} of {verified['n_samples']} samples"
    apart = "" if verified["relative_error"] is None else f", outputs apart by {verified['relative_error']:.1%}"
    return [
        f"written        {output['kind']}",
        f"energy         {energy['compressed']:.4g} {unit} an inference; INT8 {energy['baseline_int8']:.4g}, float {energy['float']:.4g}:"
        f" {-result['reduction_vs_int8']:+.1%} vs INT8",
        f"{metric['name']:14s} {before}{metric['compressed']:.4g}{' dB' if ratio else ''}, INT8 {metric['baseline_int8']:.4g}; drop"
        f" {metric['drop_points']:+.2f} {'dB from INT8' if ratio else 'points'}{interval}",
        f"measured on    {result['splits']['holdout']} held-out samples: {what}",
        f"file           {output['original_file_bytes']:,} -> {output['file_bytes']:,} bytes (INT8 {output['baseline_file_bytes']:,})",
        f"verify         {'passed' if verified['passed'] else 'FAILED'}, opens at {len(levels)} of {len(verified['levels'])} levels"
        f" of ONNX Runtime{same}{apart}",
        f"report         {report}",
    ]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compress the ONNX model of a package on PyPI with at most three commands.")
    parser.add_argument("package", help="its name on PyPI")
    parser.add_argument("--folder", type=Path, default=Path("new_user"), help="where everything is kept")
    parser.add_argument("--wheel", type=Path, help="a wheel that is there already, instead of a download")
    parser.add_argument("--file", help="part of the ONNX file's name in the wheel; default: that of the recipe, or the largest")
    parser.add_argument("--option", action="append", default=[], metavar="--NAME=VALUE", help="for each command, such as --input-shape")
    parser.add_argument("--accel", default="edge-flex")
    parser.add_argument("--max-drop", default="1.0")
    parser.add_argument("--trials", type=int, default=10)
    args = parser.parse_args()
    recipe = RECIPES.get(args.package, Recipe("", ""))
    folder = args.folder / args.package
    folder.mkdir(parents=True, exist_ok=True)
    wheel = args.wheel or download(args.package, recipe.version, args.folder)
    name = take_model(wheel, recipe.file if args.file is None else args.file, folder / "model.onnx")
    print(f"{wheel.name}: {name}, {(folder / 'model.onnx').stat().st_size:,} bytes")
    commands: list[list[str]] = []
    model = "model.onnx"
    if recipe.fix:
        commands.append(["fix", model, *(word for value in recipe.fix for word in ("--input", value)), "-o", "fixed.onnx"])
        model = "fixed.onnx"
    given = [*recipe.options, *(word for option in args.option for word in option.split("=", 1))]
    what = "samples of --option" if any(word.startswith("--data") for word in given) else recipe.what
    if recipe.samples is not None:
        recipe.samples(folder / "samples.npz")
        given += ["--data", "samples.npz"]
    small = f"{Path(model).stem}.hwc.onnx"
    commands.append(["compress", model, *given, "--accel", args.accel, "--max-drop", args.max_drop, "--trials", str(args.trials)])
    commands.append(["verify", small, "--against", model, *given])
    done = []
    for words in commands:
        done.append(run(words, folder))
        print(done[-1], flush=True)
    run_dir = f"{Path(model).stem}.hwc"
    report = folder / run_dir / "report.html"
    result = json.loads((folder / run_dir / "result.json").read_text(encoding="utf-8"))
    print("\n".join(summary(result, done[-1].payload, report.relative_to(args.folder).as_posix() if report.is_file() else "missing", what)))
    return max(one.code for one in done)


if __name__ == "__main__":
    sys.exit(main())
