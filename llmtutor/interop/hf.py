"""Chapter 09, the transformer: weights traded with the outside world.

A folder of Hugging Face holds ``config.json`` and ``model.safetensors``. ``save_hf`` writes one
that the ``transformers`` library opens, ``load_hf`` reads one that it wrote; both keep every bit.
Only safetensors: a pickle can run any program when it is opened.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmtutor.interop.hf_config import config_from_hf, config_to_hf
from llmtutor.layers.positions import convert_pairing
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"

# Our module → theirs, inside a block and outside of the blocks.
GPT2_BLOCK = {
    "norm_1": "ln_1",
    "mixer.output": "attn.c_proj",
    "norm_2": "ln_2",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
}
GPT2_REST = {"embedding": "wte", "position": "wpe", "norm": "ln_f"}
LLAMA_BLOCK = {
    "norm_1": "input_layernorm",
    "mixer.query": "self_attn.q_proj",
    "mixer.key": "self_attn.k_proj",
    "mixer.value": "self_attn.v_proj",
    "mixer.output": "self_attn.o_proj",
    "norm_2": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
LLAMA_REST = {"embedding": "embed_tokens", "norm": "norm"}
TRANSPOSED = "mixer.output", "ffn.up", "ffn.down"
"""GPT-2 keeps the weights of its linear layers as (d_in, d_out), and q, k, v as one matrix."""
QKV = "query", "key", "value"
BUFFERS = ".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"
"""Masks and frequencies that older files carry along; they are computed, not learned."""


def state_to_hf(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Their names and layouts for our state dict; tied weights are there once, as the embedding.

    Raises:
        ValueError: a model that neither gpt2 nor llama can express.
    """
    config_to_hf(config)
    turned = {
        "mixer.query.weight": config.n_heads,
        "mixer.key.weight": config.n_kv_heads or config.n_heads,
    }
    result = {}
    for ours, theirs, transposed in _names(config):
        if len(ours) == 1:
            value = state[ours[0]]
            heads = turned.get(ours[0].split(".", 2)[-1])
            if config.rope_pairing == "interleaved" and heads:
                value = convert_pairing(value, heads, "interleaved", "half")
        else:
            value = torch.cat([state[name] for name in ours])
        result[theirs] = (value.T if transposed else value).detach().contiguous()
    return result


def state_from_hf(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our names and layouts for their state dict: the inverse of ``state_to_hf`` for pairing half.

    Raises:
        ValueError: names missing or left over; a tied output layer that differs from the embedding.
    """
    prefix = _prefix(config)
    given = {name: value for name, value in state.items() if not name.endswith(BUFFERS)}
    if f"{prefix}ln_f.weight" not in given and "ln_f.weight" in given:  # a body saved without head
        given = {n if n == "lm_head.weight" else prefix + n: v for n, v in given.items()}
    head = given.pop("lm_head.weight", None) if config.tie_weights else None
    result: dict[str, Tensor] = {}
    missing = []
    for ours, theirs, transposed in _names(config):
        if theirs not in given:
            missing.append(theirs)
            continue
        value = given.pop(theirs)
        parts = (value.T if transposed else value).chunk(len(ours))
        result |= {name: part.contiguous() for name, part in zip(ours, parts, strict=True)}
    if missing or given:
        raise ValueError(
            f"the weights do not fit the configuration: missing {_few(missing)}, "
            f"unexpected {_few(given)}"
        )
    if config.tie_weights:
        if head is not None and not torch.equal(head, result["embedding.weight"]):
            raise ValueError("tie_word_embeddings is true but lm_head.weight is not the embedding")
        result["head.weight"] = result["embedding.weight"]
    return result


def _names(config: ModelConfig) -> Iterator[tuple[list[str], str, bool]]:
    """For each of their tensors: ours (several are laid one below the other), theirs, turned?"""
    gpt2 = config.position == "learned"
    prefix = _prefix(config)
    for ours, theirs in (GPT2_REST if gpt2 else LLAMA_REST).items():
        for kind in ("weight", "bias") if gpt2 and ours == "norm" else ("weight",):
            yield [f"{ours}.{kind}"], f"{prefix}{theirs}.{kind}", False
    if not config.tie_weights:
        yield ["head.weight"], "lm_head.weight", False
    for i in range(config.n_layers):
        block = f"{prefix}h.{i}" if gpt2 else f"{prefix}layers.{i}"
        for kind in ("weight", "bias") if gpt2 else ("weight",):
            turn = gpt2 and kind == "weight"
            if gpt2:
                yield (
                    [f"blocks.{i}.mixer.{x}.{kind}" for x in QKV],
                    f"{block}.attn.c_attn.{kind}",
                    turn,
                )
            for ours, theirs in (GPT2_BLOCK if gpt2 else LLAMA_BLOCK).items():
                yield (
                    [f"blocks.{i}.{ours}.{kind}"],
                    f"{block}.{theirs}.{kind}",
                    turn and ours in TRANSPOSED,
                )


def _prefix(config: ModelConfig) -> str:
    return "transformer." if config.position == "learned" else "model."


def save_hf(model: Transformer, folder: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` into ``folder``, in the model's dtype.

    Raises:
        ValueError: a model that neither gpt2 nor llama can express; nothing is written then.
        OSError: the folder cannot be written; files of before are left whole.
    """
    folder = Path(folder)
    state = state_to_hf(model.state_dict(), model.config)
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    content = json.dumps({**config_to_hf(model.config), "dtype": dtype}, indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS, lambda path: save_file(state, path, metadata={"format": "pt"}))
    _replace(folder / CONFIG, lambda path: path.write_text(content, encoding="utf-8"))


def load_hf(folder: str | Path, dtype: torch.dtype | None = None) -> Transformer:
    """The model in a folder that ``transformers`` or ``save_hf`` wrote, in one file or in shards.

    ``dtype`` converts the weights; None keeps the one of the file.

    Raises:
        FileNotFoundError: no ``config.json`` or no safetensors in the folder.
        ValueError: a feature that we do not have, weights that do not fit, a damaged file.
    """
    folder = Path(folder)
    config = config_from_hf(_read_json(folder / CONFIG))
    state = state_from_hf(_read_weights(folder), config)
    dtypes = {value.dtype for value in state.values()}
    if dtype is None and len(dtypes) > 1:
        raise ValueError(f"{folder} mixes {_few(map(str, dtypes))}; say which dtype to load as")
    model = Transformer(config).to(dtype or dtypes.pop())
    for name, value in model.state_dict().items():
        if value.shape != state[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)} in {folder}, but the configuration "
                f"asks for {tuple(value.shape)}"
            )
    model.load_state_dict(state)
    return model


def _read_weights(folder: Path) -> dict[str, Tensor]:
    if (folder / WEIGHTS).exists():
        names = {WEIGHTS}
    elif (folder / INDEX).exists():
        names = set(_read_json(folder / INDEX)["weight_map"].values())
    else:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickles[0]} is a pickle, convert it where you trust it" if pickles else ""
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}{hint}")
    state: dict[str, Tensor] = {}
    for name in sorted(names):
        if Path(name).name != name:
            raise ValueError(f"{INDEX} names a file outside its folder: {name!r}")
        try:
            state |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is not a whole safetensors file: {error}") from error
    return state


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``path`` and move it there when it is whole."""
    beside = path.with_name(path.name + ".part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _few(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (" …" if len(listed) > 5 else "") if listed else "nothing"
