"""The clips of a data set with their labels and, if there are scores, their predictions."""

import hashlib
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mmaction_lite.data.annotations.samples import Samples, absolute, is_remote
from mmaction_lite.data.annotations.splits import Split, read_split
from mmaction_lite.errors import UserError, nearest, printable
from mmaction_lite.serve.corrections import Corrections, default_file
from mmaction_lite.serve.numbers import finite
from mmaction_lite.serve.run_curves import without_source
from mmaction_lite.tasks.metrics import readable_videos
from mmaction_lite.tasks.score_files import Scores, read_scores

Sort = Literal["worst", "best", "name"]

PAGE_CLIPS = 24


class Query(NamedTuple):
    """Which clips to list.

    Args:
        label: class name of the data set or of a correction; None: all.
        predicted: predicted class name; None: all.
        is_wrong: whether the prediction is wrong; None: all.
        is_corrected: whether the label was corrected; None: all.
        sort: "worst": the lowest probability of the true class first; "best": the highest first.
        page: from 1.
    """

    label: str | None = None
    predicted: str | None = None
    is_wrong: bool | None = None
    is_corrected: bool | None = None
    sort: Sort = "worst"
    page: int = 1


class Predictions(NamedTuple):
    """Predictions of the clips of a data set.

    Args:
        names: predicted class names of each clip; None without a readable video.
        probabilities: probability of the first of them, float (N,); NaN without a prediction.
        true: probability of the label, float (N,); the lowest one of several labels.
        are_correct: bool (N,).
        protocol: the protocol line, without the path of the data set.
    """

    names: list[list[str] | None]
    probabilities: np.ndarray
    true: np.ndarray
    are_correct: np.ndarray
    protocol: str


def open_dataset(
    data: Path, split: Split, scores: Path | None, run: Path | None, corrections: Path | None
) -> "Dataset":
    """Open a data set for the dataset mode.

    Args:
        data: the data set; see `read_split`.
        split: the split to show.
        scores: score file with predictions of its clips; None: that of the run folder, if it holds some.
        run: run folder of the model; None: there is none.
        corrections: file of corrected labels; None: beside the data set.

    Raises:
        UserError: the data set or the score file cannot be read, or the corrections cannot be written.
    """
    samples = read_samples(data, split)
    predictions = None
    if scores is not None:
        predictions = match_predictions(samples, read_scores(scores))
    elif run is not None and (found := run / f"{split}.npz").is_file():
        with suppress(UserError):  # the scores of another data set
            predictions = match_predictions(samples, read_scores(found))
    stored = Corrections(corrections or default_file(data), (data,))
    return Dataset(samples, data.absolute().name, predictions, stored, split)


def read_samples(data: Path, split: Split) -> Samples:
    """Read a split; the classes are those of the training split if there is one.

    Raises:
        UserError: see `read_split`.
    """
    classes = None
    if split != "train" and data.is_dir():
        try:
            classes = read_split(data, "train").classes
        except UserError:  # a data set for testing only
            classes = None
    return read_split(data, split, classes)


def match_predictions(samples: Samples, scores: Scores) -> Predictions:
    """Find the predictions of the clips of a data set in a score file.

    Raises:
        UserError: the score file holds none of the clips.
    """
    rows = {path: row for row, path in enumerate(scores.paths)}
    places = [rows.get(absolute(samples.name(number)), -1) for number in range(len(samples))]
    if max(places, default=-1) < 0:
        places = _match_by_file_name(samples, scores)
    found = np.array(places)
    if not (found >= 0).any():
        raise UserError(
            f"{scores.file}: holds none of the {len(samples)} clips of {samples.source}; expected a file "
            "that `test --dump` wrote for this data set"
        )
    true, correct = _true_probabilities(scores), scores.task.are_correct(scores.scores, scores.labels)
    readable = readable_videos(scores.scores)
    names: list[list[str] | None] = []
    probabilities = np.full(len(samples), np.nan)
    for number, row in enumerate(found.tolist()):
        if row < 0 or not readable[row]:
            names.append(None)
            continue
        best = scores.task.best_classes(scores.scores[row])
        names.append([scores.class_names[index] for index in best])
        probabilities[number] = scores.scores[row, best[0]]
    is_known = np.array([name is not None for name in names])
    return Predictions(
        names=names,
        probabilities=probabilities,
        true=np.where(is_known, true[found], np.nan),
        are_correct=np.where(is_known, correct[found], False),
        protocol=without_source(scores.protocol),
    )


