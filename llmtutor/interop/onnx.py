"""Chapter 23, export: the model's own operations as a graph in a file, which ONNX runtimes read.

GGUF holds weights, and the program that reads them has to know the architecture. ONNX holds the
computation as well: torch writes down every operation that a forward pass goes through, with the
number of texts and their length left open. ``export_onnx`` writes the pass over whole texts,
``export_onnx_decoder`` the step that goes on from a cache, which is a part of its inputs.
"""

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmtutor.fast.experts import traceable
from llmtutor.layers.attention.heads import Attention
from llmtutor.model.caches import Caches
from llmtutor.model.transformer import Transformer

NEEDED = "onnx", "onnxscript"
"""What torch needs to write a file."""
BATCH, SEQ, PAST = 2, 3, 4
"""Sizes of the example that is traced, any three that differ: all of them are left open."""


def export_onnx(model: Transformer, path: str | Path) -> None:
    """Write ``ids`` (batch, seq) → ``logits`` (batch, seq, vocab), for any batch and length.

    The weights are float32. The graph does not look whether ids are tokens and whether a text is
    longer than the model's ``max_seq_len``: who runs it has to.

    Raises:
        ValueError: no ``onnx`` and ``onnxscript`` installed, a layer whose operations torch cannot
            write down, with its reason. Nothing is written then.
        OSError: the file cannot be written.
    """
    example = torch.zeros(BATCH, SEQ, dtype=torch.int64)
    shapes = {"ids": {0: "batch", 1: "seq"}}
    _write(_ready(model), (example,), shapes, ["ids"], ["logits"], Path(path))


def export_onnx_decoder(model: Transformer, path: str | Path) -> None:
    """Write the step of a decoding loop: ids and the past → logits and the past with these ids.

    Inputs are ``ids`` (batch, seq), one or more new tokens of each text, and of every layer i
    ``past_keys.i`` and ``past_values.i`` (batch, n_kv_heads, past, head_dim); with past = 0 it
    reads a whole text. Outputs are ``logits`` (batch, seq, vocab), and ``keys.i`` and ``values.i``
    of past + seq tokens, which are the past of the next step. Texts of a batch have the same
    length; a layer with a window keeps older keys too, and does not look at them.

    Raises:
        ValueError: as ``export_onnx``; a mixer that keeps something else of the past than keys and
            values, by its place and kind.
        OSError: the file cannot be written.
    """
    if reason := no_decoder(model):
        raise ValueError(f"{reason}; export the pass over whole texts instead")
    layers: list[Any] = [block.get_submodule("mixer") for block in model.blocks]
    shapes = [(BATCH, layer.n_kv_heads, PAST, layer.head_dim) for layer in layers]
    past = [torch.zeros(shape) for shape in shapes for _ in ("keys", "values")]
    names = [f"{kind}.{i}" for i in range(len(layers)) for kind in ("keys", "values")]
    open_sizes = {"ids": {0: "batch", 1: "seq"}, "past": len(past) * [{0: "batch", 2: "past"}]}
    example = torch.zeros(BATCH, SEQ, dtype=torch.int64)
    inputs, outputs = ["ids", *(f"past_{name}" for name in names)], ["logits", *names]
    decoder = Decoder(_ready(model)).eval()
    _write(decoder, (example, past), open_sizes, inputs, outputs, Path(path))


class Decoder(nn.Module):
    """A model as a function without a memory of its own: the past comes in and goes out."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "batch seq"], past: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Logits of the new tokens, and keys and values of each layer, in turn."""
        layers = [Past(k, v) for k, v in zip(past[::2], past[1::2], strict=True)]
        logits = self.model(ids, cache=Pasts(layers, ids.shape[0]))
        return logits, *(x for layer in layers for x in (layer.keys, layer.values))


class Past:
    """Keys and values that grow by being laid behind each other: no memory is written to."""

    starts = None

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    @property
    def length(self) -> int:
        """How many tokens are known."""
        return self.keys.shape[2]

    def append(
        self, k: Float[Tensor, "batch heads seq dim"], v: Float[Tensor, "batch heads seq dim"]
    ) -> tuple[Tensor, Tensor]:
        """All keys and all values up to now, the new ones last."""
        self.keys, self.values = torch.cat((self.keys, k), 2), torch.cat((self.values, v), 2)
        return self.keys, self.values


class Pasts(Caches):
    """The pasts of all layers; how long they may become is not asked, since lengths are open."""

    def __init__(self, layers: Sequence[Any], batch: int) -> None:
        self.layers, self.batch, self.starts = tuple(layers), batch, None

    def check(self, n_layers: int, batch: int, seq: int) -> None:
        """Let everything pass."""


def no_decoder(model: Transformer) -> str | None:
    """Why there is no ``export_onnx_decoder`` of a model; None where there is."""
    for i, block in enumerate(model.config.blocks):
        if type(model.blocks[i].get_submodule("mixer")) is not Attention:
            return (
                f"blocks[{i}].mixer is of kind {block.mixer.kind!r}: only 'attention' keeps keys "
                "and values that a graph can be given"
            )
    return None


def _ready(model: Transformer) -> Transformer:
    """A copy in float32 whose parts one graph can hold for all inputs."""
    return traceable(deepcopy(model).float().cpu().eval())


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch says of other packages, and of names that it gives to equal sizes."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _write(
    module: nn.Module,
    example: tuple[Any, ...],
    open_sizes: dict[str, Any],
    inputs: list[str],
    outputs: list[str],
    path: Path,
) -> None:
    """Trace and write into a folder beside the place, then move there what is whole.

    Weights of more than 2 GB, which one file cannot hold, come to stand in a second one.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"ONNX export needs {' and '.join(missing)}: pip install 'llmtutor[export]'"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".") as folder, quiet():
        try:
            program: Any = torch.onnx.export(
                module,
                example,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=open_sizes,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise ValueError(f"{path}: torch cannot write this model as ONNX: {reason}") from error
        forget_origins(program.model)
        program.save(Path(folder) / path.name)
        for file in Path(folder).iterdir():
            os.replace(file, path.parent / file.name)


def forget_origins(graph_model: Any) -> None:
    """Take away where in whose files each operation came from: it is no one's concern, and long."""
    for part in (graph_model.graph, *graph_model.functions.values()):
        for node in part.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
