from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import InputSpec, input_specs
from hwc_onnx.accuracy.npz_file import LIMIT_BYTES, read_npz
from hwc_onnx.errors import DataError
from tests.accuracy.linear_model import classifier, labelled

SPECS = input_specs(classifier())
RNG = np.random.default_rng(0)


def pixels(count: int = 6) -> np.ndarray:
    return RNG.integers(0, 256, (count, 1, 8, 8), np.uint8)


def saved(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def test_npz_uint8_images_are_divided_then_normalised(tmp_path):
    x = pixels()
    path = saved(tmp_path, x=x, y=np.arange(6) % 5, mean=np.float32([0.3]), std=np.float32([0.2]))
    data = load_data(str(path), SPECS)
    found = data.pool.samples()
    np.testing.assert_allclose(found.inputs["image"], (x / 255 - 0.3) / 0.2, rtol=1e-5, atol=1e-6)
    assert found.inputs["image"].dtype == np.float32
    assert data.preprocess["mean"] == [pytest.approx(0.3)]
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 0]


def test_npz_normalisation_before_division_fails_the_oracle(tmp_path):
    """Broken twin: mean and std applied to 0..255."""
    x = pixels()
    path = saved(tmp_path, x=x, mean=np.float32([0.3]), std=np.float32([0.2]))
    found = load_data(path, SPECS).pool.samples().inputs["image"]
    assert not np.allclose(found, ((x - 0.3) / 0.2) / 255, rtol=1e-2)


def test_npz_without_mean_only_divides_and_says_so(tmp_path):
    x = pixels()
    data = load_data(saved(tmp_path, x=x), SPECS)
    np.testing.assert_allclose(data.pool.samples().inputs["image"], x / np.float32(255), rtol=1e-6)
    assert "only divided by 255" in data.notes[0]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_npz_mean_per_channel_follows_the_layout(tmp_path, layout):
    shape = (4, 3, 8, 8) if layout == "nchw" else (4, 8, 8, 3)
    x = RNG.integers(0, 256, shape, np.uint8)
    mean, std = np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.6, 0.7])
    spec = InputSpec("image", (None, *shape[1:]), np.dtype(np.float32))
    found = load_data(saved(tmp_path, x=x, mean=mean, std=std), [spec]).pool.samples().inputs["image"]
    view = (3, 1, 1) if layout == "nchw" else (3,)
    np.testing.assert_allclose(found, (x / 255 - mean.reshape(view)) / std.reshape(view), rtol=1e-4, atol=1e-5)


def test_npz_named_input_and_holdout(tmp_path):
    x, y = labelled(10)
    data = load_data(saved(tmp_path, image=x, y=y, image_holdout=x[:4], y_holdout=y[:4]), SPECS)
    assert (len(data.pool), len(data.holdout)) == (10, 4)
    np.testing.assert_array_equal(data.holdout.samples().inputs["image"], x[:4])
    assert data.preprocess == {}


def test_npz_double_is_converted_and_text_is_not_read(tmp_path):
    x, _ = labelled(4)
    found = load_data(saved(tmp_path, x=x.astype(np.float64)), SPECS).pool.samples()
    assert found.inputs["image"].dtype == np.float32


def test_npz_preset_overrides_and_stored_serves_when_nothing_else_does(tmp_path):
    x = pixels()
    stored = {"mean": [0.5], "std": [0.5]}
    plain, own = saved(tmp_path, x=x), {"mean": np.float32([0.1]), "std": np.float32([1.0])}
    found = load_data(plain, SPECS, stored=stored)
    np.testing.assert_allclose(found.pool.samples().inputs["image"], (x / 255 - 0.5) / 0.5, rtol=1e-4, atol=1e-5)
    both = load_data(saved(tmp_path, x=x, **own), SPECS, stored=stored)
    assert any("differ from those stored" in note for note in both.notes)
    asked = load_data(saved(tmp_path, x=x, **own), SPECS, preset="raw")
    np.testing.assert_array_equal(asked.pool.samples().inputs["image"], x.astype(np.float32))


