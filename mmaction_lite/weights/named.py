"""Weights by name or address: wherever a weights file may stand, a catalogue name or an address may stand.

The downloaded file and the converted one lie side by side in the cache; see `weights.cache`.
"""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

import mmaction_lite.models as models
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import ClipSampler
from mmaction_lite.errors import UserError, nearest, reading
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.weights.cache import cached_path, locked, without_login
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.catalogue import (
    SOURCES,
    WeightsEntry,
    catalogue,
    find_entry,
    list_weights,
    protocols_named,
)
from mmaction_lite.weights.converters import classifier_size, convert, read_checkpoint, stored_classes
from mmaction_lite.weights.fetch import fetch_address, fetch_file

HUB = "hf://"
OF_TRANSFORMERS = " of transformers"  # end of the names of converters for folders of the Hub
FORM = 1  # increase it if a change of a converter changes converted files
ALIASES = ("imagenet", "kinetics400")


def locate(given: str | Path) -> Path:
    """Return the path of a weights file or run folder that is given by path, address or catalogue name.

    Public weights are downloaded and converted at the first use. A file or run folder of the same name has
    precedence.

    Raises:
        UserError: there are no such weights, or they cannot be downloaded or converted.
    """
    text = _text(given)
    with _reading(text):
        if _is_local(text):
            return Path(given)
        if _is_address(text):
            return fetch_address(text)
        if text in ALIASES:
            raise UserError(
                f"{text}: an alias of --init-from, which picks the weights for a recipe; expected a name "
                f"from `mmaction-lite weights list`, {nearest(text, list_weights())}"
            )
        return fetch(find_entry(text)) if _is_name(text) else Path(given)


def locate_initial(given: str | Path, recipe: Recipe) -> Path:
    """Return the path of initial weights for a training of `recipe`.

    Args:
        given: as for `locate`, or an alias: "imagenet" is the image network that the recipe starts from,
            "kinetics400" are the weights of the recipe's network with the highest published accuracy, if
            possible with the same kind of clips.
        recipe: the recipe of the training.

    Raises:
        UserError: as in `locate`; or no public weights fit the recipe.
    """
    text = _text(given)
    with _reading(text):
        if _is_local(text) or _is_address(text) or not (text in ALIASES or _is_name(text)):
            return locate(given)
        entry = entry_for(text, recipe) if text in ALIASES else find_entry(text)
        # The converter inflates image networks for 3-D convolutions only under the names of their project.
        return fetch_original(entry) if entry.is_image_network else fetch(entry)


def locate_checkpoint(given: str | Path) -> tuple[Path, WeightsEntry | None]:
    """Return the path of a checkpoint as it was published, and its entry if it is given by name.

    Raises:
        UserError: as in `locate`.
    """
    text = _text(given)
    with _reading(text):
        if _is_local(text) or _is_address(text) or not _is_name(text):
            return locate(given), None
        entry = find_entry(text)
        return fetch_original(entry), entry


def entry_for(alias: str, recipe: Recipe) -> WeightsEntry:
    """Return the entry that an alias stands for in a training of `recipe`.

    Raises:
        UserError: no public weights fit the recipe.
    """
    builder = recipe.model.builder.__name__
    if alias == "imagenet":
        backbone = re.search(r"_(r(?:18|34|50|101)|mobilenetv2)(?:_|$)", builder)
        name = backbone[1].replace("r", "resnet", 1) if backbone and backbone[1][0] == "r" else "mobilenetv2"
        # Networks that are inflated from an image network, or are one; the others are trained from scratch.
        is_inflated = builder.partition("_")[0] in ("tsn", "tsm", "i3d", "c2d", "slowonly")
        if backbone and is_inflated:
            return find_entry(f"{name}@torchvision")
        raise UserError(
            f"imagenet: no public image network fits {builder} of the recipe {recipe.name}; expected a "
            "recipe of TSN, TSM, I3D, C2D or SlowOnly. Pass trained weights of this network instead"
        )
    fitting = [entry for entry in list_weights(dataset="kinetics400").values() if entry.builder == builder]
    clips = recipe.val.clips
    same_clips = [entry for entry in fitting if _samples_as(card_for(entry).val.views.clips, clips)]
    if not fitting:
        available = {entry.builder for entry in list_weights(dataset="kinetics400").values()}
        raise UserError(
            f"kinetics400: no public weights of {builder} for the recipe {recipe.name}; "
            f"{nearest(builder, available)}. Use a recipe of one of these networks"
        )
    return max(same_clips or fitting, key=lambda entry: entry.top1 or 0.0)


