"""State of a training: the network, its optimizer, and everything else that a step changes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmaction_lite.distributed import DistributedContext
from mmaction_lite.models.fast.memory_format import store_channels_last
from mmaction_lite.models.lora import add_adapters
from mmaction_lite.models.network import recompute_layers
from mmaction_lite.models.probe import ProbeHeads
from mmaction_lite.models.sub_batch import split_batch_norm
from mmaction_lite.optim import FrozenBackbone, freeze, freeze_backbone, set_batch_norm
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.training.run_folder import Stateful, States


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Objects that the steps of a training change.

    Args:
        model: the network, which holds the parameters.
        forward: `model` as forward passes call it; with several processes it also exchanges gradients.
        optimizer: updates the parameters.
        scaler: scales the loss if the precision is float16.
        frozen: modules that stay in evaluation mode.
        frozen_backbone: everything below the classifier while only the classifier is trained, else None.
        average: exponential moving average of the weights; None without one.
        unsharded: network of the same architecture that receives the weights of a sharded `model` for
            validation; None if `model` is not sharded.
    """

    model: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    frozen: list[nn.Module]
    frozen_backbone: FrozenBackbone | None = None
    average: AveragedModel | None = None
    unsharded: nn.Module | None = None

    def set_train_mode(self) -> None:
        """Put the network into training mode, except for its frozen modules."""
        self.model.train()
        for module in self.modules_in_evaluation_mode:
            module.train(False)

    @property
    def modules_in_evaluation_mode(self) -> list[nn.Module]:
        """Return the modules of `model` whose running statistics do not change at present."""
        return self.frozen + (self.frozen_backbone.modules if self.frozen_backbone else [])

    def unfreeze(self, context: DistributedContext) -> "TrainingState":
        """Train all layers from now on; return the state, in training mode.

        The optimizer holds the parameters from the start, and creates their state at their first step.
        """
        assert self.frozen_backbone is not None
        self.frozen_backbone.unfreeze()
        # `DistributedDataParallel` exchanges the gradients of parameters that are trained when it is created.
        forward = context.wrap_model(self.model)
        unfrozen = replace(self, frozen_backbone=None, forward=forward)
        unfrozen.set_train_mode()
        return unfrozen

    @property
    def eval_model(self) -> nn.Module:
        """Network to validate: averaged, unsharded (see `unshard`), or the trained network itself."""
        return self.average.module if self.average is not None else self.unsharded or self.model

    def unshard(self) -> None:
        """Copy the weights of a sharded network into `unsharded`; all processes must call it together."""
        if self.unsharded is not None:
            from mmaction_lite.training import sharding

            self.unsharded.load_state_dict(sharding.whole_weights(self.model))

    def checkpoint(self) -> tuple[Stateful, States]:
        """Return the objects to save: the network, and all others by name."""
        if self.unsharded is not None:
            from mmaction_lite.training import sharding

            optimizer = sharding.FullState(self.model, self.optimizer)
            return sharding.FullState(self.model), {"sharded optimizer": optimizer, "scaler": self.scaler}
        states: dict[str, Stateful] = {"optimizer": self.optimizer, "scaler": self.scaler}
        if self.average is not None:
            states["average"] = self.average
        return self.model, states


def build_state(
    recipe: Recipe,
    model: nn.Module,
    context: DistributedContext,
    *,
    report: Callable[[str], None],
    unsharded: Callable[[], nn.Module] | None = None,
) -> TrainingState:
    """Prepare a network for training as the recipe demands, and create its optimizer.

    Args:
        recipe: adapters, freezing, batch normalization, recomputation, optimizer, precision, averaging and
            compilation.
        model: the network with its initial weights; changed in place.
        context: processes and device of the training.
        report: called with a line about adapters, and if the recipe's batch normalization is not available.
        unsharded: builds a network of the same architecture. If given, `model` is sharded over the processes.
    """
    device = context.device
    model = model.to(device)
    if recipe.batch_norm == "sync":
        if context.world_size > 1 and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        else:
            report(f"batch_norm sync: on {context} it is plain batch normalization")
    frozen: list[nn.Module] = []
    if recipe.lora is not None:
        report(str(add_adapters(model, recipe.lora)))
        frozen += [] if recipe.lora.norms else set_batch_norm(model, "frozen")
    frozen += freeze(model, recipe.freeze) + set_batch_norm(model, recipe.batch_norm)
    if recipe.norm_clips is not None:
        split_batch_norm(model)
    if recipe.recompute:
        recompute_layers(model)
    if unsharded is not None:
        # Imported here because it takes more than half a second.
        from mmaction_lite.training import sharding

        sharding.shard(model, context)
    else:
        store_channels_last(model, is_trained=True)
    optimizer = _optimizer(recipe, model)
    frozen_backbone = freeze_backbone(model) if recipe.unfreeze else None
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    average = None
    if recipe.ema_decay is not None:
        # Starts with the weights after the first step. Running statistics are averaged, too.
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    if recipe.compile is not None:
        model.compile(mode=recipe.compile, dynamic=False)
    whole = unsharded().to(device) if unsharded is not None else None
    if whole is not None and recipe.lora is not None:
        add_adapters(whole, recipe.lora)
    return TrainingState(
        model=model,
        forward=model if unsharded is not None else context.wrap_model(model),
        optimizer=optimizer,
        scaler=scaler,
        frozen=frozen,
        frozen_backbone=frozen_backbone,
        average=average,
        unsharded=whole,
    )


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer; of the heads of a probe, each has its own learning rate and weight decay."""
    if recipe.probe is None or not isinstance(model, ProbeHeads):
        return recipe.optimizer.build(model, recipe.unfreeze.lr_share if recipe.unfreeze else 1.0)
    built = []
    for head, (lr, weight_decay) in zip(model.heads, recipe.probe.heads, strict=True):
        optimizer = replace(recipe.optimizer, weight_decay=weight_decay).build(head)
        for group in optimizer.param_groups:
            group["lr_scale"] *= lr / recipe.optimizer.lr
        built.append(optimizer)
    first, *others = built
    for group in (group for optimizer in others for group in optimizer.param_groups):
        first.add_param_group(group)
    return first
