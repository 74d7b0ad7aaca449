"""`llmtutor generate`, as it is typed: one prompt, many typed lines, a draft, mistakes."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from llmtutor import cli
from llmtutor.cli import generate as command
from llmtutor.data import tales
from llmtutor.generate.beam import beam_search
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.generate.stopping import StopTexts
from llmtutor.interop.hf import load_hf_with_tokenizer, save_hf
from llmtutor.model.presets import build, preset
from llmtutor.tokenizer import BPETokenizer, CharTokenizer
from llmtutor.tokenizer.fast import to_tokenizers

MODEL = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three short runs on tales: ``large``, ``small`` and, in byte pairs, ``foreign``.

    The small one has room for more ids than its tokenizer has.
    """
    folder = tmp_path_factory.mktemp("runs")
    corpus = folder / "mine.txt"
    corpus.write_bytes("<|endoftext|>".join(tales.generate(30, 1)).encode("utf-8"))
    config = {"corpus": str(corpus), "seq_len": 64, "batch_size": 4, "steps": 3, "lr": 0.01}
    config |= {"eval_tokens": 50, "device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMTUTOR_DATA", str(folder / "data"))
        small = MODEL | {"vocab_size": 512}
        for name, model in {"large": MODEL | {"n_layers": 2}, "small": small}.items():
            path = folder / f"{name}.json"
            values = config | {"model": model, "out": str(folder / name)}
            path.write_text(json.dumps(values), encoding="utf-8")
            assert cli.main(["train", "--config", str(path)]) == 0
        pairs = ["--tokenizer", "bpe-300", "--out", str(folder / "foreign")]
        assert cli.main(["train", "--config", str(path), *pairs]) == 0
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """A folder as it comes from the hub: a tiny Llama with a byte-level BPE of its own."""
    folder = tmp_path_factory.mktemp("hub")
    tokenizer = BPETokenizer.train(tales.generate(30, 1), 300, ["<|endoftext|>"])
    torch.manual_seed(0)
    save_hf(build(preset("llama-nano", **MODEL, vocab_size=320, max_seq_len=64)), folder)
    to_tokenizers(tokenizer).save(str(folder / "tokenizer.json"))
    return folder


def test_a_folder_of_the_hub_writes_with_its_own_tokenizer(run, hub) -> None:
    options = ("--hf", hub, "--prompt", "Once", "--max-new-tokens", 12, "--greedy")
    code, text, error = run(*options)
    assert code == 0, error
    published = load_hf_with_tokenizer(hub)
    ids = published.tokenizer.encode("Once")
    want = generate(
        published.model, [ids], max_new_tokens=12, sampler=Sampler(greedy=True), n_ids=300
    )[0]
    assert text == published.tokenizer.decode(want) + "\n"


def test_a_run_or_a_folder_of_the_hub(run, runs, hub) -> None:
    for words in ((), (runs / "large", "--hf", hub)):
        code, _, error = run(*words, "--prompt", "x")
        assert code == 1 and "expected the folder of a run, or --hf FOLDER" in error


