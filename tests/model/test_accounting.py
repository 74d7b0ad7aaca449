"""Costs by arithmetic against costs measured: built models, torch's counter, live memory."""

import weakref
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from llmtutor.layers.ffn import MLPConfig
from llmtutor.layers.positions import AttentionPositionConfig, EmbeddingPositionConfig
from llmtutor.layers.registry import kinds
from llmtutor.model.accounting import (
    activation_bytes,
    backward_flops,
    cache_bytes,
    forward_flops,
    parameters,
)
from llmtutor.model.changes import FFNS
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, build, preset

POSITIONS = [*kinds(AttentionPositionConfig), *kinds(EmbeddingPositionConfig)]
SMALL = preset("llama-nano", n_layers=2, d_model=32, n_heads=4, d_ff=88, vocab_size=200)
VARIANTS = [
    *({"position": p} for p in POSITIONS),
    *({"ffn": f, "bias": i % 2 == 0} for i, f in enumerate(FFNS)),
    *(
        {"norm": n, "norm_placement": p, "bias": n == "layernorm", "tie_weights": p == "post"}
        for n, p in product(("layernorm", "rmsnorm"), ("pre", "post"))
    ),
    *({"norm_placement": p} for p in ("res-post", "sandwich")),
    {"qk_norm": "rmsnorm"},
    {"qk_norm": "rmsnorm", "qk_norm_over": "heads", "n_kv_heads": 2},
    *({"n_kv_heads": n, "bias": n < 4} for n in (1, 2, 4)),
    {"head_dim": 12, "output_bias": True},
    {"softcap": 3.0},
    {"sinks": True},
    {"gate": True, "bias": True},
    {"logit_softcap": 3.0},
    {"window": 8},
    {"ffn": "clamped-mlp"},
    {"ffn": "moe", "n_experts": 4},
    {"ffn": "moe", "n_experts": 6, "top_k": 3, "shared": MLPConfig(30), "shared_gate": True},
    {"mixer": "differential"},
    {"mixer": "differential", "gain": False, "n_kv_heads": 2, "sinks": True},
    {"mixer": "differential", "position": "alibi", "window": 8},
    {"mixer": "differential-v2"},
    {"mixer": "differential-v2", "n_kv_heads": 2, "sinks": True, "gate": True},
    {"mixer": "differential", "gate": True},
    {"mixer": "mla"},
    {"mixer": "mla", "q_rank": 12, "kv_rank": 20, "rope_dim": 6, "v_dim": 14},
    {"mixer": "mla", "latent_norm": None, "q_rank": 12, "position": "none", "n_heads": 2},
    {"mixer": "mamba", "ffn": "no-ffn", "norm_placement": "sandwich"},
    {"mixer": "s4d"},
    {"mixer": "convolved-attention", "n_kv_heads": 2},
    {"mixer": "streaming", "window": 8},
    {"mixer": "streaming", "window": 8, "position": "alibi", "n_kv_heads": 2},
    {"mixer": "blockwise-linformer", "window": 8, "n_kv_heads": 2},
]
WITH_A_STATE = [
    {"mixer": "linear-attention"},
    {"mixer": "linear-attention", "features": "silu", "normalise": "output", "conv_width": 3},
    {"mixer": "delta-net"},
    {
        "mixer": "delta-net",
        "fades": False,
        "output_gate": False,
        "n_value_heads": 8,
        "conv_width": None,
    },
]


def name_of(case: dict | int | ModelConfig) -> str:
    """What sets a case apart."""
    if isinstance(case, dict):
        return "-".join(map(str, case.values()))
    return next((name for name, config in PRESETS.items() if config is case), str(case)[:40])


def variant(changes: dict) -> ModelConfig:
    return SMALL.replace(**changes)


# Parameters ---------------------------------------------------------------------------------------


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("changes", [*PRESETS.values(), *VARIANTS], ids=name_of)
def test_parameters_are_exact(changes) -> None:
    config = changes if isinstance(changes, ModelConfig) else variant(changes)
    with torch.device("meta"):
        model = build(config)
    counted = parameters(config)
    assert counted.total == count(model)
    assert counted.embedding == count(model.embedding)
    assert counted.head == (0 if config.tie_weights else count(model.head))
    assert counted.ffns == sum(count(b.ffn) for b in model.blocks if b.ffn is not None)
    outside = ("norm_1", "norm_2", "after_1", "after_2")
    norms = [getattr(block, name) for block in model.blocks for name in outside]
    assert counted.norms == sum(map(count, filter(None, [model.norm, *norms])))
    one = config.blocks[0].ffn
    idle = (
        (one.n_experts - one.router.top_k) * count(model.blocks[0].ffn.experts[0])
        if (one.kind == "moe")
        else 0
    )
    assert counted.active == counted.total - config.n_layers * idle


def test_parameters_that_others_published() -> None:
    assert parameters(PRESETS["gpt2"]).total == 124_439_808
    # GPT-2 XL has 1,557,611,200; Llama 7B 6,738,415,616 (their checkpoints).
    xl = preset("gpt2", n_layers=48, d_model=1600, n_heads=25, d_ff=6400)
    assert parameters(xl).total == 1_557_611_200
    llama = preset("llama", n_layers=32, d_model=4096, n_heads=32, d_ff=11008)
    assert parameters(llama).total == 6_738_415_616


# FLOPs --------------------------------------------------------------------------------------------


