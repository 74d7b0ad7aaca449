"""Drawings, chapter 09: a model, made from its configuration, so that it cannot be drawn wrong."""

from collections.abc import Collection
from typing import Any

from llmtutor.layers.ffn import GatedMLPConfig
from llmtutor.layers.norms import NormConfig
from llmtutor.layers.part import Part
from llmtutor.model.accounting import parameters
from llmtutor.model.block import BlockConfig
from llmtutor.model.changes import GATED
from llmtutor.model.config import ModelConfig
from llmtutor.model.summary import block_labels, pattern, usual
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    box,
    column,
    line,
    lines,
    over,
    text,
)

STREAM_X, BRANCH_X, PART_WIDTH = 16.0, 52.0, 268.0
"""Where the stream runs, where what is added to it begins, and how wide a part is drawn."""
WIDTH = BRANCH_X + PART_WIDTH

TITLES = {
    "attention": "Attention",
    "convolved-attention": "Attention behind a convolution",
    "differential": "Differential attention",
    "differential-v2": "Differential attention, V2",
    "mla": "Latent attention",
    "streaming": "Attention with its first tokens kept",
    "blockwise-linformer": "Blockwise Linformer",
    "mlp": "MLP",
    "gated-mlp": "Gated MLP",
    "clamped-mlp": "Clamped SwiGLU",
    "moe": "Experts",
    "top-k": "router",
    "no-ffn": "no feed-forward part",
    "linear-attention": "Linear attention",
    "delta-net": "DeltaNet",
    "mamba": "Mamba",
    "s4d": "S4D",
    "layernorm": "LayerNorm",
    "rmsnorm": "RMSNorm",
    "rope": "RoPE",
    "yarn": "YaRN",
    "alibi": "ALiBi",
    "t5": "T5 bias",
    "learned": "learned positions",
    "sinusoidal": "sinusoidal positions",
}
"""Names of parts as papers write them; a part that is not here is called by its kind."""
PHRASES = {
    "n_heads": "{} heads",
    "n_kv_heads": "{} KV heads",
    "kv_rank": "latent of {}",
    "q_rank": "queries through {}",
    "nope_dim": "{} plain",
    "rope_dim": "{} turned",
    "v_dim": "values of {}",
    "head_dim": "{} wide each",
    "d_ff": "{} hidden units",
    "d_state": "state of {} a channel",
    "expand": "{} × as wide inside",
    "n_value_heads": "{} heads of values",
    "value_dim": "values of {}",
    "conv_width": "convolution over {} tokens",
    "fades": "fading",
    "output_gate": "output gate",
    "window": "window {}",
    "softcap": "scores within ±{}",
    "scale": "scores × {}",
    "base": "base {}",
    "pairing": "{} pairs",
    "sharpen": "vectors × {}",
    "factor": "factor {}",
    "original_max_seq_len": "from {} tokens",
    "qk_norm_over": "over all heads at once",
    "activation": "{}",
    "bias": "biases",
    "gate": "gated output",
    "kept_first": "first {} tokens kept",
    "block": "blocks of {}",
    "compressed": "{} rows of each",
    "offset": "gain 1 + weight",
    "n_experts": "{} of them",
    "top_k": "{} for each token",
    "normalise": "normalised weights",
    "routed_scale": "weights × {}",
    "score": "{} scores",
    "n_groups": "{} groups",
    "top_groups": "{} groups open",
    "group_score": "groups by {}",
    "logit_bias": "bias of logits",
    "bias_rate": "balanced by a bias",
    "shared_gate": "behind a gate",
    "capacity_factor": "room for {} × the mean",
}
"""What a field says; one that is not here is said by its name and value."""
NORMS = {"qk_norm": "QK-norm", "latent_norm": "normalised latents"}
"""What a norm inside a mixer is called, by its field."""
ACTIVATIONS = {"gelu": "GELU", "gelu_tanh": "GELU (tanh)", "relu": "ReLU", "silu": "SiLU"}


