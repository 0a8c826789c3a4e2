"""Decode image files to upright 8-bit RGB pixels."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmaction_lite.data.sources.resample import Size
from mmaction_lite.errors import VideoError, reading

try:
    import simplejpeg
except ImportError:  # optional (extra `jpeg`): decodes the same pixels in half the time
    simplejpeg = None

# Pillow's readers of other formats are not needed, and some of them start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
PNG = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 2**26  # 256 MiB in the four bytes that Pillow uses; some decoders take six times as much
MAX_BYTES = 2**29
MAX_SCANS = 500  # a progressive JPEG has about ten; every further scan costs the time of a whole picture
ORIENTATION = 0x0112  # TIFF tags, also of EXIF
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
ADVICE = "the image may be damaged; replace it"


class JpegHeader(NamedTuple):
    """Properties of a JPEG file.

    Args:
        size: (height, width) of the stored picture.
        components: 1 for gray, 3 for color, 4 for CMYK.
        bits: bits per sample.
        is_progressive: whether the picture is stored in several scans.
        orientation: EXIF orientation, 1 to 8.
    """

    size: Size
    components: int
    bits: int
    is_progressive: bool
    orientation: int

    @property
    def upright_size(self) -> Size:
        """(height, width) of the upright picture."""
        return _turned(self.size, self.orientation)


def decode_image(data: bytes, name: str, least: Size | None = None) -> np.ndarray:
    """Decode an image, and turn it upright as its EXIF orientation specifies.

    Gray, palette, CMYK and transparent pictures are converted to RGB; transparency is ignored. Samples of 16
    bits are divided by 256 (`value >> 8`), and samples of 12 bits by 16, whatever range the picture uses.
    Color profiles are ignored.

    Args:
        data: the bytes of the file. Its contents determine the format, not its name.
        name: for messages.
        least: decode JPEG at its smallest scale that is not smaller than this size; None for full size.

    Returns:
        uint8 (height, width, 3) RGB.

    Raises:
        VideoError: the data is not an image, is damaged, has more than `MAX_PIXELS` pixels, has samples
            without a defined range (floating point, 32 bits), or contains several pictures.
    """
    with reading(name, VideoError, ADVICE):
        if not data.startswith(b"\xff\xd8"):
            return _decode_with_pillow(data, name)
        header = read_jpeg_header(data)
        _check(header.size, name)
        if header.bits != 8:
            raise VideoError(f"{name}: is a JPEG with {header.bits} bits per sample; expected 8. Convert it")
        if header.is_progressive and data.count(b"\xff\xda") > MAX_SCANS:
            raise VideoError(f"{name}: has more than {MAX_SCANS} scans; expected an ordinary JPEG file")
        height, width = _turned(least or (0, 0), header.orientation)
        if simplejpeg and header.components < 4:
            # The smallest scale of libjpeg-turbo is 1/8.
            pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
        else:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                if least:
                    image.draft("RGB", (width, height))
                pixels = _rgb(image, name)
        return upright(pixels, header.orientation)


def image_size(data: bytes, name: str) -> Size:
    """Return (height, width) of the upright picture of an image file.

    Raises:
        VideoError: see `decode_image`.
    """
    with reading(name, VideoError, ADVICE):
        if data.startswith(b"\xff\xd8"):
            size = read_jpeg_header(data).upright_size
        else:
            with _open(data, name) as image:
                if image.format == "TIFF":  # versions of Pillow differ in the size that they report
                    height, width = decode_image(data, name).shape[:2]
                    return height, width
                size = _turned((image.height, image.width), read_orientation(_exif(image, data)))
        _check(size, name)
        return size


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Read the segments of a JPEG file before its pixels (ITU-T T.81, annex B).

    Raises:
        ValueError: a segment is missing or incomplete.
    """
    place, orientation, frame = 2, 0, None
    try:
        while True:
            if data[place] != 0xFF:
                place = data.index(b"\xff", place)
            marker = data[place + 1]
            if marker == 0xFF:  # padding
                place += 1
                continue
            if marker == 0xDA:  # the pixels follow
                break
            if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:  # markers without a segment
                place += 2
                continue
            length = data[place + 2] << 8 | data[place + 3]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                bits, height, width, components = struct.unpack_from(">BHHB", data, place + 4)
                frame = (height, width), components, bits, marker in (0xC2, 0xC6, 0xCA, 0xCE)
            elif marker == 0xE1 and not orientation and data[place + 4 : place + 10] == b"Exif\0\0":
                orientation = read_orientation(data[place + 10 : place + 2 + length])
            place += 2 + length
    except (IndexError, ValueError, struct.error):
        raise ValueError("the header of the JPEG file is incomplete") from None
    if frame is None:
        raise ValueError("the JPEG file contains no picture")
    return JpegHeader(*frame, orientation or 1)