def test_npz_float_pixels_are_remarked(tmp_path):
    data = load_data(saved(tmp_path, x=pixels().astype(np.float32)), SPECS)
    assert "like pixels without normalisation" in data.notes[-1]


def test_npz_digest_changes_with_one_pixel(tmp_path):
    x = pixels()
    first = load_data(saved(tmp_path, x=x), SPECS).digest
    assert load_data(saved(tmp_path, x=x), SPECS).digest == first
    x[0, 0, 0, 0] ^= 1
    assert load_data(saved(tmp_path, x=x), SPECS).digest != first


BAD = {
    "no input": ({"pictures": pixels()}, r"input 'image' \(found pictures\)"),
    "shape": ({"x": np.zeros((4, 1, 8, 9), np.float32)}, r"\[N, 1, 8, 9\]"),
    "layout": ({"x": np.zeros((4, 8, 8, 1), np.float32)}, "bring the samples to that shape"),
    "type": ({"x": np.zeros((4, 1, 8, 8), np.int64)}, "is int64, the model's input is float32"),
    "nan": ({"x": np.where(np.arange(4 * 64).reshape(4, 1, 8, 8) == 130, np.nan, 0)}, r"NaN.*1 of 4.*sample 2"),
    "label count": ({"x": pixels(4), "y": np.zeros(3)}, "3 labels for 4 samples"),
    "one holdout label": ({"x": pixels(), "y": np.zeros(6), "x_holdout": pixels()}, "only one of y and y_holdout"),
    "mean alone": ({"x": pixels(), "mean": np.float32([0.1])}, "belong together"),
    "std zero": ({"x": pixels(), "mean": np.zeros(1), "std": np.zeros(1)}, "above zero"),
    "mean in bytes": ({"x": pixels(), "mean": np.array([127.5]), "std": np.array([60.0])}, "look like 0..255 units"),
    "mean nan": ({"x": pixels(), "mean": np.array([np.nan]), "std": np.ones(1)}, "finite"),
    "mean channels": ({"x": pixels(), "mean": np.zeros(3), "std": np.ones(3)}, "3 entries but no axis"),
    "empty": ({"x": pixels(0)}, "no samples"),
    "pickle": ({"x": np.array([{}], dtype=object)}, "never pickled objects"),
}


@pytest.mark.parametrize("case", BAD)
def test_npz_bad_arrays_are_refused(tmp_path, case):
    arrays, words = BAD[case]
    with pytest.raises(DataError, match=words):
        load_data(saved(tmp_path, **arrays), SPECS).pool.samples()


def test_npz_truncated_or_missing_file_is_refused(tmp_path):
    path = saved(tmp_path, x=pixels())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot be read as .npz|pickled"):
        load_data(path, SPECS)
    with pytest.raises(DataError, match=r"no such file or folder; give an .npz"):
        load_data(tmp_path / "none.npz", SPECS)
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"'.csv' is not a known kind"):
        load_data(tmp_path / "data.csv", SPECS)


def test_npz_whole_numbers_must_fit_the_declared_type(tmp_path):
    spec = InputSpec("ids", (None, 3), np.dtype(np.int8))
    good = load_data(saved(tmp_path, x=np.full((2, 3), 100, np.int64)), [spec]).pool.samples()
    assert good.inputs["ids"].dtype == np.int8
    with pytest.raises(DataError, match="values 0 to 300, the model's input is int8"):
        load_data(saved(tmp_path, x=np.full((2, 3), 300, np.int64)), [spec])


GIB = 1 << 30


def npy_bytes(array: np.ndarray, shape: str | None = None) -> bytes:
    """A .npy file; with `shape`, one whose header announces that shape instead of the array's."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0))
    content = buffer.getvalue()
    if shape is None:
        return content
    start = content.index(b"'shape': ")
    stop = content.index(b"\n", start)
    entry = f"'shape': {shape}, }}".encode()
    assert len(entry) <= stop - start
    return content[:start] + entry.ljust(stop - start) + content[stop:]


def zipped(path, members, announced=(), compression=zipfile.ZIP_DEFLATED):
    """A zip of (name, bytes); `announced` replaces the sizes in the directory, as a forger would."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
        for info, size in zip(archive.infolist(), announced, strict=False):
            info.file_size = size
    return path


