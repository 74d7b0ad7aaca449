"""The folder that web.py shows to a browser: a model in every form, the engine, the peers."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.interop.gguf.container import read_container, write_container
from llmtutor.interop.gguf.file import save_gguf
from llmtutor.interop.onnx import export_onnx, export_onnx_decoder
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import Tokenizer
from llmtutor.web.boxes import box
from llmtutor.web.decoder import tensors
from llmtutor.web.engine import engine_script
from llmtutor.web.export import model_script
from llmtutor.web.page_files import page_files, standalone

OURS = Path(__file__).resolve().parent / "web"
MODULES = OURS / "node_modules"
ORT = "onnxruntime-web/dist/ort"
WLLAMA = "@wllama/wllama/esm"
PEERS = {
    "onnxruntime-web": {
        "ort.wasm.min.mjs": f"{ORT}.wasm.min.mjs",
        "ort-wasm-simd-threaded.mjs": f"{ORT}-wasm-simd-threaded.mjs",
        "ort-wasm-simd-threaded.wasm": f"{ORT}-wasm-simd-threaded.wasm",
    },
    "wllama": {"wllama.js": f"{WLLAMA}/index.min.js", "wllama.wasm": f"{WLLAMA}/wasm/wllama.wasm"},
}
"""What a page loads to have each of them, and where npm puts it."""
GGUF = ("f32", "q8_0")


@dataclass(frozen=True)
class Job:
    """A model with its tokenizer, what it goes on from, and how its weights are kept for a page."""

    name: str
    model: Transformer
    tokenizer: Tokenizer
    prompt: str
    dtype: str


def installed_versions() -> dict[str, str]:
    """The peers by npm, as `package-lock.json` pins them; nothing is done where they are already.

    Raises:
        SystemExit: npm could not; its own lines say why.
    """
    done, lock = MODULES / ".package-lock.json", OURS / "package-lock.json"
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        command = [shutil.which("npm") or "npm", "ci", "--ignore-scripts", "--loglevel=error"]
        if subprocess.run(command, cwd=OURS, stdout=subprocess.DEVNULL).returncode:
            sys.exit("web: npm could not install benchmarks/web/package.json; see the lines above")
    package = json.loads((OURS / "package.json").read_text(encoding="utf-8"))
    return dict(package["dependencies"])


def lay_programs(site: Path) -> None:
    """All that the pages load, but for the models."""
    for parts in PEERS.values():
        for name, source in parts.items():
            shutil.copy(MODULES / source, site / name)
    for name, text in {**page_files(), "engine.js": engine_script()}.items():
        (site / name).write_text(text, encoding="utf-8")
    for name in ("page.html", "programs.js"):
        shutil.copy(OURS / name, site)


def lay_box(site: Path, job: Job) -> None:
    """A page with one widget, which writes with the model of the job."""
    widget = box("write", {"model": job.name}, "")
    (site / "box.html").write_text(standalone("One widget", widget), encoding="utf-8")


def lay_model(site: Path, job: Job, count: int) -> dict[str, Any]:
    """A model in every form; the work, as programs.js takes it, and what has to come out."""
    script = model_script(job.model, job.tokenizer, dtype=job.dtype, name=job.name)
    (site / f"{job.name}.js").write_text(script, encoding="utf-8")
    export_onnx_decoder(job.model, site / f"{job.name}.cached.onnx")
    export_onnx(job.model, site / f"{job.name}.whole.onnx")
    for dtype in GGUF:
        path = site / f"{job.name}.{dtype}.gguf"
        save_gguf(job.model, job.tokenizer, path, dtype)
        facts, stored = read_container(path)  # all go on from the prompt, with no <s> before it
        write_container(path, {**facts, "tokenizer.ggml.add_bos_token": False}, stored)
    ids, greedy = job.tokenizer.encode(job.prompt), Sampler(greedy=True)
    (want,) = generate(job.model, [ids], max_new_tokens=count, sampler=greedy)
    config = job.model.config
    mixer: Any = config.blocks[0].mixer
    return {
        "text": job.prompt,
        "ids": ids,
        "count": count,
        "length": config.max_seq_len,
        "pastShape": [1, mixer.kv_heads, 0, mixer.width(config.d_model)],
        "want": want,
        "written": job.tokenizer.decode(want),
    }


def weigh(site: Path, before: list[str], after: list[str], job: Job) -> dict[str, int]:
    """Bytes of what a page asks for before a click and after it, beside the weights in int8.

    And those of the programs alone, of ours and of the peers, as they lie on a server.
    """

    def total(names: list[str]) -> int:
        return sum((site / name).stat().st_size for name in names)

    weights = 0
    for value in tensors(job.model, job.tokenizer.vocab_size):
        scales = 4 * len(value)  # a vector's own numbers, a matrix's one for each row
        weights += scales + (value.numel() if value.ndim == 2 else 0)
    return {
        "weights in int8": weights,
        "page, after a click": total(after),
        "page, before it": total(before),
        "program of ours": total([name for name in after if name != f"{job.name}.js"]),
        **{f"program of {peer}": total([*parts]) for peer, parts in PEERS.items()},
    }
