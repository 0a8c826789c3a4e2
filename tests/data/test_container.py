"""Opening a video reads the given bytes and nothing else, and every fault is one VideoError."""

import ast
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from mmaction_lite.data.sources import container
from mmaction_lite.data.sources.container import FORMATS, OPTIONS, open_stream, unreadable
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import VideoError
from tests import barcode


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return barcode.write(tmp_path_factory.mktemp("clip") / "clip.mp4", range(12))


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[tuple[Path, int, list[str]]]:
    """A neighbour file, a port of a local server, and what was opened or contacted of them."""
    neighbour, contacts, done = tmp_path / "trap.mp4", [], threading.Event()
    os.mkfifo(neighbour)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.01)

    def watch() -> None:
        while not done.is_set():
            try:
                listener.accept()[0].close()
                contacts.append("server")
            except TimeoutError:
                pass
            try:  # succeeds while somebody waits for the content of the pipe
                os.close(os.open(neighbour, os.O_WRONLY | os.O_NONBLOCK))
                contacts.append("neighbour")
            except OSError:
                pass

    thread = threading.Thread(target=watch)
    thread.start()
    yield neighbour, listener.getsockname()[1], contacts
    done.set()
    thread.join()
    listener.close()


def lists(neighbour: str, port: int) -> dict[str, str]:
    """Contents that refer to another file or to a server, by a suitable name."""
    url = f"http://127.0.0.1:{port}/a.ts"
    return {
        "session.sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "session.mp4": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"a=control:rtsp://127.0.0.1:{port}/\nm=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{neighbour}'\nduration 1\n",
        "list.mp4": f"ffconcat version 1.0\nfile '{Path(neighbour).name}'\n",
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{neighbour}\n#EXT-X-ENDLIST\n",
        "list.ts": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
        "key.m3u8": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n',
        "list.mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        f'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><BaseURL>{url}</BaseURL><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>'
        f"{url}</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
        "list.imf.xml": f"<?xml version='1.0'?><AssetMap><Path>{neighbour}</Path></AssetMap>",
        "list.vob": f"# VobSub index file, v7 {neighbour}\n",
        "list.ram": f"rtsp://127.0.0.1:{port}/a\n",
        "graph.mp4": f"movie={neighbour} [out0]\n",
        "list.asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>\n',
    }


def test_lists_of_files_and_addresses_are_refused(tmp_path: Path, traps: tuple) -> None:
    neighbour, port, contacts = traps
    for name, content in lists(str(neighbour), port).items():
        path = tmp_path / name
        path.write_text(content)
        for source in (lambda p=path: open_source(p), lambda p=path, c=content: Video(p, c.encode())):
            with pytest.raises(VideoError, match=r"^[^\n]*$") as caught:
                source()
            assert str(caught.value).startswith(f"{path}: cannot be opened as a video")
    time.sleep(0.03)
    assert not contacts


def test_the_traps_notice_contacts(traps: tuple) -> None:
    neighbour, port, contacts = traps
    socket.create_connection(("127.0.0.1", port)).close()
    neighbour.read_bytes()
    time.sleep(0.03)
    assert set(contacts) == {"server", "neighbour"}


def test_formats_that_refer_to_other_files_are_not_listed() -> None:
    accepted = set(FORMATS.split(","))
    listing = {
        "sdp",
        "rtsp",
        "rtp",
        "sap",
        "hls",
        "dash",
        "concat",
        "concatf",
        "image2",
        "lavfi",
        "imf",
        "tee",
    }
    listing |= {"vobsub", "webm_dash_manifest", "ffmetadata", "tty", "data", "rawvideo", "svg_pipe", "fbdev"}
    assert not accepted & listing
    assert OPTIONS["protocol_whitelist"] == "none"


