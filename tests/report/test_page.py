import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmaction_lite.errors import UserError
from mmaction_lite.report.page import write_report
from mmaction_lite.tasks.metrics import class_results, confusion
from mmaction_lite.tasks.single_label import SingleLabel

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TRAINING_ROW = {"loss": 2.0, "lr": 0.1, "top1": 0.3, "iteration_seconds": 0.4, "data_seconds": 0.1}
VALIDATION_ROW = {
    "split": "val",
    "loss": 1.5,
    "top1": 0.625,
    "top5": 0.9,
    "mean_class": 0.6,
    "videos": 40,
    "unreadable": 0,
    "protocol": "validation protocol",
}


def make_run(folder: Path, name: str = "tsn_small") -> Path:
    """A run of three epochs that wrote no score file yet."""
    folder.mkdir()
    (folder / "recipe.txt").write_text(f"# {name}, seed 0\nRecipe(epochs=3, modified=())\n")
    rows = []
    for epoch in (1, 2, 3):
        rows += [
            TRAINING_ROW | {"step": step, "epoch": step / 10}
            for step in range(10 * epoch - 9, 10 * epoch + 1)
        ]
        rows += [VALIDATION_ROW | {"step": 10 * epoch, "epoch": float(epoch)}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def add_scores(
    file: Path, num_classes: int = 10, num_videos: int = 40, **changed: np.ndarray
) -> dict[str, np.ndarray]:
    """A score file of random probabilities in which the video of row 3 is unreadable."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_videos) % num_classes
    logits = rng.normal(size=(num_videos, num_classes))
    logits[np.arange(num_videos), labels] += 2
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores[3] = np.nan
    arrays = {
        "paths": np.array([f"videos/{n}.mp4" for n in range(num_videos)]),
        "labels": labels,
        "scores": scores.astype(np.float32),
        "class_names": np.array([f"class {k}" for k in range(num_classes)]),
        "protocol": np.array(f"protocol of {file.name}"),
    } | changed
    np.savez_compressed(file, allow_pickle=True, **arrays)
    return arrays


def make_video(path: Path) -> str:
    """Nine frames, 48x64: three red, three green, three blue."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for channel in (0, 0, 0, 1, 1, 1, 2, 2, 2):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[..., channel] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def pictures(page: str) -> list[str]:
    return re.findall(r'<img [^>]*?src="([^"]*)"', page)


def decode(uri: str) -> tuple[str, bytes]:
    kind, content = re.fullmatch(r"data:([\w/+]+);base64,(.+)", uri).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return kind, base64.b64decode(content, validate=True)


def test_mean_recall_is_the_mean_class_accuracy_also_with_unreadable_videos(tmp_path):
    arrays = add_scores(tmp_path / "test.npz")
    readable = np.isfinite(arrays["scores"]).all(axis=1)
    matrix = confusion(arrays["labels"][readable], arrays["scores"][readable].argmax(axis=1), 10)
    recall = class_results(np.diag(matrix), matrix.sum(0), np.bincount(arrays["labels"])).recall
    assert recall.mean() == pytest.approx(
        SingleLabel().metrics(arrays["scores"], arrays["labels"])["mean_class"]
    )


@pytest.mark.parametrize("num_classes", [10, 400])
def test_every_picture_is_in_the_file_and_decodes(tmp_path, num_classes):
    run = make_run(tmp_path / "run")
    paths = np.full(40, make_video(tmp_path / "clip.mp4"))
    arrays = add_scores(run / "test.npz", num_classes, paths=paths)
    mistakes = np.delete(arrays["scores"].argmax(axis=1) != arrays["labels"], 3).sum()  # 3 is unreadable
    report = write_report([run])
    assert report == run / "report.html"
    page = report.read_text(encoding="utf-8")
    kinds = []
    for uri in pictures(page):
        kind, content = decode(uri)
        kinds.append(kind)
        if kind == "image/svg+xml":
            assert xml.etree.ElementTree.fromstring(content).tag.endswith("svg")
        else:
            Image.open(io.BytesIO(content)).load()
    is_image = num_classes == 400
    assert kinds == ["image/svg+xml"] * (5 + is_image) + ["image/jpeg"] * min(12, mistakes)
    assert ('<table class="matrix">' in page) is not is_image
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img [^>]*>", page))
    outside = re.findall(r"""(?:src|href)=["'](?!data:|#)|url\(|@import|https?://""", page)
    assert outside == []


def test_the_numbers_on_the_page(tmp_path):
    run = make_run(tmp_path / "run")
    arrays = add_scores(run / "test.npz")
    add_scores(run / "val.npz", num_videos=20)
    page = write_report([run]).read_text(encoding="utf-8")
    expected = SingleLabel().metrics(arrays["scores"], arrays["labels"])
    for name, label in (("top1", "top-1"), ("top5", "top-5"), ("mean_class", "mean-class")):
        assert f"<b>{100 * expected[name]:.2f} %</b><span>{label} accuracy" in page
    assert "<b>40</b><span>videos, of which 1 unreadable" in page
    assert "protocol of test.npz" in page
    assert "val.npz" not in page
    assert "<b>25 %</b><span>data time" in page
    assert "videos/3.mp4" in page[page.index("Unreadable videos of test.npz") :]
    diagonal = [int(count) for count in re.findall(r'<td class="hit [^>]*>(\d+)</td>', page)]
    assert sum(diagonal) == round(expected["top1"] * 40)


def test_accuracies_have_intervals_and_few_classes_no_top5(tmp_path):
    run = make_run(tmp_path / "run")
    rows = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(rows.replace('"top5": 0.9', '"top5": 1.0'))
    page = write_report([run]).read_text(encoding="utf-8")
    assert "<b>62.50 %</b><span>top-1 accuracy, 95 %: 47.0–75.8 %</span>" in page  # 25 of 40 videos
    assert "top-5" not in page
    add_scores(run / "test.npz", 4)
    page = write_report([run]).read_text(encoding="utf-8")
    assert re.search(r"<span>top-1 accuracy, 95 %: [\d.]+–[\d.]+ %</span>", page)
    assert "top-5" not in page
    (table,) = re.findall(r'<table class="sortable">.*?</table>', page, re.DOTALL)
    assert len(re.findall(r'<td class="number soft">[\d.]+–[\d.]+ %</td>', table)) == 4


def test_runs_that_do_not_compare_are_named(tmp_path):
    runs = [make_run(tmp_path / name) for name in "abcd"]
    add_scores(runs[0] / "test.npz")
    add_scores(runs[1] / "test.npz", paths=np.array([f"/elsewhere/videos/{n}.mp4" for n in range(40)]))
    add_scores(runs[2] / "test.npz", 5, num_videos=30)
    page = write_report(runs).read_text(encoding="utf-8")
    assert re.findall(r'<p class="differs">(.*?)</p>', page) == [
        "The numbers of runs 1 and 3 do not compare: they were tested on other videos (40 and 30, 30 in "
        "common) and other classes (10 and 5, 5 in common). Test both on the same data with --dump.",
        "Some runs have no score file: their numbers are those of the last validation.",
    ]


def test_hostile_names_do_not_change_other_text_and_round_trip_in_the_csv_files(tmp_path):
    run = make_run(tmp_path / "run")
    names = [
        "a,b",
        'say "x"',
        "two\nlines",
        "\u202ereversed",
        "</td><script>",
        "=1+1",
        "bad \udcff byte",
        "手话 🤟",
    ]
    arrays = add_scores(run / "test.npz", 8, class_names=np.array(names))
    arrays["paths"][0] = "\u202emp4.exe"
    np.savez_compressed(run / "test.npz", allow_pickle=False, **arrays)
    content = write_report([run]).read_bytes()
    page = content.decode("utf-8")
    assert page.count("<script") == 1
    assert "\u202e" not in page
    assert r"\u202ereversed" in page
    assert "手话 🤟" in page
    files = re.findall(r'download="(\w+\.csv)" href="data:text/csv;charset=utf-8;base64,([^"]*)"', page)
    tables = {
        name: list(
            csv.reader(io.StringIO(base64.b64decode(data).decode("utf-8", "surrogateescape"), newline=""))
        )
        for name, data in files
    }
    assert [row[1] for row in tables["classes.csv"][1:]] == names
    assert tables["confusion_matrix.csv"][0][1:] == names


def test_the_tables_of_many_classes_are_limited(tmp_path):
    run = make_run(tmp_path / "run")
    add_scores(run / "test.npz", 1500, num_videos=1600)
    page = write_report([run]).read_text(encoding="utf-8")
    (table,) = re.findall(r'<table class="sortable">.*?</table>', page, re.DOTALL)
    assert table.count("<tr>") == 1 + 1000
    assert "lists the 1000 classes with the most incorrect videos; the CSV file lists all 1500" in page
    assert 'download="confused_pairs.csv"' in page
    assert len(pictures(page)) == 5  # curves and calibration, no picture of the matrix
    assert page.count(" of 1</td>") + page.count(" of 2</td>") == 100


@pytest.mark.slow
def test_a_report_of_10000_classes_takes_little_time_and_memory(tmp_path):
    run = make_run(tmp_path / "run")
    rng = np.random.default_rng(0)
    scores = rng.random((10_000, 10_000), np.float32)
    arrays = {
        "paths": np.array([f"videos/{n}.mp4" for n in range(10_000)]),
        "labels": np.arange(10_000),
        "scores": scores,
        "class_names": np.array([f"class {k}" for k in range(10_000)]),
        "protocol": np.array("protocol"),
    }
    np.savez(run / "test.npz", allow_pickle=False, **arrays)
    code = """
import sys, time
from pathlib import Path
import torch
from mmaction_lite.device import peak_memory
from mmaction_lite.report.page import write_report
start = time.process_time()
write_report([Path(sys.argv[1])])
print(time.process_time() - start, peak_memory(torch.device("cpu")))
"""
    output = subprocess.check_output([sys.executable, "-c", code, str(run)], text=True)
    seconds, peak = map(float, output.split())
    assert seconds < 20
    assert peak < 1500  # MiB


def test_names_are_escaped(tmp_path):
    run = make_run(tmp_path / "run", name="<b>recipe")
    evil = "<script>alert('x')</script>"
    add_scores(run / "test.npz", 2, class_names=np.array([evil, '"><img src=x>']), protocol=np.array(evil))
    (run / "quarantine.jsonl").write_text(json.dumps({"path": evil, "reason": "<i>moov atom"}) + "\n")
    page = write_report([run]).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert not re.search(r"<b>recipe|<i>moov|src=x", page.replace("src=x&gt;", ""))
    assert html.escape("<i>moov atom") in page


def test_several_runs_are_compared_in_one_file(tmp_path):
    runs = [make_run(tmp_path / "a", "tsn_small"), make_run(tmp_path / "b", "tsm_small")]
    for run in runs:
        add_scores(run / "test.npz")
    report = write_report(runs)
    assert report == runs[0] / "report.html"
    page = report.read_text(encoding="utf-8")
    comparison = page[page.index("Runs compared") : page.index("</table>")]
    assert re.findall(r'<a href="#run\d">(.*?)</a>', comparison) == ["tsn_small, seed 0", "tsm_small, seed 0"]
    assert len(pictures(page)) == 8 + 2 + 2  # curves, calibration; common curves


def test_without_scores_the_page_says_how_to_get_them(tmp_path):
    run = make_run(tmp_path / "my run")
    report = write_report([run], tmp_path / "elsewhere.html")
    assert report == tmp_path / "elsewhere.html"
    page = html.unescape(report.read_text(encoding="utf-8"))
    assert f"mmaction-lite test '{run}/best.pt' --data … --dump '{run}/test.npz'" in page
    assert "<b>62.50 %</b><span>top-1 accuracy" in page
    assert "last validation, epoch 3" in page
    assert len(pictures(page)) == 4


def test_a_half_written_last_row_is_ignored_and_a_changed_recipe_is_marked(tmp_path):
    run = make_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "lo')  # what a killed run leaves
    (run / "recipe.txt").write_text("# tsn_small, seed 0\nRecipe(epochs=3, modified=('epochs=3',))\n")
    assert "tsn_small, seed 0 (modified)" in write_report([run]).read_text(encoding="utf-8")


def _remove(name):
    return lambda run: (run / name).unlink()


def _write(name, text):
    return lambda run: (run / name).write_text(text)


def _flip_bytes(run):
    add_scores(run / "test.npz")
    content = bytearray((run / "test.npz").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(255 - byte for byte in content[middle : middle + 100])
    (run / "test.npz").write_bytes(content)


def _scores(**changed):
    return lambda run: add_scores(run / "test.npz", **changed)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"run: no such run folder; give"),
        (_remove("recipe.txt"), r"recipe\.txt: cannot be read .*; give"),
        (_remove("metrics.jsonl"), r"metrics\.jsonl: cannot be read .*; give"),
        (_write("metrics.jsonl", ""), r"metrics\.jsonl: holds no row; train"),
        (
            _write("metrics.jsonl", '{"step": 1, "epoch": 0.1}\n{"st\n'),
            r"metrics\.jsonl, line 2: damaged .*; delete",
        ),
        (
            _write("metrics.jsonl", '{"step": 1, "epoch": 0.1}\n{"step": 2}\n'),
            r"metrics\.jsonl, line 2: damaged .*; delete",
        ),
        (_write("test.npz", "PK not a zip"), r"test\.npz: damaged score file .*; write it again"),
        (_flip_bytes, r"test\.npz: damaged score file .*; write it again"),
        (_write("test.npz", ""), r"test\.npz: damaged score file .*; write it again"),
        (
            _scores(labels=np.arange(39) % 10),
            r"test\.npz: 40 paths .* do not fit .*\(39,\).*; write it again",
        ),
        (_scores(labels=np.arange(40)), r"test\.npz: labels run from 0 to 39; expected 0 to 9; correct"),
        (_scores(class_names=np.array(["a", "b"])), r"test\.npz: 40 paths and 2 class names do not fit"),
        (_scores(paths=np.array([None] * 40)), r"test\.npz: damaged score file .*; write it again"),
    ],
)
def test_damaged_run_files_are_named_with_what_to_do(tmp_path, damage, message):
    run = make_run(tmp_path / "run")
    damage(run)
    with pytest.raises(UserError, match=message) as caught:
        write_report([run])
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_report_replaces_nothing_but_html(tmp_path):
    run = make_run(tmp_path / "run")
    before = (run / "recipe.txt").read_bytes()
    with pytest.raises(UserError, match=r"recipe\.txt: a report is an HTML file"):
        write_report([run], run / "recipe.txt")
    assert (run / "recipe.txt").read_bytes() == before
    with pytest.raises(UserError, match=r"nowhere/r\.html: could not be written"):
        write_report([run], tmp_path / "nowhere" / "r.html")
    with pytest.raises(UserError, match="no run folder given"):
        write_report([])


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
@pytest.mark.slow
def test_a_browser_shows_every_picture_and_sorts_the_classes(tmp_path):
    run = make_run(tmp_path / "run")
    paths = np.full(800, make_video(tmp_path / "clip.mp4"))
    add_scores(run / "test.npz", 400, num_videos=800, paths=paths)
    page = write_report([run]).read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => {
        const table = document.querySelector("table.sortable");
        table.tHead.rows[0].cells[3].firstChild.click();
        const recall = [...table.tBodies[0].rows].map(row => parseFloat(row.cells[3].textContent));
        const widths = [...document.images].map(image => image.naturalWidth);
        document.body.textContent = JSON.stringify({recall, widths});
    })</script>"""
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
    ]
    command += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        probed.as_uri(),
    ]
    dump = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r"<body>(\{.*\})", dump)
    assert found, dump[-2000:]
    seen = json.loads(found[1])
    assert len(seen["widths"]) == 18
    assert min(seen["widths"]) > 0
    assert seen["recall"] == sorted(seen["recall"])
    assert len(set(seen["recall"])) > 1


@pytest.mark.parametrize("value", ["x", None, [], float("nan"), 1e308, -1])
def test_a_metric_edited_by_hand_is_left_out(tmp_path, value):
    run = make_run(tmp_path / "run")
    row = VALIDATION_ROW | {"step": 31, "epoch": 3.1, "mean_average_precision": value, "videos": value}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    page, message = "", "metrics.jsonl"
    try:
        page = write_report([run]).read_text(encoding="utf-8")
    except UserError as error:
        message = str(error)
    assert "metrics.jsonl" in message
    assert "mean average precision</span>" not in page
    assert not page or "<b>62.50 %</b><span>top-1 accuracy</span>" in page
