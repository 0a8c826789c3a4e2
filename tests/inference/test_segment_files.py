"""Tables and subtitles of segments are valid."""

import csv
import io
import json
import re

from mmaction_lite.inference.segment_files import activitynet_text, clock, csv_text, srt_text, vtt_text
from mmaction_lite.inference.segments import Segment

SEGMENTS = [
    Segment('run, "fast" <&> --> far', 0.0, 3661.5, 0, 91537, 0.875),
    Segment("jump\nhigh", 3661.5, 3661.5001, 91537, 91538, 0.25),
]


def test_csv_has_one_row_per_segment():
    rows = list(csv.DictReader(io.StringIO(csv_text([("a.mp4", SEGMENTS), ("b.mp4", [])], "line"))))
    assert len(rows) == 2
    assert rows[0] == {
        "video": "a.mp4",
        "label": SEGMENTS[0].label,
        "start": "0.000",
        "end": "3661.500",
        "start_frame": "0",
        "end_frame": "91537",
        "score": "0.8750",
        "protocol": "line",
    }


def test_activitynet_json_has_the_published_form():
    content = json.loads(activitynet_text({"a": SEGMENTS, "b": []}, "line"))
    assert content["version"].startswith("VERSION")
    assert content["external_data"]["details"] == "line"
    assert content["results"]["b"] == []
    assert content["results"]["a"][0] == {
        "label": SEGMENTS[0].label,
        "score": 0.875,
        "segment": [0.0, 3661.5],
    }


def test_subtitles_have_valid_cues():
    srt = srt_text(SEGMENTS)
    cues = srt.strip().split("\n\n")
    assert len(cues) == 2
    for number, cue in enumerate(cues, 1):
        index, times, text = cue.split("\n")
        assert index == str(number)
        assert re.fullmatch(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}", times)
        start, end = times.split(" --> ")
        assert start < end
        assert "-->" not in text
    vtt = vtt_text(SEGMENTS, "line --> more")
    assert vtt.startswith("WEBVTT\n\nNOTE line -> more\n\n")
    assert "00:00:00.000 --> 01:01:01.500\n" in vtt
    assert "&lt;&amp;&gt; --&gt; far (88%)" in vtt
    assert vtt.count("-->") == 2


def test_subtitles_without_segments():
    assert srt_text([]) == ""
    assert vtt_text([], "line").startswith("WEBVTT\n")


def test_clock():
    assert clock(3723.4804) == "1:02:03.480"
    assert clock(62.0) == "1:02.000"
