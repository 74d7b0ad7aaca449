"""Chapter 03, language modelling: the first neural model that looks at more than one token.

Counts of long contexts are rare and know nothing of each other: *the cat sat* says nothing about
*the dog sat*. A model over embeddings shares what it learns between tokens that are used alike.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.layers.basic import HEAD, Embedding, Layer, Linear, check_ids, tag


class WindowMLP(Layer):
    """``tanh(x W₁ + b₁) W₂ + b₂`` with x the embeddings of the last ``window`` tokens side by side.

    ids (batch, seq) → x (batch, seq, window · d_embedding), the oldest first → hidden
    (batch, seq, d_hidden) → logits of the next token (batch, seq, vocab_size). Before the text
    stands a "nothing" that is no token and has an embedding of its own, so each place has a full
    window and none sees a later token. Bengio et al. (2003), equation 1, without the direct
    connections W from x to the logits, whose use the paper leaves open (section 4.2).

    >>> import torch
    >>> model = WindowMLP(65, window=3, d_embedding=4, d_hidden=8)
    >>> model(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 65])

    Raises:
        ValueError: sizes below 1; ids that are not integers of shape (batch, seq), or lie outside
            the vocabulary.
    """

    def __init__(self, vocab_size: int, window: int, d_embedding: int, d_hidden: int) -> None:
        sizes = {"window": window, "d_embedding": d_embedding, "d_hidden": d_hidden}
        super().__init__(vocab_size=vocab_size, **sizes)
        check_at_least(1, vocab_size=vocab_size, **sizes)
        self.vocab_size, self.window = vocab_size, window
        self.embedding = Embedding(vocab_size + 1, d_embedding)  # the last row is "nothing"
        self.hidden = Linear(window * d_embedding, d_hidden, bias=True)
        self.head = tag(Linear(d_hidden, vocab_size, bias=True), HEAD)

    def forward(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the token after each place."""
        if ids.ndim != 2 or 0 in ids.shape:
            raise ValueError(
                f"ids must be (batch, seq) with at least one token, got shape {tuple(ids.shape)}"
            )
        check_ids(ids, self.vocab_size)  # the embedding would take the id of "nothing"
        padded = F.pad(ids.long(), (self.window - 1, 0), value=self.vocab_size)
        # (batch, seq, d_embedding, window), then a window's vectors side by side
        windows = self.embedding(padded).unfold(1, self.window, 1)
        return self.head(self.hidden(windows.mT.flatten(2)).tanh())
