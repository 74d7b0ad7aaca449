"""Chapter 09, the transformer: the ``config.json`` of Hugging Face, read and written.

Every key falls in one of four classes: translated; must have the one value that we have; known to
change no logit (``HARMLESS``); anything else is refused by name, because a key ignored is a model
that computes something else.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from llmtutor.layers.positions import LinearScaling, YarnScaling
from llmtutor.model.config import ModelConfig, Scaling

ACTIVATIONS = {  # of GPT-2's two matrices
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
}
GATES = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu", "sigmoid": "glu"}  # of Llama's three
HARMLESS = {
    # Dropout acts in training only, and we have none.
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"),
    # Where the file comes from, and how a training run started.
    *("_name_or_path", "architectures", "model_type", "transformers_version", "initializer_range"),
    # load_hf asks the weights themselves; n_ctx repeats n_positions; tensor parallelism of old.
    *("dtype", "torch_dtype", "n_ctx", "pretraining_tp"),
    # Defaults of generation, and what the library returns or how it cuts the work.
    *("use_cache", "bos_token_id", "eos_token_id", "pad_token_id", "return_dict"),
    *("output_hidden_states", "output_attentions", "chunk_size_feed_forward"),
    # Heads for other tasks.
    *("id2label", "label2id", "problem_type", "task_specific_params", "summary_type"),
    *("summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
}
SIZES = {
    "gpt2": {
        "vocab_size": "vocab_size",
        "n_positions": "max_seq_len",
        "n_layer": "n_layers",
        "n_embd": "d_model",
        "n_head": "n_heads",
        "n_inner": "d_ff",
    },
    "llama": {
        "vocab_size": "vocab_size",
        "max_position_embeddings": "max_seq_len",
        "num_hidden_layers": "n_layers",
        "hidden_size": "d_model",
        "num_attention_heads": "n_heads",
        "intermediate_size": "d_ff",
    },
}
ONLY = {  # the one value that we have; also what an absent key means
    "gpt2": {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "is_encoder_decoder": False,
    },
    "llama": {"attention_bias": False, "mlp_bias": False, "is_encoder_decoder": False},
}


def config_from_hf(values: Mapping[str, Any]) -> ModelConfig:
    """Our configuration for the content of a ``config.json`` with model type gpt2 or llama.

    Raises:
        ValueError: another model type, a missing size, or any key whose value asks for something
            that we do not have, by its name.
    """
    kind = values.get("model_type")
    if kind not in SIZES:
        raise ValueError(f"model_type must be gpt2 or llama, got {kind!r}")
    rest = {key: value for key, value in values.items() if key not in HARMLESS}
    for key, only in ONLY[kind].items():
        if (got := rest.pop(key, None)) not in (None, only):
            _refuse(key, got, f"only {only}")
    if kind == "gpt2" and rest.get("n_inner") is None and isinstance(rest.get("n_embd"), int):
        rest["n_inner"] = 4 * rest["n_embd"]
    missing = [key for key in SIZES[kind] if key not in rest]
    if missing:
        raise ValueError(f"config.json of a {kind} lacks {', '.join(missing)}")
    sizes = {ours: rest.pop(key) for key, ours in SIZES[kind].items()}
    found = (_gpt2_options if kind == "gpt2" else _llama_options)(rest, sizes)
    if rest:
        key = next(iter(rest))
        _refuse(key, rest[key], "nothing of that name; it may change what the model computes")
    return ModelConfig(**sizes, **found)


def _gpt2_options(rest: dict[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Take what we translate out of ``rest``."""
    return {
        "ffn": _translate("activation_function", rest, ACTIVATIONS, "gelu_new"),
        "eps": rest.pop("layer_norm_epsilon", 1e-5),
        "tie_weights": rest.pop("tie_word_embeddings", True),
        "norm": "layernorm",
        "position": "learned",
        "bias": True,
    }


