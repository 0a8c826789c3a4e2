"""Recognizer: a backbone over frames and a linear classifier."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.network import layers


def fold_time(x: Tensor) -> Tensor:
    """Map (B, C, T, H, W) to frames (B·T, C, H, W) in channels-last format, without a copy if x has it."""
    return x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


class Recognizer(nn.Module):
    """A backbone over frames, average pooling, dropout and a linear classifier.

    Args:
        backbone: maps frames (B·T, 3, H, W) and the batch size B to feature maps (B·T', D, h, w).
        features: D.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        init_std: standard deviation of the initial weights of the classifier.
        per_frame: classify every frame and average the logits (the consensus of TSN and TSM). By default the
            features are averaged over time before the classifier. The two differ only in dropout.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        num_classes: int,
        dropout: float,
        *,
        init_std: float = 0.01,
        per_frame: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(features, num_classes)
        self.per_frame = per_frame
        nn.init.normal_(self.fc.weight, std=init_std)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor, window: int | None = None) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, num_classes).

        Args:
            x: normalized clips.
            window: side of a window in the last feature map. If given, classify every window of this side
                (stride 1) separately and return logits (B, num_windows, num_classes), for tests on clips
                larger than those of the training (PySlowFast's fully-convolutional test).

        Raises:
            UserError: `window` is larger than the feature map.
        """
        if window is not None:
            return self._classify_windows(x, window)
        return self.head(self.dropout(self.features(x))).mean(1)

    def features(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the input of the classifier (B, T', D): T' = T if `per_frame`, else 1.

        Raises:
            UserError: the network pools the clip to no frame.
        """
        batch_size, num_frames = x.shape[0], x.shape[2]
        x = self.backbone(fold_time(x), batch_size)
        if not x.shape[0] and batch_size:  # the mean over no frame would be NaN
            raise UserError(f"the network pools a clip of {num_frames} frames to none; use longer clips")
        x = x.mean((2, 3)).unflatten(0, (batch_size, -1))
        return self.project(x if self.per_frame else x.mean(1, keepdim=True))

    def project(self, pooled: Tensor) -> Tensor:
        """Map averages of the last feature map (..., C) to the input of the classifier (..., D).

        Here it returns its argument; a subclass may put layers between the pooling and the dropout.
        """
        return pooled

    @property
    def head(self) -> nn.Module:
        """The classifier, the linear layer `fc`. To replace it, assign to `fc`."""
        return self.fc

    def layers(self) -> list[nn.Module]:
        """Return the layers of the backbone, then the head; see `models.network`."""
        return [*layers(self.backbone), self.head]

    def _classify_windows(self, x: Tensor, window: int) -> Tensor:
        batch_size = x.shape[0]
        x = self.backbone(fold_time(x), batch_size)
        height, width = x.shape[2:]
        if window > min(height, width):
            raise UserError(
                f"window is {window}; expected at most the feature map, {height}x{width}. "
                "Use larger crops or a smaller window"
            )
        x = functional.avg_pool2d(x.unflatten(0, (batch_size, -1)).mean(1), window, stride=1)
        return self.head(self.dropout(self.project(x.flatten(2).transpose(1, 2))))
