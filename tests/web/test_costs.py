"""Costs counted by the page's JavaScript against those of the package, number by number."""

import json
import random
import re
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
import torch

from llmtutor.experiments.rungs import LAST, RUNGS
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.layers.attention.latent import LatentAttentionConfig
from llmtutor.layers.ffn import GatedMLPConfig, MLPConfig
from llmtutor.layers.moe import MoEConfig, RouterConfig
from llmtutor.layers.norms import LayerNormConfig, RMSNormConfig
from llmtutor.layers.positions import LearnedPositionConfig, NoPositionConfig, RopeConfig
from llmtutor.model.accounting import cache_bytes, parameters, token_flops, training_bytes
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import preset
from llmtutor.model.published import PUBLISHED
from llmtutor.web.cost_sizes import cost_sizes
from llmtutor.web.cost_words import ROWS, SIZES
from llmtutor.web.costs import STARTS, cost_script, recorded_cost

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node runs the page's arithmetic here")
COUNT = """
const rl = require("node:readline").createInterface({ input: process.stdin });
rl.on("line", (line) => {
  const { sizes, seqs } = JSON.parse(line);
  const costs = LLMTutor.costs;
  const wrong = costs.problem(sizes, Math.max(...seqs));
  if (wrong) return console.log(JSON.stringify({ wrong }));
  const found = costs.parameters(sizes);
  console.log(JSON.stringify({
    parameters: found,
    weights: [32, 16, 8, 4].map((bits) => costs.weightBytes(found.total, bits)),
    training: costs.trainingBytes(found.total),
    flops: seqs.map((seq) => costs.tokenFlops(sizes, seq)),
    cache: seqs.map((seq) => costs.cacheBytes(sizes, seq, 2)),
  }));
});
"""


