"""Chapter 18, moe: what the files of models with experts have in common."""

from dataclasses import replace
from typing import Any

from llmtutor.interop.hf.family import of_kind
from llmtutor.interop.hf.keys import Keys
from llmtutor.layers.ffn import FeedForwardConfig, GatedMLPConfig
from llmtutor.layers.moe import MoEConfig, RouterConfig
from llmtutor.model.config import ModelConfig

MOST = 4096
"""Experts beyond this are noise in a file."""


def read_experts(
    keys: Keys, expert: FeedForwardConfig, count: str, default: int, top_k: int, **router: Any
) -> MoEConfig:
    """Experts, as many as the key ``count`` says; ``default`` and ``top_k`` where keys are absent.

    Raises:
        KeyRefusedError: more experts for a token than there are.
    """
    n_experts = keys.size(count, default, most=MOST)
    chosen = keys.size("num_experts_per_tok", top_k, most=MOST)
    if chosen > n_experts:
        raise keys.refused("num_experts_per_tok", chosen, f"at most {count} = {n_experts}")
    return MoEConfig(expert, n_experts, RouterConfig(chosen, **router))


def mixture(config: ModelConfig, i: int) -> MoEConfig:
    """The experts of block ``i``.

    Raises:
        ValueError: a feed-forward part of another kind.
    """
    return of_kind(MoEConfig, config.blocks[i].ffn, f"blocks[{i}].ffn")


def dense_and_sparse(config: ModelConfig) -> tuple[GatedMLPConfig, MoEConfig | None]:
    """The dense feed-forward part, which an expert stands for if there is none, and the experts.

    Raises:
        ValueError: a dense part, or an expert in its place, of another kind.
    """
    kinds = {isinstance(block.ffn, MoEConfig): i for i, block in enumerate(config.blocks)}
    sparse = mixture(config, kinds[True]) if True in kinds else None
    dense = config.blocks[kinds[False]].ffn if False in kinds else sparse and sparse.expert
    return of_kind(GatedMLPConfig, dense, "a dense feed-forward part"), sparse


def without_experts(config: ModelConfig) -> ModelConfig:
    """The same, each mixture of experts replaced by one of them."""
    blocks = tuple(
        replace(block, ffn=block.ffn.expert) if isinstance(block.ffn, MoEConfig) else block
        for block in config.blocks
    )
    return replace(config, blocks=blocks)


def plain_experts(ffn: MoEConfig) -> MoEConfig:
    """The same for who evaluates: how it was trained is not said in a file."""
    moves = ffn.router.bias_rate is not None
    router = replace(ffn.router, bias_rate=0.0) if moves else ffn.router
    return MoEConfig(ffn.expert, ffn.n_experts, router, ffn.shared, ffn.shared_gate)
