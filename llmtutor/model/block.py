"""Chapter 09, the transformer: one block, two sub-layers around the residual stream."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.layers.attention.cache import Cache


class Block(nn.Module):
    """A mixer moves information between positions, a feed-forward part works on each by itself.

    - ``"pre"``: ``x + mixer(norm_1(x))``, then ``x + ffn(norm_2(x))``. The stream itself is never
      normalised, so the gradient reaches the first block unchanged (Xiong et al. 2020).
    - ``"post"``: ``norm_1(x + mixer(x))``, then ``norm_2(x + ffn(x))`` (Vaswani et al. 2017).

    (batch, seq, d_model) → (batch, seq, d_model).

    Raises:
        ValueError: unknown placement.
    """

    def __init__(
        self,
        mixer: nn.Module,
        ffn: nn.Module,
        norm_1: nn.Module,
        norm_2: nn.Module,
        placement: Literal["pre", "post"] = "pre",
    ) -> None:
        super().__init__()
        if placement not in ("pre", "post"):
            raise ValueError(f"placement must be 'pre' or 'post', got {placement!r}")
        self.mixer, self.ffn = mixer, ffn
        self.norm_1, self.norm_2 = norm_1, norm_2
        self.placement = placement

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: Cache | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """What the two sub-layers add to ``x``, added; a ``cache`` is the mixer's own."""
        options = {} if cache is None else {"cache": cache}
        if self.placement == "pre":
            x = x + self.mixer(self.norm_1(x), **options)
            return x + self.ffn(self.norm_2(x))
        x = self.norm_1(x + self.mixer(x, **options))
        return self.norm_2(x + self.ffn(x))

    def extra_repr(self) -> str:
        """For ``print(model)``."""
        return f"placement={self.placement!r}"
