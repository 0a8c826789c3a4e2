"""Record of the data set from which `data validate` removed unreadable samples."""

import json
from pathlib import Path

from mmaction_lite.data.annotations.samples import Samples

SUMMARY = "summary.json"
KEY = "cleaned_from"  # entry of the summary: the fingerprint of each split that was validated


def split_checksum(samples: Samples) -> str:
    """Return a line with a checksum of the paths, labels and classes of a split."""
    number = samples.checksum()
    return f"{len(samples)} clips of {len(samples.classes)} classes, checksum {number:08x}"


def is_cleaned_from(samples: Samples, split: str, original: str) -> bool:
    """Whether a split is a list that `data validate` wrote for the split with the fingerprint `original`."""
    if samples.lines is None:
        return False
    try:
        summary = json.loads((Path(samples.source).parent / SUMMARY).read_text(encoding="utf-8"))
        return summary[KEY][split] == original
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
