"""Our scorer and lm-evaluation-harness: the same log-likelihoods and metrics on the same items.

Each benchmark's published lines go to both: to our reader, and to the harness with the template
that it has for that benchmark. The harness asks our model twice, through our adapter and through
its own class for models of ``transformers``.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmtutor.data import tales
from llmtutor.data.places import mirror_dir
from llmtutor.evaluate.examination import examine, examine_texts, score_items
from llmtutor.evaluate.harness import adapter
from llmtutor.evaluate.items import with_examples
from llmtutor.evaluate.scoring import Subject
from llmtutor.evaluate.tasks.catalogue import TASKS, Task, find_task
from llmtutor.evaluate.tasks.hellaswag import published, without_brackets
from llmtutor.evaluate.tasks.records import read_items
from llmtutor.experiments.kept import load_kept
from llmtutor.interop.hf import save_hf
from llmtutor.tokenizer.fast import to_tokenizers

lm_eval = pytest.importorskip(
    "lm_eval", reason="lm-evaluation-harness is an optional extra: pip install 'llmtutor[eval]'"
)

N = 8
LAST_WORD = "lambada_openai"
CHOICE = {"doc_to_text": "{{query}}", "doc_to_choice": "choices", "doc_to_target": "gold"}
LINES: dict[str, dict[str, Any]] = {
    "hellaswag": CHOICE,
    "arc_easy": CHOICE,
    "arc_challenge": CHOICE,
    "piqa": CHOICE | {"doc_to_text": "{{query}}Answer:"},
    "openbookqa": CHOICE,
    "copa": CHOICE,
    "winogrande": {
        "doc_to_text": "gold",
        "doc_to_choice": "context_options",
        "doc_to_target": "continuation",
    },
    "lambada_openai": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{' ' + continuation}}",
    },
}
LINES["wsc273"] = LINES["winogrande"]
FILES = {"hellaswag": "eval/hellaswag_val_1005.jsonl"}
PAIR = {
    "doc_to_text": "",
    "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
    "doc_to_target": 0,
}
for paradigm in (
    "anaphor_gender_agreement",
    "determiner_noun_agreement_1",
    "intransitive",
    "regular_plural_subject_verb_agreement_1",
):
    LINES[f"blimp_{paradigm}"] = PAIR
    FILES[f"blimp_{paradigm}"] = f"blimp/{paradigm}.jsonl"


@pytest.fixture(scope="module")
def subject() -> Subject:
    model, tokenizer = load_kept()
    (start,) = tokenizer.encode("\n")
    return Subject(model.eval(), tokenizer.encode, start)


@pytest.fixture(scope="module")
def models(subject: Subject, tmp_path_factory) -> dict[str, Any]:
    """The adapter, and the harness's own model of the same weights and tokenizer."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("hub")
    model, tokenizer = load_kept()
    save_hf(model, folder)
    own = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(folder),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=to_tokenizers(tokenizer), eos_token="Ċ"),
        backend="causal",
        batch_size=8,
        max_length=int(subject.longest),
        prefix_token_id=subject.start,
    )
    return {"adapter": adapter(subject, tokenizer.decode), "hub": own}


@pytest.fixture(autouse=True)
def quiet(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def ask(model: Any, tasks: dict[str, dict], folder: Path) -> Any:
    """Results and samples of the harness; a task has its lines under ``lines``."""
    from lm_eval.tasks import TaskManager

    whole = []
    for name, config in tasks.items():
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, config["lines"])), encoding="utf-8")
        given = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": str(path), "cache_dir": str(folder / "cache")},
            "test_split": "train",
            "output_type": "multiple_choice",
            "num_fewshot": 0,
            **config,
        }
        whole.append({key: value for key, value in given.items() if key != "lines"})
    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(
        model=model, tasks=whole, task_manager=manager, bootstrap_iters=0, log_samples=True
    )


def metrics_asked(name: str) -> list[str]:
    task = find_task(name)
    assert isinstance(task, Task)
    return ["acc", "perplexity"] if name == LAST_WORD else list(task.metrics)


@pytest.fixture(scope="module")
def lines() -> dict[str, list[dict]]:
    """The first lines of each benchmark as they are published."""
    mirror = mirror_dir()
    if mirror is None or not (mirror / "eval").is_dir():
        pytest.skip("the benchmarks come from a folder named in LLMTUTOR_MIRROR, which is not set")
    found = {}
    for name in LINES:
        task = find_task(name)
        with (mirror / FILES.get(name, task.files[0].name)).open(encoding="utf-8") as file:
            found[name] = [json.loads(line) for line, _ in zip(file, range(N), strict=False)]
    return found


