"""Files whose values mean something else than their bytes seem to say."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from fedfuse_ray.data.importers.decoding import decode, probe

SHAPE = (1, 16, 16)
UNSIGNED, SIGNED = 1, 2


def tiff(values, form):
    """Write a gray TIFF of 32-bit integers by its specification (TIFF 6.0), one strip."""
    height, width = values.shape
    data = values.astype("<u4" if form == UNSIGNED else "<i4").tobytes()
    tags = {256: width, 257: height, 258: 32, 259: 1, 262: 1, 273: 0, 277: 1, 278: height}
    tags |= {279: len(data), 339: form}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\x00" + struct.pack("<I", 8) + directory + data


@pytest.mark.parametrize(
    ("form", "low", "high"), [(UNSIGNED, 0, 2**32 - 1), (SIGNED, -(2**31), 2**31 - 1)]
)
def test_all_32_bits_of_an_integer_are_read(form, low, high):
    values = np.linspace(low, high, 256).reshape(16, 16)
    found = decode(io.BytesIO(tiff(values, form)), SHAPE)[0].astype(np.float64)
    np.testing.assert_allclose(found, (values - low) / (high - low), atol=5e-4)


@pytest.fixture
def coloured():
    """Return one image as indices into a palette and as colours, both DICOM."""
    pydicom = pytest.importorskip("pydicom")
    stream = np.random.default_rng(0)
    indices = stream.integers(0, 256, (16, 16), np.uint8)
    table = stream.integers(0, 256, (256, 3), np.uint8)

    def saved(interpretation, pixels, **values):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
        dataset.SOPInstanceUID = "1.2.3"
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.Rows = dataset.Columns = 16
        dataset.SamplesPerPixel = pixels.size // 256
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = interpretation, 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PixelData = pixels.tobytes()
        for name, value in values.items():
            setattr(dataset, name, value)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    palette = {}
    for i, colour in enumerate(("Red", "Green", "Blue")):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        palette[f"{colour}PaletteColorLookupTableData"] = table[:, i].tobytes()
    return saved("PALETTE COLOR", indices, **palette), saved("RGB", table[indices])


def test_a_palette_is_its_colours(coloured):
    palette, colours = map(io.BytesIO, coloured)
    assert probe(palette).channels == 3
    palette.seek(0)
    np.testing.assert_array_equal(decode(palette, (3, 16, 16)), decode(colours, (3, 16, 16)))
