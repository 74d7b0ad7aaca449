"""What chapter 05 says of T5's encoder and of torch's fused kernels, neither of which it runs."""

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from transformers.models.t5.modeling_t5 import T5Attention


def test_the_encoder_of_t5_gives_half_of_its_buckets_to_each_direction() -> None:
    keys_minus_query = torch.arange(-300, 301)
    buckets = T5Attention._relative_position_bucket(keys_minus_query, bidirectional=True)
    back, ahead = buckets[:301], buckets[301:]
    assert sorted(set(back.tolist())) == list(range(16))
    assert sorted(set(ahead.tolist())) == list(range(17, 32))  # 16 would be 0 tokens ahead
    alone = [b for b in range(16) if (back == b).sum() == 1]
    assert alone == list(range(8))  # 8 of the 16 hold one distance each


def kernel(learned: bool) -> set[str]:
    q = torch.randn(1, 2, 8, 4, requires_grad=True)
    bias = torch.randn(1, 2, 8, 8, requires_grad=learned)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        F.scaled_dot_product_attention(q, q, q, attn_mask=bias)
    names = {event.key for event in profiled.key_averages()}
    return {name for name in names if name.startswith("aten::_scaled_dot_product")}


def test_on_the_cpu_a_learned_bias_leaves_the_fused_kernel() -> None:
    assert kernel(learned=False) == {"aten::_scaled_dot_product_flash_attention_for_cpu"}
    assert kernel(learned=True) == {"aten::_scaled_dot_product_attention_math"}


def test_a_fused_kernel_of_the_gpu_returns_the_gradient_of_a_bias() -> None:
    """Beside those of queries, keys and values; the kernel of the CPU has no fourth."""
    aten = torch.ops.aten
    on_gpu = aten._scaled_dot_product_efficient_attention_backward.default._schema
    on_cpu = aten._scaled_dot_product_flash_attention_for_cpu_backward.default._schema
    assert (len(on_gpu.returns), len(on_cpu.returns)) == (4, 3)
