"""The models of the server: loaded at their first use, the least recently used removed under a budget."""

import asyncio
import re
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from mmaction_lite.device import pick_device
from mmaction_lite.errors import UserError
from mmaction_lite.inference.predict import load_for_inference
from mmaction_lite.serve.problems import Problem
from mmaction_lite.weights.card import ModelCard, card_of, load, read_weights
from mmaction_lite.weights.exported import SUFFIXES
from mmaction_lite.weights.named import locate

MAX_NAME = 100  # characters


class KnownModel(NamedTuple):
    """A model that the server can load.

    Args:
        name: its name for clients.
        source: weights file, run folder or public name, see `load`. It is never shown to clients.
        card: its card.
        num_bytes: size of its parameters and buffers.
        is_exported: whether the file is one of `mmaction-lite export`, whose layers are not accessible.
    """

    name: str
    source: str
    card: ModelCard
    num_bytes: int
    is_exported: bool


class _Loaded:
    """A model in memory."""

    def __init__(self, model: nn.Module, num_bytes: int):
        self.model, self.num_bytes = model, num_bytes
        self.num_users = 0


class Models:
    """Several models under a budget of memory. A model in use is never removed.

    Args:
        sources: weights files, run folders or public names; the first one is the default.
        memory_budget: largest size of the parameters and buffers in memory, in bytes.
        device: name of the device, see `pick_device`.
        may_be_empty: whether a server without a model is possible; it shows a training or a data set only.

    Raises:
        UserError: weights cannot be read, or are larger than the budget.
    """

    def __init__(
        self, sources: Sequence[str], memory_budget: int, device: str = "auto", *, may_be_empty: bool = False
    ):
        if not sources and not may_be_empty:
            raise UserError("no model is given; expected at least one weights file, run folder or name")
        self._budget, self._device = memory_budget, pick_device(device)
        self.known: dict[str, KnownModel] = {}
        for source in sources:
            found = _read(source, _free_name(source, self.known))
            if found.num_bytes > memory_budget:
                raise UserError(
                    f"{source}: has {found.num_bytes / 1e6:.1f} MB of weights, and the memory budget of the "
                    f"models is {memory_budget / 1e6:.1f} MB. Raise --memory-budget"
                )
            self.known[found.name] = found
        self.default = next(iter(self.known), None)
        # The least recently used one first; the key is the name, and whether the layers are folded.
        self._loaded: dict[tuple[str, bool], _Loaded] = {}
        self._one_load = asyncio.Lock()
        self._changed = asyncio.Condition()

    def find(self, name: str | None) -> KnownModel:
        """Return a model by its name; None is the default.

        Raises:
            Problem: there is no model of this name.
        """
        if name is None:
            name = self.default
        if name is None:
            raise Problem("unknown-model", "this server has no model")
        if name not in self.known:
            raise Problem("unknown-model", f"no model is named {name[:100]!r}")
        return self.known[name]

    def is_loaded(self, name: str) -> bool:
        """Whether a model is in memory."""
        return any(key[0] == name for key in self._loaded)

    @asynccontextmanager
    async def use(self, name: str, *, is_folded: bool = True) -> AsyncIterator[nn.Module]:
        """Load a model, unless it is in memory, and keep it there during the block.

        Blocks must not be nested: one of them would wait for the memory of the other.

        Args:
            name: name of a known model.
            is_folded: whether the layers are optimized for inference. Gradients need the original layers.

        Raises:
            Problem: the model cannot be loaded.
        """
        key = name, is_folded
        if key not in self._loaded:
            async with self._one_load:
                if key not in self._loaded:
                    self._loaded[key] = await self._load(self.known[name], is_folded)
        loaded = self._loaded[key] = self._loaded.pop(key)  # now the most recently used one
        loaded.num_users += 1
        try:
            yield loaded.model
        finally:
            loaded.num_users -= 1
            async with self._changed:
                self._changed.notify_all()

    async def _load(self, known: KnownModel, is_folded: bool) -> _Loaded:
        async with self._changed:
            await self._changed.wait_for(lambda: self._make_room(known.num_bytes))
        try:
            model = await asyncio.to_thread(_load_model, known.source, self._device, is_folded)
        except UserError:  # its text names the file
            raise Problem("model-unavailable", f"the weights of {known.name} cannot be loaded") from None
        return _Loaded(model, known.num_bytes)

    def _make_room(self, num_bytes: int) -> bool:
        """Remove models that are not in use until another one fits; return whether it does."""
        for key, loaded in list(self._loaded.items()):
            if self.loaded_bytes + num_bytes <= self._budget:
                break
            if not loaded.num_users:
                del self._loaded[key]
        return self.loaded_bytes + num_bytes <= self._budget

    @property
    def loaded_bytes(self) -> int:
        """Size of the models in memory."""
        return sum(loaded.num_bytes for loaded in self._loaded.values())


def _read(source: str, name: str) -> KnownModel:
    path = locate(source)
    if path.suffix.lower() in SUFFIXES:
        return KnownModel(name, source, card_of(load(source)), path.stat().st_size, True)
    _, weights, card = read_weights(source)
    return KnownModel(name, source, card, sum(tensor.nbytes for tensor in weights.values()), False)


def _load_model(source: str, device: torch.device, is_folded: bool) -> nn.Module:
    model = load_for_inference(source) if is_folded else load(source)
    return model.to(device).eval()


def _free_name(source: str, used: Container[str]) -> str:
    """Return the name of a model for clients: that of its run folder or file, without the path."""
    path = Path(source)
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    stem = folder.name if path.is_dir() or path.name in ("best.pt", "last.pt") else path.stem
    text = stem if path.exists() else source
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", text)[-MAX_NAME:].strip("-.") or "model"
    candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(candidate for candidate in candidates if candidate not in used)