@pytest.fixture(scope="module", params=["adapter", "hub"])
def theirs(request, models: dict[str, Any], lines: dict, tmp_path_factory) -> Any:
    tasks = {
        name: LINES[name]
        | {"metric_list": [{"metric": one} for one in metrics_asked(name)], "lines": lines[name]}
        for name in LINES
    }
    return ask(models[request.param], tasks, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("name", LINES)
def test_same_log_likelihoods_and_metrics(
    name: str, theirs: Any, subject: Subject, lines: dict, tmp_path: Path
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join(map(json.dumps, lines[name])), encoding="utf-8")
    task = find_task("blimp" if "blimp" in name else name)
    assert isinstance(task, Task)
    items = task.items(own)
    ours = score_items(subject, items, too_long="cut")
    samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
    for scores, sample in zip(ours, samples, strict=True):
        said = sample["filtered_resps"]
        found = [said] if isinstance(said[0], float | str) else said
        for one, (total, greedy) in zip(scores, found, strict=True):
            assert one.log_likelihood == pytest.approx(float(total), abs=1e-4)
            assert one.greedy == (greedy in (True, "True"))

    report = examine(subject, items, metrics=task.metrics, too_long="cut")
    results = theirs["results"][name]
    if name == LAST_WORD:
        assert report.metrics["exact_match"].value == results["acc,none"]
        assert report.perplexity == pytest.approx(results["perplexity,none"], rel=1e-5)
        return
    for metric in task.metrics:
        assert report.metrics[metric].value == pytest.approx(results[f"{metric},none"])


@pytest.mark.parametrize("kind", ["adapter", "hub"])
def test_whole_texts(kind: str, subject: Subject, models: dict[str, Any], tmp_path: Path) -> None:
    told = tales.generate(60, 1)
    texts = [told[0], "\n".join(told[1:20]), "\n".join(told[20:])]  # in one window, and in many
    config: dict[str, Any] = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [
            {"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")
        ],
    }
    config["lines"] = [{"page": text} for text in texts]
    theirs = ask(models[kind], {"ours": config}, tmp_path)
    ours = examine_texts(subject, texts)
    for name, value in ours.metrics.items():
        assert value == pytest.approx(theirs["results"]["ours"][f"{name},none"], rel=1e-5)
    for one, sample in zip(ours.rolled, theirs["samples"]["ours"], strict=True):
        (total,) = sample["filtered_resps"]
        assert one.nats / one.n_tokens == pytest.approx(-float(total) / one.n_tokens, abs=1e-5)
    assert ours.rolled[-1].n_tokens > subject.longest


def test_published_hellaswag_is_made_ready_as_the_harness_does(tmp_path: Path) -> None:
    from datasets import Dataset
    from lm_eval.tasks.hellaswag.utils import preprocess, process_docs

    doc = {
        "ctx_a": "[header] How to nap [title] Lie  down.",
        "ctx_b": "the DOG",
        "activity_label": "Health",
        "endings": ["sleeps. [substeps] Dream.", " snores", "[step] runs", "eats."],
        "label": "2",
    }
    (ready,) = process_docs(Dataset.from_list([doc]))
    path = tmp_path / "val.jsonl"
    path.write_text(json.dumps(doc), encoding="utf-8")
    (item,) = read_items(path, published)
    assert item.contexts[0] == ready["query"] and item.gold == ready["gold"]
    assert list(item.answers) == ready["choices"]
    assert without_brackets(doc["ctx_a"]) == preprocess(doc["ctx_a"])


def test_examples_stand_where_the_harness_puts_them(
    subject: Subject, models: dict[str, Any], tmp_path: Path
) -> None:
    lines = [
        {"query": f"Question: {a} and {a}?\nAnswer:", "choices": [str(2 * a), str(a)], "gold": 0}
        for a in range(3)
    ]
    config = CHOICE | {"metric_list": [{"metric": "acc"}], "lines": lines, "num_fewshot": 2}
    config |= {"fewshot_config": {"sampler": "first_n"}}
    sample = ask(models["adapter"], {"ours": config}, tmp_path)["samples"]["ours"][2]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    shown = with_examples(TASKS["openbookqa"].read(path), 2)[2].contexts[0]
    theirs = sample["arguments"][0][0]
    assert sorted(theirs.split("\n\n")) == sorted(shown.split("\n\n"))


def test_a_text_goes_on_until_a_stop(subject: Subject, models: dict[str, Any]) -> None:
    from lm_eval.api.instance import Instance

    options = {"until": ["."], "max_gen_toks": 20, "do_sample": False}
    request = Instance("generate_until", {}, ("To be, or", options), 0)
    ours, theirs = (models[kind].generate_until([request])[0] for kind in ("adapter", "hub"))
    assert ours == theirs and len(ours) > 0 and "." not in ours


def test_more_is_asked_than_the_model_reads(subject: Subject, models: dict[str, Any]) -> None:
    """All but one of the ids that it reads are new ones then."""
    from lm_eval.api.instance import Instance

    n = int(subject.longest)
    made = [
        models["adapter"].generate_until(
            [Instance("generate_until", {}, ("To be", {"until": [], "max_gen_toks": asked}), 0)]
        )
        for asked in (n + 50, n - 1)
    ]
    assert made[0] == made[1] != [""]
