"""Names of timm's image models, for video networks that hold one; see `models.frame_encoder`.

The names are those of the image model, without the prefix that they have in the video network. The classifier
of the image model is left out, and the pooling and the classifier of the video network keep their initial
values.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from torch import nn

from mmaction_lite.data.views.normalize import Normalize

NAME = "timm"
PREFIXES = ("encoder.image_model.", "backbone.network.")
# Classifiers and poolings, which a network without them does not have.
_UNUSED = ("head.", "head_dist.", "classifier.", "fc.", "fc_norm.", "attn_pool.", "last_linear.")


class TimmTable(NamedTuple):
    """The table of one network.

    Args:
        prefix: of the names of the image model.
        names: of the image model, without the prefix.
    """

    prefix: str
    names: frozenset[str]

    @property
    def NAME(self) -> str:
        """The project."""
        return NAME

    def matches(self, keys: Collection[str]) -> bool:
        """Whether most names of the image model are those of a checkpoint."""
        return 2 * len(self.names & set(keys)) > len(self.names)

    def rename(self, keys: Collection[str]) -> dict[str, str | None]:
        """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
        renamed: dict[str, str | None] = {}
        for key in keys:
            if key in self.names:
                renamed[key] = self.prefix + key
            elif key.startswith(_UNUSED):
                renamed[key] = None
        return renamed

    def untrained(self, keys: Collection[str], names: Collection[str]) -> list[str]:
        """Return our names of parameters that image models lack: pooling and normalization."""
        return [name for name in names if not name.startswith(self.prefix)]

    def normalize(self, model: nn.Module) -> Normalize | None:
        """Return the normalization in timm's configuration of the image model."""
        config: Any = getattr(model.get_submodule(self.prefix.rstrip(".")), "pretrained_cfg", None)
        if not isinstance(config, dict):
            return None
        mean, std = (tuple(round(255 * value, 4) for value in config[name]) for name in ("mean", "std"))
        return Normalize(mean=mean, std=std)


def tables(names: Collection[str]) -> list[TimmTable]:
    """Return the table of a network with these names in its state dict; empty if it has no image model."""
    found = []
    for prefix in PREFIXES:
        own = frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))
        if own:
            found.append(TimmTable(prefix, own))
    return found