def part_words(part: Part) -> str:
    """A part in words: its title, and what is not as usual.

    >>> from llmtutor.model.presets import preset
    >>> block = preset("llama3-8b").blocks[0]
    >>> part_words(block.mixer)
    'Attention: 32 heads, 8 KV heads, RoPE (base 500,000)'
    >>> part_words(block.ffn)
    'SwiGLU: 14,336 hidden units'
    """
    title, said = TITLES.get(part.kind, part.kind), []
    values = {name: value for name, value in part.values().items() if name != "eps"}
    if isinstance(part, GatedMLPConfig):
        gates = {activation: name for name, activation in GATED.items()}
        if part.activation in gates:
            title = {"swiglu": "SwiGLU", "reglu": "ReGLU"}.get(gates[part.activation], "GEGLU")
            values.pop("activation")
    for name, value in values.items():
        if isinstance(value, Part):
            if value.kind != "none":
                said.append(_inner(name, value))
        elif not usual(part, name, value):
            said.append(_phrase(name, value))
    return f"{title}: {', '.join(said)}" if said else title


def _inner(name: str, part: Part) -> str:
    """A part inside another: RoPE (base 10,000), or what ``NORMS`` calls it."""
    if isinstance(part, NormConfig) and name in NORMS:
        return NORMS[name]
    title, _, rest = part_words(part).partition(": ")
    title = f"shared {title}" if name == "shared" else title
    return f"{title} ({rest})" if rest else title


def _phrase(name: str, value: Any) -> str:
    if value is None:
        return "no " + name.replace("_", " ")
    if isinstance(value, bool):
        return ("" if value else "no ") + PHRASES.get(name, name.replace("_", " "))
    shown = (
        f"{value:,.6g}" if isinstance(value, int | float) else ACTIVATIONS.get(value, str(value))
    )
    if isinstance(value, int):
        shown = f"{value:,}"
    return PHRASES.get(name, name.replace("_", " ") + " {}").format(shown)


def block_shape(block: BlockConfig, marked: Collection[str] = ()) -> Shape:
    """One block beside the residual stream: norms, mixer, feed-forward part, where they stand.

    Roles in ``marked``, of "mixer", "ffn" and "norm", stand out.
    """
    norm = box(
        text(part_words(block.norm), SMALL), "new" if "norm" in marked else "norm", width=PART_WIDTH
    )
    layers = []
    roles = (("mixer", "query"), ("ffn", "weight"))
    for role, colour in roles[: block.n_sub_layers]:
        colour = "new" if role in marked else colour
        part = _wide(part_words(getattr(block, role)), colour, PART_WIDTH)
        layers.append(_sub_layer(part, norm, block.norm_placement))
    return column(*layers, gap=0)


def _sub_layer(part: Shape, norm: Shape, placement: str) -> Shape:
    """A part that reads the stream and adds to it, with its norms where the placement says."""
    inside = [part]
    if placement in ("pre", "sandwich"):
        inside.insert(0, norm)
    if placement in ("res-post", "sandwich"):
        inside.append(norm)
    branch = column(*inside, gap=10)
    start, plus, middle = 8.0, branch.height + 30, BRANCH_X + PART_WIDTH / 2
    height = branch.height + 44 + (norm.height if placement == "post" else 0)
    ways = [
        line([(STREAM_X, 0), (STREAM_X, height)], "stream"),
        line([(STREAM_X, start), (middle, start), (middle, 18)], head=True),
        line([(middle, 18 + branch.height), (middle, plus), (STREAM_X + 10, plus)], head=True),
    ]
    y = 18.0
    for upper in inside[:-1]:
        ways.append(line([(middle, y + upper.height), (middle, y + upper.height + 10)], head=True))
        y += upper.height + 10
    drawn = Shape(0, 0, "".join(ways))
    placed = [(drawn, 0.0, 0.0), (branch, BRANCH_X, 18.0), (plus_sign(), STREAM_X - 9, plus - 9)]
    if placement == "post":
        placed.append((norm, 0.0, plus + 12))
    return over(WIDTH, height, *placed)


