"""Exported files beside the model in torch: their bytes, and what ONNX Runtime makes of them.

    python benchmarks/export.py            # a result, also written to data/results
    python benchmarks/export.py --quick    # a first look, not a result

The shape is that of `llama-nano` with a context of 1,024 tokens, the weights are random. Two works,
each compared before anything is timed: the logits of a text of 256 tokens, and 64 new tokens after
a prompt of 64, greedily, with a cache. Ours does them as its users call it (the model, `generate`),
ONNX Runtime with the file of `llmtutor export --to onnx`, whose cache goes in and out of each step.
In float32, in one process, in turn, after a warm-up round, with the threads that torch takes by
itself and with one. The last line is one JSON object.
"""

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from _measure import Times, Work, from_command_line, in_turn, machine, ratio, record

from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.interop.gguf import KINDS, save_gguf
from llmtutor.interop.hf import save_hf
from llmtutor.interop.onnx import export_onnx_decoder
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import BPETokenizer

CONTEXT, TEXT, PROMPT, NEW = 1024, 256, 64, 64
PEER, OURS = "torch", "onnxruntime"


def a_model() -> Transformer:
    torch.manual_seed(0)
    return build(preset("llama-nano", max_seq_len=CONTEXT)).eval()


def bytes_of_files(model: Transformer, folder: Path) -> dict[str, int]:
    """By format; the weights alone first."""
    sizes = {"weights in float32": sum(p.nbytes for p in model.parameters())}
    save_hf(model, folder / "hf")
    sizes["hf"] = sum(path.stat().st_size for path in (folder / "hf").iterdir())
    export_onnx_decoder(model, folder / "model.onnx")
    sizes["onnx"] = (folder / "model.onnx").stat().st_size
    for dtype in KINDS:
        save_gguf(model, BPETokenizer.train("a", 256), folder / dtype, dtype)
        sizes[f"gguf {dtype}"] = (folder / dtype).stat().st_size
    return sizes


class Runtime:
    """The exported step of a model, with so many threads."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        where = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(path, options, providers=where)
        self.shapes = {one.name: one.shape for one in self.session.get_inputs()[1:]}

    def steps(self, ids: np.ndarray) -> Iterator[np.ndarray]:
        """Logits of the ids, and then of each token that is the likeliest after them."""
        past = {
            name: np.zeros((len(ids), heads, 0, head_dim), np.float32)
            for name, (_, heads, _, head_dim) in self.shapes.items()
        }
        while True:
            logits, *rest = self.session.run(None, {"ids": ids, **past})
            yield logits
            past = dict(zip(past, rest, strict=True))
            ids = logits[:, -1:].argmax(-1)

    def write(self, ids: np.ndarray) -> list[list[int]]:
        steps = zip(range(NEW), self.steps(ids), strict=False)
        return np.concatenate([logits[:, -1:].argmax(-1) for _, logits in steps], 1).tolist()


def random_ids(model: Transformer, batch: int, seq: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.config.vocab_size, (batch, seq), generator=generator)


@torch.no_grad()
def reading(model: Transformer, runtime: Runtime, batch: int) -> dict[str, Work]:
    ids = random_ids(model, batch, TEXT)
    difference = float(np.abs(next(runtime.steps(ids.numpy())) - model(ids).numpy()).max())
    if not difference < 1e-4:
        raise AssertionError(f"expected equal logits, they differ by {difference:g}")

    def read() -> None:
        with torch.no_grad():
            model(ids)

    return {PEER: read, OURS: lambda: next(runtime.steps(ids.numpy()))}


def writing(model: Transformer, runtime: Runtime, batch: int) -> dict[str, Work]:
    ids = random_ids(model, batch, PROMPT)
    rows: list[list[int]] = ids.tolist()
    write = partial(generate, model, rows, max_new_tokens=NEW, sampler=Sampler(greedy=True))
    if write() != runtime.write(ids.numpy()):
        raise AssertionError("expected the same new tokens, got others")
    return {PEER: write, OURS: lambda: runtime.write(ids.numpy())}


WORKS = {"reading": (reading, TEXT), "writing": (writing, NEW)}


def main(quick: bool) -> None:
    about = machine("torch", "onnxruntime")
    usual, rounds = torch.get_num_threads(), 3 if quick else 30
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    figures: dict[str, object] = {"benchmark": "export", "quick": quick}
    seconds: dict[str, Times] = {}
    model = a_model()
    with tempfile.TemporaryDirectory() as folder:
        figures["bytes"] = sizes = bytes_of_files(model, Path(folder))
        for name, nbytes in sizes.items():
            print(f"  {name:24}{nbytes:14,}{nbytes / sizes['weights in float32']:8.3f}")
        print(f"\n{'':44}{'median':>9}{'min':>9}{'max':>9}{'tokens/s':>11}{'speed':>7}")
        for (name, (work, tokens)), batch, threads in product(
            WORKS.items(), (1, 8), dict.fromkeys((usual, 1))
        ):
            torch.set_num_threads(threads)
            label = f"{name}_batch_{batch}_threads_{threads}"
            runtime = Runtime(Path(folder) / "model.onnx", threads)
            seconds[label] = times = in_turn(rounds, work(model, runtime, batch))
            for who, values in times.items():
                middle = median(values)
                print(
                    f"  {label:30}{who:12}{middle:8.3f}s{min(values):8.3f}s{max(values):8.3f}s"
                    f"{batch * tokens / middle:11,.0f}{1 / ratio(times, who):7.2f}"
                )
            figures[f"{label}_time_to_{PEER}"] = ratio(times, OURS)
    torch.set_num_threads(usual)
    if not quick:
        record("export", {**figures, **about}, seconds)
    print(json.dumps(figures))


if __name__ == "__main__":
    from_command_line(main, __doc__)
