"""Benchmarks: their files read, what is wrong with a file named, a published model's marks."""

import bz2
import gzip
import json
import zipfile
from pathlib import Path

import pytest

from llmtutor.data.places import mirror_dir
from llmtutor.evaluate.examination import examine
from llmtutor.evaluate.items import choice
from llmtutor.evaluate.scoring import Subject
from llmtutor.evaluate.tasks.blimp import PARADIGMS, read_blimp
from llmtutor.evaluate.tasks.catalogue import TASKS, Rolling, Task, find_file, find_task
from llmtutor.evaluate.tasks.choice import read_arc, read_choices, read_piqa
from llmtutor.evaluate.tasks.hellaswag import read_hellaswag
from llmtutor.evaluate.tasks.last_word import read_last_words
from llmtutor.evaluate.tasks.partial import read_partial
from llmtutor.evaluate.tasks.rolling import read_articles
from llmtutor.interop.llama2c import load_stories260k
from llmtutor.interop.llama2c_tokenizer import BOS


def written(path: Path, *records: object) -> Path:
    text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records)
    path.write_text(text + "\n", encoding="utf-8")
    return path


GOOD = {"query": "Water is", "choices": ["wet", "dry"], "gold": 0}


def test_each_kind_of_line_becomes_a_question(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert (
        read_choices(written(path, GOOD, "", GOOD)) == [choice("Water is", ["wet", "dry"], 0)] * 2
    )
    piqa = GOOD | {"query": "Question: how?\n", "gold": "1"}
    (item,) = read_piqa(written(path, piqa))
    assert item.contexts[0] == "Question: how?\nAnswer:" and item.gold == 1
    part = {"context_options": ["the cup", "the jug"], "continuation": "is small", "gold": 1}
    (item,) = read_partial(written(path, part))
    assert item.requests == [("the cup", " is small"), ("the jug", " is small")]
    whole = {"text": "He did not care about signs"}
    both = {"context": "He did not care about", "continuation": "signs"}
    first, second = read_last_words(written(path, whole, both))
    assert first == second and first.requests == [("He did not care about", " signs")]


def test_requests_of_olmo_are_one_question(tmp_path: Path) -> None:
    docs = [GOOD | {"id": "a"}, GOOD | {"id": "a"}, GOOD | {"id": "b", "gold": 1}]
    packed = tmp_path / "requests.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(json.dumps({"doc": d}) for d in docs).encode()))
    assert [item.gold for item in read_arc(packed)] == [0, 1]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        read_arc(packed)


def test_three_forms_of_hellaswag(tmp_path: Path) -> None:
    doc = {
        "ctx_a": "[header] How to nap [title] Lie down.",
        "ctx_b": "the dog",
        "activity_label": "Health",
        "endings": ["sleeps. [substeps] Dream.", "snores", "runs", "eats."],
        "label": 2,
    }
    (item,) = read_hellaswag(written(tmp_path / "val.jsonl", doc))
    assert item.contexts[0] == "Health: How to nap. Lie down. The dog"
    assert item.answers == ("sleeps. Dream.", "snores", "runs", "eats.") and item.gold == 2
    ready = {"query": item.contexts[0], "choices": list(item.answers), "gold": 2}
    assert read_hellaswag(written(tmp_path / "ready.jsonl", ready)) == [item]
    six = tmp_path / "six.txt.bz2"
    six.write_bytes(bz2.compress("\n".join([item.contexts[0], "2", *item.answers]).encode()))
    assert read_hellaswag(six) == [item]
    six.write_bytes(bz2.compress(b"only\n2\nlines"))
    with pytest.raises(ValueError, match="expected 6 lines a question, found 3 lines"):
        read_hellaswag(six)
    six.write_bytes(b"BZh9 no")
    with pytest.raises(ValueError, match="not a whole bz2 file"):
        read_hellaswag(six)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"query": "a", "choice": ["b", "c"], "gold": 0}, "the key 'choices', .*is it 'choice'"),
        ({"choices": ["b", "c"], "gold": 0}, "expected the key 'query', found 'choices', 'gold'"),
        ({"query": "a", "choices": ["b", "c"]}, "expected the key 'gold'"),
        ({"query": "", "choices": ["b", "c"], "gold": 0}, "expected a text as 'query'"),
        ({"query": "a", "choices": "bc", "gold": 0}, "at least two texts as 'choices', got 'bc'"),
        ({"query": "a", "choices": ["b"], "gold": 0}, "at least two texts"),
        ({"query": "a", "choices": ["b", "c"], "gold": 2}, "a place from 0 to 1 as 'gold', got 2"),
        ({"query": "a", "choices": ["b", "c"], "gold": True}, "as 'gold', got True"),
        ("{", "expected a JSON object, but"),
        ("[1]", r"expected a JSON object, got \[1\]"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = written(tmp_path / "mine.jsonl", GOOD, line)
    with pytest.raises(ValueError, match=message) as error:
        read_choices(path)
    assert str(error.value).startswith(f"{path}, line 2: ")


def test_an_empty_file_is_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a JSON object a line, found an empty file"):
        read_choices(written(tmp_path / "mine.jsonl", ""))


def test_pairs_come_from_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "BLiMP.zip"
    pair = {"sentence_good": "He left.", "sentence_bad": "Left he.", "UID": "intransitive"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/intransitive.jsonl", json.dumps(pair) + "\n" + json.dumps(pair))
        archive.writestr("__MACOSX/data/._intransitive.jsonl", b"\0")
    items = read_blimp(path, ["intransitive"])
    assert items == [choice("", ["He left.", "Left he."], 0, "intransitive")] * 2
    with pytest.raises(ValueError, match=r"expected data/adjunct_island.jsonl in it"):
        read_blimp(path)
    with pytest.raises(ValueError, match="unknown paradigm 'transitiv'; did you mean 'transitive'"):
        read_blimp(path, ["transitiv"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="not a whole zip archive"):
        read_blimp(path)


def test_articles_begin_at_their_headings(tmp_path: Path) -> None:
    path = written(
        tmp_path / "wiki.txt", " ", " = One = ", " ", " text ", " = = Part = = ", " = Two = ", " x "
    )
    assert read_articles(path) == ["= One = \n \n text \n = = Part = =", "= Two = \n x"]
    with pytest.raises(ValueError, match="articles that begin with ' = Title = ', found none"):
        read_articles(written(path, "no heading"))


def test_names() -> None:
    assert find_task("hellaswag") is TASKS["hellaswag"]
    assert len(PARADIGMS) == 67 == len(set(PARADIGMS))
    one = find_task("blimp_intransitive")
    assert isinstance(one, Task) and one.metrics == ("acc",)
    with pytest.raises(ValueError, match="unknown task 'helaswag'; did you mean 'hellaswag'"):
        find_task("helaswag")
    with pytest.raises(ValueError, match="unknown paradigm of BLiMP 'transitiv'; did you mean"):
        find_task("blimp_transitiv")
    text = TASKS["text"]
    assert isinstance(text, Rolling)
    with pytest.raises(ValueError, match="has no text of its own: name one, as text=FILE"):
        text.texts()


# With the published files -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mirror() -> Path:
    folder = mirror_dir()
    if folder is None or not (folder / "eval").is_dir():
        pytest.skip("the benchmarks come from a folder named in LLMTUTOR_MIRROR, which is not set")
    return folder


def test_each_published_file_is_read_whole(mirror: Path) -> None:
    sizes = {"hellaswag": 10_042, "arc_easy": 2_376, "arc_challenge": 1_172, "piqa": 1_838}
    sizes |= {"openbookqa": 500, "copa": 100, "winogrande": 1_267, "wsc273": 273}
    sizes |= {"lambada_openai": 5_153, "blimp": 67_000}
    for name, n in sizes.items():
        task = TASKS[name]
        assert isinstance(task, Task) and f"{n:,}" in task.what
        items = task.items()
        assert len(items) == n, name
        assert len({item.group for item in items}) == (67 if name == "blimp" else 1)
    several = {len(item.answers) for item in TASKS["arc_easy"].items()}  # type: ignore[union-attr]
    assert several == {3, 4, 5}
    wiki = TASKS["wikitext2"]
    assert isinstance(wiki, Rolling) and len(wiki.texts()) == 62 and len(wiki.texts(limit=3)) == 3
    assert find_file(TASKS["arc_easy"].files).name == "arc_easy_test.jsonl"


def test_a_small_published_model_knows_grammar_and_guesses_at_hellaswag(mirror: Path) -> None:
    """stories260K as lm-evaluation-harness 0.4.13 found it, with its double space before a text."""
    model, tokenizer = load_stories260k()
    subject = Subject(model, tokenizer.encode, BOS, begins=True)
    wanted = {
        "anaphor_gender_agreement": 0.76,
        "determiner_noun_agreement_1": 0.68,
        "regular_plural_subject_verb_agreement_1": 0.65,
        "intransitive": 0.54,
    }
    for name, value in wanted.items():
        task = find_task(f"blimp_{name}")
        assert isinstance(task, Task)
        (found,) = examine(subject, task.items(limit=500), metrics=task.metrics).metrics.values()
        assert found.value == pytest.approx(value, abs=0.02)
        guess = "not distinguishable from chance"
        assert found.verdict == (guess if name == "intransitive" else "above chance")
    task = TASKS["hellaswag"]
    assert isinstance(task, Task)
    report = examine(subject, task.items(limit=200), metrics=task.metrics)
    assert {one.verdict for one in report.metrics.values()} == {"not distinguishable from chance"}
