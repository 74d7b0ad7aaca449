"""Chapter 23, export: four architectures of llama.cpp, in its words and those of Hugging Face.

A GGUF file says what a ``config.json`` and a file of weights say, under other names: so a model
goes to GGUF by way of Hugging Face's form, and comes back by it. What is left to do are the names,
two layouts, and to refuse what llama.cpp would silently compute otherwise.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from llmtutor.checks import check_name
from llmtutor.interop.gguf.container import Value, in_32_bits
from llmtutor.interop.hf.families import FAMILIES, config_from_hf, first_way
from llmtutor.interop.hf.family import few, state_in, state_out
from llmtutor.interop.hf.keys import LONGEST, Keys
from llmtutor.layers.positions import convert_pairing
from llmtutor.model.config import ModelConfig

ARCHITECTURE = "general.architecture"


class Architecture(NamedTuple):
    """One of llama.cpp's, which has the name of the family of Hugging Face."""

    keys: Mapping[str, str]
    """Sizes and numbers: its name of a fact → the key of ``config.json``."""
    modules: Mapping[str, str]
    """Its name of a tensor → theirs; ``{}`` is the number of the layer, ``*`` weight and bias."""
    fixed: Mapping[str, Any]
    """Keys of ``config.json`` for which no fact stands: llama.cpp has this value and no other."""
    rope: bool = True
    """Whether queries and keys turn."""
    neighbours: bool = False
    """Whether pairs of RoPE are neighbours, and not half a head apart as at Hugging Face."""
    biases: Mapping[str, str] = {}
    """Keys that are true where there is such a tensor."""
    turned: tuple[str, ...] = ()
    """Modules whose weights Hugging Face keeps as (d_in, d_out)."""