def _match_by_file_name(samples: Samples, scores: Scores) -> list[int]:
    """Return the row of each clip by its file name, if only one has it: the data set may have moved."""
    rows: dict[str, int] = {}
    for row, path in enumerate(scores.paths):
        name = os.path.basename(path)  # noqa: PTH119
        rows[name] = -1 if name in rows else row
    names = [os.path.basename(samples.name(number)) for number in range(len(samples))]  # noqa: PTH119
    counts = Counter(names)
    return [rows.get(name, -1) if counts[name] == 1 else -1 for name in names]


def _true_probabilities(scores: Scores) -> np.ndarray:
    """Return the lowest probability that each video has of its labels, float (N,); NaN if unreadable."""
    found = np.full(len(scores.paths), np.nan)
    readable = np.flatnonzero(readable_videos(scores.scores))
    likelihoods = scores.task.likelihoods(scores.scores[readable], scores.labels[readable])
    if len(likelihoods) == len(readable):  # one label each
        found[readable] = likelihoods
        return found
    for row in readable.tolist():
        likelihoods = scores.task.likelihoods(scores.scores[row : row + 1], scores.labels[row : row + 1])
        found[row] = likelihoods.min(initial=1.0)
    return found


class Dataset:
    """A split of a data set, for the dataset mode of the server.

    Args:
        samples: the split.
        name: name of the data set for clients.
        predictions: predictions of its clips; None: there are no scores.
        corrections: where corrected labels are stored.
        split: name of the split.
    """

    def __init__(
        self,
        samples: Samples,
        name: str,
        predictions: Predictions | None,
        corrections: Corrections,
        split: Split = "val",
    ) -> None:
        self.samples, self.name, self.predictions = samples, printable(name, 100), predictions
        self.split: Split = split
        self._corrections = corrections
        self._ids = [_identify(samples.name(number), number) for number in range(len(samples))]
        self._numbers = {clip: number for number, clip in enumerate(self._ids)}
        self._labels = [samples.class_names(number) for number in range(len(samples))]
        self._keys = [self._key(number) for number in range(len(samples))]

    def find(self, clip: str) -> int | None:
        """Return the number of a clip by its identifier; None if there is no such clip."""
        return self._numbers.get(clip)

    def summary(self) -> dict[str, Any]:
        """Return number of clips, classes and corrections as values of JSON."""
        corrected = self._corrected()
        counts = {name: [0, 0] for name in self.samples.classes}
        for number, labels in enumerate(self._labels):
            for label in labels:
                counts[label][0] += 1
                counts[label][1] += self._is_wrong(number, corrected) is True
        known = self.predictions
        return {
            "name": self.name,
            "split": self.split,
            "num_clips": len(self.samples),
            "num_corrected": len(corrected),
            "has_predictions": known is not None,
            "protocol": None if known is None else known.protocol,
            "classes": [
                {"class": name, "num_clips": clips, "num_wrong": None if known is None else wrong}
                for name, (clips, wrong) in counts.items()
            ],
        }

    def page(self, query: Query) -> dict[str, Any]:
        """Return one page of the clips that a query selects, as values of JSON."""
        corrected = self._corrected()
        chosen = [number for number in range(len(self._ids)) if self._fits(number, query, corrected)]
        if self.predictions is not None and query.sort != "name":
            true = self.predictions.true
            direction = 1 if query.sort == "worst" else -1
            chosen.sort(key=lambda number: (np.isnan(true[number]), direction * float(true[number])))
        first = (query.page - 1) * PAGE_CLIPS
        return {
            "num_clips": len(chosen),
            "page": query.page,
            "num_pages": max(1, -(-len(chosen) // PAGE_CLIPS)),
            "clips": [self.clip(number, corrected) for number in chosen[first : first + PAGE_CLIPS]],
        }

    def clip(self, number: int, corrected: dict[int, list[str]] | None = None) -> dict[str, Any]:
        """Return a clip as values of JSON."""
        corrected = self._corrected() if corrected is None else corrected
        segment = self.samples.segment(number)
        known = self.predictions
        return {
            "id": self._ids[number],
            "name": self._shown_name(number),
            "labels": self._labels[number],
            "corrected": corrected.get(number),
            "predicted": None if known is None else known.names[number],
            "probability": None if known is None else finite(float(known.probabilities[number])),
            "true_probability": None if known is None else finite(float(known.true[number])),
            "wrong": self._is_wrong(number, corrected),
            "start": None if segment is None or segment.in_frames else segment.start,
            "end": None if segment is None or segment.in_frames else segment.end,
        }

    def check_labels(self, labels: list[str] | None) -> None:
        """Check the class names of a correction.

        Raises:
            UserError: a class does not exist, or the number of labels is another.
        """
        if labels is None:
            return
        unknown = [name for name in labels if name not in self.samples.classes]
        if unknown:
            name = printable(unknown[0], 100)
            raise UserError(f"{name!r} is not a class of the data set; {nearest(name, self.samples.classes)}")
        count = self.samples.labels_per_clip
        if count is not None and len(labels) != count:
            raise UserError(f"{len(labels)} labels; expected {count}, one for each label of a clip")

    def correct(self, number: int, labels: list[str] | None) -> None:
        """Store the right class names of a clip; None removes a correction.

        Raises:
            UserError: see `check_labels`; or the file cannot be written.
        """
        self.check_labels(labels)
        self._corrections.set(self._keys[number], self._labels[number], labels)

    def _corrected(self) -> dict[int, list[str]]:
        """Return the corrected class names by number of the clip."""
        stored = self._corrections.labels()
        return {number: stored[key] for number, key in enumerate(self._keys) if key in stored}

    def _fits(self, number: int, query: Query, corrected: dict[int, list[str]]) -> bool:
        labels = corrected.get(number, self._labels[number])
        predicted = None if self.predictions is None else self.predictions.names[number]
        return (
            (query.label is None or query.label in labels or query.label in self._labels[number])
            and (query.predicted is None or query.predicted in (predicted or ()))
            and (query.is_wrong is None or self._is_wrong(number, corrected) is query.is_wrong)
            and (query.is_corrected is None or (number in corrected) is query.is_corrected)
        )

    def _is_wrong(self, number: int, corrected: dict[int, list[str]]) -> bool | None:
        """Whether the prediction of a clip differs from its label, or from its corrected label."""
        known = self.predictions
        if known is None or (predicted := known.names[number]) is None:
            return None
        if number in corrected:
            return not set(predicted) <= set(corrected[number])
        return not bool(known.are_correct[number])

    def _key(self, number: int) -> str:
        """Return the name of a clip in the corrections file: its path in the data set, and its part."""
        segment = self.samples.segment(number)
        return printable(f"{self.samples.paths[number]}{'' if segment is None else segment}", 4000)

    def _shown_name(self, number: int) -> str:
        """Return a name for clients: the path below the data set, or the file name alone."""
        listed = self.samples.paths[number]
        is_below = not is_remote(listed) and not Path(listed).is_absolute() and ".." not in Path(listed).parts
        return printable(listed if is_below else os.path.basename(listed.rstrip("/")), 300)  # noqa: PTH119


def _identify(name: str, number: int) -> str:
    """Return the identifier of a clip, which does not show its path."""
    text = f"{number} {name}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=12).hexdigest()
