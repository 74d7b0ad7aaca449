"""Chapter 11, training: an embedding that has already looked at the tokens before.

Attention has to learn to look at the last two or three tokens. Here each pair and each triple of
them is hashed to a row of a table, which is looked up at next to no cost.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.layers.basic import Embedding

KNUTH = 2_654_435_761  # 2³² divided by the golden ratio: neighbours are sent far apart
PRIME = 4_294_967_291  # the largest prime below 2³²


class NgramEmbedding(Embedding):
    """A row for the token, plus one for the last two tokens, plus one for the last three, …

    ``rows[0]`` is the number of rows of the table for pairs, ``rows[1]`` for triples, and so on.
    A run of n tokens, written as one number, is hashed to a row. Different runs may share one; the
    other tables tell them apart. In front of the sequence stands a "nothing" that is no token.
    ids (batch, seq) → vectors (batch, seq, d_model), and no place sees a later id.

    Tables for hashed n-grams: Bojanowski et al. 2017; as input of language models: Huang et al.
    2025. All tables start as in ``Embedding`` and refuse what it refuses.
    """

    def __init__(self, vocab_size: int, d_model: int, rows: Sequence[int]) -> None:
        super().__init__(vocab_size, d_model)
        self.rows = tuple(rows)
        self.tables = nn.ModuleList(Embedding(n, d_model) for n in rows)

    def forward(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq d_model"]:
        """The sum of one row of each table."""
        x = super().forward(ids)
        for table, rows, numbers in zip(self.tables, self.rows, self.numbers(ids), strict=True):
            x = x + table(numbers * KNUTH % PRIME % rows)
        return x

    def numbers(self, ids: Int[Tensor, "batch seq"]) -> list[Int[Tensor, "batch seq"]]:
        """Of pairs, triples, …: the run that ends at each place, as one number.

        >>> import torch
        >>> NgramEmbedding(9, 1, [5, 5]).numbers(torch.tensor([[1, 2, 3]]))  # 9 is "nothing"
        [tensor([[91, 12, 23]]), tensor([[991, 912, 123]])]
        """
        vocab_size = len(self.weight)
        number = before = ids.long()
        found = []
        for n in range(1, len(self.rows) + 1):
            before = F.pad(before, (1, 0), value=vocab_size)[:, :-1]
            number = number + before * (vocab_size + 1) ** n
            found.append(number)
        return found
