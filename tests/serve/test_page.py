"""The page in a headless browser, with a small network that is trained on two classes of `motions`."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip("fastapi")

from mmaction_lite.data.generated import motions
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.serve.app import create_app
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.settings import ServeSettings
from mmaction_lite.weights.card import save_weights
from tests.conftest import write_video
from tests.exports import carded, small_protocol, write_small_weights
from tests.serve.browsing import dataset_of, write_data, write_run
from tests.serve.chromium import open_chromium
from tests.serve.running import running

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

LEFT, RIGHT = "move_left", "<i>move_right</i>"  # the second name would be markup in a careless page
WAIT_MS = 60_000  # on a busy machine
LIMIT = 1 << 20
EVIL_CLIP = 'onerror="alert(1)"'
EVIL = "<img src=x onerror=document.title='hacked'>.mp4"


class Site(NamedTuple):
    """A server and its files."""

    address: str
    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with open_chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with two networks, a data set and a run, and videos to upload; after a browser is found."""
    folder = tmp_path_factory.mktemp("page")
    train_on_motions(folder / "motions.safetensors")
    write_small_weights(folder / "other.safetensors")
    write_files(folder)
    data = dataset_of(write_data(folder / "clips"))
    settings = ServeSettings(
        rate_per_minute=0, max_bytes=LIMIT, max_seconds=600.0, workers=WorkerSettings(num_workers=1)
    )
    models = Models([str(folder / f"{name}.safetensors") for name in ("motions", "other")], 1 << 30, "cpu")
    app = create_app(settings, models, dataset=data, run=write_run(folder / "run", 20))
    with running(app) as client:
        yield Site(str(client.base_url), folder)


