"""A verb and a noun per clip, as in EPIC-Kitchens (Damen et al., IJCV 2022, arXiv:2006.13256)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmaction_lite.errors import UserError
from mmaction_lite.settings import NonNegativeInt, check_fields
from mmaction_lite.tasks.losses import balanced_weights, one_hot_shares
from mmaction_lite.tasks.metrics import check_indices, ranks, single_label_results, top_k
from mmaction_lite.tasks.task import ClassResults, Mistake

COLUMNS = ("verb", "noun")
MOST_ACTIONS = 100  # number of actions in a prediction

Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True, kw_only=True)
class VerbNoun:
    """Every clip has one verb and one noun; a target holds the index of each, int64 (2,).

    The logits of the verbs come first, then those of the nouns. A linear classifier for each on the same
    features is one linear layer of `num_verbs` + number of nouns outputs, the head of every network of this
    package. A network may also concatenate the outputs of two separate heads.

    An action is a pair of verb and noun; its probability is the product of both. See `Task` for the methods.

    Args:
        num_verbs: number of verbs; `for_classes` sets it.
    """

    num_verbs: NonNegativeInt = 0

    def __post_init__(self):
        check_fields(self)

    def for_classes(self, classes: Sequence[str]) -> "VerbNoun":
        """Return the task with the number of verbs among the class names, `verb: …` before `noun: …`.

        Raises:
            UserError: the names have another form or order, or verbs or nouns are missing.
        """
        num_verbs = sum(name.startswith("verb: ") for name in classes)
        expected = ["verb: "] * num_verbs + ["noun: "] * (len(classes) - num_verbs)
        is_sorted = all(name.startswith(prefix) for name, prefix in zip(classes, expected, strict=True))
        if not is_sorted or num_verbs in (0, len(classes)):
            raise UserError(
                f"task verb_noun: the {len(classes)} classes are {', '.join(classes[:3])} …; expected names "
                "such as 'verb: open', then 'noun: door'. Use annotations with the columns verb and noun"
            )
        return replace(self, num_verbs=num_verbs)

    def num_logits(self, num_classes: int) -> int:
        """Return the number of verbs and nouns together."""
        return num_classes

    def check_labels(self, columns: tuple[str, ...], source: str) -> None:
        """Check that the labels are in the columns `verb` and `noun`; see `Task.check_labels`.

        Raises:
            UserError: they are in other columns.
        """
        if columns != COLUMNS:
            raise UserError(
                f"{source}: labels are in the column {' and '.join(columns)}, and the task verb_noun expects "
                "the columns verb and noun. Use a table with these columns, without a column label or labels"
            )

    def target(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the index of the verb and that of the noun, int64 (2,), each counted from 0."""
        return labels - np.array([0, self.num_verbs])

    def targets(self, labels: np.ndarray, counts: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the index of the verb and that of the noun of every clip, int64 (N, 2)."""
        return labels.reshape(-1, 2) - np.array([0, self.num_verbs])

    def target_shape(self, num_videos: int, num_classes: int) -> tuple[int, ...]:
        """Return (num_videos, 2)."""
        return num_videos, 2

    def check_targets(self, targets: np.ndarray, num_classes: int) -> None:
        """Check that targets are indices of verbs and of nouns; see `Task.check_targets`."""
        check_indices(targets[:, 0], self.num_verbs)
        check_indices(targets[:, 1], num_classes - self.num_verbs)

    def dense(self, targets: Tensor, num_classes: int) -> Tensor:
        """Convert indices, int64 (B, 2), to shares of verbs and nouns, float32 (B, K); each sums to 1."""
        if targets.is_floating_point():
            return targets
        verbs = one_hot_shares(targets[:, 0], self.num_verbs)
        nouns = one_hot_shares(targets[:, 1], num_classes - self.num_verbs)
        return torch.cat([verbs, nouns], 1)

    def loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the mean of the cross entropies of verb and noun of every clip, float32 (B,)."""
        weights = (None, None) if class_weights is None else self._split(class_weights)
        losses = [
            cross_entropy(own, target, weight, label_smoothing=label_smoothing, reduction="none")
            for own, target, weight in zip(
                self._split(logits.float()), self._split_targets(targets), weights, strict=True
            )
        ]
        return (losses[0] + losses[1]) / 2

    def balanced_weights(self, counts: np.ndarray) -> np.ndarray:
        """Return weights that give all verbs the same total weight, and all nouns, float32 (K,)."""
        return np.concatenate([balanced_weights(own) for own in self._split(counts)])

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return whether verb and noun are both correct, or have a share of a dense target, float32 (B,)."""
        found = []
        for own, target in zip(self._split(logits), self._split_targets(targets), strict=True):
            best = own.argmax(1)
            is_dense = target.is_floating_point()
            found.append(target.gather(1, best[:, None])[:, 0] > 0 if is_dense else best == target)
        return (found[0] & found[1]).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax over the verbs and that over the nouns, concatenated."""
        return torch.cat([own.softmax(-1) for own in self._split(logits)], -1)

    def metrics(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return top-1 and top-5 accuracy of actions, verbs and nouns.

        These are the metrics of EPIC-Kitchens-100; action top-1 chooses the best weights. An action is among
        the top k if fewer than k pairs of verb and noun have at least its probability.
        """
        found = {}
        (verbs, nouns), true_verbs, true_nouns = self._split(scores), targets[:, 0], targets[:, 1]
        all_ranks = {
            "action": self._action_ranks(scores, targets),
            "verb": ranks(verbs, true_verbs),
            "noun": ranks(nouns, true_nouns),
        }
        for name, rank in all_ranks.items():
            found |= {f"{name}_top{k}": top_k(rank, k) for k in (1, 5)}
        return found

    def shown_metrics(self, num_classes: int) -> tuple[str, ...]:
        """Return the metrics to show; not the top-5 accuracy of at most five verbs, nouns or actions."""
        num_nouns = num_classes - self.num_verbs
        sizes = {"action": self.num_verbs * num_nouns, "verb": self.num_verbs, "noun": num_nouns}
        return tuple(f"{name}_top{k}" for name, size in sizes.items() for k in ((1, 5) if size > 5 else (1,)))

    @property
    def temperature_scale(self) -> Literal["log_probability", "log_odds"]:
        """Logits of a probability that a temperature divides; see `Task.temperature_scale`."""
        return "log_probability"

    def are_correct(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether the true action alone has the highest probability, bool (N,)."""
        return self._action_ranks(scores, targets) == 0

    def confidences(self, scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of the predicted action, float (N,), and whether it is correct, bool."""
        verbs, nouns = self._split(scores)
        return verbs.max(1) * nouns.max(1), self.are_correct(scores, targets)

    def likelihoods(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the probabilities of the true verbs, then those of the true nouns, float (2 * N,)."""
        rows = np.arange(len(targets))
        groups = zip(self._split(scores), targets.T, strict=True)
        return np.concatenate([group[rows, target] for group, target in groups])

    def log_loss(self, scores: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean negative logarithm of the probabilities of the true verb and of the true noun."""
        own = self.likelihoods(scores, targets)
        return float(-np.log(np.maximum(own, 1e-12)).mean()) + 0.0  # no -0.000

    def ranked(self, scores: np.ndarray, classes: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
        """Return the 100 most probable actions, such as `open door`, and their probabilities, float32."""
        verbs, nouns = self._split(scores)
        actions = np.outer(verbs, nouns)
        order = np.argsort(-actions, axis=None, kind="stable")[:MOST_ACTIONS]
        pairs = (divmod(int(cell), len(nouns)) for cell in order)
        return tuple(self._action(verb, noun, classes) for verb, noun in pairs), actions.flat[order]

    def exclusive_groups(self, num_classes: int) -> list[slice]:
        """Return the verbs and the nouns."""
        return [slice(0, self.num_verbs), slice(self.num_verbs, num_classes)]

    def best_classes(self, scores: np.ndarray) -> tuple[int, ...]:
        """Return the indices of the most probable verb and of the most probable noun."""
        verbs, nouns = self._split(scores)
        return int(verbs.argmax()), self.num_verbs + int(nouns.argmax())

    def class_results(self, scores: np.ndarray, targets: np.ndarray) -> tuple[ClassResults, ...]:
        """Return the results of the verbs and those of the nouns."""
        verbs, nouns = self._split(scores)
        return (
            single_label_results(verbs, targets[:, 0], title="verb"),
            single_label_results(nouns, targets[:, 1], title="noun", first=self.num_verbs),
        )

    def mistakes(
        self, scores: np.ndarray, targets: np.ndarray, classes: Sequence[str], most: int
    ) -> list[Mistake]:
        """Return videos whose action is incorrect, the lowest probability of the true action first."""
        verbs, nouns = self._split(scores)
        rows = np.arange(len(scores))
        true_scores = verbs[rows, targets[:, 0]] * nouns[rows, targets[:, 1]]
        best = np.stack([np.nan_to_num(own, nan=-1).argmax(1) for own in (verbs, nouns)], 1)
        is_wrong = np.isfinite(scores).all(1) & (best != targets).any(1)
        order = np.argsort(true_scores, kind="stable")
        return [
            Mistake(
                index=int(n),
                true=self._action(int(targets[n, 0]), int(targets[n, 1]), classes),
                true_score=float(true_scores[n]),
                predicted=self._action(int(best[n, 0]), int(best[n, 1]), classes),
                predicted_score=float(verbs[n, best[n, 0]] * nouns[n, best[n, 1]]),
            )
            for n in order[is_wrong[order]][:most]
        ]

    def _split(self, values: Array) -> tuple[Array, Array]:
        """Split (..., K) into verbs and nouns."""
        if not self.num_verbs:
            raise UserError("task verb_noun: the number of verbs is not set; call task.for_classes(classes)")
        return values[..., : self.num_verbs], values[..., self.num_verbs :]

    def _split_targets(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Split targets, int64 (B, 2), or dense ones, float (B, K), into those of verbs and of nouns."""
        return self._split(targets) if targets.is_floating_point() else (targets[:, 0], targets[:, 1])

    def _action_ranks(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the rank of the true action of every video, float (N,); see `_action_rank`."""
        rows = zip(*self._split(scores), targets[:, 0], targets[:, 1], strict=True)
        return np.array([self._action_rank(*row) for row in rows], float)

    @staticmethod
    def _action_rank(verbs: np.ndarray, nouns: np.ndarray, true_verb: int, true_noun: int) -> float:
        """Return how many other actions are at least as probable; infinity for an unreadable video."""
        actions = np.outer(verbs.astype(np.float64), nouns)
        true = actions[true_verb, true_noun]
        return np.inf if np.isnan(true) else int((actions >= true).sum()) - 1

    def _action(self, verb: int, noun: int, classes: Sequence[str]) -> str:
        names = classes[verb].removeprefix("verb: "), classes[self.num_verbs + noun].removeprefix("noun: ")
        return " ".join(names)
