from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from mmaction_lite.data.sources import frames as frames_module
from mmaction_lite.data.sources.frames import Frames, in_natural_order, natural_key
from mmaction_lite.data.sources.resample import crop_and_resize
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.errors import VideoError
from tests import barcode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve frames named 1.jpg to 12.jpg beside a file that is no image."""
    for code in range(12):
        Image.fromarray(barcode.draw(code)).save(tmp_path / f"{code + 1}.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("no frame")
    return tmp_path


@pytest.mark.parametrize("decoder", ["simplejpeg", "pillow"])
def test_frames_in_any_order_with_repeats(
    folder: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(frames_module, "simplejpeg", None)
    with Frames(folder, fps=12.5) as video:
        assert (len(video), video.fps, video.size) == (12, 12.5, (barcode.HEIGHT, barcode.WIDTH))
        pattern = [11, 0, 1, 9, 1]  # by name, 10.jpg would follow 1.jpg
        frames = video.frames(pattern)
        assert frames.dtype == np.uint8
        assert [barcode.read(frame) for frame in frames] == pattern
        with Image.open(folder / "12.jpg") as image:
            assert np.array_equal(frames[0], np.asarray(image))


@pytest.mark.parametrize(
    "names",
    [
        ["img_00010.jpg", "img_00009.jpg", "img_00100.jpg"],
        ["10.jpg", "9.jpg", "100.jpg"],
        ["a1_b10.jpg", "a1_b9.jpg", "a10_b1.jpg", "a9_b2.jpg"],
        ["a10b2.jpg", "a9b22.jpg"],  # as long, and alike in digits alone but for where these are
        ["x/2.png", "x/10.png"],
        [],
    ],
)
def test_names_are_in_the_order_of_their_numbers(names: list[str]) -> None:
    assert in_natural_order(names) == sorted(names, key=natural_key)


def test_hidden_files_are_no_frames(folder: Path) -> None:
    (folder / "._1.jpg").write_bytes(b"what some systems leave beside a file")
    (folder / ".jpg").touch()
    with Frames(folder) as video:
        assert len(video) == 12


def test_box_and_size_as_for_a_video(folder: Path) -> None:
    with Frames(folder) as video:
        whole = video.frames([7, 3, 7])
        for antialias in (True, False):
            expected = crop_and_resize(whole, (8, 16, 64, 72), (32, 40), antialias=antialias)
            got = video.frames([7, 3, 7], (8, 16, 64, 72), (32, 40), antialias=antialias)
            assert np.array_equal(got, expected)
        with pytest.raises(ValueError, match="outside the 96x128 frame"):
            video.frames([0], box=(0, 100, 10, 40))


def test_gray_and_png_frames_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(barcode.draw(5)).convert("L").save(tmp_path / "a.jpg")
    Image.fromarray(barcode.draw(6)).save(tmp_path / "b.png")
    with Frames(tmp_path) as video:
        frames = video.frames([1, 0])
    assert np.array_equal(frames[0], barcode.draw(6))
    assert barcode.read(frames[1]) == 5


def test_indices_outside_are_an_error(folder: Path) -> None:
    with Frames(folder) as video:
        for index in (12, -1):
            with pytest.raises(IndexError, match=f"frame {index} is out of range; expected 0 to 11"):
                video.frames([index])


def test_damaged_directories(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="is not a directory of frames"):
        Frames(tmp_path / "missing")
    with pytest.raises(VideoError, match="is not a directory of frames"):
        Frames(folder / "1.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="contains no image"):
        Frames(tmp_path / "empty")


@pytest.mark.parametrize("decoder", ["simplejpeg", "pillow"])
def test_a_damaged_frame_is_named(folder: Path, decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if decoder == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(frames_module, "simplejpeg", None)
    whole = (folder / "3.jpg").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (folder / "3.jpg").write_bytes(content)
        with Frames(folder) as video:
            video.frames([1, 3])
            with pytest.raises(VideoError, match=rf"^{folder / '3.jpg'}: [^\n]+$"):
                video.frames([1, 2])


def test_frames_of_two_sizes_are_an_error(folder: Path) -> None:
    Image.new("RGB", (64, 48)).save(folder / "4.jpg")
    with Frames(folder) as video, pytest.raises(VideoError, match=r"4\.jpg: size 48x64; expected 96x128"):
        video.frames([0, 3])


def test_a_zip_file_of_frames_reads_like_the_folder(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in (1, 2, 10):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / f"{number}.jpg")
    with ZipFile(tmp_path / "clip.zip", "w") as archive:
        for number in (10, 2, 1):
            archive.write(folder / f"{number}.jpg", f"clip/{number}.jpg")
    with open_source(folder) as plain, open_source(tmp_path / "clip.zip") as zipped:
        assert len(zipped) == 3
        assert zipped.size == (24, 32)
        assert (zipped.frames([2, 0, 1]) == plain.frames([2, 0, 1])).all()
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(VideoError, match=r"bad\.zip: is not a zip file"):
        open_source(tmp_path / "bad.zip")


@pytest.mark.parametrize("turbo", [True, False])
def test_large_frames_are_decoded_at_a_reduced_scale(tmp_path, monkeypatch, turbo):
    if not turbo:
        monkeypatch.setattr(frames_module, "simplejpeg", None)
    wave = np.sin(np.arange(512) / 40)
    image = (127 + 100 * wave[:384, None, None] * wave[None, :, None] + np.zeros(3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "1.jpg", quality=95)
    shapes = []
    decode = frames_module.decode_image
    monkeypatch.setattr(
        frames_module,
        "decode_image",
        lambda *arguments: (shapes.append(decode(*arguments).shape[:2]), decode(*arguments))[1],
    )
    with open_source(tmp_path) as source:
        small = source.frames([0], None, (90, 120)).astype(int)
        cut = source.frames([0], (0, 0, 384, 512), (90, 120)).astype(int)
        exact = source.frames([0], None, (90, 120), antialias=False).astype(int)
    assert shapes == [(96, 128), (384, 512), (384, 512)]
    assert np.abs(small - cut).max() <= 3
    assert np.abs(exact - cut).max() <= 6
