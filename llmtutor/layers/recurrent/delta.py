"""Chapter 25, linear_attention: a memory that looks up what it holds before it writes.

Linear attention adds to what is stored under a key; the delta rule replaces it. With what the state
returns for the key, ``S_{t−1}ᵀ k_t``, only the error is written:
``S_t = S_{t−1} + k_t (β_t (v_t − S_{t−1}ᵀ k_t))ᵀ``. The gated form lets the whole state fade first.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from llmtutor.layers.recurrent.heads import CHUNK, cut, join_chunks

Keys = Float[Tensor, "*batch seq d_key"]
Values = Float[Tensor, "*batch seq d_value"]
State = Float[Tensor, "*batch d_key d_value"]
Numbers = Float[Tensor, "*batch seq"]
Solve = Callable[[Tensor, Tensor], Tensor]


def unit_keys(x: Float[Tensor, "*batch d"], eps: float = 1e-6) -> Float[Tensor, "*batch d"]:
    """Each vector divided by its length, ``x / √(Σ x² + eps)``."""
    return x * torch.rsqrt(torch.linalg.vecdot(x, x).unsqueeze(-1) + eps)


def delta_rule_recurrent(
    q: Keys,
    k: Keys,
    v: Values,
    write: Numbers,
    log_keep: Numbers | None = None,
    state: State | None = None,
) -> tuple[Values, State]:
    """The delta rule token by token; returns what the queries read, and the last state.

    For each token: the state fades to ``exp(log_keep)`` of itself (Yang et al. 2024b, eq. 10; None
    for not at all), the error of what it returns for the key is written back as far as ``write`` =
    β says, and the query reads. With keys of length 1 and β = 1 the key returns exactly v then.

    >>> k, v = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[5.0], [7.0]])  # one key, two values
    >>> delta_rule_recurrent(k, k, v, torch.ones(2))[0]
    tensor([[5.],
            [7.]])
    """
    state = k.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1]) if state is None else state
    outputs = []
    for t in range(k.shape[-2]):
        query, key, value = (x[..., t : t + 1, :] for x in (q, k, v))
        if log_keep is not None:
            state = state * log_keep[..., t, None, None].exp()
        error = value - key @ state
        state = state + key.mT @ (write[..., t, None, None] * error)
        outputs.append(query @ state)
    return torch.cat(outputs, dim=-2), state


def solve_by_halves(
    lower: Float[Tensor, "*batch n n"], right: Float[Tensor, "*batch n d"]
) -> Float[Tensor, "*batch n d"]:
    """X with ``(I + lower) X = right``, for ``lower`` with nothing on or above its diagonal.

    The upper half of the equations does not know the lower half; once it is solved, it is put in
    there. ``torch.linalg.solve_triangular`` is the same, in one kernel that ONNX does not have.
    """
    n = lower.shape[-1]
    if n == 1:
        return right
    half = n // 2
    top = solve_by_halves(lower[..., :half, :half], right[..., :half, :])
    rest = right[..., half:, :] - lower[..., half:, :half] @ top
    return torch.cat((top, solve_by_halves(lower[..., half:, half:], rest)), dim=-2)


def delta_rule_chunked(
    q: Keys,
    k: Keys,
    v: Values,
    write: Numbers,
    log_keep: Numbers | None = None,
    state: State | None = None,
    *,
    chunk: int = CHUNK,
    solve: Solve = solve_by_halves,
) -> tuple[Values, State]:
    """As ``delta_rule_recurrent``, in chunks whose tokens are worked on together.

    What token t of a chunk writes, ``u_t = β_t (v_t − S_{t−1}ᵀ k_t)``, depends on what those before
    it wrote: ``u_t = β_t (v_t − S_0ᵀ k_t − Σ_{i<t} (k_i · k_t) u_i)``. For all t at once that is a
    triangular system, ``(I + diag(β) tril(K Kᵀ, −1)) U = diag(β) (V − K S_0)``, solved before S_0
    is known by solving for V and for K (Yang et al. 2024a, section 3; with fading, 2024b). Then
    each chunk takes a few matrix products to hand its state to the next.
    """
    seq = k.shape[-2]
    fades = torch.zeros_like(write) if log_keep is None else log_keep
    q, k, v = (cut(x, chunk) for x in (q, k, v))
    write, fades = (cut(x[..., None], chunk) for x in (write, fades))
    total = fades.cumsum(-2)  # the logarithm of what is left of S_0 at each token
    kept = (total - total.mT).tril().exp().tril()  # … at token t of what token i wrote
    before, left = total.exp(), (total[..., -1:, :] - total).exp()
    from_values, from_state = solve(
        (write * (k @ k.mT) * kept).tril(-1), write * torch.cat((v, before * k), dim=-1)
    ).split((v.shape[-1], k.shape[-1]), dim=-1)
    seen, asked, handed = (q @ k.mT) * kept, before * q, (left * k).mT
    state = torch.zeros_like(k[..., 0, :1, :].mT * v[..., 0, :1, :]) if state is None else state
    outputs = []
    for c in range(k.shape[-3]):
        written = from_values[..., c, :, :] - from_state[..., c, :, :] @ state
        outputs.append(asked[..., c, :, :] @ state + seen[..., c, :, :] @ written)
        state = before[..., c, -1:, :] * state + handed[..., c, :, :] @ written
    return join_chunks(torch.stack(outputs, dim=-3), seq), state