def counted_by_page(asked: list[tuple[dict[str, Any], list[int]]]) -> list[dict[str, Any]]:
    """Answers of costs.js to all questions, from one process."""
    assert NODE is not None
    source = (files("llmtutor.web") / "page" / "costs.js").read_text(encoding="utf-8")
    lines = "".join(json.dumps({"sizes": s, "seqs": q}) + "\n" for s, q in asked)
    done = subprocess.run(
        [NODE, "-e", source + COUNT], input=lines, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def counted(config: ModelConfig, seqs: list[int]) -> dict[str, Any]:
    """The same from the package."""
    found = parameters(config)
    total = found.total
    longer = replace(config, max_seq_len=max(config.max_seq_len, *seqs))
    return {
        "parameters": {
            "embedding": found.embedding,
            "position": found.position,
            "attention": found.mixers,
            "ffn": found.ffns,
            "norms": found.norms,
            "head": found.head,
            "idle": found.idle,
            "total": total,
            "active": found.active,
        },
        "weights": [4 * total, 2 * total, total, (total + 1) // 2],
        "training": sum(v for n, v in training_bytes(config, 1, 1).items() if n != "activations"),
        "flops": [token_flops(longer, seq) for seq in seqs],
        "cache": [cache_bytes(longer, 1, seq, torch.bfloat16) for seq in seqs],
    }


def config_of(sizes: dict[str, Any]) -> ModelConfig:
    """The configuration that plain sizes stand for, written here a second time."""
    learned = sizes["learned_positions"]
    if sizes["attention"] == "latent":
        names = ("n_heads", "kv_rank", "nope_dim", "rope_dim", "v_dim")
        mixers: Any = [
            LatentAttentionConfig(**{n: sizes[n] for n in names}, q_rank=sizes["q_rank"] or None)
        ] * sizes["n_layers"]
    else:
        near = AttentionConfig(
            sizes["n_heads"],
            sizes["n_kv_heads"] or None,
            sizes["head_dim"] or None,
            position=NoPositionConfig() if learned else RopeConfig(),
            window=sizes["window"] or None,
            bias=sizes["bias"],
            output_bias=sizes["output_bias"],
            qk_norm=None if sizes["qk_norm"] == "none" else RMSNormConfig(),
            qk_norm_over="heads" if sizes["qk_norm"] == "heads" else "head",
            sinks=sizes["sinks"],
        )
        every = sizes["full_every"]
        full = replace(near, window=None)
        mixers = [
            full if every and i % every == 0 else near for i in range(1, sizes["n_layers"] + 1)
        ]
    kind, bias = GatedMLPConfig if sizes["gated"] else MLPConfig, sizes["ffn_bias"]
    ffns: list[Any] = [kind(sizes["d_ff"], bias=bias)] * sizes["n_layers"]
    if sizes["ffn"] == "experts":
        width, n_shared = sizes["d_expert"], sizes["n_shared"]
        experts = MoEConfig(
            kind(width, bias=bias),
            sizes["n_experts"],
            RouterConfig(sizes["top_k"], logit_bias=sizes["router_bias"]),
            shared=kind(n_shared * width, bias=bias) if n_shared else None,
        )
        ffns[sizes["n_dense"] :] = [experts] * (sizes["n_layers"] - sizes["n_dense"])
    norm = LayerNormConfig() if sizes["norm_bias"] else RMSNormConfig()
    placement: Any = {2: "pre", 4: "sandwich"}[sizes["norms"]]
    return ModelConfig(
        vocab_size=sizes["vocab_size"],
        max_seq_len=sizes["max_seq_len"],
        d_model=sizes["d_model"],
        blocks=[BlockConfig(m, f, norm, placement) for m, f in zip(mixers, ffns, strict=True)],
        norm=norm if sizes["last_norm"] else None,
        position=LearnedPositionConfig() if learned else None,
        tie_weights=sizes["tie_weights"],
    )


def moved(random: random.Random) -> dict[str, Any]:
    """Sizes from anywhere that can be built."""
    n_kv_heads, d_model = random.randint(1, 5), 8 * random.randint(1, 40)
    n_heads, n_experts = n_kv_heads * random.randint(1, 4), random.randint(1, 6)
    n_layers = random.randint(1, 9)
    heads = d_model % (2 * n_heads) == 0 and random.random() < 0.5  # d_model / n_heads, and even
    most = min(d_model, 2 * n_heads)
    return {
        "vocab_size": random.randint(1, 5000),
        "max_seq_len": random.randint(600, 900),
        "d_model": d_model,
        "n_layers": n_layers,
        "tie_weights": random.random() < 0.5,
        "learned_positions": random.random() < 0.3,
        "attention": random.choice(("heads", "heads", "latent")),
        "n_heads": n_heads,
        "n_kv_heads": random.choice((0, n_kv_heads)),
        "head_dim": 0 if heads else 2 * random.randint(1, 40),
        "bias": random.random() < 0.5,
        "output_bias": random.random() < 0.5,
        "qk_norm": random.choice(("none", "head", "heads")),
        "sinks": random.random() < 0.5,
        "kv_rank": random.randint(1, most),
        "q_rank": random.choice((0, random.randint(1, most))),
        "nope_dim": random.randint(1, 60),
        "rope_dim": 2 * random.randint(1, 30),
        "v_dim": random.randint(1, 60),
        "window": random.choice((0, random.randint(1, 700))),
        "full_every": random.choice((0, random.randint(1, 5))),
        "ffn": random.choice(("dense", "experts")),
        "gated": random.random() < 0.5,
        "ffn_bias": random.random() < 0.5,
        "d_ff": random.randint(1, 900),
        "n_dense": random.randint(0, n_layers - 1),
        "n_experts": n_experts,
        "top_k": random.randint(1, n_experts),
        "d_expert": random.randint(1, 90),
        "n_shared": random.choice((0, random.randint(1, 3))),
        "router_bias": random.random() < 0.5,
        "norms": random.choice((2, 4)),
        "norm_bias": random.random() < 0.5,
        "last_norm": random.random() < 0.8,
    }


@needs_node
def test_the_page_counts_what_the_package_counts_for_all_it_begins_with() -> None:
    seqs = {name: [1, 63, min(1024, c.max_seq_len), c.max_seq_len] for name, c in STARTS.items()}
    found = counted_by_page([(cost_sizes(c), seqs[name]) for name, c in STARTS.items()])
    expected = [counted(config, seqs[name]) for name, config in STARTS.items()]
    assert dict(zip(STARTS, found, strict=True)) == dict(zip(STARTS, expected, strict=True))


@needs_node
def test_the_page_counts_what_the_package_counts_wherever_sizes_are_moved() -> None:
    rng = random.Random(0)
    drawn = [moved(rng) for _ in range(200)]
    configs = [config_of(sizes) for sizes in drawn]
    seqs = [1, 2, 37, 600]
    asked = [(sizes, seqs) for sizes in drawn]
    asked += [(cost_sizes(config), seqs) for config in configs]  # and the way back
    found = counted_by_page(asked)
    expected = [counted(config, seqs) for config in configs]
    for sizes, own, again, known in zip(drawn, found[:200], found[200:], expected, strict=True):
        assert own == known, sizes
        assert again == known, sizes


@needs_node
def test_published_sizes_stay_exact_on_long_texts_when_one_thing_moves() -> None:
    moves = [
        ("llama3-8b", {"n_kv_heads": 1}, 2**20),
        ("llama3-8b", {"attention": "latent"}, 2**20),
        ("deepseek-v3", {"attention": "heads"}, 2**20),
        ("deepseek-v3", {"n_experts": 512, "top_k": 16}, 2**17),
        ("mixtral-8x7b", {"ffn": "dense"}, 2**15),
        ("mistral-7b", {"full_every": 4}, 2**15),
        ("gpt-oss-20b", {"ffn": "dense"}, 2**17),
        ("gpt2", {"n_heads": 6, "tie_weights": False}, 1024),
    ]
    all_sizes = [cost_sizes(STARTS[name]) | change for name, change, _ in moves]
    asked = [(sizes, [seq]) for sizes, (*_, seq) in zip(all_sizes, moves, strict=True)]
    expected = [counted(config_of(sizes), seqs) for sizes, seqs in asked]
    assert counted_by_page(asked) == expected
    assert max(e["training"] for e in expected) > 2**43  # far beyond 32 bits


@needs_node
@pytest.mark.parametrize(
    ("start", "change", "seq", "name", "said"),
    [
        ("llama3-8b", {"n_kv_heads": 5}, 64, "n_kv_heads", "must divide n_heads = 32"),
        ("llama3-8b", {"n_heads": 24}, 64, "n_heads", "must divide d_model = 4096"),
        ("llama3-8b", {"head_dim": 5}, 64, "head_dim", "is 5; it must be even"),
        ("llama3-8b", {"n_layers": 0}, 64, "n_layers", "a whole number of at least 1"),
        ("llama3-8b", {"d_ff": None}, 64, "d_ff", "a whole number of at least 1"),
        ("llama3-8b", {"vocab_size": 1.5}, 64, "vocab_size", "a whole number of at least 1"),
        ("llama3-8b", {"vocab_size": 2**53 - 1}, 64, "d_model", "too large"),
        ("gpt2", {}, 2048, "context", "must be at most 1024"),
        ("mixtral-8x7b", {"top_k": 9}, 64, "top_k", "must be at most 8"),
        ("deepseek-v3", {"n_dense": 61}, 64, "n_dense", "must be at most 60"),
        ("deepseek-v3", {"kv_rank": 7169}, 64, "kv_rank", "must be at most 7168"),
        ("deepseek-v3", {"q_rank": 7169}, 64, "q_rank", "must be at most 7168"),
        ("deepseek-v3", {"rope_dim": 31}, 64, "rope_dim", "must be even"),
    ],
)
def test_what_cannot_be_built_is_said_in_words(
    start: str, change: dict[str, Any], seq: int, name: str, said: str
) -> None:
    (found,) = counted_by_page([(cost_sizes(STARTS[start]) | change, [seq])])
    assert found["wrong"]["name"] == name
    assert said in found["wrong"]["words"].lower()


@needs_node
def test_a_size_that_does_not_act_cannot_be_wrong() -> None:
    sizes = cost_sizes(STARTS["llama3-8b"]) | {"kv_rank": 0, "top_k": 99}
    (found,) = counted_by_page([(sizes, [64])])
    assert found == counted(STARTS["llama3-8b"], [64])


@needs_node
def test_the_script_of_models_holds_their_sizes() -> None:
    script = cost_script() + "console.log(JSON.stringify(LLMTutor.costData))"
    done = subprocess.run([str(NODE), "-e", script], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["models"] == {name: cost_sizes(config) for name, config in STARTS.items()}
    moving = set(found["sizes"])
    assert all(moving <= set(sizes) for sizes in found["models"].values())
    assert all(set(first) <= moving for first in found["first"].values())


@pytest.mark.parametrize("name", STARTS)
def test_an_arrow_key_moves_a_whole_step_from_where_a_model_begins(name: str) -> None:
    sizes = cost_sizes(STARTS[name])
    steps = {size: step for size, (_, step) in SIZES.items() if isinstance(step, int)}
    assert {size: sizes[size] % step for size, step in steps.items()} == dict.fromkeys(steps, 0)


def test_it_begins_with_the_last_rung_of_the_book() -> None:
    build = RUNGS[LAST].build
    assert build is not None
    with torch.device("meta"):
        config: Any = build(1024).config
    assert parameters(config) == parameters(STARTS["staircase"])
    assert cost_sizes(config) == cost_sizes(STARTS["staircase"])


LLAMA = preset("llama-nano")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LLAMA.replace(position="alibi"), r"blocks\[0\].mixer.position is 'alibi'"),
        (LLAMA.replace(position="sinusoidal"), "position is 'sinusoidal'"),
        (LLAMA.replace(mixer="differential"), r"blocks\[0\].mixer is 'differential'"),
        (LLAMA.replace(gate=True), r"blocks\[0\].mixer.gate is True"),
        (LLAMA.replace(qk_norm="layernorm"), r"blocks\[0\].mixer.qk_norm is 'layernorm'"),
        (LLAMA.replace(mixer="mla", latent_norm=None), r"blocks\[0\].mixer.latent_norm is None"),
        (LLAMA.replace(mixer="mla", position="none"), r"blocks\[0\].mixer.position is 'none'"),
        (PUBLISHED["mamba-130m"], r"blocks\[0\].mixer is 'mamba'"),
        (PUBLISHED["qwen3-next-80b-a3b"], r"blocks\[0\].mixer is 'delta"),
        (LLAMA.replace(ffn="no-ffn"), r"blocks\[0\].ffn is 'no-ffn'"),
        (
            replace(LLAMA, blocks=(LLAMA.blocks[0], LLAMA.replace(n_kv_heads=1).blocks[0])),
            "n_kv_heads of the blocks.mixer is 0 here and 1 there",
        ),
        (
            replace(LLAMA, blocks=(LLAMA.blocks[0], LLAMA.replace(window=8).blocks[0])),
            r"blocks\[1\].mixer.window is 8",
        ),
        (
            replace(LLAMA, blocks=(LLAMA.blocks[0], LLAMA.replace(d_ff=8).blocks[0])),
            r"blocks\[1\].ffn is not like",
        ),
        (
            replace(LLAMA, blocks=(LLAMA.replace(ffn="moe").blocks[0], LLAMA.blocks[0])),
            r"blocks\[1\].ffn is not like",
        ),
        (replace(LLAMA, norm=LayerNormConfig()), "the last norm is not like"),
        (
            LLAMA.replace(
                ffn=MoEConfig(GatedMLPConfig(8), shared=GatedMLPConfig(8), shared_gate=True)
            ),
            "shared_gate is True",
        ),
        (
            LLAMA.replace(ffn=MoEConfig(GatedMLPConfig(8), shared=GatedMLPConfig(12))),
            "shared is 12 wide, expected a multiple of an expert's 8",
        ),
        (
            LLAMA.replace(ffn=MoEConfig(GatedMLPConfig(8), shared=MLPConfig(8))),
            "the same kind of layer",
        ),
    ],
)
def test_what_the_page_cannot_count_is_refused_by_name(config: ModelConfig, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cost_sizes(config)


def test_the_recorded_example_has_the_numbers_of_accounting() -> None:
    html = recorded_cost({"start": "mixtral-8x7b", "seq": 4096})
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td></tr>', html))
    config = STARTS["mixtral-8x7b"]
    found = parameters(config)
    assert rows["parameters"] == f"{found.total / 1e9:.3g} B" == "46.7 B"
    assert rows["used by one token"] == f"{found.active / 1e9:.3g} B" == "12.9 B"
    assert rows["FLOPs for one token"] == f"{token_flops(config, 4096) / 1e9:.3g} GFLOP"
    cache = cache_bytes(config, 1, 4096, torch.bfloat16)
    assert rows["KV cache, bfloat16"] == f"{cache / 2**20:.3g} MiB" == "512 MiB"
    shares = [float(one) for one in re.findall(r"<td>([\d.]+) %</td>", html)]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert html == recorded_cost({"start": "mixtral-8x7b", "seq": 4096, "show": "moe"})


@pytest.mark.parametrize("name", STARTS)
def test_each_start_has_a_recorded_example(name: str) -> None:
    html = recorded_cost({"start": name})
    shares = [float(one) for one in re.findall(r"<td>([\d.]+) %</td>", html)]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert len(re.findall(r'<th scope="row">', html)) >= len(ROWS) + 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "llama3-9b"}, "did you mean 'llama3-8b'"),
        ({"show": "gpa"}, "did you mean 'gqa'"),
        ({"stat": "gpt2"}, "did you mean 'start'"),
        ({"seq": 1000}, "power of two"),
        ({"start": "gpt2", "seq": 2048}, "at most 1024"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recorded_cost(options)
