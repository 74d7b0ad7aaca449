"""For speed alone: a token's step as one compiled program.

In a small model most of a token's time goes into starting some hundred small operations from
Python, one after the other. ``torch.compile`` makes one program of them.
"""

from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.fast.compiling import compiled, prepared, twin
from llmtutor.model.caches import Caches
from llmtutor.model.transformer import Transformer


class Compiled:
    """A model that reads one more token with a compiled program, and all else as it is.

    It stands in for the model: ``generate(Compiled(model), prompts, …)`` gives the ids that
    ``generate(model, prompts, …)`` does, up to rounding. The prompt is read without compiling. The
    program is made at the first token after it, which takes tens of seconds; it serves any length,
    and is made again for another batch, for prompts padded otherwise (some or none), another dtype,
    device or number of threads.

    Raises:
        ValueError: a model on the CPU, and no C++ compiler.
    """

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.config, self.embedding = model.config, model.embedding
        self.make_caches = model.make_caches
        # Dynamic, or each length of the past would be a program of its own.
        step = prepared(twin(model)).forward
        self._step = compiled(step, model.embedding.weight.device, dynamic=True)

    def __call__(
        self,
        ids: Int[Tensor, "batch seq"],
        *,
        cache: Caches | None = None,
        logits_to_keep: int | None = None,
    ) -> Float[Tensor, "batch logits_to_keep vocab"]:
        """As ``Transformer``: logits of the token after each position, or the last of them."""
        one_more = cache is not None and ids.ndim == 2 and ids.shape[1] == 1
        if one_more and logits_to_keep == 1:
            logits_to_keep = None  # the same, and one program for both
        read = self._step if one_more else self.model
        return read(ids, cache=cache, logits_to_keep=logits_to_keep)