_DECODER_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "vocab_size": "vocab_size",
}
_DECODER_MODULES = {
    "token_embd.*": "model.embed_tokens.*",
    "blk.{}.attn_norm.*": "model.layers.{}.input_layernorm.*",
    "blk.{}.attn_q.*": "model.layers.{}.self_attn.q_proj.*",
    "blk.{}.attn_k.*": "model.layers.{}.self_attn.k_proj.*",
    "blk.{}.attn_v.*": "model.layers.{}.self_attn.v_proj.*",
    "blk.{}.attn_output.*": "model.layers.{}.self_attn.o_proj.*",
    "blk.{}.attn_q_norm.*": "model.layers.{}.self_attn.q_norm.*",
    "blk.{}.attn_k_norm.*": "model.layers.{}.self_attn.k_norm.*",
    "blk.{}.ffn_norm.*": "model.layers.{}.post_attention_layernorm.*",
    "blk.{}.ffn_gate.*": "model.layers.{}.mlp.gate_proj.*",
    "blk.{}.ffn_up.*": "model.layers.{}.mlp.up_proj.*",
    "blk.{}.ffn_down.*": "model.layers.{}.mlp.down_proj.*",
    "output_norm.*": "model.norm.*",
    "output.*": "lm_head.*",
}
_GPT2_KEYS = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
    "vocab_size": "vocab_size",
}
_GPT2_MODULES = {
    "token_embd.*": "transformer.wte.*",
    "position_embd.*": "transformer.wpe.*",
    "blk.{}.attn_norm.*": "transformer.h.{}.ln_1.*",
    "blk.{}.attn_qkv.*": "transformer.h.{}.attn.c_attn.*",
    "blk.{}.attn_output.*": "transformer.h.{}.attn.c_proj.*",
    "blk.{}.ffn_norm.*": "transformer.h.{}.ln_2.*",
    "blk.{}.ffn_up.*": "transformer.h.{}.mlp.c_fc.*",
    "blk.{}.ffn_down.*": "transformer.h.{}.mlp.c_proj.*",
    "output_norm.*": "transformer.ln_f.*",
    "output.*": "lm_head.*",
}
_SILU = {"hidden_act": "silu"}
ARCHITECTURES = {
    # llama.cpp looks GELU up in a table of half precision: log-probabilities of all tokens are off
    # by up to 1e-3 there, where those of a SwiGLU are off by less than 1e-4.
    "gpt2": Architecture(
        _GPT2_KEYS,
        _GPT2_MODULES,
        {"activation_function": "gelu_new"},
        rope=False,
        turned=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
    ),
    "llama": Architecture(
        _DECODER_KEYS,
        _DECODER_MODULES,
        _SILU,
        neighbours=True,
        biases={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"},
    ),
    "qwen2": Architecture(_DECODER_KEYS, _DECODER_MODULES, _SILU | {"use_sliding_window": False}),
    "qwen3": Architecture(
        _DECODER_KEYS,
        _DECODER_MODULES,
        _SILU | {"use_sliding_window": False, "attention_bias": False},
    ),
}
"""By the name in ``general.architecture``, the simplest first."""


# The configuration --------------------------------------------------------------------------------


def config_to_facts(config: ModelConfig) -> dict[str, Value]:
    """What a file says of a model: the first architecture that says all of it.

    Raises:
        ValueError: none does; the message names the parts that the nearest one does not have.
    """
    ways = {name: partial(_there_and_back, name) for name in ARCHITECTURES}
    return first_way(config, ways, "architecture of GGUF")[1]


def _there_and_back(name: str, config: ModelConfig) -> tuple[dict[str, Value], ModelConfig]:
    values = FAMILIES[name].write(config)
    facts = {k: in_32_bits(v) if isinstance(v, float) else v for k, v in _write(name, values)}
    # The names of what the family has, which may be less than the model.
    tensors = _names(name, config_from_hf(values, where=name))
    return facts, config_from_facts(facts, tensors, name)


def _write(name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    yield ARCHITECTURE, name
    for key, theirs in ARCHITECTURES[name].keys.items():
        yield f"{name}.{key}", values[theirs]
    if not ARCHITECTURES[name].rope:
        return
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        yield f"{name}.{key}", values["head_dim"]
    rope = values["rope_parameters"]
    yield f"{name}.rope.freq_base", float(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        yield f"{name}.rope.scaling.type", "linear"
        yield f"{name}.rope.scaling.factor", float(rope["factor"])
    elif rope["rope_type"] != "default":
        raise ValueError(
            f"blocks[0].mixer.position.scaling = None or 'linear' only, got {rope['rope_type']!r}"
        )


def config_from_facts(
    facts: Mapping[str, Value], tensors: Collection[str], where: str
) -> ModelConfig:
    """The configuration of a file with these facts and names of tensors; ``where`` is its name.

    Raises:
        ValueError: another architecture, a fact of it that we do not know or that is missing, a
            value that we cannot use.
    """
    name = architecture(facts, where)
    own, prefix = ARCHITECTURES[name], f"{name}."
    given = {k.removeprefix(prefix): v for k, v in facts.items() if k.startswith(prefix)}
    given.setdefault("vocab_size", len(_listed(facts, "tokenizer.ggml.tokens")))
    if own.rope and "attention.head_count" in given:
        given.setdefault("attention.head_count_kv", given["attention.head_count"])
    keys = Keys(given, where, name)
    values: dict[str, Any] = {theirs: _number(keys, key) for key, theirs in own.keys.items()}
    values |= {"model_type": name, "tie_word_embeddings": "output.weight" not in tensors}
    values |= own.fixed
    values |= {key: tensor in tensors for key, tensor in own.biases.items()}
    if own.rope:
        values |= _read_rope(keys, values)
    keys.finish()
    return config_from_hf(values, where)


def _number(keys: Keys, key: str) -> float:
    return keys.number(key) if key.endswith("epsilon") else keys.size(key, most=LONGEST)


def _read_rope(keys: Keys, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """RoPE, and the width of heads that it goes with."""
    usual = sizes["hidden_size"] // max(sizes["num_attention_heads"], 1)
    width = keys.size("attention.key_length", usual)
    keys.only({"attention.value_length": width, "rope.dimension_count": width})
    rope: dict[str, Any] = {
        "rope_theta": keys.number("rope.freq_base", 10_000.0),
        "rope_type": "default",
    }
    scaling = keys.take("rope.scaling.type", "none")
    if scaling == "linear":
        rope |= {"rope_type": "linear", "factor": keys.number("rope.scaling.factor")}
    elif scaling != "none":
        raise keys.refused("rope.scaling.type", scaling, "none or linear")
    return {"head_dim": width, "rope_parameters": rope}


def architecture(facts: Mapping[str, Value], where: str) -> str:
    """The architecture that a file names.

    Raises:
        ValueError: none, or one that we do not have (with the nearest one).
    """
    try:
        return check_name(ARCHITECTURE, facts.get(ARCHITECTURE, ""), ARCHITECTURES)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _listed(facts: Mapping[str, Value], name: str) -> list:
    value = facts.get(name, [])
    return value if isinstance(value, list) else []


# The weights --------------------------------------------------------------------------------------


def state_to_tensors(
    state: Mapping[str, Tensor], config: ModelConfig, name: str
) -> dict[str, Tensor]:
    """llama.cpp's names and layouts for our state dict; tied weights are there once."""
    theirs = state_out(state, config, FAMILIES[name])
    named = {_renamed(key, _to_gguf(name)): value for key, value in theirs.items()}
    return {key: _laid_out(key, x, config, name, "half", "interleaved") for key, x in named.items()}


def state_from_tensors(
    tensors: Mapping[str, Tensor], config: ModelConfig, name: str
) -> dict[str, Tensor]:
    """The inverse of ``state_to_tensors``, for pairs of RoPE half a head apart.

    Raises:
        ValueError: names missing or left over.
    """
    names = _names(name, config)
    if tensors.keys() != names.keys():
        raise ValueError(
            f"its tensors do not fit its facts: missing {few(names.keys() - tensors.keys())}, "
            f"unexpected {few(tensors.keys() - names.keys())}"
        )
    theirs = {
        names[key]: _laid_out(key, x, config, name, "interleaved", "half")
        for key, x in tensors.items()
    }
    return state_in(theirs, config, FAMILIES[name])


def _names(name: str, config: ModelConfig) -> dict[str, str]:
    """Every tensor of a model: llama.cpp's name → that of Hugging Face."""
    to_gguf = _to_gguf(name)
    theirs = [entry.theirs for entry in FAMILIES[name].entries(config)]
    return {_renamed(one, to_gguf): one for one in theirs}


def _to_gguf(name: str) -> dict[str, str]:
    return {theirs: own for own, theirs in ARCHITECTURES[name].modules.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """``blk.3.attn_q.weight`` for ``model.layers.3.self_attn.q_proj.weight``."""
    module, _, kind = name.rpartition(".")
    layer = re.search(r"(?<=\.)\d+(?=\.)", module)
    pattern = module if layer is None else module.replace(f".{layer[0]}.", ".{}.", 1)
    new = names[f"{pattern}.*"].removesuffix("*") + kind
    return new if layer is None else new.replace("{}", layer[0])


def _laid_out(
    name: str, value: Tensor, config: ModelConfig, arch: str, from_: Any, to: Any
) -> Tensor:
    """Rows of queries and keys in the pairs of the other side; matrices that are turned there."""
    own, part = ARCHITECTURES[arch], name.split(".")[-2]
    if own.neighbours and part in ("attn_q", "attn_k"):
        mixer: Any = config.blocks[0].mixer
        n_heads = mixer.n_heads if part == "attn_q" else mixer.kv_heads
        return convert_pairing(value, n_heads, from_, to)
    turned = part in own.turned and name.endswith("weight") and value.ndim == 2
    return value.T.contiguous() if turned else value
