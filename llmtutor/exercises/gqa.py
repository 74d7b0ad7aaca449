"""Chapter 14, gqa: its exercises and the mistakes learners make there."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from llmtutor.exercises.core import Exercise, Property, Wrong
from llmtutor.layers.attention import attention

# Exercise 1: how many requests a server holds.

Server = tuple[int, int, int, int, int, int, int]


def _server_cases() -> Iterator[Server]:
    yield 600, 2, 1, 4, 2, 5, 4
    yield 62_361_573_376, 8, 80, 8, 128, 8192, 2
    yield 62_361_573_376, 8, 80, 2, 128, 8192, 2
    yield 23_000_000_000, 4, 16, 8, 64, 4096, 2


def requests_that_fit(
    free: int, n_gpus: int, n_layers: int, n_kv_heads: int, head_dim: int, seq: int, size: int
) -> int:
    """Requests of ``seq`` tokens whose caches fit on ``n_gpus``, with ``free`` bytes on each.

    KV heads are shared out whole: where there are fewer than GPUs, each GPU keeps one, and some
    keep the same. A number takes ``size`` bytes.

    >>> requests_that_fit(600, 2, 1, 4, 2, 5, 4)  # two heads on each, 160 bytes
    3
    """
    return free // _on_each(n_gpus, n_layers, n_kv_heads, head_dim, seq, size)


def _on_each(
    n_gpus: int, n_layers: int, n_kv_heads: int, head_dim: int, seq: int, size: int
) -> int:
    """Bytes of one request on a GPU."""
    return 2 * n_layers * max(1, n_kv_heads // n_gpus) * head_dim * seq * size


def _keys_only(free: int, *server: int) -> int:
    return 2 * free // _on_each(*server)


def _parts_of_a_head(free: int, n_gpus: int, *rest: int) -> int:
    return n_gpus * free // _on_each(1, *rest)


def _on_all_gpus(free: int, n_gpus: int, *rest: int) -> int:
    return free // _on_each(1, *rest)


def _one_layer(free: int, n_gpus: int, n_layers: int, *rest: int) -> int:
    return free // _on_each(n_gpus, 1, *rest)


def _rounded_up(free: int, *server: int) -> int:
    return -(-free // _on_each(*server))


# Exercise 2: pages, some of them shared.


def _page_cases() -> Iterator[tuple[list[int], int, int]]:
    yield [10, 7], 6, 2
    yield [5, 9, 16], 0, 4
    yield [40, 41, 55], 37, 16
    yield [8, 8], 8, 4


def pages(lengths: list[int], prefix: int, page: int) -> int:
    """Pages of ``page`` tokens for requests whose first ``prefix`` tokens are the same.

    A page that lies whole in the prefix is kept once; others belong to one request.

    >>> pages([10, 7], prefix=6, page=2)  # three for both, two more and one more
    6
    """
    shared = prefix // page
    return shared + sum(-(-length // page) - shared for length in lengths)


def _nothing_shared(lengths: list[int], prefix: int, page: int) -> int:
    return sum(-(-length // page) for length in lengths)


def _begun_pages_shared(lengths: list[int], prefix: int, page: int) -> int:
    shared = -(-prefix // page)
    return shared + sum(max(0, -(-length // page) - shared) for length in lengths)


def _last_page_dropped(lengths: list[int], prefix: int, page: int) -> int:
    shared = prefix // page
    return shared + sum(length // page - shared for length in lengths)


def _one_long_text(lengths: list[int], prefix: int, page: int) -> int:
    return -(-(prefix + sum(length - prefix for length in lengths)) // page)


def _prefix_forgotten(lengths: list[int], prefix: int, page: int) -> int:
    shared = prefix // page
    return sum(-(-length // page) - shared for length in lengths)


# Exercise 3: the layer whole.


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def _layer_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int, int]]:
    for seed, batch, seq, d_model, n_heads, n_kv_heads in (
        (20, 1, 3, 8, 4, 2),
        (30, 2, 4, 12, 6, 2),
        (40, 2, 5, 8, 4, 1),
    ):
        width = n_kv_heads * d_model // n_heads
        w_q, w_o = _normal(seed, d_model, d_model), _normal(seed + 1, d_model, d_model)
        w_k, w_v = _normal(seed + 2, width, d_model), _normal(seed + 3, width, d_model)
        yield _normal(seed + 4, batch, seq, d_model), w_q, w_k, w_v, w_o, n_heads, n_kv_heads


def _layer(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The layer around an attention of q (batch, n_heads, seq, head_dim) and k, v of fewer heads.

    Its arguments have the names that ``grouped`` has.
    """

    def layer(
        x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int, n_kv_heads: int
    ) -> Tensor:
        q = (x @ w_q.T).unflatten(-1, (n_heads, -1)).transpose(1, 2)
        k, v = ((x @ w.T).unflatten(-1, (n_kv_heads, -1)).transpose(1, 2) for w in (w_k, w_v))
        return attend(q, k, v).transpose(1, 2).flatten(2) @ w_o.T

    return layer


