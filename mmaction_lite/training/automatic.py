"""Choose recipe, weights and kind of training for a data set, for `mmaction-lite train` without a recipe."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.device import available_cores, free_memory, pick_device
from mmaction_lite.distributed import num_processes, share_from_main
from mmaction_lite.errors import UserError, VideoError, reading
from mmaction_lite.files import write_atomically
from mmaction_lite.models.complexity import parameters
from mmaction_lite.models.probe import ENCODER, PROBES
from mmaction_lite.models.videomae_pretrain import network_to_tune
from mmaction_lite.recipes import get_recipe, list_recipes
from mmaction_lite.recipes.choosing import Facts, Method, choose_method
from mmaction_lite.recipes.finetune import FEWEST_CLIPS, finetune
from mmaction_lite.recipes.fitting_views import view_settings
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.probe import probe
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.tasks.named import uses_labels
from mmaction_lite.training.clips import read_training_split
from mmaction_lite.training.estimates import is_transformer, training_cost
from mmaction_lite.training.run_folder import CHOICE, check_unused
from mmaction_lite.weights.cache import is_offline
from mmaction_lite.weights.card import ModelCard, read_weights
from mmaction_lite.weights.catalogue import WeightsEntry, catalogue, list_weights
from mmaction_lite.weights.named import (
    ALIASES,
    card_for,
    converted_path,
    entry_for,
    locate,
    original_path,
)
from mmaction_lite.weights.same_form import differing_arguments

# Recipes for data sets without given weights: of the network whose public weights are used, and from nothing.
PRETRAINED = "tsm_r50_1x1x8_50e_kinetics400_rgb"
FROM_NOTHING = {
    "small clips": "tsm_r10_1x1x8_12e_motions_rgb",
    "cpu": "tsm_online_mobilenetv2_8x4x1_50e_jester_rgb",
    "gpu": PRETRAINED,
}
SMALL_SIDE = 96  # pixels; clips with a shorter side have no detail for larger networks
LONG_CLIP = 1000  # frames
PROBE_NAMES = {builder.__name__ for builder in PROBES}
PROBED_CLIPS = 8  # clips of which length and size are read


class Choice(NamedTuple):
    """A chosen training.

    Args:
        method: kind of training.
        recipe: name of the recipe.
        init_from: initial weights, as for `--init-from`; None: random ones.
        settings: changes of the recipe, as for `--set`.
    """

    method: Method
    recipe: str
    init_from: str | None
    settings: tuple[str, ...]

    @property
    def options(self) -> list[str]:
        """Return recipe and options of the command line that select the same training."""
        kind = {"probe": ["--probe"], "from nothing": []}.get(self.method, ["--finetune"])
        init_from = [] if self.init_from is None else ["--init-from", self.init_from]
        return [self.recipe, *kind, *init_from, *(x for s in self.settings for x in ("--set", s))]


def choose_training(
    data: Path,
    out: Path,
    *,
    init_from: str | None,
    device: str,
    report: Callable[[str], None],
    method: Method | None = None,
) -> Choice:
    """Choose a training for a data set, and explain it. Of several processes, only rank 0 calls it.

    Args:
        data: folder of the data set.
        out: new run folder, into which the choice is written for `read_choice`.
        init_from: weights to start from; None: public weights, or none if there is no connection.
        device: see `pick_device`.
        report: called with lines: the facts, the choice with its reason, and the full command.
        method: kind of training; None: that of the rules in `recipes.choosing`.

    Raises:
        UserError: no recipe of the package fits the weights, or data, weights or folder are wrong.
    """
    check_unused(out)
    samples, place = read_training_split(data), pick_device(device)
    frames, side = _measure(samples)
    per_class = float(np.median(samples.counts()))
    report(
        f"found {len(samples)} training clips, {len(samples.classes)} classes with {per_class:g} clips each "
        f"(median), {frames} frames of short side {side} (median); {place.type} with "
        f"{free_memory(place) / 2**30:.1f} GiB of free memory"
    )
    if frames > LONG_CLIP:
        report(
            f"note: clips have {frames} frames; a network sees a few of them. If actions are short, cut the "
            "clips, or list their segments"
        )
    card, source = _find_weights(init_from, report)
    is_probe = card is not None and card.builder in PROBE_NAMES
    card = card and _of_network(card)
    name = _recipe_of(card) if card else PRETRAINED if source else _from_nothing(side, place)
    recipe = get_recipe(name)
    settings, views = (), ()
    if card is not None:
        settings, views = _arguments(card, recipe), view_settings(recipe, card.val, card.test)
    recipe = apply_overrides(recipe, settings + views)
    facts = _facts(recipe, samples, place, has_weights=card is not None, per_class=per_class)
    if is_probe and method == "fine-tune":
        raise UserError(
            f"{source}: holds a probe, whose encoder was not trained; expected weights of a network for "
            "--finetune. Pass those that the probe was trained on, or omit --finetune"
        )
    chosen, reason = choose_method(facts)
    if is_probe:
        chosen, reason = "probe", "the initial weights are of a probe, whose encoder is used again"
    elif method not in (None, chosen):
        chosen, reason = method, f"you asked for it; the rules choose {chosen}, because {reason}"
    if chosen == "probe":  # takes the arguments of its encoder from the weights, and has no window
        settings, views = (), tuple(view for view in views if not view.startswith("window="))
    choice = Choice(chosen, name, source, settings + views + _settings(chosen, recipe, samples))
    report(f"chosen: {chosen} with {name}, because {reason}")
    if source is not None:
        report(f"initial weights: {source}")
    if views:
        report(f"views are sized as those of the weights: {recipe.test}")
    command = ["mmaction-lite", "train", *choice.options, "--data", str(data), "--out", str(out)]
    report(f"the same in full: {shlex.join(command)}")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / CHOICE, lambda file: file.write(json.dumps(choice._asdict()).encode()))
    return choice


def choose_or_continue(
    data: Path,
    out: Path,
    *,
    is_chosen: bool,
    init_from: str | None,
    device: str,
    report: Callable[[str], None],
    method: Method | None = None,
) -> Choice:
    """Choose a training for a data set, or return the choice of the run to continue.

    All processes call it, and all get what rank 0 chooses or reads.

    Args:
        data, out, init_from, device, report, method: see `choose_training`.
        is_chosen: whether `out` is the folder of an interrupted run.

    Raises:
        UserError: see `choose_training` and `read_choice`.
    """
    if is_chosen:
        return share_from_main(partial(read_choice, out))
    choose = partial(
        choose_training, data, out, init_from=init_from, device=device, report=report, method=method
    )
    return share_from_main(choose)


def adapt_recipe(recipe: Recipe, data: Path, method: Method | None, settings: Sequence[str]) -> Recipe:
    """Return a recipe as `mmaction-lite train` trains it.

    Args:
        recipe: a published recipe, or one of the user.
        data: folder of the data set; read only if the method depends on the number of clips.
        method: kind of training. None and "from nothing": that of the recipe.
        settings: changes as for `--set`, made after those of the method.

    Raises:
        UserError: the data set is wrong, or see `finetune`, `probe` and `apply_overrides`.
    """
    if method in ("fine-tune", "lora"):
        recipe = finetune(recipe, len(read_training_split(data)))
    elif method == "probe":
        recipe = probe(recipe, len(read_training_split(data)))
    return apply_overrides(recipe, settings)


def read_choice(out: Path) -> Choice:
    """Return the choice of an interrupted run.

    Raises:
        UserError: the run folder has none, or it is damaged.
    """
    file = out / CHOICE
    if not file.is_file():
        raise UserError(f"{out}: has no {CHOICE}; expected the recipe of the run as the first argument")
    with reading(file, advice="pass the recipe of the run as the first argument"):
        fields = json.loads(file.read_text(encoding="utf-8"))
        return Choice(**fields | {"settings": tuple(fields["settings"])})


def _measure(samples: Samples) -> tuple[int, int]:
    """Return the median number of frames and short side of a few clips.

    Raises:
        UserError: none of them can be read.
    """
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), PROBED_CLIPS)).round().astype(int)
    lengths, sides, last = [], [], ""
    for sample in chosen.tolist():
        try:
            with open_sample(samples, sample) as source:
                lengths.append(len(source))
                sides.append(min(source.size))
        except VideoError as error:
            last = str(error)
    if not lengths:
        raise UserError(
            f"{samples.source}: none of {len(chosen)} clips can be read ({last}); run `mmaction-lite data "
            "validate` on the data set"
        )
    return int(np.median(lengths)), int(np.median(sides))


def _find_weights(
    init_from: str | None, report: Callable[[str], None]
) -> tuple[ModelCard | None, str | None]:
    """Return the card of the initial weights and their name for `--init-from`; nothing is downloaded yet.

    Raises:
        UserError: `init_from` names no weights with a card.
    """
    if init_from is not None:
        entry = catalogue().get(init_from)
        if init_from in ALIASES and not Path(init_from).exists():
            entry = entry_for(init_from, get_recipe(PRETRAINED))
        if entry is None or Path(init_from).exists():
            return read_weights(locate(init_from))[2], init_from
        if entry.is_image_network:  # of the recipe `PRETRAINED`; another one is refused when it is loaded
            return None, entry.name
        return card_for(entry), entry.name
    default = entry_for("kinetics400", get_recipe(PRETRAINED))
    on_disk = [entry for entry in list_weights(dataset="kinetics400").values() if _is_on_disk(entry)]
    trainable = {recipe.model.builder.__name__ for recipe in list_recipes().values()}
    usable = [entry for entry in on_disk if entry.builder in trainable and not entry.non_commercial]
    if usable:
        chosen = default if default in usable else max(usable, key=lambda entry: entry.top1 or 0.0)
        report(f"public weights on disk: {chosen.name} ({chosen.license})")
        return card_for(chosen), chosen.name
    if is_offline():
        report("no public weights on disk, and downloads are forbidden; pass trained weights as --init-from")
        return None, None
    report(
        f"downloads {default.name} ({default.license}) from {default.url}; --offline forbids it, --init-from "
        "names other weights"
    )
    return card_for(default), default.name


def _of_network(card: ModelCard) -> ModelCard:
    """Return the card of the network to train from weights, such as the encoder of a probe."""
    if card.builder in PROBE_NAMES:
        builder = card.arguments.get("encoder", ENCODER)
        arguments = dict(card.arguments.get("arguments", ()))
    elif not uses_labels(card.task):
        builder, arguments = network_to_tune(card.builder, card.arguments)
    else:
        return card
    return replace(card, builder=builder, arguments=arguments, recipe="")


def _is_on_disk(entry: WeightsEntry) -> bool:
    return converted_path(entry).is_file() or original_path(entry).is_file()


def _recipe_of(card: ModelCard) -> str:
    """Return the name of the recipe to train a network with a card further.

    Raises:
        UserError: no recipe of the package is of this network.
    """
    fitting = {
        name: recipe
        for name, recipe in list_recipes().items()
        if recipe.model.builder.__name__ == card.builder and recipe.multigrid is None
    }
    stored = card.recipe.partition(" with ")[0]
    same_views = [name for name, recipe in fitting.items() if recipe.test == card.test.views]
    same_clips = [name for name, recipe in fitting.items() if recipe.val.clips == card.val.views.clips]
    for name in [stored, *same_views, *same_clips, *fitting]:
        if name in fitting:
            return name
    raise UserError(
        f"no recipe of the package trains {card.builder}, the network of the weights; expected one of "
        "`mmaction-lite list`, or a function of yours, as the first argument"
    )


def _from_nothing(side: int, device: torch.device) -> str:
    """Return the name of the recipe for random initial weights."""
    if side < SMALL_SIDE:
        return FROM_NOTHING["small clips"]
    return FROM_NOTHING["gpu" if device.type == "cuda" else "cpu"]


def _arguments(card: ModelCard, recipe: Recipe) -> tuple[str, ...]:
    """Return the changes of the recipe that build the network of the card."""
    found = differing_arguments(card.arguments, recipe.model)
    return tuple(f"model.{name}={value}".replace(" ", "") for name, value, _ in found)


def _settings(method: Method, recipe: Recipe, samples: Samples) -> tuple[str, ...]:
    """Return the further changes of the recipe for a method, and a batch size for the number of processes."""
    if method == "from nothing" and len(samples) < FEWEST_CLIPS:
        raise UserError(
            f"{samples.source}: the number of training clips is {len(samples)}; expected at least "
            f"{FEWEST_CLIPS} for a training from nothing. Add clips, or pass trained weights as --init-from"
        )
    adapted = (probe if method == "probe" else finetune)(recipe, len(samples))
    size = min(recipe.batch_size, adapted.batch_size) if method == "from nothing" else adapted.batch_size
    if num_processes() > 1:
        unit = num_processes() * (1 if recipe.mixing is None else 2)  # of `preflight`
        size = max(1, size // unit) * unit
    if method == "from nothing":
        lr = recipe.optimizer.lr * size / recipe.batch_size  # belongs to the batch size
        return (f"batch_size={size}", f"optimizer.lr={lr:.3g}")
    sizes = (f"batch_size={size}",) if size != adapted.batch_size else ()
    return (*(("lora.rank=8", "optimizer.layer_decay=1.0") if method == "lora" else ()), *sizes)


def _facts(
    recipe: Recipe, samples: Samples, device: torch.device, *, has_weights: bool, per_class: float
) -> Facts:
    """Return the facts that the rules need; costs are those of the network on the meta device."""
    with torch.device("meta"):
        model = recipe.model(num_classes=len(samples.classes))
    frames, height, width, channels = recipe.train.view_shape
    shape = (1, channels, frames, height, width)
    tuned = finetune(recipe, max(FEWEST_CLIPS, len(samples)))
    # Processes on a CPU divide its cores, and every GPU has a process of its own.
    is_gpu = device.type == "cuda"
    processes, copies = (num_processes(), 1) if is_gpu else (1, num_processes(on_machine=True))
    cost = training_cost(model, shape, device, cores=available_cores())
    return Facts(
        has_weights=has_weights,
        is_transformer=is_transformer(model),
        parameters=parameters(model),
        clips=len(samples),
        clips_per_class=per_class,
        hours=tuned.epochs * len(samples) * cost.seconds / processes / 3600,
        training_gib=copies * (cost.fixed_bytes + cost.clip_bytes) / 2**30,
        memory_gib=free_memory(device) / 2**30,
    )
