"""Run folder: the files of a training, and resuming after an interruption."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.tools.cleaned import split_checksum
from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.files import LOCK, FolderLock, has_marker, partial_files, write_atomically
from mmaction_lite.inference.scores import Evaluation
from mmaction_lite.models.lora import merged_weights
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.training.resume import Changes, find_changes
from mmaction_lite.training.saved_state import (
    check_card,
    read_progress,
    read_saved,
    restore_state,
    restore_weights,
)
from mmaction_lite.weights.card import ModelCard, run_weights, save_weights
from mmaction_lite.weights.checkpoint import load_state, save_state
from mmaction_lite.weights.checks import check_merged
from mmaction_lite.weights.converters import Conversion, convert, read_checkpoint, stored_classes
from mmaction_lite.weights.converters.folders import is_hub_folder
from mmaction_lite.weights.fitting_protocol import normalize_notes
from mmaction_lite.weights.same_form import check_same_form, check_same_heads, stored_build


class Stateful(Protocol):
    """Object with a state dict, such as a network or an optimizer."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state to save."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Load a saved state."""
        ...


CHOICE = "choice.json"
"""File of a run folder that holds how `training.automatic` chose the training."""

FILES = (
    "recipe.txt",
    "last.pt",
    "best.pt",
    "val.npz",
    "weights.safetensors",
    "metrics.jsonl",
    "quarantine.jsonl",
)
"""Files of a run folder that are written atomically."""

States = Mapping[str, Any]
"""Saved objects besides the network, by name; each is `Stateful`."""


@dataclass
class Progress:
    """Progress of a training.

    Args:
        step: number of steps done.
        validated_step: last step that was validated.
        best_score: score of the best validation, from 0 to 1.
        best_step: step of the best validation.
        metric: name of the metric that the score belongs to.
        bad_validations: number of validations since the best one.
    """

    step: int = 0
    validated_step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    metric: str = "top1"
    bad_validations: int = 0

    def record_validation(self, metric: str, score: float) -> bool:
        """Record the score of the current step; return whether it is the best so far."""
        self.metric, self.validated_step = metric, self.step
        is_best = score > self.best_score
        if is_best:
            self.best_score, self.best_step, self.bad_validations = score, self.step, 0
        else:
            self.bad_validations += 1
        return is_best


class RunFolder:
    """Folder of one training. A context manager: files are written in the background and complete at its end.

    Args:
        out: the folder: new or empty, or with a `last.pt` to `resume` from.
        recipe: the recipe; a resumed run must have the same, except for the fields `resume.CHANGEABLE`.
        samples: the training split; a resumed run must have the same, or its readable clips.
        seed: seed of all random numbers; a resumed run must have the same.
        resume: whether to continue the run in the folder.
        writes: whether this process writes; with several processes only rank 0 does.

    Raises:
        UserError: the folder is in use by another process, or holds a run of another recipe, seed or training
            split.
    """

    def __init__(
        self, out: Path, recipe: Recipe, samples: Samples, *, seed: int, resume: bool, writes: bool = True
    ):
        self.out = out
        self.seed = seed
        self.build = recipe.model
        self.writes = writes
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None
        self._lock = FolderLock(out)
        if writes and out.is_dir():
            self._lock.acquire()
        try:
            self._open(recipe, samples, resume)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, recipe: Recipe, samples: Samples, resume: bool) -> None:
        self.card = ModelCard.of(recipe, samples.classes)
        self.changes = Changes([])
        self.text = f"# {recipe.name}, seed {self.seed}\n# trained on {split_checksum(samples)}\n{recipe}\n"
        if resume:
            path = self.out / "last.pt"
            self._saved, saved = read_saved(path)  # initial weights may have changed the card
            self.changes = find_changes(
                self.out, self._saved["recipe"], self.text, recipe, samples, classes=saved.classes
            )
            if self.changes.old_clips is None:
                check_card(path, saved, self.card)
            self.card = replace(saved, recipe=self.card.recipe)
        else:
            self._saved = None
            check_unused(self.out)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown()
        self._lock.release()

    def settle(self) -> None:
        """Wait until the file being written is complete, and raise the error if it could not be written."""
        if self._writing is not None:
            self._writing, writing = None, self._writing
            writing.result()

    def start_from(self, file: Path, model: nn.Module) -> Conversion:
        """Load weights into `model` before a training; see `converters.convert`.

        Args:
            file: a checkpoint of this network, of this package or of another project, a folder of the Hugging
                Face Hub, or a run folder, whose best weights are loaded.
            model: the network.

        Raises:
            UserError: the file cannot be read, or does not fit the network in more than its classes.
        """
        file = run_weights(file) if file.is_dir() and not is_hub_folder(file) else file
        checkpoint = read_checkpoint(file)
        notes = []
        try:
            check_merged(checkpoint.get("model", ()))
            found = stored_build(checkpoint)
            if found is not None and found[0] != self.build.builder.__name__:
                notes.append(
                    f"the weights are of {printable(found[0], 100)}, and the training is of "
                    f"{self.build.builder.__name__}"
                )
                check_same_heads(found[1], self.build)
            else:
                check_same_form(checkpoint, self.build)
            with reading(file):
                conversion = convert(
                    checkpoint, model, classes=self.card.classes, source_classes=stored_classes(checkpoint)
                )
        except UserError as error:
            raise UserError(
                f"{error}" if str(error).startswith(f"{file}: ") else f"{file}: {error}"
            ) from None
        notes += normalize_notes(self.card.test.normalize, conversion, checkpoint)
        self.card = self.card.starting_from(file.name, conversion.arguments)
        return replace(conversion, notes=[*conversion.notes, *notes])

    def begin(self, model: Stateful, states: States) -> Progress:
        """Create the folder, or load network and `states` from `last.pt`; return the progress of the run.

        Raises:
            UserError: the folder cannot be created or written, or lacks one of the states.
        """
        if self._saved is None and self.writes:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"{self.out}: cannot be created ({error.strerror}); pass another --out"
                ) from None
        if self.writes:
            self._lock.acquire()
            for name in FILES:
                for stale in partial_files(self.out / name):
                    stale.unlink()
        if self.writes and (self._saved is None or self.changes.lines):
            write_atomically(self.out / "recipe.txt", lambda file: file.write(self.text.encode()))
        if self._saved is None:
            progress = Progress()
            self.save_last(progress, model, states)  # makes the run resumable from its start
            self.settle()
            return progress
        path = self.out / "last.pt"
        progress = read_progress(path, self._saved["progress"], Progress)
        restore_weights(path, self._saved["model"], model)
        for name, state in states.items():
            if name not in self._saved:
                raise UserError(
                    f"{self.out}: cannot resume: the run has saved no {name!r}; pass --shard as it was"
                )
            restore_state(path, name, self._saved[name], state)
        self._saved = None
        return progress

    def save_last(self, progress: Progress, model: Stateful, states: States, numbers: str = "") -> None:
        """Write `last.pt`, from which the run can be resumed, in the background and from a copy.

        `numbers` describes the last step, for the error message.

        Raises:
            UserError: a weight is not finite.
            OSError: the previous file could not be written.
        """
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise UserError(
                    f"step {progress.step}: {name} holds values that are not finite, so it was not saved"
                    f"{numbers and f' ({numbers})'}; lower the learning rate, or set max_grad_norm"
                )
        state = self._state(progress, model.state_dict())
        state |= {name: part.state_dict() for name, part in states.items()}
        self._write("last.pt", state)

    def save_best(self, progress: Progress, model: nn.Module, result: Evaluation) -> None:
        """Write `best.pt`, with merged adapters, and its scores on the validation split."""
        self._write("best.pt", self._state(progress, merged_weights(model)))
        if self.writes:
            result.save(self.out / "val.npz")

    def finish(self) -> None:
        """Write the best weights as `weights.safetensors`, for inference."""
        self.settle()
        if self.writes:
            best = load_state(self.out / "best.pt")["model"]
            save_weights(self.out / "weights.safetensors", best, self.card)

    def _write(self, name: str, state: dict[str, Any]) -> None:
        self.settle()
        if self.writes:
            self._writing = self._thread.submit(save_state, self.out / name, _copied(state))

    def _state(self, progress: Progress, weights: Mapping[str, Any]) -> dict[str, object]:
        return {
            "card": self.card.to_json(),
            "recipe": self.text,
            "progress": asdict(progress),
            "model": weights,
        }


def check_unused(out: Path) -> None:
    """Check that a run folder is new, empty, or has only the first files of a run that was killed.

    Raises:
        UserError: it is not.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is already used: it is a file; expected a folder. Pass another --out")
    used = sorted(filter(_is_used, out.iterdir())) if out.exists() else []
    if not used:
        return
    if (out / "last.pt").is_file():
        raise UserError(f"{out}: is already used; pass --resume to continue it, or another --out")
    raise UserError(
        f"{out}: is already used, and not by a run: it contains {printable(used[0].name)}; pass another --out"
    )


def _is_used(file: Path) -> bool:
    """Whether a file belongs to a started run.

    A run killed before it started leaves `recipe.txt`, `CHOICE` and partial files.
    """
    if file.name == LOCK:
        return False
    if file.name == CHOICE:
        return not has_marker(b'{"method": ')(file)
    if file.name == "recipe.txt":
        return not has_marker(b"\n# trained on ")(file) and not partial_files(file.with_name("last.pt"))
    return not any(file in partial_files(file.with_name(name)) for name in ("recipe.txt", "last.pt"))


def _copied(state: Any) -> Any:
    """Copy nested dictionaries and sequences, with their tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {name: _copied(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(_copied, state))
    return state