def test_npz_whose_members_announce_too_much_together_is_refused_unread(tmp_path):
    part = npy_bytes(np.zeros(4, np.float32))
    sizes = (7 * GIB, 6 * GIB, 4 * GIB)
    path = zipped(tmp_path / "bomb.npz", [("x.npy", part), ("y.npy", part), ("z.npy", part)], sizes)
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()] == list(sizes)
    assert path.stat().st_size < 2000 and max(sizes) < LIMIT_BYTES < sum(sizes)
    words = r"bomb.npz: its arrays take 17 GiB unpacked, at most 16 GiB .*'x.npy', announces 7 GiB"
    tracemalloc.start()
    with pytest.raises(DataError, match=words):
        load_data(path, SPECS)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_npz_limit_is_on_the_sum_and_itself_allowed(tmp_path):
    part = npy_bytes(np.zeros(4, np.float32))
    for size, words in ((LIMIT_BYTES, "16 bytes, but 17179"), (LIMIT_BYTES + 1, "at most 16 GiB are read")):
        with pytest.raises(DataError, match=words):
            read_npz(zipped(tmp_path / "edge.npz", [("x.npy", part)], [size]))
    page = Path(__file__).parents[2] / "docs" / "data.md"
    assert f"may take {LIMIT_BYTES // GIB} GiB in all" in page.read_text(encoding="utf-8")


def test_npz_that_is_highly_compressed_but_small_is_read(tmp_path):
    """The share of the file size says nothing: masks of zeros shrink a thousandfold and are honest."""
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x=np.zeros((2000, 1, 8, 8), np.float32))
    assert path.stat().st_size * 500 < 2000 * 64 * 4
    assert len(load_data(path, SPECS).pool) == 2000


@pytest.mark.parametrize("shape", ["(1099511627776,)", "(2147483648, 2147483648)", "(5,)", "(3,)", "(-1,)", "(-2, -2)"])
def test_npz_array_header_that_announces_other_bytes_than_follow_is_refused(tmp_path, shape):
    path = zipped(tmp_path / "liar.npz", [("x.npy", npy_bytes(np.zeros(4, np.float32), shape))])
    with pytest.raises(DataError, match=r"liar.npz: member 'x.npy': its header announces float32 .* but 16 follow"):
        load_data(path, SPECS)


def test_npz_header_forger_leaves_an_honest_shape_readable(tmp_path):
    """Twin of the refusals above: the same forged header with the true shape is read."""
    path = zipped(tmp_path / "honest.npz", [("x.npy", npy_bytes(np.arange(4, dtype=np.float32), "(2, 2)"))])
    np.testing.assert_array_equal(read_npz(path)["x"], [[0, 1], [2, 3]])


def test_npz_member_longer_than_announced_is_refused(tmp_path):
    """A directory that announces four numbers, and a stream of a million."""
    content = npy_bytes(np.zeros(1 << 20, np.float32), "(4,)")
    short = len(npy_bytes(np.zeros(4, np.float32)))
    with pytest.raises(DataError, match=r"cannot be read as .npz.*CRC"):
        read_npz(zipped(tmp_path / "long.npz", [("x.npy", content)], [short]))


def test_npz_object_array_or_foreign_member_is_refused_by_name(tmp_path):
    arrays = {"good": np.zeros(3), "bad": np.array([{}, 1], dtype=object)}
    with pytest.raises(DataError, match=r"member 'bad.npy': holds Python objects .*never pickled"):
        read_npz(saved(tmp_path, **arrays))
    fields = np.zeros(2, [("a", "f4"), ("b", "O")])
    with pytest.raises(DataError, match=r"member 'mixed.npy': holds Python objects"):
        read_npz(saved(tmp_path, mixed=fields))
    path = zipped(tmp_path / "text.npz", [("readme.txt", b"not an array at all")])
    with pytest.raises(DataError, match=r"member 'readme.txt': .*magic"):
        read_npz(path)
    (tmp_path / "single.npz").write_bytes(npy_bytes(np.zeros(3)))
    with pytest.raises(DataError, match=r"a single array, not an .npz"):
        read_npz(tmp_path / "single.npz")


