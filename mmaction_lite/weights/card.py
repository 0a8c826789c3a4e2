"""Model cards: the builder, class names and protocols that a weights file stores with its tensors."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import mmaction_lite.models as models
from mmaction_lite.data.views import crops as transforms
from mmaction_lite.data.views import normalize, protocol, views
from mmaction_lite.data.views import samplers as clips
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.errors import UserError, nearest
from mmaction_lite.files import write_atomically
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.settings import NOT_EMPTY, check_fields
from mmaction_lite.tasks.named import TASKS
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task
from mmaction_lite.weights.checkpoint import load_state

# The dataclasses that a card may contain. Reading a file creates no other types.
_TYPES = {
    kind.__name__: kind
    for kind in (
        clips.DenseClips,
        clips.PySlowFastClips,
        clips.SegmentFrames,
        clips.TimedClips,
        transforms.CenterCrop,
        transforms.ThreeCrop,
        transforms.TenCrop,
        normalize.Normalize,
        protocol.Protocol,
        views.TestViews,
        *TASKS.values(),
    )
}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of the model in a weights file, sufficient to build it and to test it.

    Args:
        builder: name of the builder in `mmaction_lite.models`.
        arguments: arguments of the builder, `num_classes` included.
        classes: class names in the order of the logits.
        val: protocol of the validations during training.
        test: protocol of tests and predictions.
        recipe: name of the training recipe, with the settings that `--set` changed.
        started_from: file name of the weights that the training started from, if any.
        task: kind of the labels, which defines probabilities and metrics.
    """

    builder: str
    arguments: dict[str, Any]
    classes: Annotated[tuple[str, ...], NOT_EMPTY]
    val: Protocol
    test: Protocol
    recipe: str
    started_from: str | None = None
    task: Task = field(default_factory=SingleLabel)

    def __post_init__(self):
        check_fields(self)

    @classmethod
    def of(cls, recipe: Recipe, classes: tuple[str, ...]) -> "ModelCard":
        """Create the card of a model that `recipe` trains on `classes`.

        Raises:
            UserError: an argument of the model cannot be stored in a weights file.
        """
        task = recipe.task.for_classes(classes)
        changed = f" with {', '.join(recipe.modified)}" if recipe.modified else ""
        card = cls(
            builder=recipe.model.builder.__name__,
            arguments=recipe.model.arguments | {"num_classes": task.num_logits(len(classes))},
            classes=classes,
            val=recipe.val_protocol,
            test=recipe.test_protocol,
            recipe=recipe.name + changed,
            task=task,
        )
        try:
            same = cls.from_json(card.to_json()) == card
        except (TypeError, ValueError, KeyError, UserError):
            same = False
        if not same:
            raise UserError(
                f"{recipe.name}: a weights file cannot store the arguments of {recipe.model}; expected "
                "numbers, strings, True, False, None and tuples of them"
            )
        return card

    def starting_from(self, file: str, arguments: dict[str, Any]) -> "ModelCard":
        """Return the card of the model after loading `file`, which may have changed its `arguments`."""
        return dataclasses.replace(self, arguments=self.arguments | arguments, started_from=file)

    def build(self, recipe: Recipe | None = None) -> nn.Module:
        """Build the model with initial weights.

        Args:
            recipe: recipe with the builder, for builders outside of the package; None for builders of the
                package.

        Raises:
            UserError: the builder is unknown, is not that of `recipe`, or refuses its arguments.
        """
        if recipe is not None:
            # A model of the package has one name; a function of a user's own file may have been renamed.
            if self.builder in models.__all__ and recipe.model.builder.__name__ != self.builder:
                raise UserError(
                    f"these are weights of {self.builder}, and the recipe {recipe.name} builds "
                    f"{recipe.model.builder.__name__}; pass the recipe of their training, {self.recipe}"
                )
            return _built(recipe.model.builder, self.arguments)
        if self.builder not in models.__all__:
            raise UserError(
                f"no model of the package is named {self.builder!r}; "
                f"{nearest(self.builder, models.__all__)}. "
                "For a model of your own, pass its recipe (--recipe my.py:my_recipe)"
            )
        return _built(getattr(models, self.builder), self.arguments)

    def to_json(self) -> str:
        """Return the card as one line of JSON."""
        return json.dumps(_pack(self) | {"type": None})

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Parse the output of `to_json`.

        Raises:
            UserError: a field has an invalid value.
            ValueError, TypeError, KeyError, AttributeError, RecursionError: `text` is not a card.
        """
        fields = json.loads(text)
        del fields["type"]
        arguments = fields.pop("arguments")
        arguments = {name: _unpack(value) for name, value in arguments.items()}
        return cls(arguments=arguments, **{name: _unpack(value) for name, value in fields.items()})


def save_weights(path: Path, weights: dict[str, Tensor], card: ModelCard) -> None:
    """Write a `.safetensors` file with a card, which `load` reads."""
    data = safetensors.torch.save(
        # Clone: safetensors refuses tensors that share memory, as those that a model uses twice do.
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()},
        {"card": card.to_json()},
    )
    write_atomically(path, lambda file: file.write(data))


def load(path: str | Path, recipe: Recipe | None = None) -> nn.Module:
    """Load a trained model.

    Args:
        path: a `.safetensors` file, a `.pt` file of a run, or a run folder, of which the best weights are
            loaded.
        recipe: recipe with the builder, for models outside of the package.

    Returns:
        the model in evaluation mode, on the CPU, with its `ModelCard` as attribute `card`.

    Raises:
        UserError: the file is missing, damaged or foreign, or its weights do not fit the model.
    """
    path = Path(path)
    if path.is_dir():
        path = run_weights(path)
    weights, card = _read(path)
    with torch.random.fork_rng(devices=[]):  # initial weights are replaced: keep the caller's random state
        model = card.build(recipe)
    _check_fit(path, weights, model)
    model.load_state_dict(weights)
    model.card = card  # pyright: ignore[reportArgumentType]
    return model.eval()


def _built(builder: Callable[..., nn.Module], arguments: dict[str, Any]) -> nn.Module:
    try:
        return Build(builder, **arguments)()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"{builder.__name__} cannot be built with {arguments}: {reason}") from None


def run_weights(run: Path) -> Path:
    """Return the path of the best weights in a run folder.

    Raises:
        UserError: the folder has none.
    """
    if not (run / "best.pt").is_file():
        raise UserError(
            f"{run}: has no best.pt; expected a weights file, or a run folder after the first validation"
        )
    return run / "best.pt"


def card_of(model: nn.Module) -> ModelCard:
    """Return the card of a model that `load` returned.

    Raises:
        UserError: the model has no card.
    """
    card = getattr(model, "card", None)
    if not isinstance(card, ModelCard):
        raise UserError(
            f"this {type(model).__name__} has no card; expected a model that mmaction_lite.load returned"
        )
    return card


def _read(path: Path) -> tuple[dict[str, Tensor], ModelCard]:
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected weights written by mmaction-lite")
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path}: is damaged or not a safetensors file ({error})") from None
        text = metadata.get("card", "")
    else:
        state = load_state(path)
        weights, text = state["model"], state["card"]
    try:
        return weights, ModelCard.from_json(text)
    except UserError as error:
        raise UserError(f"{path}: the model card is invalid: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: has no model card that this version can read ({error!r}); expected weights written by "
            "mmaction-lite. `mmaction-lite convert` reads weights of other projects"
        ) from None


def _check_fit(path: Path, weights: dict[str, Tensor], model: nn.Module) -> None:
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    given = {name: tensor.shape for name, tensor in weights.items()}
    wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} of {len(own)} tensors do not fit {type(model).__name__}; the first is "
            f"{wrong[0]}: {_shape(given, wrong[0])} in the file, {_shape(own, wrong[0])} in the model"
        )


def _shape(shapes: dict[str, torch.Size], name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "absent"


def _pack(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _pack(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__} | fields
    return value


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        kind = _TYPES[value.pop("type")]
        return kind(**{name: _unpack(item) for name, item in value.items()})
    return tuple(map(_unpack, value)) if isinstance(value, list) else value
