"""Catalogue of public weights: where they are, which network they are for, and how they are tested.

`catalogue.json` holds one entry for each public file. An entry is available if this package has the network
and a reference output proves the conversion of the file's form; the other entries state what is missing.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from mmaction_lite.errors import UserError, nearest

SOURCES = {
    "mmaction2": "MMAction2",
    "pytorchvideo": "PyTorchVideo",
    "torchvision": "torchvision",
    "mit": "MIT TSM",
    "huggingface": "Hugging Face",
}


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """One file of public weights.

    Args:
        name: name in the catalogue, `NETWORK_CLIPS_EPOCHS_DATASET_MODALITY@SOURCE`.
        source: project that publishes the file; a key of `SOURCES`.
        family: family of the network, such as "tsm".
        original_name: name of the weights in their project.
        url: address of the file; `hf://OWNER/NAME/FILE` for files of the Hugging Face Hub.
        dataset: data set of the classes; empty if the weights have no classifier.
        license: licence of the project that publishes the weights.
        sha256: SHA-256 of the file in hexadecimal, or its first digits if only these are published. Empty:
            the project publishes none.
        size: length of the file in bytes, if it is published.
        non_commercial: whether the licence forbids commercial use.
        top1: published top-1 accuracy in percent.
        top5: published top-5 accuracy in percent.
        reported_by: where the accuracy is published.
        builder: name of the network's builder in `mmaction_lite.models`; empty if the entry is unavailable.
        arguments: arguments of the builder, without `num_classes`.
        recipe: recipe of this package whose protocols are those of the weights; empty: see `protocol`.
        protocol: key of the protocols in `catalogue.json`.
        are_classes_sorted: whether the classes are those of the data set in alphabetical order.
        parameters: number of trainable values of the network.
        published_parameters: number of parameters that the project publishes, if it does.
        golden: name of the reference, in `tests/goldens`, that the conversion is tested with.
        proof: what of the reference is compared: "logits" or "names and shapes"; and whether it is of another
            depth, or has the names of another project.
        is_image_network: whether the weights are an image network's, for `--init-from`.
        note: differences between the published test and the protocol here.
        unavailable: why the weights cannot be loaded; empty if they can.
        verified: checks with the real file: each has `fingerprint`, `by` and `date`.
    """

    name: str
    source: str
    family: str
    original_name: str
    url: str
    dataset: str
    license: str
    sha256: str = ""
    size: int | None = None
    non_commercial: bool = False
    top1: float | None = None
    top5: float | None = None
    reported_by: str = ""
    builder: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    protocol: str = ""
    are_classes_sorted: bool = False
    parameters: int | None = None
    published_parameters: int | None = None
    golden: str | None = None
    proof: str = ""
    is_image_network: bool = False
    note: str = ""
    unavailable: str = ""
    verified: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_available(self) -> bool:
        """Whether the weights can be loaded by name."""
        return not self.unavailable

    @property
    def status(self) -> str:
        """How far the entry was checked, for tables."""
        if not self.is_available:
            return f"not yet: {self.unavailable}"
        if self.verified:
            last = self.verified[-1]
            return f"verified with the real file by {last['by']} on {last['date']}"
        return "converted by form only"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        names = class_names(self.dataset)
        return tuple(sorted(names)) if self.are_classes_sorted else names

    def as_json(self) -> dict[str, Any]:
        """Return all fields as a dict for `json.dumps`."""
        shown = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return shown | {"arguments": dict(self.arguments), "verified": [dict(row) for row in self.verified]}


@cache
def catalogue() -> Mapping[str, WeightsEntry]:
    """Return all entries by name, available or not, in the order of the file."""
    entries = [
        WeightsEntry(**row | {"verified": tuple(row.get("verified", ()))}) for row in _content()["entries"]
    ]
    return MappingProxyType({entry.name: entry for entry in entries})


def protocols_named(key: str) -> dict[str, Any]:
    """Return the protocols `val` and `test` of a key in `catalogue.json`, as JSON values."""
    return _content()["protocols"][key]


@cache
def class_names(dataset: str) -> tuple[str, ...]:
    """Return the class names of a data set in the order of the public weights.

    Raises:
        UserError: the package has no class names of this data set.
    """
    folder = files("mmaction_lite.weights") / "class_names"
    file = folder / f"{dataset}.txt"
    if not file.is_file():
        known = [entry.name.removesuffix(".txt") for entry in folder.iterdir()]
        raise UserError(f"no class names of the data set {dataset!r}; {nearest(dataset, known)}")
    return tuple(file.read_text(encoding="utf-8").splitlines())


def list_weights(
    *,
    family: str | None = None,
    dataset: str | None = None,
    source: str | None = None,
    license: str | None = None,
    unavailable: bool = False,
) -> dict[str, WeightsEntry]:
    """Return the public weights that `load` accepts by name.

    Args:
        family: only this family, such as "tsm".
        dataset: only this data set, such as "kinetics400".
        source: only this source, such as "mmaction2".
        license: only licences that contain this text, such as "apache"; upper and lower case are equal.
        unavailable: include entries that cannot be loaded; their field `unavailable` holds the reason.

    Raises:
        UserError: no entry has this family, data set, source or licence.
    """
    for what, value in (("family", family), ("dataset", dataset), ("source", source)):
        valid = {getattr(entry, what) for entry in catalogue().values()} - {""}
        if value is not None and value not in valid:
            raise UserError(f"no weights have the {what} {value!r}; {nearest(value, valid, 10)}")
    licenses = {entry.license for entry in catalogue().values()}
    if license is not None and not any(license.lower() in known.lower() for known in licenses):
        raise UserError(f"no weights have the license {license!r}; {nearest(license, licenses, 10)}")
    return {
        entry.name: entry
        for entry in catalogue().values()
        if (unavailable or entry.is_available)
        and family in (None, entry.family)
        and dataset in (None, entry.dataset)
        and source in (None, entry.source)
        and (license is None or license.lower() in entry.license.lower())
    }


def find_entry(name: str) -> WeightsEntry:
    """Return the available entry of this name.

    Raises:
        UserError: there is no such entry, or it is not available.
    """
    entry = catalogue().get(name)
    if entry is None:
        sources = [known for known in list_weights() if known.partition("@")[0] == name]
        if sources:
            raise UserError(f"{name}: the source of the weights is missing; expected {' or '.join(sources)}")
        raise UserError(
            f"{name}: no such file, run folder or public weights; {nearest(name, list_weights())} (see "
            "mmaction-lite weights list)"
        )
    if not entry.is_available:
        raise UserError(
            f"{name}: these weights cannot be loaded yet: {entry.unavailable}. `mmaction-lite weights list` "
            "shows those that can"
        )
    return entry


@cache
def _content() -> dict[str, Any]:
    file = files("mmaction_lite.weights") / "catalogue.json"
    return json.loads(file.read_text(encoding="utf-8"))
