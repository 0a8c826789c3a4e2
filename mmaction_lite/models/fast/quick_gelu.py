"""QuickGELU of CLIP: x · sigmoid(1.702 x), see Hendrycks & Gimpel, arXiv:1606.08415."""

from torch import Tensor, nn
from torch.nn import functional

SLOPE = 1.702


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), computed as silu(1.702 x) / 1.702, one operator with its own gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        return functional.silu(x * SLOPE) / SLOPE