def train_on_motions(path: Path) -> None:
    """Train a small TSM to distinguish two classes of `motions`: 40 steps on 24 clips."""
    protocol = small_protocol(8, (24, 28))
    numbers = [10 * clip + label for clip in range(12) for label in (0, 1)]
    inputs = torch.cat([protocol.prepare(shrunk(motions.render(number))) for number in numbers])
    labels = torch.tensor([number % 10 for number in numbers])
    model = carded("tsm_r10", protocol, classes=(LEFT, RIGHT), width=8, dropout=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        rows = torch.randperm(len(inputs), generator=generator)[:8]
        loss = cross_entropy(model(inputs[rows]), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_weights(path, model.state_dict(), model.card)


def shrunk(frames: np.ndarray) -> torch.Tensor:
    """Eight frames of a clip at a quarter of the size: uint8 (1, 8, 24, 32, 3)."""
    small = frames[4::8].reshape(8, 24, 4, 32, 4, 3).mean((2, 4)).round()
    return torch.from_numpy(small.astype(np.uint8))[None]


def write_files(folder: Path) -> None:
    left, right = (motions.render(number) for number in (600, 601))
    write_video(folder / "left.mp4", left)
    write_video(folder / "right.mp4", right)
    write_video(folder / "both.mp4", np.concatenate([left, right]))
    write_avi(folder / "left.avi", left)
    content = (folder / "left.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(content[: len(content) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is not a video.\n" * 100)
    (folder / "large.mp4").write_bytes(content + bytes(3 * LIMIT // 2))
    write_two_hours(folder / "hours.mp4", left[:2])


def write_avi(path: Path, frames: np.ndarray) -> None:
    """MPEG-4 in AVI, which browsers do not play."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_two_hours(path: Path, frames: np.ndarray) -> None:
    """Two frames, two hours apart."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for image, seconds in zip(frames, (0, 7200), strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = seconds, Fraction(1, 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


Open = Callable[..., Any]


@pytest.fixture
def visit(chromium: Any, site: Site) -> Iterator[Open]:
    """Open the page. At the end, nothing but expected answers may be in its console."""
    with visitor(chromium, site.address) as opened:
        yield opened


@contextmanager
def visitor(chromium: Any, address: str) -> Iterator[Open]:
    messages: list[str] = []
    contexts: list[Any] = []

    def note(message: Any) -> None:
        # The console lists every answer with an error status; the page shows those that matter.
        if (
            message.type in ("error", "warning")
            and "the server responded with a status of 4" not in message.text
        ):
            messages.append(message.text)

    def opened(path: str = "", *, has_examples: bool = False, **settings: Any) -> Any:
        contexts.append(chromium.new_context(reduced_motion="reduce", **settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT_MS)
        if not has_examples:  # the server renders them at their first use
            page.route("**/v1/examples", lambda route: route.fulfill(json={"examples": []}))
        page.on("console", note)
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: messages.append(request.url) if is_foreign(request.url) else None)
        page.goto(f"{address}/{path}")
        page.wait_for_selector("#model option", state="attached")
        return page

    def is_foreign(url: str) -> bool:
        return not url.startswith((address, "data:", f"blob:{address}"))

    yield opened
    for context in contexts:
        context.close()
    assert not messages


def upload(page: Any, file: Any) -> None:
    """Upload a file and wait for its timeline."""
    page.set_input_files("#file", file)
    page.wait_for_selector("#downloads button")


def bars(page: Any) -> list[tuple[str, float]]:
    texts = page.locator("#bars li").all_inner_texts()
    rows = [text.split("\n") for text in texts]
    return [(row[0], float(row[1].removesuffix("%"))) for row in rows]


def is_blank(page: Any, canvas: str) -> bool:
    """Whether a canvas is hidden or empty."""
    script = """c => !c.width || !c.offsetWidth ||
        !c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some((value) => value)"""
    return page.locator(canvas).evaluate(script)


def overflow(page: Any) -> int:
    """Pixels by which the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize(("name", "label"), [("left.mp4", LEFT), ("right.mp4", RIGHT)])
def test_the_right_class_stands_first(visit, site, name, label):
    page = visit()
    upload(page, site.file(name))
    assert page.inner_text("#verdict-class") == label
    assert bars(page)[0][0] == label
    assert page.inner_text("#subject-facts") == "0:02.6 · 128 × 96 · 25 frames per second"
    assert "8 frames: 1 clip × 1 crop" in page.inner_text("#protocol")
    assert page.locator("#frames img").count() == 8
    assert page.locator("#timing dt").all_inner_texts() == ["Upload", "Decode", "Wait", "Network"]
    announced = page.inner_text("#live")
    assert label in announced
    assert "%" in announced


def test_the_bars_follow_the_play_head_and_a_click_on_the_timeline_seeks(visit, site):
    page = visit()
    upload(page, site.file("both.mp4"))
    track, video = page.locator("#track"), page.locator("#video")
    box = track.bounding_box()
    for share, label in ((0.25, LEFT), (0.75, RIGHT)):
        track.click(position={"x": share * box["width"], "y": 12})
        assert video.evaluate("video => video.currentTime") == pytest.approx(share * 5.12, abs=0.05)
        assert bars(page)[0][0] == label
        assert bars(page)[0][1] > 60
        assert label in track.get_attribute("aria-valuetext")
    track.press("Home")
    assert video.evaluate("video => video.currentTime") == 0
    assert bars(page)[0][0] == LEFT
    track.press("ArrowRight")
    assert video.evaluate("video => video.currentTime") == pytest.approx(0.5, abs=0.01)
    whole = page.inner_text("#verdict-class")
    page.click("#bars-whole")
    assert bars(page)[0][0] == whole
    page.click("#bars-head")
    page.locator("#rate").select_option("2")
    page.click("#play")  # it plays on, and the bars follow
    page.locator("#bars li", has_text=RIGHT).first.wait_for()
    page.wait_for_selector(f"#bars li:first-child:has-text({json.dumps(RIGHT)})")
    page.locator("#segment-list button").first.click()
    assert video.evaluate("video => video.currentTime") == pytest.approx(0, abs=0.01)
    assert not is_blank(page, "#lanes")


def test_the_overlay_toggles(visit, site):
    page = visit()
    upload(page, site.file("right.mp4"))
    switch = page.get_by_role("switch", name="Grad-CAM")
    assert is_blank(page, "#heat")
    switch.click()
    page.wait_for_selector("#live:has-text('Grad-CAM of')", state="attached")
    assert switch.get_attribute("aria-checked") == "true"
    assert not is_blank(page, "#heat")
    first = page.locator("#heat").evaluate("canvas => canvas.toDataURL()")
    page.locator("#heat-class").select_option(LEFT)
    page.wait_for_selector(f"#live:has-text('Grad-CAM of {LEFT}')", state="attached")
    assert page.locator("#heat").evaluate("canvas => canvas.toDataURL()") != first
    switch.click()
    assert is_blank(page, "#heat")


def test_the_page_is_dark_in_dark_mode_and_by_its_switch(visit):
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = (visit(color_scheme=scheme).evaluate(background) for scheme in ("light", "dark"))
    assert brightness(light) > 200
    assert brightness(dark) < 40
    page = visit(color_scheme="dark")
    page.click("#theme")
    assert page.evaluate(background) == light
    page.click("#theme")
    assert page.evaluate(background) == dark
    page.reload()
    assert page.get_attribute("html", "data-theme") == "dark"


def brightness(color: str) -> float:
    return float(np.mean([float(part) for part in color.strip("rgb()").split(",")]))


def test_a_phone_needs_no_horizontal_scroll(visit, site):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True)
    assert overflow(page) <= 0
    upload(page, site.file("both.mp4"))
    page.click("#heat-switch")
    page.wait_for_selector("#live:has-text('Grad-CAM of')", state="attached")
    assert overflow(page) <= 0
    assert page.locator("#track").bounding_box()["width"] > 150
    page.goto(f"{site.address}/#/run")
    page.wait_for_selector(".chart svg", state="attached")
    assert overflow(page) <= 0


MESSAGES = {
    "broken.mp4": "The video cannot be read.",
    "empty.mp4": "The file is empty. empty.mp4 has 0 bytes.",
    "text.mp4": re.compile("The file is not a video.|The video cannot be read."),
    "hours.mp4": "The video is too long.",
    "large.mp4": "The file is too large. large.mp4 has 1.5 MiB; this server takes up to 1 MiB.",
}


def test_every_bad_file_has_its_message(visit, site):
    page = visit()
    for name, message in MESSAGES.items():
        page.set_input_files("#file", site.file(name))
        alert = page.get_by_role("alert").locator("p", has_text=message)
        alert.wait_for()
        assert alert.inner_text().count(".") >= 2  # details or advice
        assert str(site.folder) not in alert.inner_text()
        assert page.is_visible("#choose")
        page.click(".alert button")
        assert not page.locator(".alert").count()


def test_names_are_text(visit, site):
    page = visit()
    upload(page, {"name": EVIL, "mimeType": "video/mp4", "buffer": Path(site.file("right.mp4")).read_bytes()})
    assert page.inner_text("#subject-name") == EVIL
    assert page.locator("main i, main img[src=x]").count() == 0
    assert page.title() == "mmaction-lite"
    assert page.locator("#lane-names li").nth(1).inner_text() == RIGHT


def test_a_format_that_the_browser_cannot_play_has_results_and_frames(visit, site):
    page = visit()
    upload(page, site.file("left.avi"))
    assert "cannot play this format" in page.inner_text("#unplayable")
    assert page.inner_text("#verdict-class") == LEFT
    first = page.get_attribute("#still", "src")
    page.locator("#track").press("End")
    assert page.get_attribute("#still", "src") != first
    assert page.inner_text("#now") == "0:02.6"


def test_results_are_downloaded(visit, site):
    page = visit()
    upload(page, site.file("both.mp4"))
    for kind, start in {
        "csv": b"video,",
        "json": b"{",
        "srt": b"1\n",
        "vtt": b"WEBVTT",
        "mp4": b"\0\0\0",
    }.items():
        with page.expect_download() as started:
            page.locator("#downloads button").nth(["csv", "json", "srt", "vtt", "mp4"].index(kind)).click()
        assert started.value.suggested_filename == f"both.{kind}"
        content = Path(started.value.path()).read_bytes()
        assert content.startswith(start) or b"start" in content[:80]


def test_the_session_is_kept_in_the_tab_only(visit, site):
    page = visit()
    upload(page, site.file("left.mp4"))
    page.locator("#model").select_option("other")
    page.wait_for_selector(".chip >> nth=1")
    page.wait_for_selector("#downloads button")
    assert page.inner_text("#verdict-class") in ("up", "down")
    page.locator(".chip").nth(1).click()
    assert page.inner_text("#verdict-class") == LEFT
    page.reload()
    page.locator(".chip").nth(1).click()
    assert page.inner_text("#verdict-class") == LEFT
    assert "not kept" in page.inner_text("#unplayable")
    page.click("#history-clear")
    assert page.is_hidden("#history")
    assert visit().is_hidden("#history")


def test_a_recording_of_the_camera_is_classified(visit):
    page = visit()
    page.click("#record")
    page.wait_for_selector("#camera-go:not([disabled])")
    page.click("#camera-go")
    page.wait_for_selector("#camera-text:has-text('Recording, 1')")
    page.click("#camera-go")
    page.wait_for_selector("#downloads button")
    assert page.inner_text("#subject-name").startswith("recording-")
    assert page.inner_text("#verdict-class") in (LEFT, RIGHT)


def test_an_example_is_classified_and_the_keyboard_suffices(visit):
    page = visit(has_examples=True)
    page.wait_for_selector(".example")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "example":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#downloads button")
    assert page.evaluate("document.activeElement.id") == "subject-name"
    unnamed = """[...document.querySelectorAll("button, select, input, [role]")]
        .filter((node) => node.offsetParent && !["alert", "status"].includes(node.role))
        .filter((node) => !(node.innerText || node.ariaLabel || node.labels?.length
            || node.getAttribute("aria-labelledby")))
        .map((node) => node.outerHTML)"""
    assert page.evaluate(unnamed) == []


def test_the_curves_of_a_run_are_drawn_while_it_trains(visit, site):
    page = visit("#/run")
    page.wait_for_selector(".chart svg")
    assert page.locator(".chart h2").all_inner_texts()[:2] == ["Loss", "Top-1 accuracy"]
    assert "50.0 %" in page.inner_text(".tiles")
    with (site.folder / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 21, "epoch": 5.25, "loss": 0.0625, "lr": 0.01}) + "\n")
    page.wait_for_selector(".tiles:has-text('0.0625')")


def test_labels_of_a_data_set_are_corrected(visit, site):
    page = visit("#/data")
    page.wait_for_selector(".clip >> nth=3")
    assert EVIL_CLIP in page.inner_text("#clips")
    assert page.locator("#data img").count() == 0
    first = page.locator(".clip").first
    name = first.locator(".clip-name").inner_text()
    assert first.locator("dd.right").count() == 1
    choice = first.locator("select")
    choice.select_option("up" if choice.input_value() == "down" else "down")
    page.wait_for_selector("#live:has-text('Corrected to')", state="attached")
    stored = (site.folder / "corrections.jsonl").read_text().splitlines()[-1]
    assert json.loads(stored)["clip"] == name
    assert first.locator("dd.wrong").count() == 1
    page.get_by_label("Result").select_option("corrected=true")
    page.wait_for_selector("#clip-count:has-text('1 clip')")
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector("#live:has-text('removed')", state="attached")
    video = page.locator(".clip video")
    page.get_by_label("Result").select_option("")
    page.wait_for_selector("#clip-count:has-text('4 clips')")
    for number in range(4):  # the AVI file is converted by the server
        video.nth(number).evaluate(
            "video => video.readyState || new Promise((done) => video.onloadedmetadata = done)"
        )


def test_a_server_with_a_token_asks_for_it(chromium, site):
    token = "a token of 20 letters"
    settings = ServeSettings(rate_per_minute=0, token=token, workers=WorkerSettings(num_workers=1))
    models = Models([site.file("motions.safetensors")], 1 << 30, "cpu")
    with running(create_app(settings, models)) as client, chromium.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(str(client.base_url))
        for given in ("wrong", token):
            page.wait_for_selector("#token-dialog[open]")
            page.fill("#token", given)
            page.keyboard.press("Enter")
        page.wait_for_selector("#model option", state="attached")
        upload(page, site.file("left.mp4"))
        assert page.inner_text("#verdict-class") == LEFT


def test_a_training_without_weights_is_shown_alone(chromium, tmp_path):
    data = dataset_of(write_data(tmp_path / "clips"))
    data.predictions = None
    settings = ServeSettings(rate_per_minute=0, workers=WorkerSettings(num_workers=1))
    app = create_app(
        settings,
        Models([], 1, "cpu", may_be_empty=True),
        dataset=data,
        run=write_run(tmp_path / "run", 3),
    )
    with running(app) as client, chromium.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        problems = []
        page.on("console", lambda message: problems.append(message.text))
        page.goto(f"{client.base_url}#/run")
        page.wait_for_selector(".chart svg")
        assert not page.locator("#tabs a[href='#/video']").is_visible()
        page.goto(f"{client.base_url}#/video")
        page.wait_for_selector("#data-tiles:has-text('--protocol val --dump RUN/val.npz')")
        assert problems == []