def test_npz_encrypted_member_is_refused(tmp_path):
    path = zipped(tmp_path / "locked.npz", [("x.npy", npy_bytes(np.zeros(3)))], compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(signature) + offset
        content[place : place + 2] = struct.pack("<H", 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as .npz.*encrypted"):
        read_npz(path)


def small_file(compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("x.npy", npy_bytes(np.arange(6, dtype=np.int16).reshape(2, 3)))
        archive.writestr("y.npy", npy_bytes(np.zeros(2)))
    return buffer.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_npz_damaged_at_any_byte_is_read_or_refused_but_never_crashes(tmp_path, compression):
    content = small_file(compression)

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, len(content) - 1), st.integers(1, 255))
    def check(place: int, flipped: int) -> None:
        damaged = bytearray(content)
        damaged[place] ^= flipped
        path = tmp_path / "damaged.npz"
        path.write_bytes(damaged)
        try:
            found = read_npz(path)
        except DataError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(array, np.ndarray) for array in found.values())

    check()


def test_npy_of_one_input_is_read_and_what_is_none_is_refused(tmp_path):
    x = pixels()
    np.save(tmp_path / "x.npy", x)
    data = load_data(tmp_path / "x.npy", SPECS)
    np.testing.assert_allclose(data.pool.samples().inputs["image"], x / np.float32(255), rtol=1e-6)
    with pytest.raises(DataError, match=r"a single array, and the model has 2 inputs"):
        load_data(tmp_path / "x.npy", [*SPECS, InputSpec("more", np.dtype("float32"), (None, 4))])
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "t.npy").write_bytes(b"text")
    for name in ("o.npy", "t.npy"):
        with pytest.raises(DataError, match=r"cannot be read as \.npy"):
            load_data(tmp_path / name, SPECS)


def test_npz_single_array_without_a_name_is_the_only_input(tmp_path):
    x, y = pixels(), np.arange(6) % 5
    path = tmp_path / "plain.npz"
    for arrays in ({}, {"y": y}):
        np.savez(path, x, **arrays)
        data = load_data(path, SPECS)
        np.testing.assert_allclose(data.pool.samples().inputs["image"], x / np.float32(255), rtol=1e-6)
        assert not any("not used" in text for text in data.notes)
    np.savez(path, x, y)
    with pytest.raises(DataError, match=r"no array for the model's input 'image' \(found arr_0, arr_1\)"):
        load_data(path, SPECS)
    np.savez(path, x)
    with pytest.raises(DataError, match=r"no array for the model's input 'image' \(found arr_0\)"):
        load_data(path, [*SPECS, InputSpec("more", (None, 4), np.dtype("float32"))])


def test_npz_arrays_that_nothing_reads_are_named(tmp_path):
    x, y = pixels(), np.zeros(6, np.int64)
    said = load_data(saved(tmp_path, x=x, labels=y, extra_holdout=y), SPECS).notes
    assert any("extra_holdout, labels" in text and "from an array y" in text for text in said)
    said = load_data(saved(tmp_path, x=x, y=y, labels=y), SPECS).notes
    assert any(text == "array not used: labels" for text in said)
    assert not any("not used" in text for text in load_data(saved(tmp_path, x=x, y=y), SPECS).notes)


def test_npz_samples_that_are_all_the_same_are_remarked(tmp_path):
    x = pixels()
    assert any("all the same" in text for text in load_data(saved(tmp_path, x=np.repeat(x[:1], 6, axis=0)), SPECS).notes)
    assert not any("all the same" in text for text in load_data(saved(tmp_path, x=x), SPECS).notes)
