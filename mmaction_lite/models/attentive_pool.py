"""Attentive pooling: a trained query collects the tokens of an encoder into one vector.

* `AttentivePool`: the attentive probe of V-JEPA (Bardes et al., arXiv:2404.08471; Assran et al.,
  arXiv:2506.09985), self-attention blocks and one cross-attention block.
* `MapPool`: multi-head attention pooling of SigLIP (Zhai et al., arXiv:2106.04560, section 3.3).

Both map tokens (N, tokens, width) to vectors (N, width). They do not depend on the order of the tokens.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.linear import Linear
from mmaction_lite.models.fast.linear_after import linear_after
from mmaction_lite.models.vit import Attention, Block, Mlp, initialize

HEADS = 16  # of the published V-JEPA probes, for encoders of every published width


def default_heads(width: int) -> int:
    """Return 16, or for thin networks the largest power of 2 below that divides the width."""
    return math.gcd(HEADS, width)


def check_heads(width: int, heads: int) -> None:
    """Check that a pooling can have this number of heads.

    Raises:
        UserError: `width` is not a multiple of `heads`.
    """
    if width % heads:
        raise UserError(
            f"attentive pooling: width is {width}; expected a multiple of the {heads} heads. Change "
            "width, or the number of heads of the pooling"
        )


class CrossAttention(nn.Module):
    """Multi-head attention of queries to tokens.

    Args:
        width: channels, a multiple of `heads`.
        heads: number of heads.
        project: whether a linear layer `proj` follows. V-JEPA has none.

    Raises:
        UserError: `width` is not a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int, *, project: bool) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.proj = Linear(width, width) if project else nn.Identity()

    def forward(self, query: Tensor, tokens: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Map queries (N, n, width) and tokens (N, tokens, width), mapped by `norm`, to (N, n, width)."""
        q, k, v = self.project(query, tokens, norm)
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))

    def project(
        self, query: Tensor, tokens: Tensor, norm: nn.Module | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v, each (N, heads, n or tokens, head_dim)."""
        q = self.q(query).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = (
            linear_after(norm, tokens, self.kv)
            .unflatten(2, (2, self.heads, -1))
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        return q, k, v


class CrossAttentionBlock(nn.Module):
    """Cross-attention of V-JEPA: x = query + xattn(query, norm1(tokens)), then x + mlp(norm2(x)).

    The query is not normalized, and the attention has no output projection.

    Args:
        width: channels.
        heads: number of heads.
        hidden: channels inside of the MLP.
        eps: epsilon of the normalizations.
    """

    def __init__(self, width: int, heads: int, *, hidden: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.xattn = CrossAttention(width, heads, project=False)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, hidden)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        """Map queries (N, n, width) and tokens (N, tokens, width) to (N, n, width)."""
        x = query + self.xattn(query, tokens, self.norm1)
        return x + self.mlp(x, self.norm2)


class AttentivePool(nn.Module):
    """Attentive pooler of V-JEPA: self-attention blocks, then cross-attention of one trained query.

    The blocks have no positions. Source: src/models/attentive_pooler.py of facebookresearch/vjepa2.

    Args:
        width: channels of the tokens.
        depth: number of blocks, the cross-attention included.
        heads: number of heads; None: see `default_heads`.
        eps: epsilon of the normalizations: 1e-5 in the original, 1e-6 in Hugging Face transformers.
    """

    def __init__(self, width: int, *, depth: int = 4, heads: int | None = None, eps: float = 1e-5) -> None:
        super().__init__()
        heads = heads or default_heads(width)
        hidden = 4 * width
        self.heads = heads
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, hidden=hidden, eps=eps) for _ in range(depth - 1))
        self.cross_attention_block = CrossAttentionBlock(width, heads, hidden=hidden, eps=eps)
        initialize(self)
        nn.init.trunc_normal_(self.query_tokens, std=0.02)
        for number, block in enumerate(self.blocks, 2):
            rescale_residuals(block, number)
        with torch.no_grad():
            self.cross_attention_block.mlp.fc2.weight.div_(math.sqrt(2))

    def adapt(self, *, heads: int, eps: float) -> None:
        """Change the number of heads and the epsilon, in place; no parameter changes.

        Raises:
            UserError: the width is not a multiple of `heads`.
        """
        check_heads(self.query_tokens.shape[2], heads)
        self.heads = heads
        for module in self.modules():
            if isinstance(module, Attention | CrossAttention):
                module.heads = heads
            elif isinstance(module, nn.LayerNorm):
                module.eps = eps

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, tokens, width) to vectors (N, width)."""
        for block in self.blocks:
            tokens = block(tokens)
        query = self.query_tokens.expand(tokens.shape[0], -1, -1)
        return self.cross_attention_block(query, tokens).squeeze(1)


class MapPool(nn.Module):
    """Attention pooling of SigLIP: cross-attention of one trained query, then x + mlp(norm(x)).

    Args:
        width: channels of the tokens.
        heads: number of heads; None: heads of 64 channels, or of the next larger number that divides the
            width.
        eps: epsilon of the normalization.
    """

    def __init__(self, width: int, *, heads: int | None = None, eps: float = 1e-6) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        most = max(1, width // 64)
        heads = heads or max(number for number in range(1, most + 1) if width % number == 0)
        self.attention = CrossAttention(width, heads, project=True)
        self.norm = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, 4 * width)
        initialize(self)
        nn.init.trunc_normal_(self.latent, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, tokens, width) to vectors (N, width)."""
        x = self.attention(self.latent.expand(tokens.shape[0], -1, -1), tokens)
        return (x + self.mlp(x, self.norm)).squeeze(1)


def rescale_residuals(block: nn.Module, number: int) -> None:
    """Divide the initial output weights of both branches of block `number` (from 1) by sqrt(2 · number).

    The initialization of V-JEPA: the variance of the tokens then grows slowly with the depth.
    """
    with torch.no_grad():
        for name in ("attn.proj.weight", "mlp.fc2.weight"):
            block.get_parameter(name).div_(math.sqrt(2 * number))
