"""Chapter 23, export: what the widgets show where there is no JavaScript, computed in Python.

``recorded.json`` holds it, so that a page does not depend on the processor that built it.
"""

import json
from importlib.resources import files
from typing import Any

import torch

from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.layers.basic import softmax
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer

PROMPT = "O Romeo, Romeo!"
SENTENCE = "Good night, good night! Parting is such sweet sorrow."
LOOKING = "The king is dead. Long live the king!"
LENS = "To be, or not to be"
N_NEW = 60
LAYER, HEAD = 0, 0


def recorded() -> dict[str, Any]:
    """What is committed."""
    return json.loads((files("llmtutor.web") / "recorded.json").read_text(encoding="utf-8"))


@torch.inference_mode()
def compute(model: Transformer, tokenizer: Tokenizer) -> dict[str, Any]:
    """All examples of a model, numbers rounded to what is shown."""
    return {
        "write": _written(model, tokenizer),
        "surprise": _surprise(model, tokenizer),
        "look": _looks(model, tokenizer),
        "inside": _guesses(model, tokenizer),
    }


def _written(model: Transformer, tokenizer: Tokenizer) -> dict[str, Any]:
    ids = tokenizer.encode(PROMPT)
    [new] = generate(model, [ids], max_new_tokens=N_NEW, sampler=Sampler(greedy=True))
    return {"prompt": PROMPT, "text": tokenizer.decode(new)}


def _surprise(model: Transformer, tokenizer: Tokenizer) -> dict[str, Any]:
    ids = tokenizer.encode(SENTENCE)
    probs = softmax(model(torch.tensor([ids]))[0])
    bits = [-probs[i, id].log2().item() for i, id in enumerate(ids[1:])]
    return {"tokens": _texts(ids, tokenizer), "bits": [round(one, 2) for one in bits]}


def _looks(model: Transformer, tokenizer: Tokenizer) -> dict[str, Any]:
    ids = tokenizer.encode(LOOKING)
    x = model.embedding(torch.tensor([ids]))
    for before in list(model.blocks)[:LAYER]:
        x = before(x)
    block: Any = model.blocks[LAYER]
    weights = block.mixer.weights(block.norm_1(x))[0, HEAD, -1]
    rounded = [round(one, 3) for one in weights.tolist()]
    return {"tokens": _texts(ids, tokenizer), "weights": rounded, "layer": LAYER, "head": HEAD}


def _guesses(model: Transformer, tokenizer: Tokenizer) -> dict[str, Any]:
    ids = tokenizer.encode(LENS)
    x, rows = model.embedding(torch.tensor([ids])), []
    for block in model.blocks:
        x = block(x)
        best = softmax(model.head(model.norm(x[0, -1]))).topk(3)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        rows.append([[_texts([id], tokenizer)[0], round(p, 3)] for id, p in pairs])
    return {"text": LENS, "rows": rows}


def _texts(ids: list[int], tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.token_bytes(id).decode("utf-8", "replace") for id in ids]
