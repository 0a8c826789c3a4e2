"""Model cards: the builder, class names and protocols that a weights file stores with its tensors."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import mmaction_lite.models as models
from mmaction_lite.data.views import normalize, protocol, temperature
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.errors import UserError, describe, nearest, printable, reading
from mmaction_lite.files import write_atomically
from mmaction_lite.models.probe import without_unused
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.settings import NOT_EMPTY, check_fields
from mmaction_lite.tasks.named import TASKS
from mmaction_lite.tasks.reconstruction import Reconstruction
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task
from mmaction_lite.weights.card_views import VIEW_TYPES, check_known, unpack
from mmaction_lite.weights.checkpoint import load_state
from mmaction_lite.weights.checks import check_fit, check_merged, check_values
from mmaction_lite.weights.converters.folders import is_hub_folder, weights_file
from mmaction_lite.weights.tensor_files import read_tensor_file

BUILDERS = [name for name in models.__all__ if not name.endswith("_for_inference")]
BUILDERS += [builder.__name__ for builder in models.PRETRAINING]
LONGEST_CARD = 16 << 20  # characters; 10,000 class names take a thirtieth
MOST_BYTES = 4 << 30  # of pixels that a protocol reads of one video; published tests take up to 0.6 GB
LARGEST_NUMBER = 1_000_000  # in a protocol: frames, clips or pixels
# The dataclasses that a card may contain. Reading a file creates no other types.
_TYPES: dict[str, type] = VIEW_TYPES | {
    kind.__name__: kind
    for kind in (
        normalize.Normalize,
        protocol.Protocol,
        temperature.Temperature,
        Reconstruction,
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
        if len(set(self.classes)) < len(self.classes):
            name = next(name for name, count in Counter(self.classes).items() if count > 1)
            raise UserError(
                f"ModelCard: two classes are named {printable(name, 100)!r}; expected different names"
            )
        num_classes = len(self.classes)
        if self.task.for_classes(self.classes) != self.task:
            raise UserError(f"ModelCard: task is {self.task}, which does not fit the {num_classes} classes")
        logits = self.arguments.get("num_classes")
        if logits is not None and logits != self.task.num_logits(num_classes):
            raise UserError(
                f"ModelCard: num_classes is {logits!r:.40}, and there are {num_classes} class names"
            )

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

    def calibrated(self, value: float) -> "ModelCard":
        """Return the card with a temperature in both protocols; see `Temperature`.

        Raises:
            UserError: the card has a temperature already, or `value` is out of range.
        """
        for known in (self.val, self.test):
            if known.temperature is not None:
                raise UserError(
                    f"the weights have {known.temperature} already, and a further temperature would be "
                    "applied to calibrated scores; expected weights without one. Use the file that it was "
                    "computed for"
                )
        chosen = temperature.Temperature(value=value, scale=self.task.temperature_scale)
        protocols = (dataclasses.replace(known, temperature=chosen) for known in (self.val, self.test))
        return dataclasses.replace(self, **dict(zip(("val", "test"), protocols, strict=True)))

    def build(self, recipe: Recipe | None = None, device: str = "cpu") -> nn.Module:
        """Build the model with initial weights.

        Args:
            recipe: recipe with the builder, for builders outside of the package; None for builders of the
                package.
            device: "cpu", or "meta" for a model without memory; a builder outside of the package may refuse
                "meta".

        Raises:
            UserError: the builder is unknown, is not that of `recipe`, or refuses its arguments.
        """
        if recipe is not None:
            # A model of the package has one name; a function of a user's own file may have been renamed.
            if self.builder in BUILDERS and recipe.model.builder.__name__ != self.builder:
                raise UserError(
                    f"these are weights of {self.builder}, and the recipe {recipe.name} builds "
                    f"{recipe.model.builder.__name__}; pass the recipe of their training, {self.recipe}"
                )
            return _built(recipe.model.builder, self.arguments, device)
        if self.builder not in BUILDERS:
            raise UserError(
                f"no model of the package is named {printable(self.builder, 100)!r}; "
                f"{nearest(self.builder, BUILDERS)}. "
                "For a model of your own, pass its recipe (--recipe my.py:my_recipe)"
            )
        return _built(getattr(models, self.builder), self.arguments, device)

    def to_json(self) -> str:
        """Return the card as one line of JSON.

        Raises:
            ValueError: an argument of the model is not finite.
        """
        return json.dumps(_pack(self) | {"type": None}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Parse the output of `to_json`.

        Raises:
            UserError: a field has an invalid value, or a version that stores more fields wrote the card.
            ValueError, TypeError, KeyError, AttributeError, RecursionError: `text` is not a card.
        """
        if len(text) > LONGEST_CARD:
            raise UserError(f"{len(text)} characters; expected at most {LONGEST_CARD}")
        fields = json.loads(text)
        del fields["type"]
        check_known(fields, cls)
        arguments = fields.pop("arguments")
        arguments = {name: unpack(value, _TYPES) for name, value in arguments.items()}
        card = cls(arguments=arguments, **{name: unpack(value, _TYPES) for name, value in fields.items()})
        for name, protocol_ in (("val", card.val), ("test", card.test)):
            check_cost(protocol_, name)
        return card