def counted_flops(config: ModelConfig, batch: int, seq: int, backward: bool) -> int:
    """By torch's counter, which knows the products of the unfused path."""
    model, ids = build(config), torch.zeros(batch, seq, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        logits = model(ids)
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


NANO = [preset(name) for name in PRESETS if "nano" in name]


@pytest.mark.parametrize("changes", [*NANO, *VARIANTS], ids=name_of)
@pytest.mark.parametrize(("batch", "seq"), [(3, 17)])
def test_flops_are_those_of_the_counter(changes, batch, seq) -> None:
    config = changes if isinstance(changes, ModelConfig) else variant(changes)
    if any(getattr(block.mixer, "window", None) for block in config.blocks):
        pytest.skip("a window counts the band, the counter the square: see test_completeness")
    if any(block.mixer.kind == "s4d" for block in config.blocks):
        pytest.skip("a whole text goes through Fourier transforms, a token through products")
    forward = forward_flops(config, batch, seq)
    assert forward == pytest.approx(counted_flops(config, batch, seq, False), rel=0.01)
    both = forward + backward_flops(config, batch, seq)
    assert both == pytest.approx(counted_flops(config, batch, seq, True), rel=0.01)


def test_flops_by_hand() -> None:
    """One layer, d = 2, d_ff = 3 (two matrices), V = 5, 4 tokens."""
    config = ModelConfig.uniform(
        vocab_size=5, max_seq_len=4, n_layers=1, d_model=2, n_heads=1, d_ff=3, ffn="relu"
    )
    matrices = 4 * (2 * 2) + 2 * (2 * 3) + 5 * 2  # 38 entries, 4 tokens, 2 operations
    scores = 2 * (4 * 4 * 2)  # q kᵀ and weights · v: 16 pairs of 2 channels
    assert forward_flops(config, 1, 4) == 2 * 4 * matrices + 2 * scores == 432
    assert forward_flops(config, 2, 4) == 2 * 432
    assert backward_flops(config, 1, 4) == 864


# Bytes --------------------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """Bytes of all tensors made inside the block: alive ``now``, and at most (``peak``)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {
            t.untyped_storage().data_ptr()
            for t in tree_leaves((args, kwargs))
            if torch.is_tensor(t)
        }
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if torch.is_tensor(tensor) else None
            key = storage.data_ptr() if storage is not None else 0
            if key and key not in known and key not in self.sizes:
                self.sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, key)
        return out

    def freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def measured(config: ModelConfig, batch: int, seq: int, dtype: torch.dtype) -> dict[str, int]:
    """Peak of a forward pass, of forward and backward, and what autograd says that it saved."""
    model, ids = build(config).to(dtype), torch.zeros(batch, seq, dtype=torch.int64)
    upstream = torch.ones(batch, seq, config.vocab_size, dtype=dtype)
    with Live() as live:
        logits = model(ids)
        forward = live.peak
        logits.backward(upstream)
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(ids)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    return {
        "forward": forward,
        "both": live.peak,
        "saved": kept + logits.untyped_storage().nbytes(),
    }


SIZES = {
    "small": ({"n_layers": 2, "d_model": 64, "d_ff": 176, "vocab_size": 300}, 2, 64),
    "nano": ({}, 4, 128),
    "wide": ({"n_layers": 3, "d_model": 256, "n_heads": 8, "d_ff": 768}, 2, 256),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["gpt2-nano", "llama-nano", "baseline-nano"])
def test_activations_are_within_a_fifth_of_the_measured_peak(kind, size) -> None:
    changes, batch, seq = SIZES[size]
    config = preset(kind, **changes)
    predicted = activation_bytes(config, batch, seq)
    for what, bytes_ in measured(config, batch, seq, torch.float32).items():
        assert predicted == pytest.approx(bytes_, rel=0.2), what


@pytest.mark.parametrize("changes", [*VARIANTS, *WITH_A_STATE], ids=name_of)
def test_activations_of_each_part(changes) -> None:
    config = variant(changes)
    for dtype in (torch.float32, torch.float64):
        predicted = activation_bytes(config, 3, 96, dtype)
        assert predicted == pytest.approx(measured(config, 3, 96, dtype)["saved"], rel=0.1)


def test_cache_by_hand() -> None:
    config = preset("gpt2-nano")  # 4 layers, d = 128
    assert cache_bytes(config, 2, 10, torch.float64) == 2 * 4 * (2 * 10) * 128 * 8
    assert cache_bytes(config, 1, 256, torch.bfloat16) == 2 * 4 * 256 * 128 * 2


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_is_what_the_model_sets_aside(n_kv_heads, dtype) -> None:
    config = SMALL.replace(n_kv_heads=n_kv_heads)
    made = build(config).to(dtype).make_caches(3, 50)
    assert made.nbytes == cache_bytes(config, 3, 50, dtype)
    assert made.nbytes * 4 == cache_bytes(SMALL, 3, 50, dtype) * n_kv_heads


@pytest.mark.parametrize("function", [forward_flops, activation_bytes, cache_bytes])
def test_what_does_not_fit_is_refused(function) -> None:
    with pytest.raises(ValueError, match="seq <= max_seq_len = 256, got batch = 1, seq = 257"):
        function(SMALL, 1, 257)
    with pytest.raises(ValueError, match="batch >= 1"):
        function(SMALL, 0, 5)


def test_half_precision_activations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float32 or torch.float64, got torch.bfloat16"):
        activation_bytes(SMALL, 1, 5, torch.bfloat16)