def _samples_as(sampler: ClipSampler, other: ClipSampler) -> bool:
    """Whether two samplers draw clips of the same kind and length."""
    return type(sampler) is type(other) and sampler.clip_len == other.clip_len


def fetch(entry: WeightsEntry) -> Path:
    """Return the path of the entry's weights file with its card; download and convert it if necessary.

    Raises:
        UserError: the file cannot be downloaded, is damaged, or is not what the catalogue describes.
    """
    converted = converted_path(entry)
    if converted.is_file():
        return converted
    original = fetch_original(entry)
    with locked(converted):
        if not converted.is_file():
            _convert(entry, original, converted)
    return converted


def fetch_original(entry: WeightsEntry) -> Path:
    """Return the path of the entry's file as its project publishes it; download it if necessary.

    Of a file of the Hugging Face Hub, it is the folder with the file and its `config.json`.

    Raises:
        UserError: the file cannot be downloaded, or its hash is not that of the catalogue.
    """
    try:
        path = fetch_file(entry.url, entry.sha256, entry.size)
        if not entry.url.startswith(HUB):
            return path
        config = fetch_file(f"{entry.url.rpartition('/')[0]}/config.json")
        if config.parent != path.parent:
            raise UserError(
                "the repository changed between the downloads of the weights and of config.json; run the "
                "command again"
            )
        return path.parent
    except UserError as error:
        raise UserError(f"{entry.name}: {error}") from None


def original_path(entry: WeightsEntry) -> Path:
    """Return the path in the cache of the file as its project publishes it; it may not exist yet."""
    return cached_path(entry.url)


def converted_path(entry: WeightsEntry) -> Path:
    """Return the path in the cache of the converted file, which changes with the entry's contents."""
    fields = {name: value for name, value in entry.as_json().items() if name in _CONTENTS}
    text = json.dumps([FORM, fields, entry.classes, repr(protocols(entry))], sort_keys=True)
    digest = sha256(text.encode()).hexdigest()[:8]
    return original_path(entry).with_name(f"{entry.name}-{digest}.safetensors")


_CONTENTS = ("url", "sha256", "builder", "arguments")


def protocols(entry: WeightsEntry) -> dict[str, Protocol]:
    """Return the protocols "val" and "test" of an entry."""
    card = card_for(entry)
    return {"val": card.val, "test": card.test}


def recipe_for(entry: WeightsEntry) -> Recipe:
    """Return a recipe with the network and the protocols of an entry, to convert its file.

    The settings of the training are those of another recipe of this package.
    """
    card = card_for(entry)
    recipe = get_recipe(entry.recipe or "tsm_r50_1x1x8_50e_kinetics400_rgb")
    return replace(
        recipe,
        model=Build(getattr(models, entry.builder), **entry.arguments),
        dataset=entry.dataset,
        val=card.val.views,
        test=card.test.views,
        normalize=card.test.normalize,
        average=card.test.average,
        window=card.test.window,
    )


