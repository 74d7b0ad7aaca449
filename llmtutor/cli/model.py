"""``llmtutor model``: what a model is made of, and what it costs, without its weights."""

import json
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from llmtutor.checks import check_name
from llmtutor.interop.hf import read_config
from llmtutor.interop.hf.folder import CONFIG
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import PRESETS, PUBLISHED, preset
from llmtutor.model.summary import figures, summary
from llmtutor.tokenizer import load_tokenizer
from llmtutor.train.folder import CHECKPOINTS, run_folder
from llmtutor.train.folder import read_config as read_settings

app = cyclopts.App(
    name="model",
    help="Show what a model is made of and what it costs; no weights are needed.",
    help_epilogue="Example: llmtutor model show gemma3-1b",
)


@app.command(name="list")
def list_models() -> None:
    """Show the models that have a name: the book's own, and published ones."""
    print(f"{'NAME':16} LAYERS   WIDTH  CONTEXT {'PARAMETERS':>15}  BLOCKS")
    for name in {**PRESETS, **PUBLISHED}:
        known = figures(preset(name))
        layers, width, context = (known[key] for key in ("n_layers", "d_model", "context"))
        total, blocks = known["parameters"]["total"], known["pattern"]
        print(f"{name:16} {layers:6} {width:7,} {context:8,} {total:15,}  {blocks}")


@app.command
def show(
    model: str, /, *, json_: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> None:
    """Show a model: its blocks, parameters, operations for a token, cache, context.

    Parameters
    ----------
    model
        A name from `llmtutor model list`, or the folder of a training run or of Hugging Face.
    json_
        Print one JSON object, with the whole configuration.
    """
    config = find(model)
    if json_:
        print(json.dumps({"name": model, **figures(config), "config": config.to_dict()}, indent=2))
        return
    lines = [("model", model), *summary(config)]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name.ljust(width)}  {text}")


def find(model: str) -> ModelConfig:
    """The configuration that a name or a folder stands for.

    Raises:
        ValueError: neither a name (with the nearest one) nor such a folder; what the folder's own
            files refuse.
    """
    names = {**PRESETS, **PUBLISHED}
    folder = Path(model)
    if model in names or not folder.exists():
        return preset(check_name("model or folder", model, names))
    if (folder / CONFIG).is_file():
        return read_config(folder)
    if (run_folder(folder) / CHECKPOINTS).is_dir():
        vocab_size = load_tokenizer(run_folder(folder) / "tokenizer").vocab_size
        return read_settings(folder).model_config(vocab_size)
    raise ValueError(
        f"{model}: expected a {CONFIG} of Hugging Face or the {CHECKPOINTS} of a training run "
        "in it, found neither"
    )