def grouped(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, n_heads: int, n_kv_heads: int
) -> Tensor:
    """Causal grouped-query attention, (batch, seq, d_model) → the same shape.

    ``w_k`` and ``w_v`` are (n_kv_heads · head_dim, d_model); query head h looks at the keys and
    values of head h // (n_heads / n_kv_heads).
    """
    return _layer(_causal)(x, w_q, w_k, w_v, w_o, n_heads, n_kv_heads)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v, causal=True)


def _in_turns(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = (part.repeat(1, q.shape[1] // part.shape[1], 1, 1) for part in (k, v))
    return _causal(q, k, v)


def _one_head_for_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _causal(q, k[:, :1], v[:, :1])


def _scaled_by_the_group(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    group = q.shape[1] // k.shape[1]
    return attention(q, k, v, causal=True, scale=(group * q.shape[-1]) ** -0.5)


def _masked_as_one_text(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Folded, but row i of the folded queries sees the keys up to i."""
    folded = q.reshape(*k.shape[:2], -1, q.shape[-1])
    rows, columns = torch.arange(folded.shape[2])[:, None], torch.arange(k.shape[2])
    return attention(folded, k, v, mask=columns <= rows).reshape(q.shape)


EXERCISES = [
    Exercise(
        name="gqa.requests_that_fit",
        cases=_server_cases,
        reference=requests_that_fit,
        wrong=[
            Wrong(
                _keys_only,
                "Twice as many as fit: a value is kept beside every key.",
            ),
            Wrong(
                _parts_of_a_head,
                "With fewer KV heads than GPUs this gives each a part of a head. Heads are shared "
                "out whole, so every GPU needs one, and some keep the same.",
            ),
            Wrong(
                _on_all_gpus,
                "Here every GPU keeps all KV heads. It needs those that its own queries read.",
            ),
            Wrong(
                _one_layer,
                "This is one layer. Each has keys and values of its own.",
            ),
            Wrong(
                _rounded_up,
                "The last of them does not fit any more: round down.",
            ),
        ],
    ),
    Exercise(
        name="gqa.pages",
        cases=_page_cases,
        reference=pages,
        properties=[
            Property(
                "there is room for every token of the longest request",
                lambda got, lengths, prefix, page: got * page >= max(lengths),
            ),
        ],
        wrong=[
            Wrong(
                _nothing_shared,
                "Each request has the prefix to itself here. Its full pages hold the same keys and "
                "values for all, so one copy is enough.",
            ),
            Wrong(
                _begun_pages_shared,
                "The last page of the prefix may be full only in part. Each request writes its own "
                "next token there, so that page cannot be shared.",
            ),
            Wrong(
                _last_page_dropped,
                "Division rounds down, so the tokens of the last page that is begun have no room.",
            ),
            Wrong(
                _one_long_text,
                "The tokens are counted as one long text. Two requests never write into the same "
                "page, so each ends with a page that is full only in part.",
            ),
            Wrong(
                _prefix_forgotten,
                "The pages of the prefix are missing: they are kept once, not never.",
            ),
        ],
    ),
    Exercise(
        name="gqa.grouped",
        cases=_layer_cases,
        reference=grouped,
        wrong=[
            Wrong(
                _layer(_in_turns),
                "Query heads take keys and values in turns, h modulo n_kv_heads. Neighbours "
                "share: h divided by the size of a group, rounded down.",
            ),
            Wrong(
                _layer(_one_head_for_all),
                "All query heads look at the first head of keys and values; the others are never "
                "used.",
            ),
            Wrong(
                _layer(attention),
                "Nothing is masked, so every position sees the future.",
            ),
            Wrong(
                _layer(_scaled_by_the_group),
                "The scores are divided by the root of d_model / n_kv_heads. Heads are as wide as "
                "ever, d_model / n_heads; there are fewer of them.",
            ),
            Wrong(
                _layer(_masked_as_one_text),
                "The folded queries are masked like one long sequence. Each head of the group "
                "begins again at position 0, so the mask has to be applied head by head.",
            ),
        ],
    ),
]
