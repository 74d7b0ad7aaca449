"""Chapter 15, mla: a trained multi-head model becomes one that keeps a latent of each token.

Keys and values of all heads are one long vector ``W x``, with W their projections laid one below
the other. Its best approximation by ``kv_rank`` numbers is the singular value decomposition's:
``W ≈ U Uᵀ W`` with the first columns of U. ``Uᵀ W x`` becomes the latent, and U brings back the
keys and values. With as many columns as W has rank nothing is lost, and since x has d_model
numbers, that many always do: half of what the cache of the heads holds.

This is for the components that do not turn. Those that RoPE turns cannot go into the latent, from
which a product with one fixed matrix must bring them back at every position. So the model has to
have both, as with ``rope_fraction=0.5``. The turned ones become the one key that all heads share:
a pair is a complex number, which RoPE multiplies by ``exp(i p ω)`` in every head alike, so the
same decomposition, in complex numbers, over the heads, pair by pair, finds the one number that
stands best for all of them; each head keeps its own factor, and its query takes that over. Where
the heads' turned keys are not multiples of each other this loses something, at any ``kv_rank``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from llmtutor.checks import check_at_least
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.attention.latent import LatentAttentionConfig
from llmtutor.layers.positions import NoPositionConfig, RopeConfig
from llmtutor.layers.positions.rope import Pairing, rotary_dim
from llmtutor.model.transformer import Transformer


@torch.no_grad()
def compress_heads(
    model: Transformer, kv_rank: int, texts: Int[Tensor, "batch seq"] | None = None
) -> Transformer:
    """A copy of ``model`` whose cache holds ``kv_rank`` numbers of a token, and what turns.

    ``texts`` are ids of text like that to come: then the keys and values that they have are
    brought back best, rather than those of inputs in which every direction is as likely. All other
    weights are copied, and ``model`` stays as it is. Training on is ``uptraining``, as in chapter
    14; ``latent_norm`` is None in the copy.

    >>> from llmtutor.model.presets import build, preset
    >>> mha = build(preset("llama-nano", n_layers=1, rope_fraction=0.25))
    >>> mla = compress_heads(mha, 56)
    >>> [m.make_caches(1, 1).nbytes // 4 for m in (mha, mla)]  # 2 · 128 numbers; 56 + 8
    [256, 64]

    Raises:
        ValueError: a mixer without heads, or with a part that latent attention lacks; positions
            that turn whole heads, or act on scores; ``kv_rank`` below 1 or above d_model.
    """
    check_at_least(1, kv_rank=kv_rank)
    roots = _input_roots(model, texts)
    state, blocks = model.state_dict(), []
    for i, block in enumerate(model.config.blocks):
        prefix = f"blocks.{i}.mixer."
        mixer, new = _compressed(block.mixer, model, prefix, kv_rank, roots[i], f"block {i}")
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]
        state |= {prefix + name: weight for name, weight in new.items()}
        blocks.append(replace(block, mixer=mixer))
    with torch.random.fork_rng(devices=[]):  # the first weights of the copy are thrown away
        made = Transformer(replace(model.config, blocks=tuple(blocks)))
    made.to(model.head.weight.device, model.head.weight.dtype)
    made.load_state_dict(state)
    return made.train(model.training)


def _compressed(
    mixer: Any, model: Transformer, prefix: str, kv_rank: int, root: Tensor, where: str
) -> tuple[LatentAttentionConfig, dict[str, Tensor]]:
    """Configuration and weights of latent attention in the place of a block's heads."""
    _check(mixer, where)
    d_model = model.config.d_model
    width, group = mixer.width(d_model), mixer.n_heads // mixer.kv_heads
    q, k, v = (
        model.get_parameter(f"{prefix}{name}.weight").unflatten(0, (-1, width)).double()
        for name in ("query", "key", "value")
    )
    rope = mixer.position if isinstance(mixer.position, RopeConfig) else None
    turned = 0 if rope is None else rotary_dim(width, rope.fraction)
    if turned == width:
        raise ValueError(
            f"{where} turns all {width} components of a head, which leaves no key that a latent "
            "could hold: train the model with rope_fraction below 1"
        )
    stacked = torch.cat((k[:, turned:].flatten(0, 1), v.flatten(0, 1)))
    if kv_rank > min(stacked.shape):
        raise ValueError(
            f"kv_rank must be at most {min(stacked.shape)} in {where}, whose heads make "
            f"{len(stacked)} keys and values that do not turn from {d_model} numbers: got {kv_rank}"
        )
    up, down = factors(stacked, kv_rank, root)
    k_up, v_up = up.split((len(k) * (width - turned), len(v) * width))
    weights = {
        "latent.weight": down,
        "key_up.weight": _for_queries(k_up.unflatten(0, (len(k), -1)), group),
        "value_up.weight": _for_queries(v_up.unflatten(0, (len(v), -1)), group),
    }
    queries = q[:, turned:]
    if rope is not None:
        turning, key = share_turned(q[:, :turned], k[:, :turned], rope.pairing, root)
        queries = torch.cat((queries, turning), dim=1)
        weights["rope_key.weight"] = key
    weights["query.weight"] = queries.flatten(0, 1)
    weights["output.weight"] = model.get_parameter(f"{prefix}output.weight")
    config = LatentAttentionConfig(
        mixer.n_heads,
        kv_rank,
        nope_dim=width - turned,
        rope_dim=turned,
        v_dim=width,
        position=NoPositionConfig() if rope is None else replace(rope, fraction=1.0),
        latent_norm=None,
        scale=mixer.scale,
    )
    return config, weights


def factors(
    weight: Float[Tensor, "out d_model"], rank: int, root: Float[Tensor, "d_model d_model"]
) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank d_model"]]:
    """Two matrices whose product is as near to ``weight`` as ``rank`` columns allow, and as large
    as each other: the nearest in what they give for inputs ``root · z``, z of variance 1.

    >>> up, down = factors(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), 1, torch.eye(2))
    >>> (up @ down).round(decimals=3) + 0.0
    tensor([[3., 0.],
            [0., 0.]])
    """
    u, s, _ = torch.linalg.svd(weight @ root, full_matrices=False)
    u, size = u[:, :rank], s[:rank].clamp(min=1e-6 * float(s[0])).sqrt()
    return u * size, u.T @ weight / size[:, None]


def share_turned(
    q: Float[Tensor, "n_heads turned d_model"],
    k: Float[Tensor, "n_kv_heads turned d_model"],
    pairing: Pairing,
    root: Float[Tensor, "d_model d_model"],
) -> tuple[Float[Tensor, "n_heads turned d_model"], Float[Tensor, "turned d_model"]]:
    """Queries and the one key whose products are nearest to those of every head's own key.

    For each pair of components: with keys ``k_h ≈ u_h s``, the u of length 1, the score
    ``Re(conj(q_h) k_h)`` is about ``Re(conj(conj(u_h) q_h) s)``.
    """
    keys, queries = as_complex(k, pairing), as_complex(q, pairing)
    u = torch.linalg.svd((keys @ root.to(keys.dtype)).transpose(0, 1), full_matrices=False)[0]
    u = u[:, :, 0].T  # one number for each head and pair
    shared = (u.conj()[..., None] * keys).sum(0)
    group = len(queries) // len(keys)
    queries = u.conj().repeat_interleave(group, 0)[..., None] * queries
    return from_complex(queries, pairing), from_complex(shared, pairing)


def as_complex(
    x: Float[Tensor, "*heads turned d_model"], pairing: Pairing
) -> Complex[Tensor, "*heads pairs d_model"]:
    """Each pair (a, b) of rows as a + ib."""
    if pairing == "half":
        return torch.complex(*x.chunk(2, dim=-2))
    return torch.complex(x[..., 0::2, :], x[..., 1::2, :])


def from_complex(
    z: Complex[Tensor, "*heads pairs d_model"], pairing: Pairing
) -> Float[Tensor, "*heads turned d_model"]:
    """The inverse of ``as_complex``."""
    if pairing == "half":
        return torch.cat((z.real, z.imag), dim=-2)
    return torch.stack((z.real, z.imag), dim=-2).flatten(-3, -2)


def _for_queries(rows: Tensor, group: int) -> Tensor:
    """(n_kv_heads, width, rank), each as often as it has query heads, one below the other."""
    return rows.repeat_interleave(group, 0).flatten(0, 1)


def _input_roots(model: Transformer, texts: Tensor | None) -> Sequence[Tensor]:
    """For each block R with ``R Rᵀ`` the mean of ``x xᵀ`` over what its mixer reads."""
    eye = torch.eye(model.config.d_model, dtype=torch.float64, device=model.head.weight.device)
    if texts is None:
        return [eye] * model.config.n_layers
    moments: list[Tensor] = []

    def note(_: Any, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, 1).double()
        moments.append(x.T @ x / len(x))

    mixers = [block.get_submodule("mixer") for block in model.blocks]
    hooks = [mixer.register_forward_pre_hook(note) for mixer in mixers]
    try:
        model(texts)
    finally:
        for hook in hooks:
            hook.remove()
    values = [torch.linalg.eigh(moment) for moment in moments]
    return [vectors * sizes.clamp(min=0).sqrt() for sizes, vectors in values]


def _check(mixer: Any, where: str) -> None:
    if not isinstance(mixer, AttentionConfig):
        raise ValueError(f"only attention has heads to compress, {where} has {mixer.kind!r}")
    if not isinstance(mixer.position, NoPositionConfig | RopeConfig):
        raise ValueError(
            f"{where} has position {mixer.position.kind!r}, latent attention 'rope' or 'none'"
        )
    plain = AttentionConfig(
        mixer.n_heads, mixer.n_kv_heads, mixer.head_dim, mixer.position, scale=mixer.scale
    )
    for name, value in mixer.values().items():
        if value != getattr(plain, name) and not (name == "output_bias" and not value):
            raise ValueError(
                f"{where} has {name} = {value!r}, which latent attention does not have"
            )