def card_for(entry: WeightsEntry) -> ModelCard:
    """Return the card of an entry's weights file."""
    arguments = {**entry.arguments, "num_classes": len(entry.classes)}
    if entry.recipe:
        recipe = get_recipe(entry.recipe)
        return ModelCard(
            builder=entry.builder,
            arguments=arguments,
            classes=entry.classes,
            val=recipe.val_protocol,
            test=recipe.test_protocol,
            recipe=entry.name,
        )
    # The catalogue stores protocols in the format of a card.
    fields = {"builder": entry.builder, "classes": entry.classes, "recipe": entry.name}
    stored = {"type": None, "arguments": arguments} | fields | protocols_named(entry.protocol)
    return ModelCard.from_json(json.dumps(stored))


def _convert(entry: WeightsEntry, original: Path, converted: Path) -> None:
    """Convert the downloaded file to a weights file with a card."""
    builder: Callable[..., Any] = getattr(models, entry.builder)
    with torch.random.fork_rng(devices=[]):  # keep the caller's random state
        model = Build(builder, **entry.arguments)(num_classes=len(entry.classes))
    try:
        checkpoint = read_checkpoint(original)
        size = classifier_size(checkpoint, model)
        if size != len(entry.classes):
            raise UserError(f"the classifier has {size} classes; expected {len(entry.classes)}")
        conversion = convert(checkpoint, model)
    except UserError as error:
        raise UserError(f"{entry.name}: {original}: {error}") from None
    expected = SOURCES[entry.source]
    is_hub = entry.url.startswith(HUB)  # its folders have names of the classes of transformers
    is_expected = conversion.source.endswith(OF_TRANSFORMERS) if is_hub else conversion.source == expected
    if not is_expected or conversion.reinitialized:
        raise UserError(
            f"{entry.name}: {original}: names of {conversion.source}, re-initialized: "
            f"{', '.join(conversion.reinitialized) or 'none'}; expected all weights under names of {expected}"
        )
    if conversion.other_form:
        raise UserError(f"{entry.name}: {original}: {conversion.other_form[0]}")
    card = card_for(entry).starting_from(original_path(entry).name, conversion.arguments)
    if is_hub:  # config.json has the order of the classifier
        card = replace(card, classes=_hub_classes(entry, checkpoint))
    converted.parent.mkdir(parents=True, exist_ok=True)
    save_weights(converted, model.state_dict(), card)


def _hub_classes(entry: WeightsEntry, checkpoint: dict[str, Any]) -> tuple[str, ...]:
    """Return the class names in the `config.json` of a folder of the Hub."""
    names = stored_classes(checkpoint) or ()
    if len(names) != len(entry.classes):
        raise UserError(
            f"{entry.name}: config.json names {len(names)} classes; expected {len(entry.classes)}. Download "
            "the folder, and pass it to `mmaction-lite convert` with --classes"
        )
    return tuple(names)


def _reading(text: str) -> AbstractContextManager[None]:
    """Convert exceptions about what the user typed, such as a name that is too long, to one line."""
    return reading(without_login(text), advice="check the path, name or address")


def _text(given: str | Path) -> str:
    """Return what the user typed; a `Path` has lost one slash of an address."""
    return re.sub(r"^(https?|hf):/(?=[^/])", r"\1://", str(given))


def _is_address(text: str) -> bool:
    return urlsplit(text).scheme in ("http", "https", "hf") and "://" in text


def _is_local(text: str) -> bool:
    """Whether a file, a run folder or a folder that is not named like public weights is meant."""
    path = Path(text)
    if path.is_dir() and (text in ALIASES or text in catalogue()):
        return any((path / name).is_file() for name in ("best.pt", "last.pt"))
    return path.exists()


def _is_name(text: str) -> bool:
    """Whether a path that does not exist may be meant as a catalogue name: it has no folder and no suffix."""
    if text in catalogue():
        return True
    return not ("/" in text or "\\" in text or Path(text).suffix in SUFFIXES)


SUFFIXES = {".safetensors", ".pt", ".pth", ".pyth", ".pkl", ".bin", ".ckpt", ".tar"}
