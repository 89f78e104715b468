"""Importers: every format of image and signal, and what is wrong with one."""

from __future__ import annotations

import io
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedfuse_ray.data import importers
from fedfuse_ray.data.importers import decoding, npy, scaling
from fedfuse_ray.errors import InputError
from tests.support.importer_files import (
    config,
    federation,
    load,
    npy_bytes,
    one_image,
    png,
    save,
    saved,
)

GRADIENT = np.linspace(0, 1, 16)[None, :] * np.ones((16, 1))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.png", saved((GRADIENT * 255).astype(np.uint8), "PNG")),
        ("x.png", saved((GRADIENT * 65535).astype(np.uint16), "PNG")),
        ("x.tif", saved((GRADIENT * 65535).astype(np.uint16), "TIFF")),
        ("x.tif", saved((GRADIENT * 255).astype(np.uint8), "TIFF")),
        ("x.tif", saved((GRADIENT * 40 - 7).astype(np.float32), "TIFF")),
        ("x.npy", npy_bytes(GRADIENT * 1e300)),
        ("x.npy", npy_bytes((GRADIENT * 65535 - 32768).astype(np.int16))),
        ("x.npy", npy_bytes((GRADIENT * 1e6).astype(np.int64))),
        ("x.npy", npy_bytes((GRADIENT[None] * 255).astype(np.uint8))),
        ("x.npy", npy_bytes(np.asfortranarray(GRADIENT[..., None]))),
        ("unknown", saved((GRADIENT * 255).astype(np.uint8), "PNG")),
    ],
)
def test_gray_formats_give_the_same_image(tmp_path: Path, name: str, data: bytes) -> None:
    np.testing.assert_allclose(one_image(tmp_path, name, data), GRADIENT[None], atol=0.005)


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    dark = np.full((16, 16), 655, np.uint16)
    np.testing.assert_allclose(one_image(tmp_path, "x.png", saved(dark, "PNG")), 0.01, rtol=0.01)


def test_colour_jpeg_and_arrays(tmp_path: Path) -> None:
    color = np.zeros((64, 64, 3), np.uint8)
    color[..., 0], color[..., 2] = 255, 51
    for name, data in (
        ("x.jpg", saved(color, "JPEG")),
        ("x.npy", npy_bytes(color)),
        ("x.npy", npy_bytes(color.transpose(2, 0, 1))),
    ):
        found = one_image(tmp_path, name, data)
        assert found.shape == (3, 16, 16)
        np.testing.assert_allclose(found.mean(axis=(1, 2)), [1, 0, 0.2], atol=0.02)


def test_resize_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for data in (saved(board, "PNG"), npy_bytes(board), npy_bytes(board.astype(np.float32))):
        np.testing.assert_allclose(one_image(tmp_path, "x", data), 0.5, atol=0.05)


