"""Chapter 14, gqa: projections whose heads of keys and values become fewer."""

from jaxtyping import Float
from torch import Tensor


def mean_pool_heads(
    weight: Float[Tensor, "out *d_in"], n_heads: int, n_kv_heads: int
) -> Float[Tensor, "new_out *d_in"]:
    """A key or value projection of ``n_heads`` heads cut down to ``n_kv_heads``: group means.

    The start of uptraining (Ainslie et al. 2023, section 2.1). ``weight`` is (n_heads · head_dim,
    d_in), or a bias (n_heads · head_dim,).

    >>> import torch
    >>> mean_pool_heads(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2, 1)  # heads (1, 2) and (3, 4)
    tensor([2., 3.])

    Raises:
        ValueError: rows that do not divide among the heads, ``n_kv_heads`` no divisor of
            ``n_heads``.
    """
    return _groups(weight, n_heads, n_kv_heads).mean(1).flatten(0, 1)


def first_heads(
    weight: Float[Tensor, "out *d_in"], n_heads: int, n_kv_heads: int
) -> Float[Tensor, "new_out *d_in"]:
    """As ``mean_pool_heads``, errors too, but the first head of each group stays, the others go.

    The paper's figure 4 compares the two.

    >>> import torch
    >>> first_heads(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2, 1)
    tensor([1., 2.])
    """
    return _groups(weight, n_heads, n_kv_heads)[:, 0].flatten(0, 1)


def _groups(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    """(n_heads · head_dim, …) → (n_kv_heads, heads of a group, head_dim, …)."""
    check_groups(n_heads, n_kv_heads)
    if weight.ndim == 0 or weight.shape[0] % n_heads:
        raise ValueError(
            f"the first dimension must be n_heads · head_dim with n_heads = {n_heads}, "
            f"got shape {tuple(weight.shape)}"
        )
    return weight.unflatten(0, (n_kv_heads, n_heads // n_kv_heads, -1))


def check_groups(n_heads: int, n_kv_heads: int) -> None:
    """Raise ``ValueError`` unless ``n_kv_heads`` heads can share ``n_heads`` queries evenly."""
    if n_kv_heads < 1 or n_heads < 1 or n_heads % n_kv_heads:
        raise ValueError(
            "n_kv_heads must divide n_heads, both at least 1: "
            f"got n_heads = {n_heads}, n_kv_heads = {n_kv_heads}"
        )
