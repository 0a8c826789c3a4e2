"""Write segments as a table, as ActivityNet JSON and as subtitles."""

import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from mmaction_lite.errors import printable
from mmaction_lite.inference.segments import Segment

COLUMNS = ("video", "label", "start", "end", "start_frame", "end_frame", "score", "protocol")


def csv_text(videos: Iterable[tuple[str, Sequence[Segment]]], protocol: str) -> str:
    """Return a CSV table with one row per segment.

    Args:
        videos: name and segments of each video.
        protocol: protocol line, windows and rule, repeated in the last column.
    """
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    for video, segments in videos:
        for label, start, end, first, after, score in segments:
            numbers = (f"{start:.3f}", f"{end:.3f}", first, after, f"{score:.4f}")
            rows.writerow([video, label, *numbers, protocol])
    return _valid_text(file.getvalue())


def activitynet_text(videos: Mapping[str, Sequence[Segment]], protocol: str) -> str:
    """Return the results of the ActivityNet localization task, as its evaluation code and others read them.

    Args:
        videos: segments by name of the video, without suffix.
        protocol: protocol line, windows and rule.
    """
    results = {
        video: [
            {"label": s.label, "score": round(s.score, 6), "segment": [s.start_seconds, s.end_seconds]}
            for s in segments
        ]
        for video, segments in videos.items()
    }
    content = {
        "version": "VERSION 1.3",
        "results": results,
        "external_data": {"used": True, "details": protocol},
    }
    return json.dumps(content, indent=1) + "\n"


def srt_text(segments: Sequence[Segment]) -> str:
    """Return SubRip subtitles, one per segment."""
    cues = [
        f"{number}\n{_clock(s.start_seconds, ',')} --> {_cue_end(s, ',')}\n{_cue(s).replace('-->', '->')}\n"
        for number, s in enumerate(segments, 1)
    ]
    return "\n".join(cues)


def vtt_text(segments: Sequence[Segment], note: str) -> str:
    """Return WebVTT subtitles, one per segment.

    Args:
        segments: the segments.
        note: a comment at the beginning, such as the protocol line.
    """
    comment = printable(note, 4000).replace("-->", "->")
    cues = [
        f"{_clock(s.start_seconds, '.')} --> {_cue_end(s, '.')}\n{html.escape(_cue(s), quote=False)}\n"
        for s in segments
    ]
    return "\n".join(["WEBVTT\n", f"NOTE {comment}\n", *cues])


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds, such as 1:02:03.480."""
    text = _clock(seconds, ".").removeprefix("00:")
    return text[1:] if text.startswith("0") else text


def _cue(segment: Segment) -> str:
    return f"{printable(segment.label, 200)} ({segment.score:.0%})"


def _cue_end(segment: Segment, point: str) -> str:
    # A cue must end after its start, also if both are rounded to the same millisecond.
    return _clock(max(segment.end_seconds, segment.start_seconds + 0.001), point)


def _clock(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{milliseconds:03}"


def _valid_text(text: str) -> str:
    """Return text in which escape sequences replace bytes of file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