def test_orientation_tag_of_a_photograph(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # Upside down.
    buffer = io.BytesIO()
    picture = np.repeat(np.linspace(0, 255, 64).astype(np.uint8), 64).reshape(64, 64)
    Image.fromarray(picture).save(buffer, "JPEG", exif=exif)
    found = one_image(tmp_path, "x.jpg", buffer.getvalue())[0]
    assert found[0].mean() > 0.9
    assert found[-1].mean() < 0.1


@pytest.mark.parametrize(("shape", "expected"), [((900,), 1), ((3, 40), 3), ((4, 16), 4)])
def test_signals(tmp_path: Path, shape: tuple[int, ...], expected: int) -> None:
    ramp = np.linspace(-5, 12, shape[-1]) * np.ones(shape)
    found = one_image(tmp_path, "x.npy", npy_bytes(ramp))
    assert found.shape == (expected, 256)
    np.testing.assert_allclose(found, np.linspace(0, 1, 256) * np.ones((expected, 1)), atol=0.04)


def test_a_lone_spike_counts_less_than_a_line() -> None:
    signal = np.zeros((1, 4096))
    signal[0, 1000:1100], signal[0, 3000] = 1.0, 5.0
    found = scaling.resample_signal(signal, 64)
    assert found[0, 16] > 0.9
    assert scaling.stretch(signal)[0, 1050] < 0.3  # What the full resolution would give.


@pytest.mark.parametrize(
    ("shape", "signal"), [((16,), True), ((4, 16), True), ((5, 16), False), ((4, 15), False)]
)
def test_rule_for_signals(shape: tuple[int, ...], signal: bool) -> None:
    assert npy.is_signal(shape) is signal


def dicom_bytes(tmp_path: Path, **values: Any) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset

    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PhotometricInterpretation = 15, "MONOCHROME2"
    dataset.PixelData = (GRADIENT * 4000).astype("<u2").tobytes()
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(tmp_path / "made.dcm", enforce_file_format=True)
    return (tmp_path / "made.dcm").read_bytes()


def test_dicom(tmp_path: Path) -> None:
    found = one_image(tmp_path, "x.dcm", dicom_bytes(tmp_path))
    np.testing.assert_allclose(found, GRADIENT[None], atol=0.005)
    inverted = dicom_bytes(tmp_path, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(
        one_image(tmp_path, "y.dcm", inverted), 1 - GRADIENT[None], atol=0.01
    )
    # A window from 0 to 1000 saturates the upper three quarters.
    window = dicom_bytes(tmp_path, WindowCenter=500, WindowWidth=1000)
    assert (one_image(tmp_path, "z.dcm", window)[0, 0, 5:] == 1).all()


def test_dicom_with_frames(tmp_path: Path) -> None:
    data = dicom_bytes(tmp_path, NumberOfFrames=2, PixelData=b"\0" * 1024)
    with pytest.raises(InputError, match="several frames"):
        one_image(tmp_path, "x.dcm", data)


def test_dicom_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'fedfuse-ray\[dicom\]'"):
        one_image(tmp_path, "x.dcm", b"\0" * 128 + b"DICM" + b"\0" * 64)


def huge_png() -> bytes:
    data = bytearray(png())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    return buffer.getvalue()


NOISE = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (64, 64), np.uint8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "can't be decoded: it is not a PNG"),
        (saved(NOISE, "PNG")[:2000], "truncated or damaged"),
        (saved(NOISE, "JPEG")[:1500], "truncated or damaged"),
        (saved(NOISE, "PNG")[:60], "truncated or damaged"),
        (saved(NOISE, "BMP"), "can't be decoded"),
        (huge_png(), "more than 89478485 pixels"),
        (npy_bytes(np.ones((20, 20)))[:-8], "is truncated"),
        (npy_bytes(np.ones((20, 20)))[:40], "truncated or damaged"),
        (npy_bytes(np.ones((20, 20), complex)), "not numbers"),
        (npy_bytes(np.zeros((0, 20))), "empty array"),
        (npy_bytes(np.ones((20, 20, 5))), r"shape \[20, 20, 5\]"),
        (npy_bytes(np.full((20, 20), np.nan)), "NaN or infinity"),
        (saved(np.full((20, 20), np.inf, np.float32), "TIFF"), "NaN or infinity"),
        (pickled(), "not numbers"),
    ],
)
def test_wrong_image(tmp_path: Path, data: bytes, reason: str) -> None:
    path = save(tmp_path, federation())
    (tmp_path / "ct/b1.png").write_bytes(data)
    with pytest.raises(InputError, match=rf"m\.csv line 11, ct: 'ct/b1\.png': .*{reason}") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_image_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 399)
    with pytest.raises(scaling.UndecodableError, match="more than 399 pixels"):
        decoding.probe(io.BytesIO(png(size=20)))
    assert decoding.probe(io.BytesIO(png(size=19))).channels == 1


def test_npy_that_promises_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    with pytest.raises(scaling.UndecodableError, match="more than 100 values"):
        decoding.probe(io.BytesIO(npy_bytes(np.ones((20, 20)))))


def test_missing_image_is_found_by_check(tmp_path: Path) -> None:
    path = save(tmp_path, federation())
    (tmp_path / "mri/a1.png").unlink()
    with pytest.raises(InputError, match=r"m\.csv line 5, path: 'mri/a1\.png': is missing"):
        importers.check(config(path))


def test_signal_among_images(tmp_path: Path) -> None:
    path = save(tmp_path, federation())
    (tmp_path / "ct/b2.png").write_bytes(npy_bytes(np.ones(100)))
    with pytest.raises(InputError, match=r"line 12, ct: .*a signal of 1 channel.*one shape"):
        importers.check(config(path))


@pytest.mark.parametrize(
    "path", ["../out.png", "ct/../../out.png", "C:\\out.png", "", "ct", "a\0b"]
)
def test_path_outside_or_no_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.png").write_bytes(png())
    manifest = save(tmp_path / "in", federation())
    if "\0" in path:
        with pytest.raises(InputError, match="names no file"):
            importers.manifest.resolve(tmp_path, path, "line 1")
        return
    rows = federation()
    rows[0]["path"] = path
    save(tmp_path / "in", rows, images=False)
    with pytest.raises(InputError, match=r"m\.csv line 2, path: .*inside it"):
        importers.check(config(manifest))


def test_absolute_path_and_links_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    outside = tmp_path / "out.png"
    outside.write_bytes(png())
    rows = federation()
    path = save(tmp_path / "in", rows)
    (tmp_path / "in/link.png").symlink_to(outside)
    (tmp_path / "in/loop.png").symlink_to(tmp_path / "in/loop.png")
    (tmp_path / "in/folder").symlink_to(tmp_path)
    (tmp_path / "in/fine.png").symlink_to(tmp_path / "in/ct/a1.png")
    for name, reason in (
        (str(outside), "is outside the manifest's folder"),
        ("link.png", "link out"),
        ("folder/out.png", "link out"),
        ("loop.png", "can't be opened|is missing"),
    ):
        rows[0]["path"] = name
        save(tmp_path / "in", rows, images=False)
        with pytest.raises(InputError, match=rf"line 2, path: .*({reason})"):
            importers.check(config(path))
    rows[0]["path"] = "fine.png"
    save(tmp_path / "in", rows, images=False)
    assert importers.check(config(path)).rows == len(rows)