class Keys(io.BytesIO):
    """What is typed, at a terminal or into a pipe."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def run(capfdbinary, monkeypatch):
    """Types a command line, and lines at its prompt; returns exit code, output and errors."""

    def call(*words: object, typed: str | bytes = "") -> tuple[int, str, str]:
        keys = typed.encode("utf-8") if isinstance(typed, str) else typed
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Keys(keys)))
        code = cli.main(["generate", *map(str, words)])
        out, err = capfdbinary.readouterr()
        return code, out.decode("utf-8"), err.decode("utf-8")

    return call


def expected(folder, prompt: str, n: int, sampler: Sampler, seed: int = 0) -> str:
    model, tokenizer, *_ = command.load(folder)
    (new,) = generate(
        model,
        [tokenizer.encode(prompt)],
        max_new_tokens=n,
        sampler=sampler,
        generator=torch.Generator().manual_seed(seed),
        use_cache=False,
    )
    return tokenizer.decode(new) + "\n"


def test_it_writes_what_the_model_says(run, runs) -> None:
    options = ["--max-new-tokens", 20, "--prompt", "the "]
    code, out, err = run(runs / "large", *options, "--greedy")
    assert (code, err) == (0, "")
    assert out == expected(runs / "large", "the ", 20, Sampler(greedy=True))
    words = "--temperature 0.8 --top-k 9 --top-p=0.9 --min-p 0.01 --repetition-penalty 1.1 --seed 3"
    sampler = Sampler(temperature=0.8, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=1.1)
    code, out, _ = run(runs / "large", *options, *words.split())
    assert out == expected(runs / "large", "the ", 20, sampler, seed=3)
    checkpoint = runs / "large" / "checkpoints" / "step-00000003"
    assert run(checkpoint, *options, *words.split())[1] == out
    unseeded = {run(runs / "large", *options)[1] for _ in range(3)}
    assert len(unseeded) > 1


def test_each_typed_line_is_a_prompt_and_an_empty_one_ends_it(run, runs) -> None:
    options = [runs / "large", "--greedy", "--max-new-tokens", 9]
    code, out, err = run(*options, typed="the \na girl\r\n\nnever\n")
    assert (code, err) == (0, "")
    texts = [expected(runs / "large", p, 9, Sampler(greedy=True)) for p in ("the ", "a girl")]
    assert out == "".join(texts)
    assert run(*options, typed="")[:2] == (0, "")
    code, out, err = run(*options, typed="the €\nthe \n")
    assert (code, out) == (0, texts[0])  # a mistake in one line does not end it
    assert err.startswith("llmtutor: ") and "'€'" in err and err.count("\n") == 1
    code, out, err = run(*options, typed=b"the \xff\r\nthe \r\n")
    assert (code, out) == (0, texts[0])
    assert "standard input: expected UTF-8 text, found byte 0xff at 4" in err


def test_a_terminal_is_asked_on_standard_error(run, runs, monkeypatch) -> None:
    monkeypatch.setattr(Keys, "terminal", True)
    _, out, err = run(runs / "large", "--max-new-tokens", 2, typed="the \n")
    assert err == "\n> \n> " and ">" not in out


def test_a_draft_changes_no_greedy_text(run, runs) -> None:
    options = [runs / "large", "--prompt", "the ", "--greedy", "--max-new-tokens", 30]
    plain = run(*options)[1]
    code, out, err = run(*options, "--draft", runs / "small", "--n-draft", 3)
    assert (code, out) == (0, plain)
    assert re.fullmatch(r"30 tokens in \d+ passes, \d+ of \d+ proposals accepted\n", err)
    # Six rounds of five at best, each with one token of the model's own.
    _, _, err = run(*options, "--draft", runs / "large")
    assert err == "30 tokens in 6 passes, 24 of 24 proposals accepted\n"
    code, _, err = run(*options, "--draft", runs / "foreign")
    assert code == 1 and "has another tokenizer" in err


def test_drafts_that_are_no_model_change_no_greedy_text(run, runs, hub) -> None:
    options = ["--prompt", "the ", "--greedy", "--max-new-tokens", 30]
    plain = run(runs / "large", *options)[1]
    for draft in ("ngram", "lookup"):
        code, out, err = run(runs / "large", *options, "--draft", draft)
        assert (code, out) == (0, plain) and err.startswith("30 tokens in ")
    code, out, _ = run("--hf", hub, *options, "--draft", "lookup")
    assert (code, out) == (0, run("--hf", hub, *options)[1])
    code, _, err = run("--hf", hub, *options, "--draft", "ngram")
    assert code == 1 and "take --draft lookup" in err


def test_beams_and_penalties_write_what_the_functions_do(run, runs) -> None:
    options = [runs / "large", "--prompt", "the ", "--max-new-tokens", 9]
    model, tokenizer, *_ = command.load(runs / "large")
    settings = {"max_new_tokens": 9, "n_beams": 3, "length_penalty": 0.5}
    best = beam_search(model, tokenizer.encode("the "), **settings)[0]
    out = run(*options, "--beams", 3, "--length-penalty", 0.5)[1]
    assert out == tokenizer.decode(best.ids) + "\n"
    sampler = Sampler(greedy=True, presence_penalty=1.5, frequency_penalty=0.5)
    words = ["--greedy", "--presence-penalty", 1.5, "--frequency-penalty", 0.5]
    assert run(*options, *words)[1] == expected(runs / "large", "the ", 9, sampler)


def test_json_is_json(run, hub, runs) -> None:
    for seed in range(4):
        options = ["--prompt", "Once", "--json", "--max-new-tokens", 20, "--seed", seed]
        json.loads(run("--hf", hub, *options)[1])
        json.loads(run(runs / "foreign", *options)[1])


@pytest.mark.parametrize("words", [["--seed", 2**64 - 1], ["--draft", "small"]], ids=str)
def test_ids_that_are_no_tokens_are_never_drawn(run, runs, words: list, monkeypatch) -> None:
    monkeypatch.chdir(runs)
    code, out, _ = run("small", "--prompt", "the ", "--max-new-tokens", 40, *words)
    assert (code, len(out)) == (0, 41)


def test_text_may_begin_with_a_dash(run, runs) -> None:
    options = [runs / "foreign", "--greedy", "--max-new-tokens", 9]
    for prompt in ("- So", "--seed", "-a"):
        joined = run(*options, f"--prompt={prompt}")
        assert run(*options, "--prompt", prompt) == joined and joined[0] == 0
    stops = ["--stop", "-", "--stop", joined[1][0]]
    assert run(*options, "--prompt", "-a", *stops) == (0, "\n", "")


def test_compiled_it_writes_the_same(run, runs, monkeypatch) -> None:
    """Captured and run operation by operation: to generate code takes long and a compiler."""
    real, compiled = torch.compile, []

    def in_graphs(function, **options):
        compiled.append(function)
        return real(function, **options, backend="eager")

    options = [runs / "large", "--prompt", "the ", "--greedy", "--max-new-tokens", 30]
    plain = run(*options)
    monkeypatch.setattr(torch, "compile", in_graphs)
    monkeypatch.setenv("CXX", sys.executable)
    assert run(*options, "--compile") == plain
    assert len(compiled) == 1
    code, _, err = run(*options, "--compile", "--draft", runs / "small")
    assert code == 1 and "leave out --draft or --compile" in err
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, _, err = run(*options, "--compile")
    assert code == 1 and "needs a C++ compiler" in err


def test_text_ends_before_a_stop_text_and_at_the_end_of_the_context(run, runs) -> None:
    options = [runs / "large", "--prompt", "the ", "--seed", 1]
    out = run(*options, "--max-new-tokens", 10_000)[1]
    assert len(out) == 64 - 4 + 1
    for stop in (out[5], out[5:9]):
        assert run(*options, f"--stop={stop}")[1] == out[: out.index(stop)] + "\n"


def test_a_character_is_printed_when_its_last_byte_has_come(capfdbinary) -> None:
    tokenizer = BPETokenizer({bytes([b]): b for b in range(256)}, [], {"<|end|>": 256})
    write, finish = command.streamer(StopTexts(tokenizer, []))
    seen = []
    for id in [*"né€".encode(), 256, 0xE2]:
        write(id)
        seen.append(capfdbinary.readouterr().out.decode("utf-8"))
    assert seen == ["n", "", "é", "", "", "€", "<|end|>", ""]
    finish()
    assert capfdbinary.readouterr().out.decode("utf-8") == "\ufffd\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "the " * 17], "the model's context of 64; keep its last part"),
        (["--prompt", "a", "--temperature", "0"], "temperature must be above 0, got 0.0"),
        (["--prompt", "a", "--temperature", "-1"], "temperature must be above 0, got -1.0"),
        (["--prompt", "a", "--top-p", "1.5"], "top_p must lie in (0, 1], got 1.5"),
        (["--prompt", "a", "--max-new-tokens", "0"], "max_new_tokens must be at least 1"),
        (["--prompt", "a", "--stop", ""], "a stop text must have one character at least, got ''"),
        (["--prompt", "a", "--presence-penalty", "3"], "presence_penalty must lie in -2 … 2"),
        (["--prompt", "a", "--json"], "needs a token for each of its signs"),
        (["--prompt", "a", "--json", "--beams", "2"], "leave out --json or --beams"),
        (["--prompt", "a", "--json", "--stop", "b"], "leave out --stop"),
        (["--prompt", "a", "--beams", "2", "--draft", "lookup"], "leave out --draft or --beams"),
        (["--prompt", "a", "--beams", "0"], "n_beams must be at least 1, got 0"),
        (["--prompt", "€"], "'€'"),
        (["--prompt", "a", "--seed", "-1"], "--seed must lie in 0 … 2**64 - 1, got -1"),
        (["--prompt", "a", "--seed", str(2**64)], "--seed must lie in 0 … 2**64 - 1, got 1844"),
    ],
    ids=str,
)
def test_mistakes_end_in_one_line(run, runs, words: list[str], message: str) -> None:
    code, out, err = run(runs / "large", *words)
    assert (code, out) == (1, "")
    assert message in err and err.startswith("llmtutor: ") and err.count("\n") == 1


def test_runs_that_are_none(run, runs, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs / "small", other)
    for path, found in [
        (tmp_path / "none", "nothing"),
        (other / "log.jsonl", "a file"),
        (other / "tokenizer", "no checkpoints in it"),
        (other / "checkpoints" / "step-00000009", "nothing"),
    ]:
        code, _, err = run(path, "--prompt", "a")
        assert code == 1 and f"llmtutor: {path}: expected the folder of a training run" in err
        assert f"found {found}; " in err
    CharTokenizer("ab").save(other / "tokenizer")
    code, _, err = run(other, "--prompt", "a")
    assert code == 1 and f"{other / 'tokenizer'} is another tokenizer. {other} needs the" in err
    shutil.rmtree(other / "tokenizer")
    code, _, err = run(other, "--prompt", "a")
    assert code == 1 and "expected a tokenizer" in err and "put that one back" in err


@pytest.mark.parametrize("change", [{"preset": "none"}, {"model": MODEL}], ids=str)
def test_a_checkpoint_of_another_version(run, runs, monkeypatch, change: dict) -> None:
    state = command.read_state(runs / "small")
    state.config |= change
    monkeypatch.setattr(command, "read_state", lambda _: state)
    code, _, err = run(runs / "small", "--prompt", "a")
    assert code == 1 and err.count("\n") == 1
    assert f"{runs / 'small'}: its settings and its weights make no model" in err