def plus_sign() -> Shape:
    """Where something is added to the stream."""
    circle = '<circle class="lt-stream" cx="9" cy="9" r="9"/>'
    return Shape(18, 18, circle + '<path class="lt-line" d="M4 9h10M9 4v10"/>')


def model_shape(config: ModelConfig, marked: Collection[str] = ()) -> Shape:
    """The whole, from top to bottom: embedding, the blocks that differ with how many there are of
    each, last norm, logits. What is in ``marked`` stands out (as ``block_shape`` says; "embedding",
    "pattern" and "logits" as well)."""

    def look(role: str, usual: str) -> str:
        return "new" if role in marked else usual

    embedding = f"Embedding: {config.vocab_size:,} tokens × {config.d_model:,}"
    if config.embedding_scale != 1:
        embedding += f", times {config.embedding_scale:.4g}"
    if config.position is not None:
        embedding += f" + {part_words(config.position)}"
    pieces = [_wide(embedding, look("embedding", "weight"), WIDTH)]
    labels = block_labels(config.blocks)
    kinds = dict(zip(labels, config.blocks, strict=True))
    if len(kinds) > 1:
        order = _wide(f"{len(labels)} blocks: {pattern(labels)}", look("pattern", "plain"), WIDTH)
        pieces.append(order)
    for label, block in kinds.items():
        name = "" if label == "block" else f", {label}"
        pieces.append(_title(f"{labels.count(label)} × block{name}"))
        pieces.append(block_shape(block, marked))
    if config.norm is not None:
        pieces.append(_wide(part_words(config.norm), look("norm", "norm"), WIDTH))
    logits = "Logits: " + ("the embedding again" if config.tie_weights else "a matrix of their own")
    if config.logit_softcap is not None:
        logits += f", within ±{config.logit_softcap:g}"
    pieces.append(_wide(logits, look("logits", "weight"), WIDTH))
    stacked: list[Shape] = []
    for piece in pieces:
        stacked += [piece, _stream(10)]
    return column(*stacked[:-1], gap=0, align="start")


def draw_model(config: ModelConfig, name: str, marked: Collection[str] = ()) -> Drawing:
    """A model from its configuration; in words: the number of parameters, blocks, sizes."""
    kinds = dict.fromkeys(config.blocks)
    words = ". ".join(
        f"{part_words(b.norm)} ({b.norm_placement}); {part_words(b.mixer)}; {part_words(b.ffn)}"
        for b in kinds
    )
    return Drawing(
        model_shape(config, marked),
        f"{name}: {parameters(config).total:,} parameters",
        f"{config.n_layers} blocks of width {config.d_model:,}, from the first to the last "
        f"{pattern(block_labels(config.blocks))}. {words}. Vocabulary {config.vocab_size:,}, "
        f"context {config.max_seq_len:,} tokens, "
        f"{'tied' if config.tie_weights else 'untied'} embedding.",
    )


def _wide(words: str, role: str, width: float) -> Shape:
    return box(wrapped(words, width - 16), role, width=width)


def _stream(length: float) -> Shape:
    return Shape(WIDTH, length, line([(STREAM_X, 0), (STREAM_X, length)], "stream"))


def _title(words: str) -> Shape:
    """Bold words beside the stream."""
    return over(WIDTH, 17, (_stream(17), 0, 0), (text(words, SMALL, bold=True), BRANCH_X, 0))


def wrapped(words: str, width: float) -> Shape:
    """Words in as many small lines as they need."""
    done: list[str] = []
    for word in words.split(" "):
        if done and text(f"{done[-1]} {word}", SMALL).width <= width:
            done[-1] += f" {word}"
        else:
            done.append(word)
    return lines("\n".join(done), SMALL)
