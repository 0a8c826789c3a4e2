"""Every kind of image file gives its upright 8-bit RGB pixels, or one line that names the file."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmaction_lite.data.sources import images
from mmaction_lite.data.sources.frames import Frames
from mmaction_lite.data.sources.images import decode_image, image_size, read_jpeg_header, read_orientation
from mmaction_lite.data.sources.resample import crop_and_resize
from mmaction_lite.errors import VideoError

ORIENTATION = 0x0112


@pytest.fixture(params=["simplejpeg", "pillow"])
def decoder(request, monkeypatch):
    """Run the test with both decoders of JPEG."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(images, "simplejpeg", None)
    return request.param


def smooth(height: int = 96, width: int = 128) -> np.ndarray:
    """A picture without symmetry, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    channels = [40 + y, 250 - x, 20 + (x * y) // 100]
    return np.stack(channels, 2).clip(0, 255).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


FORMATS = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "raw"},
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_in_all_eight_orientations(tmp_path: Path, kind, orientation, decoder) -> None:
    """Equal to Pillow's `exif_transpose`, also with box and size."""
    if kind == "TIFF":
        data = encode(Image.fromarray(smooth()), kind, tiffinfo={ORIENTATION: orientation})
    else:
        data = encode(
            Image.fromarray(smooth()), kind, exif=with_orientation(orientation).tobytes(), **FORMATS[kind]
        )
    for number in range(3):
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    with Frames(tmp_path) as video:
        assert video.size == expected.shape[:2]
        assert expected.shape[:2] == ((96, 128) if orientation < 5 else (128, 96))
        assert np.array_equal(video.frames([0, 2]), np.stack([expected, expected]))
        box, size = (8, 16, 64, 72), (32, 40)
        assert np.array_equal(video.frames([1], box, size), crop_and_resize(expected[None], box, size))
        height, width = expected.shape[0] // 3, expected.shape[1] // 3
        small = video.frames([1], None, (height, width))
        whole = crop_and_resize(expected[None], None, (height, width))
        assert np.abs(small.astype(int) - whole).max() <= 6  # JPEG is decoded at half its size


