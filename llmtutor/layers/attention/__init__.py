"""Attention: ``attention`` and its masks, and the layers built on them."""

# ruff: noqa: F401 (the names that readers import)
from llmtutor.layers.attention.cache import KVCache, WindowCache
from llmtutor.layers.attention.core import attention, attention_weights, fused_attention
from llmtutor.layers.attention.grouping import first_heads, mean_pool_heads
from llmtutor.layers.attention.heads import Attention, AttentionConfig
from llmtutor.layers.attention.latent import LatentAttention, LatentAttentionConfig
from llmtutor.layers.attention.latent_cache import LatentCache
from llmtutor.layers.attention.masks import causal_mask, padding_mask, sliding_window_mask
from llmtutor.layers.mixer import Cache
