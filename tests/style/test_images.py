"""Images: any mode and way up gives RGB of the right size; a damaged one is one line."""

import io
import struct
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from condpdiff.style import models
from condpdiff.style.images import SAMPLE_FORMAT, decoded, encode_png, read_rgb, square
from tests.messages import message_of
from tests.style.stand_ins_style import SIZE, make_images, make_style_rows

GREY = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def read(image: Image.Image, form: str = "PNG", **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return read_rgb(lambda: Image.open(buffer), "it")


WHITE = Image.new("L", (8, 8), 255)


@pytest.mark.parametrize(
    ("image", "form", "expected"),
    [
        (Image.fromarray(COLOURS), "PNG", COLOURS),
        (Image.fromarray(GREY), "PNG", GREY[..., None]),
        *((WHITE.convert(mode), "PNG", 255) for mode in ("1", "LA", "P")),
        (WHITE.convert("CMYK"), "TIFF", 255),
        *((Image.fromarray(GREY.astype(np.uint16) * 257), form, GREY[..., None]) for form in ("PNG", "TIFF")),
    ],
)
def test_any_mode_becomes_rgb(image: Image.Image, form: str, expected: np.ndarray | int) -> None:
    found = read(image, form)
    assert found.shape == (8, 8, 3)
    assert (found == expected).all()


@pytest.mark.parametrize(("bits", "signed"), [(8, True), (12, True), (31, True), (32, False)])
def test_greys_of_many_bits_are_scaled_by_the_bits_that_they_hold(bits: int, signed: bool) -> None:
    buffer = io.BytesIO()
    Image.fromarray((GREY.astype(np.uint32) << (bits - 8)).view(np.int32)).save(buffer, "TIFF")
    with_sign, without = (struct.pack("<HHIHH", SAMPLE_FORMAT, 3, 1, kind, 0) for kind in (2, 1))
    content = buffer.getvalue() if signed else buffer.getvalue().replace(with_sign, without)
    assert (read_rgb(partial(Image.open, io.BytesIO(content)), "it") == GREY[..., None]).all()
    if bits <= 16:
        deep = Image.fromarray((GREY.astype(np.uint16) << (bits - 8)) + (1 << (bits - 8)) - 1)
        assert all((read(deep, form) == GREY[..., None]).all() for form in ("PNG", "TIFF"))


def deep_png(value: int) -> bytes:
    """An RGB picture of one pixel, 16 bits a channel, which Pillow can't write."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)), (b"IEND", b"")]
    parts.insert(1, (b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", value, 0, value))))
    chunks = [struct.pack(">I", len(v)) + k + v + struct.pack(">I", zlib.crc32(k + v)) for k, v in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_colours_of_16_bits_are_scaled_and_those_that_hold_12_are_refused() -> None:
    assert read_rgb(partial(Image.open, io.BytesIO(deep_png(51400))), "it").tolist() == [[[200, 0, 200]]]
    message = message_of(read_rgb, partial(Image.open, io.BytesIO(deep_png(3212))), "it")
    said = "it: not a readable image (its channels of 16 bits hold 12 or fewer; allowed: 8 bits, or all of 16)"
    assert message == said


def swapped_profile() -> bytes:
    """sRGB with the red primary in the place of the blue one, and the other way round."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"____", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"____", b"bXYZ", 1)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_embedded_profile_is_converted_to_srgb(form: str) -> None:
    options = {"icc_profile": swapped_profile()} | ({"lossless": True} if form == "WEBP" else {})
    assert np.abs(read(Image.fromarray(COLOURS), form, **options) - COLOURS[..., ::-1].astype(int)).max() <= 1
    options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (read(Image.fromarray(COLOURS), form, **options) == COLOURS).all()


def test_profile_counts_with_palettes_transparency_and_grey_and_a_wrong_one_is_refused() -> None:
    red, profile = Image.new("RGBA", (8, 8), (255, 0, 0, 255)), swapped_profile()
    red.putpixel((0, 0), (255, 0, 0, 0))
    found = read(red, icc_profile=profile)
    assert (found[0, 0] == 255).all() and found[1, 1].tolist() == [0, 0, 255]
    assert read(red.convert("RGB").quantize(4), icc_profile=profile)[1, 1].tolist() == [0, 0, 255]
    assert np.abs(read(Image.fromarray(GREY), icc_profile=profile) - GREY[..., None].astype(int)).max() <= 1
    for image, wrong in ((Image.fromarray(COLOURS), b"junk"), (WHITE.convert("CMYK"), profile)):
        assert "its colour profile is not understood" in message_of(read, image, "TIFF", icc_profile=wrong)


def test_image_is_turned_as_its_exif_says_its_first_frame_counts_and_transparent_parts_are_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    wide = np.concatenate([COLOURS, COLOURS], 1)
    assert np.array_equal(read(Image.fromarray(wide), exif=exif), np.rot90(wide, -1))
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    for form in ("GIF", "PNG"):
        assert (read(frames[0], form, save_all=True, append_images=frames[1:]) == 255).all()
    assert np.ptp(read(Image.new("LAB", (8, 8), (200, 128, 128)), "TIFF")) <= 1
    clear = np.dstack([COLOURS, np.zeros((8, 8), np.uint8)])
    clear[:4, :, 3] = 255
    found = read(Image.fromarray(clear))
    assert (found[:4] == COLOURS[:4]).all() and (found[4:] == 255).all()
    red = Image.new("P", (8, 8), 0)
    red.putpalette([255, 0, 0])
    assert (read(red, "GIF", transparency=0) == 255).all()


def test_what_can_not_be_read_is_named() -> None:
    assert "negative numbers" in message_of(read, Image.fromarray(np.full((8, 8), -5, np.int32)), "TIFF")
    assert "floating-point" in message_of(read, Image.fromarray(GREY.astype(np.float32)), "TIFF")
    png = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for content in (b"", b"no image", png[:8], png[: len(png) // 2]):
        message = message_of(read_rgb, partial(Image.open, io.BytesIO(content)), "cats/one.png")
        assert message.startswith("cats/one.png: not a") and "0x" not in message


def test_square_is_the_middle_of_an_image_and_a_smaller_one_is_enlarged() -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    for size in (10, 40):
        assert np.ptp(found := square(image, size)[:, 4:-4]) <= 1 and found.shape[0] == size and found.mean() > 199
    assert (square(COLOURS, 8) == COLOURS).all()


def test_tensors_lie_between_minus_one_and_one_and_images_come_back_as_they_were() -> None:
    found = decoded(make_style_rows(5, 0))
    assert found.dtype == np.uint8 and (found == make_images(5, 0)).all()
    tensor = models.to_tensor(found)
    assert tensor.shape == (5, 3, SIZE, SIZE) and tensor.dtype == torch.float32
    assert tensor.min() >= -1 and tensor.max() <= 1 and (models.to_uint8(tensor) == found).all()
    beyond = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.bfloat16).view(1, 3, 1, 1)
    assert models.to_uint8(beyond).tolist() == [[[[0, 128, 255]]]]