NAMES = ("a:b.mp4", "http:x.mp4", "file:a.mp4", "concat:a|b.mp4", "-", "pipe:0", "data:,x", "video%03d.mp4")
NAMES += (
    "subfile,,start,0,end,9,,:a",
    "x?y#z.mp4",
    "*.mp4",
    "%s%n.mp4",
    "a\nb.mp4",
    "crypto:a",
    "é\udcff.mp4",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_look_like_addresses_are_local_files(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(clip.read_bytes())
    Path("video001.mp4").write_bytes(b"must not be read")
    with open_source(Path(name)) as video:
        assert barcode.read(video.frames([7])[0]) == 7
    with pytest.raises(VideoError, match="no such file"):
        Video("http://127.0.0.1:9/absent.mp4")


@pytest.mark.parametrize("open_it", [Video, open_source])
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path, open_it) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("/dev/zero")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    paths = [tmp_path / name for name in ("pipe.mp4", "link.mp4", "loop.mp4", "empty.mp4")]
    paths += [tmp_path / ("7" * 4300 + ".mp4"), tmp_path / "nul\0.mp4", tmp_path / "a" / "b.mp4"]
    for path in paths:
        with pytest.raises(VideoError, match=r"^[^\n\0]*$") as caught:
            open_it(path)
        assert str(caught.value).startswith(str(tmp_path))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match="is a directory"):
        Video(tmp_path / "folder.mp4")
    assert stat.S_ISFIFO((tmp_path / "pipe.mp4").stat().st_mode)


def test_unreadable_names_the_file() -> None:
    error = unreadable("clip.mp4", FileNotFoundError(2, "No such file or directory"))
    assert isinstance(error, VideoError)
    assert str(error) == "clip.mp4: no such file"


def test_the_file_is_closed(clip: Path) -> None:
    with open_stream(str(clip)) as opened:
        number = opened.file.fileno()
        assert opened.size_bytes == clip.stat().st_size
        assert opened.read(4, 4) == b"ftyp"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    content = clip.read_bytes()
    with open_stream("memory", content) as opened:
        assert opened.size_bytes == len(content)


def test_huge_frames_are_refused_before_memory_is_taken(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header that states 65535 x 65535 pixels, in a container that is believed."""
    path = tmp_path / "huge.avi"
    barcode.write(path, range(3), codec="ffv1", pix_fmt="yuv420p")
    content = bytearray(path.read_bytes())
    place = content.index(b"strf") + 8  # BITMAPINFOHEADER
    for width, height in ((65535, 65535), (16384, 16384), (2**31 - 1, 2), (8193, 4096)):
        content[place + 4 : place + 12] = struct.pack("<ii", width, height)
        path.write_bytes(content)
        with pytest.raises(VideoError, match="frame 0 does not decode"), Video(path) as video:
            video.frames([0])
    monkeypatch.setattr(container, "MAX_PIXELS", barcode.WIDTH * barcode.HEIGHT - 1)
    with pytest.raises(VideoError, match="frames of 128x96 pixels; expected at most"):
        Video(clip)


def test_unknown_codecs_and_streams_without_frames(clip: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    place = content.index(b"avc1", content.index(b"stsd"))
    path = tmp_path / "unknown.mp4"
    path.write_bytes(content[:place] + b"zzzz" + content[place + 4 :])
    with pytest.raises(VideoError, match="codec of its video stream is unknown"):
        Video(path)
    with av.open(str(tmp_path / "none.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "gray"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16), np.uint8), format="gray")))
        output.mux(stream.encode())
    whole = (tmp_path / "none.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75")])  # before the first cluster
    with pytest.raises(VideoError, match="it is not a video or is truncated"):
        Video(tmp_path / "cut.mkv")


def test_ffmpeg_opens_paths_in_one_place_only() -> None:
    """Elsewhere, `av.open` writes to an open file or a path that FFmpeg cannot take for an address.

    It also opens live sources.
    Live sources have their own lists of formats and protocols, and a time limit; see `test_live`.
    """
    root = Path(__file__).parents[2] / "mmaction_lite"
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "av.open":
                call = ast.unparse(node)
                target = call.removeprefix("av.open(")
                to_file = target.startswith(("file, ", "cast(Any, file), ", "io.BytesIO(), "))
                writes = (to_file or target.startswith("f'file:{")) and "'w'" in call
                is_live = path.parts[-2:] == ("sources", "live.py")
                assert not is_live or "options=options, timeout=limits" in call
                assert writes or is_live or path.name == "container.py", f"{path}: {call}"
