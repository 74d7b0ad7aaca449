"""Our tokenizer beside the Rust library `tokenizers`: training, encoding, memory.

    python benchmarks/tokenizer.py            # a result, also written to data/results
    python benchmarks/tokenizer.py --quick    # a first look, not a result

Both learn 4,096 tokens from the training part of `shakespeare` and then encode it, in one process
and in turn, after a warm-up round. In training, ours gets the text as one string and two
processes; the Rust trainer gets the text in pieces, which it spreads over the same two cores.
Encoding: cold is a new tokenizer that remembers no words, warm is the same one again. The Rust
`encode` also returns where each token lies in the text; `encode_batch_fast`, printed as well, does
not, and spreads many texts over the cores.
The last line is one JSON object.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

from _measure import (
    Times,
    Work,
    from_command_line,
    in_turn,
    machine,
    peak_mb,
    ratio,
    record,
    timed,
    without_first,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from llmtutor.data import load_corpus
from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.fast import to_tokenizers
from llmtutor.tokenizer.pretokenize import safe_pieces

VOCAB_SIZE = 4096
MEMORY_LIMIT = 300  # MB


def rust_train(pieces: list[str]) -> Tokenizer:
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(pieces, trainer)
    return rust


def bench_training(text: str, rounds: int) -> Times:
    pieces = list(safe_pieces([text]))
    return in_turn(
        rounds,
        {
            "rust": lambda: rust_train(pieces),
            "ours": lambda: BPETokenizer.train(text, VOCAB_SIZE, num_processes=2),
            "ours, 1 process": lambda: BPETokenizer.train(text, VOCAB_SIZE),
        },
    )


def bench_encoding(texts: list[str], tokenizer: BPETokenizer, rounds: int) -> tuple[Times, Times]:
    """Each text by itself, cold and then warm; both must give the same ids."""
    state = to_tokenizers(tokenizer).to_str()
    cold: Times = {}
    warm: Times = {}
    for _ in range(rounds + 1):
        ours = BPETokenizer(tokenizer.vocab, tokenizer.merges)
        rust = Tokenizer.from_str(state)
        works: dict[str, Work] = {
            "rust": partial(encode_with_rust, rust, texts),
            "ours": partial(encode_with_ours, ours, texts),
        }
        for times in (cold, warm):
            for name, work in works.items():
                timed(times, name, work)
        timed(warm, "rust, encode_batch_fast", partial(encode_batch, rust, texts))
        if encode_with_ours(ours, texts[:1000]) != encode_with_rust(rust, texts[:1000]):
            raise AssertionError("expected the same ids from both")
    return without_first(cold), without_first(warm)


def encode_with_rust(rust: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [rust.encode(text).ids for text in texts]


def encode_with_ours(ours: BPETokenizer, texts: list[str]) -> list[list[int]]:
    return [ours.encode(text) for text in texts]


def encode_batch(rust: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in rust.encode_batch_fast(texts)]


def varied_text(n_bytes: int) -> Iterator[str]:
    """ASCII text of `n_bytes`: words of the corpus, one in twenty invented, in uneven chunks."""
    rng = random.Random(0)
    words = load_corpus("shakespeare").train.split(" ")[:200_000]
    sent = 0
    while sent < n_bytes:
        chosen = rng.choices(words, k=10_000)
        for i in range(0, len(chosen), 20):
            letters = rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(3, 13))
            chosen[i] = "".join(letters)
        chunk = " ".join(chosen)[: n_bytes - sent]
        sent += len(chunk)
        yield chunk


def stream(folder: str, megabytes: int) -> None:
    """Encode a stream to a file and print what it took. Runs in a process of its own."""
    tokenizer = BPETokenizer.load(folder)
    n_bytes = n_ids = 0

    def counted() -> Iterator[str]:
        nonlocal n_bytes
        for chunk in varied_text(megabytes * 1_000_000):
            n_bytes += len(chunk.encode("utf-8"))
            yield chunk

    start = time.perf_counter()
    ids = tokenizer.encode_iterable(counted())
    with open(Path(folder) / "ids.bin", "wb") as file:
        while part := array("H", islice(ids, 1 << 16)):
            part.tofile(file)
            n_ids += len(part)
    seconds = time.perf_counter() - start
    print(json.dumps({"bytes": n_bytes, "ids": n_ids, "s": seconds, "peak_mb": peak_mb()}))


def bench_memory(tokenizer: BPETokenizer, megabytes: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        command = [sys.executable, __file__, "--stream", folder, str(megabytes)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def table(title: str, times: Times) -> None:
    print(f"\n{title}\n{'':26}{'median':>9}{'min':>9}{'max':>9}{'to rust':>9}")
    for name, values in times.items():
        middle = median(values)
        row = f"{middle:8.3f}s{min(values):8.3f}s{max(values):8.3f}s"
        print(f"  {name:24}{row}{ratio(times, name):9.2f}")


def main(quick: bool) -> None:
    text = load_corpus("shakespeare").train
    about = machine("tokenizers", "regex")
    rounds = 5
    if quick:
        print("QUICK: one round of a fifth of the text. A first look, not a result.")
        text, rounds = text[: len(text) // 5], 1
    print(f"shakespeare, {len(text.encode()):,} bytes, {VOCAB_SIZE:,} tokens, {rounds} rounds")

    training = bench_training(text, rounds)
    table("Training", training)
    tokenizer = BPETokenizer.train(text, VOCAB_SIZE)
    whole_cold, whole_warm = bench_encoding([text], tokenizer, rounds)
    table("Encoding, the text as one string, cold", whole_cold)
    table("Encoding, the text as one string, warm", whole_warm)
    lines = text.splitlines(keepends=True)
    lines_cold, lines_warm = bench_encoding(lines, tokenizer, rounds)
    table(f"Encoding, {len(lines):,} lines one by one, cold", lines_cold)
    table(f"Encoding, {len(lines):,} lines one by one, warm", lines_warm)
    memory = bench_memory(tokenizer, 10 if quick else 100)
    speed = memory["bytes"] / memory["s"] / 1e6
    print(
        f"\nEncoding a stream of {memory['bytes']:,.0f} bytes to a file: peak memory "
        f"{memory['peak_mb']:.0f} MB, {memory['s']:.1f} s ({speed:.1f} MB/s with making the text)"
    )

    figures = {
        "benchmark": "tokenizer",
        "quick": quick,
        "training_time_to_rust": ratio(training),
        "training_1_process_time_to_rust": ratio(training, "ours, 1 process"),
        "encode_whole_cold_time_to_rust": ratio(whole_cold),
        "encode_whole_warm_time_to_rust": ratio(whole_warm),
        "encode_lines_cold_time_to_rust": ratio(lines_cold),
        "encode_lines_warm_time_to_rust": ratio(lines_warm),
        "stream_bytes": memory["bytes"],
        "stream_peak_mb": round(memory["peak_mb"], 1),
    }
    if not quick:
        seconds = {
            "training": training,
            "encode_whole_cold": whole_cold,
            "encode_whole_warm": whole_warm,
            "encode_lines_cold": lines_cold,
            "encode_lines_warm": lines_warm,
        }
        record("tokenizer", {**figures, **about}, seconds, text_bytes=len(text.encode()))
    print(json.dumps(figures))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stream"]:
        stream(sys.argv[2], int(sys.argv[3]))
    else:
        from_command_line(main, __doc__)