def read_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 to 8; 1 if it is absent or invalid (JEITA CP-3451, 4.6.4)."""
    try:
        exif = exif.removeprefix(b"Exif\0\0")
        order = {b"II*\0": "<", b"MM\0*": ">"}[exif[:4]]
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(order + "HHI", exif, entry)
            if tag == ORIENTATION:
                (value,) = struct.unpack_from(order + {3: "H", 4: "I"}[kind], exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored picture upright.

    Args:
        pixels: (H, W, C).
        orientation: EXIF orientation, 1 to 8.

    Returns:
        (H, W, C), or (W, H, C) for the orientations 5 to 8.
    """
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _turned(size: Size, orientation: int) -> Size:
    height, width = size
    return (width, height) if orientation >= 5 else size


def _check(size: Size, name: str) -> None:
    height, width = size
    if height * width > MAX_PIXELS:
        raise VideoError(f"{name}: has {width}x{height} pixels; expected at most {MAX_PIXELS}")


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header of an image that is not a JPEG file."""
    if not data:
        raise VideoError(f"{name}: is empty; expected an image")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check((image.height, image.width), name)
    if getattr(image, "is_animated", False):
        raise VideoError(f"{name}: contains several pictures; expected one per file. Split the file")
    return image


def _decode_with_pillow(data: bytes, name: str) -> np.ndarray:
    if data.startswith(PNG):
        _check_png(data)
    with _open(data, name) as image:
        pixels = _rgb(image, name)
        if image.format == "TIFF":  # Pillow deletes the tag if it has turned the picture
            orientation = getattr(image, "tag_v2", {}).get(ORIENTATION, 1)
            return upright(pixels, orientation if orientation in range(1, 9) else 1)
        return upright(pixels, read_orientation(_exif(image, data)))


def _exif(image: Image.Image, data: bytes) -> bytes:
    if data.startswith(PNG):  # Pillow finds EXIF data after the pixels only if it has decoded them
        return next((data[start:end] for kind, start, end in _png_chunks(data) if kind == b"eXIf"), b"")
    return image.info.get("exif") or b""


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of every chunk of a PNG file, and first and last place (exclusive) of its contents.

    Raises:
        ValueError: the file is truncated.
    """
    place, kind = len(PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place) if place + 12 <= len(data) else (0, b"")
        if not kind or place + 12 + length > len(data):
            raise ValueError("the PNG file is truncated")
        yield kind, place + 8, place + 8 + length
        place += 12 + length


def _check_png(data: bytes) -> None:
    """Check the checksums of the critical chunks. Pillow does not check those of the pixels.

    Raises:
        ValueError: a chunk is damaged or missing.
    """
    view = memoryview(data)
    for kind, start, end in _png_chunks(data):
        is_critical = not kind[0] & 32
        if is_critical and zlib.crc32(view[start - 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise ValueError("the PNG file has a wrong checksum")


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """Return the pixels of an image as uint8 (height, width, 3), in stored orientation."""
    image.load()
    tags = getattr(image, "tag_v2", {})
    # Earlier versions of Pillow read PNG files of 16 bits in mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
        gray = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            gray = 255 - gray
        return gray[:, :, None].repeat(3, 2)
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise VideoError(f"{name}: has {kind} samples; expected unsigned 8 or 16 bits. Convert the image")
    image.info.pop("transparency", None)  # Pillow warns about palettes with transparency
    return np.array(image.convert("RGB"))