def test_the_orientation_of_a_png_file_may_follow_its_pixels() -> None:
    data = encode(Image.fromarray(smooth()), "PNG")
    exif = with_orientation(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    data = data[:-12] + chunk + data[-12:]
    assert image_size(data, "a.png") == (128, 96)
    assert np.array_equal(decode_image(data, "a.png"), np.rot90(smooth(), -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_invalid_orientation_is_upright(order) -> None:
    start = b"II*\0" if order == "<" else b"MM\0*"

    def exif(kind: int, value: bytes, tag: int = ORIENTATION) -> bytes:
        return start + struct.pack(order + "IHHHI", 8, 1, tag, kind, 1) + value.ljust(4, b"\0")

    assert read_orientation(exif(3, struct.pack(order + "H", 6))) == 6
    assert read_orientation(b"Exif\0\0" + exif(4, struct.pack(order + "I", 8))) == 8
    for wrong in (
        exif(3, struct.pack(order + "H", 9)),
        exif(3, b""),
        exif(2, b"6"),
        exif(3, struct.pack(order + "H", 6), tag=0x0113),
        exif(3, struct.pack(order + "H", 6))[:-5],
        b"",
        b"Exif",
        start,
        start + b"\xff" * 30,
    ):
        assert read_orientation(wrong) == 1
    data = encode(Image.fromarray(smooth()), "JPEG", quality=95, exif=b"Exif\0\0" + start + b"\xff" * 30)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode_image(data, "a.jpg"), np.asarray(image.convert("RGB")))


def deep(height: int = 24, width: int = 40) -> np.ndarray:
    """Every magnitude of 16 bits, uint16 (height, width)."""
    return np.linspace(0, 65535, height * width).astype(np.uint16).reshape(height, width)


def png(pixels: np.ndarray, color: int) -> bytes:
    """Encode uint16 (H, W, C), which Pillow cannot write, as PNG of 16 bits per sample."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def gray(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :, None].repeat(3, 2).astype(np.uint8)


def test_samples_of_16_bits_are_divided_by_256() -> None:
    """Depth and thermal frames keep their structure; a plain conversion would make them white."""
    pixels = deep()
    expected = gray(pixels >> 8)
    assert np.array_equal(decode_image(png(pixels[:, :, None], 0), "a.png"), expected)
    thermal = pixels >> 4  # 12 bits: the rule does not depend on the contents
    assert np.array_equal(decode_image(png(thermal[:, :, None], 0), "a.png"), gray(thermal >> 8))
    for mode in ("I;16", "I;16B"):
        image = Image.frombytes(
            mode, pixels.shape[::-1], pixels.astype(">u2" if "B" in mode else "<u2").tobytes()
        )
        assert np.array_equal(decode_image(encode(image, "TIFF"), "a.tif"), expected)
    white_is_zero = encode(Image.fromarray(pixels), "TIFF", tiffinfo={262: 0})
    assert np.array_equal(decode_image(white_is_zero, "a.tif"), 255 - expected)
    color = np.stack([pixels, pixels[::-1], pixels[:, ::-1]], 2)
    assert np.array_equal(decode_image(png(color, 2), "a.png"), (color >> 8).astype(np.uint8))
    with_alpha = np.concatenate([color, np.full_like(color[:, :, :1], 99)], 2)
    assert np.array_equal(decode_image(png(with_alpha, 6), "a.png"), (color >> 8).astype(np.uint8))
    gray_alpha = np.stack([pixels, pixels], 2)
    assert np.array_equal(decode_image(png(gray_alpha, 4), "a.png"), expected)


def tiff(pixels: bytes, width: int, height: int, bits: int, sample_format: int = 1) -> bytes:
    """Encode gray samples, which Pillow cannot write in every width, as little-endian TIFF."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 0), (277, 1), (278, height)]
    tags += [(279, len(pixels)), (339, sample_format)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + b"\0" * 4 + pixels


def test_samples_of_12_bits_are_divided_by_16() -> None:
    values = np.array([[0, 0x123, 0xABC, 0xFFF]])
    packed = bytes([0x00, 0x01, 0x23, 0xAB, 0xCF, 0xFF])
    assert np.array_equal(decode_image(tiff(packed, 4, 1, 12), "a.tif"), gray(values >> 4))


def test_samples_without_a_range_are_an_error() -> None:
    single = np.linspace(0, 1, 960, dtype=np.float32).reshape(24, 40)
    with pytest.raises(
        VideoError, match=r"^a\.tif: has floating-point samples; expected unsigned 8 or 16 bits"
    ):
        decode_image(encode(Image.fromarray(single), "TIFF"), "a.tif")
    for data in (
        encode(Image.fromarray(deep().astype(np.int32)), "TIFF"),
        tiff(deep().astype("<i2").tobytes(), 40, 24, 16, sample_format=2),
    ):
        with pytest.raises(VideoError, match=r"^a\.tif: has signed or 32-bit samples"):
            decode_image(data, "a.tif")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_pictures_have_the_right_colors(kind, decoder) -> None:
    """Adobe's programs store CMYK in JPEG files inverted, as Pillow writes it."""
    ink = np.zeros((32, 48, 4), np.uint8)
    ink[:, :16, 0], ink[:, 16:32, 1], ink[:, 32:, 3] = 255, 255, 128
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    pixels = decode_image(encode(Image.fromarray(ink, "CMYK"), kind, **options), "a").astype(int)
    for column, expected in ((8, (0, 255, 255)), (24, (255, 0, 255)), (40, (127, 127, 127))):
        assert np.abs(pixels[:, column] - expected).max() <= 3


def test_ycck_and_rgb_jpeg_files_have_the_right_colors(decoder) -> None:
    """The Adobe segment specifies whether three or four components are transformed."""
    data = bytearray(
        encode(Image.new("CMYK", (16, 16), (200, 50, 50, 20)), "JPEG", quality=100, subsampling=0)
    )
    data[data.index(b"Adobe") + 11] = 2  # the file stores the inverted components; now as YCCK
    y, cb, cr = 255 - 200, 255 - 50, 255 - 50
    transformed = np.array(
        [y + 1.402 * (cr - 128), y - 0.34414 * (cb - 128) - 0.71414 * (cr - 128), y + 1.772 * (cb - 128)]
    )
    expected = (255 - transformed.clip(0, 255)) * (255 - 20) / 255
    assert np.abs(decode_image(bytes(data), "a.jpg")[8, 8] - expected).max() <= 2
    plain = encode(Image.fromarray(smooth()), "JPEG", quality=100, keep_rgb=True)
    assert np.abs(decode_image(plain, "a.jpg").astype(int) - smooth()).max() <= 3


def mode_pictures() -> dict[str, tuple[bytes, np.ndarray]]:
    """Files of each mode with the pixels that they show."""
    rgb = smooth()
    luma = rgb[:, :, 0]
    alpha = np.arange(rgb[:, :, 0].size).reshape(luma.shape).astype(np.uint8)
    palette = Image.fromarray(rgb).quantize(16)
    bits = luma > 90
    found = {}
    for kind in ("PNG", "TIFF", "WEBP", "BMP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        found[f"{kind} RGB"] = encode(Image.fromarray(rgb), kind, **options), rgb
        found[f"{kind} L"] = encode(Image.fromarray(luma), kind, **options), gray(luma)
        if kind != "BMP":
            rgba = np.concatenate([rgb, alpha[:, :, None]], 2)
            found[f"{kind} RGBA"] = encode(Image.fromarray(rgba, "RGBA"), kind, **options), rgb
        if kind != "WEBP":
            found[f"{kind} 1"] = encode(Image.fromarray(bits), kind), gray(bits * 255)
            found[f"{kind} P"] = encode(palette, kind), np.asarray(palette.convert("RGB"))
    found["PNG LA"] = encode(Image.fromarray(np.stack([luma, alpha], 2), "LA"), "PNG"), gray(luma)
    found["PNG P with transparency"] = (
        encode(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        np.asarray(palette.convert("RGB")),
    )
    for bits_per_pixel in (1, 2, 4):
        few = Image.fromarray(rgb).quantize(2**bits_per_pixel)
        found[f"PNG P {bits_per_pixel}"] = (
            encode(few, "PNG", bits=bits_per_pixel),
            np.asarray(few.convert("RGB")),
        )
    found["TIFF LZW"] = encode(Image.fromarray(rgb), "TIFF", compression="tiff_lzw"), rgb
    found["TIFF deflate"] = encode(Image.fromarray(rgb), "TIFF", compression="tiff_adobe_deflate"), rgb
    return found


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_every_mode_gives_its_pixels(tmp_path: Path) -> None:
    """As single images, and as frames of a folder with box and size."""
    for name, (data, expected) in mode_pictures().items():
        assert np.array_equal(decode_image(data, name), expected), name
        assert image_size(data, name) == expected.shape[:2]
        folder = tmp_path / name
        folder.mkdir()
        for number in range(2):
            (folder / f"{number}.{name.split()[0].lower()}").write_bytes(data)
        box, size, whole = (8, 16, 64, 72), (32, 40), np.stack([expected, expected])
        with Frames(folder) as video:
            assert np.array_equal(video.frames([1, 0]), whole), name
            assert np.array_equal(video.frames([0, 1], box, size), crop_and_resize(whole, box, size)), name
            small = video.frames([0, 1], None, size, antialias=False)
            assert np.array_equal(small, crop_and_resize(whole, None, size, antialias=False)), name


@pytest.mark.parametrize("kind", ["L", "RGB"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2}, {"restart_marker_rows": 1}]
)
def test_every_jpeg_equals_that_of_pillow(kind, options, decoder) -> None:
    data = encode(Image.fromarray(smooth()).convert(kind), "JPEG", quality=90, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode_image(data, "a.jpg"), np.asarray(image.convert("RGB")))
    assert read_jpeg_header(data).is_progressive == ("progressive" in options)


def test_contents_determine_the_format_not_the_name(decoder) -> None:
    for kind in ("PNG", "WEBP", "BMP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        assert np.array_equal(
            decode_image(encode(Image.fromarray(smooth()), kind, **options), "a.jpg"), smooth()
        )
    data = encode(Image.fromarray(smooth()), "JPEG", quality=95)
    assert np.array_equal(decode_image(data, "a.png"), decode_image(data, "a.jpg"))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("GIF", {})],
)
def test_a_file_of_several_pictures_is_an_error(kind, options) -> None:
    frames = [Image.fromarray(smooth() // (n + 1)) for n in range(3)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with pytest.raises(VideoError, match=r"^a: contains several pictures; expected one per file"):
        decode_image(data, "a")


def test_a_jpeg_with_a_second_picture_gives_the_first(decoder) -> None:
    """Cameras append previews and the other picture of a stereo pair (MPO)."""
    frames = [Image.fromarray(smooth() // (n + 1)) for n in range(2)]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    assert np.abs(decode_image(data, "a.jpg").astype(int) - smooth()).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.995])
def test_a_truncated_image_is_an_error_and_not_gray(kind, part, decoder) -> None:
    data = encode(Image.fromarray(smooth()), kind, **({"quality": 95} if kind == "JPEG" else {}))
    with pytest.raises(VideoError, match=r"^a/1\.jpg: (cannot be read|is empty)[^\n]+$"):
        decode_image(data[: int(len(data) * part)], "a/1.jpg")


def test_a_png_file_with_a_wrong_bit_is_an_error() -> None:
    """Pillow alone gives other pixels without an error."""
    data = bytearray(encode(Image.fromarray(smooth()), "PNG", compress_level=0))
    data[len(data) // 2] ^= 4
    with pytest.raises(VideoError, match="wrong checksum"):
        decode_image(bytes(data), "a.png")


def test_images_that_would_take_too_much_memory_are_an_error(decoder) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = encode(Image.new("RGB", (8, 8)), "PNG").replace(
        struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0), header
    )
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = data[:29] + crc + data[33:]
    jpeg = bytearray(encode(Image.new("RGB", (8, 8)), "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 60000, 60000)
    for bomb in (data, bytes(jpeg)):
        for read in (decode_image, image_size):
            with pytest.raises(
                VideoError, match=r"a\.jpg: .*(60000x60000 pixels; expected|exceeds limit)[^\n]*$"
            ):
                read(bomb, "a.jpg")


def test_a_jpeg_of_very_many_scans_is_an_error() -> None:
    """Each scan takes the time of a picture: one file could block a worker for hours."""
    data = encode(Image.fromarray(smooth()), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(VideoError, match="has more than 500 scans"):
        decode_image(data[:-2] + data[last:-2] * 600 + data[-2:], "a.jpg")


def test_a_jpeg_of_12_bits_is_an_error(decoder) -> None:
    data = bytearray(encode(Image.fromarray(smooth()), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(VideoError, match=r"a\.jpg: is a JPEG with 12 bits per sample; expected 8"):
        decode_image(bytes(data), "a.jpg")
