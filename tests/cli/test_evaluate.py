"""`llmtutor evaluate`, as it is typed: a table, JSON, a comparison, and mistakes."""

import json
from pathlib import Path

import pytest
import torch

from llmtutor import cli
from llmtutor.cli import evaluate as command
from llmtutor.data import tales
from llmtutor.evaluate.scoring import score
from llmtutor.interop.hf import save_hf
from llmtutor.model.presets import build, preset
from llmtutor.tokenizer import BPETokenizer
from llmtutor.tokenizer.fast import to_tokenizers

MODEL = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A short run ``run``, a folder of the hub ``hub``, questions ``mine.jsonl``, ``story.txt``."""
    folder = tmp_path_factory.mktemp("evaluate")
    told = tales.generate(30, 1)
    corpus = folder / "mine.txt"
    corpus.write_bytes("<|endoftext|>".join(told).encode("utf-8"))
    (folder / "story.txt").write_text("<|endoftext|>".join(tales.generate(3, 2)), encoding="utf-8")
    config = {"corpus": str(corpus), "seq_len": 64, "batch_size": 4, "steps": 3, "lr": 0.01}
    config |= {"eval_tokens": 50, "device": "cpu", "model": MODEL, "tokenizer": "bpe-300"}
    config["out"] = str(folder / "run")
    (folder / "run.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMTUTOR_DATA", str(folder / "data"))
        assert cli.main(["train", "--config", str(folder / "run.json")]) == 0
    tokenizer = BPETokenizer.train(told, 300, ["<|endoftext|>"])
    torch.manual_seed(0)
    save_hf(build(preset("llama-nano", **MODEL, vocab_size=320, max_seq_len=64)), folder / "hub")
    to_tokenizers(tokenizer).save(str(folder / "hub" / "tokenizer.json"))
    lines = [
        {"query": text[:20], "choices": [text[20:30], text[40:50]], "gold": i % 2}
        for i, text in enumerate(told[:8])
    ]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


@pytest.fixture
def run(capsys):
    """Types a command line; returns exit code, output and errors."""

    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main(["evaluate", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_run_and_a_folder_of_the_hub_are_examined(run, folder) -> None:
    tasks = f"copa={folder / 'mine.jsonl'},text={folder / 'story.txt'}"
    for model in ("run", "hub"):
        code, out, err = run(folder / model, "--tasks", tasks, "--limit", 6)
        assert (code, err) == (0, "")
        head, *rows = [line.split() for line in out.splitlines()]
        assert head[:3] == ["TASK", "METRIC", "VALUE"]
        assert [row[:2] for row in rows] == [
            *(["copa", name] for name in ("acc", "acc_norm", "acc_bytes")),
            *(["text", name] for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")),
        ]
        assert "not distinguishable from chance" in out and " 0.500 " in out


def test_json_has_each_mark_and_a_second_model_is_compared_by_them(run, folder, tmp_path) -> None:
    tasks = ("--tasks", f"copa={folder / 'mine.jsonl'}", "--shots", 1, "--limit", 5)
    first = tmp_path / "first.json"
    assert run(folder / "run", *tasks, "--out", first)[0] == 0
    values = json.loads(first.read_text(encoding="utf-8"))["tasks"]["copa"]
    assert len(values["marks"]["acc"]) == values["n"] == 5
    code, out, _ = run(folder / "hub", *tasks, "--against", first)
    assert code == 0 and f"against {first}: " in out and ": not distinguishable" in out
    code, out, _ = run(folder / "hub", *tasks, "--against", first, "--json")
    found = json.loads(out)
    own = found["tasks"]["copa"]["metrics"]["acc"]["value"]
    difference = own - values["metrics"]["acc"]["value"]
    assert found["against"]["copa"]["difference"] == pytest.approx(difference)
    code, _, err = run(folder / "hub", *tasks[:2], "--against", first)
    assert code == 1 and "no report on the same questions of copa" in err
    code, _, err = run(folder / "hub", *tasks, "--against", folder / "run.json")
    assert code == 1 and "expected reports that `llmtutor evaluate --out` wrote" in err


def test_questions_of_the_corpus_are_told(run, folder, tmp_path) -> None:
    told = tales.generate(30, 1)[3]
    lines = [{"query": told[:-9], "choices": [told[-9:], "no"], "gold": 0}]
    lines += [{"query": "Is this a tale?", "choices": ["yes", "no"], "gold": 0}]
    path = tmp_path / "leak.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    options = ("--tasks", f"copa={path}", "--too-long", "cut", "--corpus", folder / "mine.txt")
    code, out, err = run(folder / "run", *options)
    assert code == 0, err
    assert "1 of 2 questions are in the corpus, 1 are too short to tell" in out
    assert "1 of 2 questions lost the beginning of their context" in out


def test_what_stands_before_a_text(folder) -> None:
    """A run with the end of a text has that; a file that puts a sign before a text has its sign."""
    subject = command.examined(folder / "run")
    assert not subject.begins
    path = folder / "hub" / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    id = next(t["id"] for t in values["added_tokens"] if t["content"] == "<|endoftext|>")
    plain = command.examined(folder / "hub")
    assert (plain.start, plain.begins) == (id, False)
    piece = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    parts = {"id": "<|endoftext|>", "ids": [id], "tokens": ["<|endoftext|>"]}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [piece, text],
        "pair": [piece, text],
        "special_tokens": {"<|endoftext|>": parts},
    }
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(json.dumps(values), encoding="utf-8")
        begins = command.examined(folder / "hub")
    finally:
        path.write_text(before, encoding="utf-8")
    assert (begins.start, begins.begins) == (id, True)
    with_sign, without = (score(one, [("Once", " upon")])[0] for one in (begins, plain))
    assert with_sign.log_likelihood != without.log_likelihood


def test_mistakes_are_told_before_anything_is_scored(run, folder, tmp_path) -> None:
    mine = folder / "mine.jsonl"
    torn = tmp_path / "torn.jsonl"
    torn.write_text('{"query": "a", "choices": ["b", "c"], "gold": 0}\n{"query": "a"}\n', "utf-8")
    long = tmp_path / "long.jsonl"
    record = {"query": "far too long " * 60, "choices": ["b", "c"], "gold": 0}
    long.write_text(json.dumps(record), encoding="utf-8")
    out = tmp_path / "out.json"
    for words, message in (
        (["--tasks", "helaswag"], "unknown task 'helaswag'; did you mean 'hellaswag'?"),
        (["--tasks", "blimp_transitiv"], "did you mean 'transitive'?"),
        (["--tasks", ","], "--tasks expects names with commas between them"),
        (["--tasks", f"copa={torn}"], f"{torn}, line 2: expected the key 'choices'"),
        (["--tasks", f"copa={tmp_path / 'none'}"], "No such file"),
        (["--tasks", f"copa={long}"], "copa: item 0: context and answer have"),
        (["--tasks", "text"], "name one, as text=FILE"),
        (["--tasks", f"copa={mine}", "--shots", 8], "copa: expected 0 to 7 examples of 8 items"),
        (["--tasks", f"copa={mine}", "--limit", 0], "limit must be at least 1"),
        (["--tasks", f"copa={mine}", "--out", tmp_path], "--out expects a file in a folder"),
        (["--tasks", f"copa={mine}", "--corpus", "shakespear"], "did you mean 'shakespeare'"),
    ):
        where = [] if "--out" in words else ["--out", out]
        code, said, err = run(folder / "run", *words, *where)
        assert code == 1 and message in err, (words, err)
        assert said == "" and not out.exists()
    code, _, err = run(tmp_path / "nowhere", "--tasks", f"copa={mine}")
    assert code == 1 and "expected the folder of a training run" in err