def check_cost(protocol: Protocol, name: str) -> None:
    """Check that a protocol reads an amount of pixels that fits into memory.

    Args:
        protocol: the protocol.
        name: its name for the message.

    Raises:
        UserError: it reads more, or has a number out of range.
    """
    numbers = [protocol.window or 1, protocol.views.short_side or 1, *protocol.views.crop.size]
    numbers += [value for value in vars(protocol.views.clips).values() if isinstance(value, int | float)]
    num_bytes = max(protocol.num_views * math.prod(protocol.views.view_shape), protocol.views.video_bytes)
    is_valid = all(1 / LARGEST_NUMBER <= number <= LARGEST_NUMBER for number in numbers)
    if not is_valid or num_bytes > MOST_BYTES:
        raise UserError(
            f"the {name} protocol, {protocol}, reads {num_bytes / 1e9:.3g} GB of pixels of a video; expected "
            f"at most {MOST_BYTES / 1e9:.3g} GB"
        )


def save_weights(path: Path, weights: dict[str, Tensor], card: ModelCard) -> None:
    """Write a `.safetensors` file with a card, which `load` reads."""
    data = safetensors.torch.save(_separate(weights), {"card": card.to_json()})
    write_atomically(path, lambda file: file.write(data))


def _separate(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors that are not contiguous or share memory, which safetensors cannot write."""
    separate, seen = {}, set()
    for name, tensor in weights.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes or not tensor.is_contiguous():
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
        separate[name] = tensor
    return separate


def load(path: str | Path, recipe: Recipe | None = None) -> nn.Module:
    """Load a trained model.

    Args:
        path: a `.safetensors` file, a `.pt` file of a run, or a run folder, of which the best weights are
            loaded; or a file of `mmaction-lite export` (`.onnx`, `.pt2`), see `weights.exported`; or the name
            of public weights, see `list_weights`, or an address (https://…), which are downloaded at the
            first use.
        recipe: recipe with the builder, for models outside of the package.

    Returns:
        the model in evaluation mode, on the CPU, with its `ModelCard` as attribute `card`.

    Raises:
        UserError: the file is missing, damaged or foreign, or its weights do not fit the model; or public
            weights cannot be downloaded or converted.
    """
    from mmaction_lite.weights.exported import SUFFIXES, load_exported  # both import this module
    from mmaction_lite.weights.named import locate

    path = locate(path)
    if path.suffix.lower() in SUFFIXES:
        return load_exported(path)
    path, weights, card = read_weights(path)
    try:
        if recipe is None or recipe.model.builder is getattr(models, card.builder, None):
            # Compare shapes before memory is allocated: the card of a damaged file may describe any size.
            weights = _fitting(weights, card.build(recipe, "meta"))
        with torch.random.fork_rng(devices=[]):  # keep the caller's random state
            model = card.build(recipe)
        weights = _fitting(weights, model)
        check_values(weights, model.state_dict())
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    with reading(path):
        model.load_state_dict(weights)
    model.card = card  # pyright: ignore[reportArgumentType]
    return model.eval()


def read_weights(path: str | Path) -> tuple[Path, dict[str, Tensor], ModelCard]:
    """Read the tensors and the card of a weights file without building the model.

    Args:
        path: as for `load`.

    Returns:
        the file, its tensors on the CPU by name, and its card.

    Raises:
        UserError: the file is missing, damaged or foreign; or public weights cannot be downloaded.
    """
    from mmaction_lite.weights.exported import SUFFIXES  # both import this module
    from mmaction_lite.weights.named import locate

    path = locate(path)
    if path.suffix.lower() in SUFFIXES:
        raise UserError(
            f"{path}: is an exported model; expected the weights that it was exported from. Export it again "
            "from the new file"
        )
    if is_hub_folder(path):
        path = weights_file(path)
    elif path.is_dir():
        path = run_weights(path)
    return path, *_read(path)


def _fitting(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that a model needs, and check that they fit it."""
    weights = without_unused(weights, model)
    check_fit(weights, model.state_dict(), type(model).__name__)
    return weights


class _Uninitialized(TorchFunctionMode):
    """Skip the initialization of tensors, whose first use on the meta device takes more than a second."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        is_initializer = getattr(func, "__module__", "") == "torch.nn.init"
        if is_initializer or getattr(func, "__name__", "") in ("normal_", "uniform_", "fill_", "zero_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _built(builder: Callable[..., nn.Module], arguments: dict[str, Any], device: str) -> nn.Module:
    try:
        if device != "meta":
            return Build(builder, **arguments)()
        with _Uninitialized(), torch.device(device):
            return Build(builder, **arguments)()
    except UserError:
        raise
    except Exception as error:  # a model of the user can raise any exception
        raise UserError(
            f"{builder.__name__} cannot be built with {printable(str(arguments), 300)}: {describe(error)}"
        ) from None


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
            file = read_tensor_file(path)
        except Exception as error:  # a damaged file can raise any exception
            raise UserError(f"{path}: is damaged or not a safetensors file ({describe(error)})") from None
        weights, text = file.content, file.metadata.get("card", "")
    else:
        state = load_state(path)
        weights, text = state["model"], state["card"]
    try:
        card = ModelCard.from_json(text)
    except UserError as error:
        raise UserError(f"{path}: the model card is invalid: {error}") from None
    except Exception as error:  # text of any kind
        raise UserError(
            f"{path}: has no model card that this version can read ({describe(error)}); expected weights "
            "written by mmaction-lite. `mmaction-lite convert` reads weights of other projects"
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path}: 'model' holds something else than tensors; copy or download the file again")
    try:
        check_merged(weights)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    weights = {str(name): tensor for name, tensor in weights.items()}
    if sum(tensor.nbytes for tensor in weights.values()) > 4 * path.stat().st_size + (64 << 20):
        raise UserError(f"{path}: is damaged (tensors larger than the file); copy or download it again")
    return weights, card


def _pack(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _pack(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__} | fields
    return value