def _llama_options(rest: dict[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    kv_heads = rest.pop("num_key_value_heads", None)
    # As many as there are heads is plain multi-head attention.
    grouped = kv_heads not in (None, sizes["n_heads"])
    head_dim = rest.pop("head_dim", None)
    if head_dim is not None and head_dim * sizes["n_heads"] != sizes["d_model"]:
        _refuse("head_dim", head_dim, "only hidden_size / num_attention_heads")
    base, scaling = _rope(rest)
    return {
        "ffn": _translate("hidden_act", rest, GATES, "silu"),
        "eps": rest.pop("rms_norm_eps", 1e-6),
        "tie_weights": rest.pop("tie_word_embeddings", False),
        "rope_base": float(base),
        "rope_scaling": scaling,
        "norm": "rmsnorm",
        "position": "rope",
        "rope_pairing": "half",
        **({"mixer": "gqa", "n_kv_heads": kv_heads} if grouped else {}),
    }


def _rope(rest: dict[str, Any]) -> tuple[float, Scaling | None]:
    """``rope_parameters``, or ``rope_theta`` and ``rope_scaling`` as files wrote before."""
    base = rest.pop("rope_theta", 10000.0)
    old = rest.pop("rope_scaling", None)
    options = dict(rest.pop("rope_parameters", None) or old or {})
    base = options.pop("rope_theta", base)
    legacy = options.pop("type", "default")
    kind = options.pop("rope_type", legacy)
    if (part := options.pop("partial_rotary_factor", None)) not in (None, 1.0):
        _refuse("partial_rotary_factor", part, "only 1.0 for llama")
    scaling: Scaling | None = None
    if kind == "linear":
        scaling = LinearScaling(_needed("factor", options))
        options.pop("original_max_position_embeddings", None)  # linear does not look at it
    elif kind == "yarn":
        scaling = YarnScaling(
            _needed("factor", options),
            _needed("original_max_position_embeddings", options),
            options.pop("beta_fast", None) or 32,
            options.pop("beta_slow", None) or 1,
        )
        factor = options.pop("attention_factor", None)
        if factor is not None and not math.isclose(factor, scaling.attention_factor):
            _refuse("attention_factor", factor, f"only {scaling.attention_factor} for this factor")
        if options.pop("truncate", None) is False:
            _refuse("truncate", False, "only True")
    elif kind != "default":
        _refuse("rope_type", kind, "default, linear, yarn")
    for key, value in options.items():
        if value is not None:
            _refuse(f"{key} of rope_parameters", value, f"nothing of that name for {kind}")
    return base, scaling


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The content of ``config.json`` for a model that a gpt2 or a llama can express.

    Learned positions make a gpt2, RoPE a llama. Dropout is written as 0, because we have none.

    Raises:
        ValueError: a field whose value neither has, by its name.
    """
    kind = {"learned": "gpt2", "rope": "llama"}.get(config.position)
    if kind is None:
        raise ValueError(
            f"position must be learned (gpt2) or rope (llama) to be saved for Hugging Face, "
            f"got {config.position!r}"
        )
    needed: dict[str, Any] = {"norm_placement": "pre", "qk_norm": False}
    needed |= (
        {"norm": "layernorm", "bias": True, "mixer": "mha"}
        if kind == "gpt2"
        else {"norm": "rmsnorm", "bias": False, "rope_fraction": 1.0}
    )
    for field, value in needed.items():
        if (got := getattr(config, field)) != value:
            raise ValueError(f"a {kind} of Hugging Face has {field} = {value!r} only, got {got!r}")
    if config.mixer not in ("mha", "gqa"):
        raise ValueError(f"a llama of Hugging Face has mixer = mha, gqa, got {config.mixer!r}")
    names = {
        ours: theirs
        for theirs, ours in reversed((ACTIVATIONS if kind == "gpt2" else GATES).items())
    }
    if config.ffn not in names:
        raise ValueError(f"a {kind} of Hugging Face has ffn = {_list(names)}, got {config.ffn!r}")
    content: dict[str, Any] = {
        "model_type": kind,
        "architectures": ["GPT2LMHeadModel" if kind == "gpt2" else "LlamaForCausalLM"],
        **{theirs: getattr(config, ours) for theirs, ours in SIZES[kind].items()},
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if kind == "gpt2":
        dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        return content | {
            "activation_function": names[config.ffn],
            "layer_norm_epsilon": config.eps,
            **dropouts,
        }
    return content | {
        "num_key_value_heads": config.n_kv_heads or config.n_heads,
        "head_dim": config.head_dim,
        "hidden_act": names[config.ffn],
        "rms_norm_eps": config.eps,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": {"rope_theta": config.rope_base, **_scaling_to_hf(config.rope_scaling)},
    }


def _scaling_to_hf(scaling: Scaling | None) -> dict[str, Any]:
    if scaling is None:
        return {"rope_type": "default"}
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, YarnScaling):
        return {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_max_seq_len,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
        }
    raise ValueError(f"Hugging Face has no fixed NTK scaling, got rope_scaling = {scaling}")


def _translate(key: str, rest: dict[str, Any], names: Mapping[str, str], default: str) -> str:
    value = rest.pop(key, default)
    if value not in names:
        _refuse(key, value, _list(names))
    return names[value]


def _needed(key: str, options: dict[str, Any]) -> Any:
    if options.get(key) is None:
        raise ValueError(f"rope_parameters of config.json lacks {key}")
    return options.pop(key)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _refuse(key: str, value: object, have: str) -> None:
    raise ValueError(f"config.json has {key} = {value!r}; we have {have}")
