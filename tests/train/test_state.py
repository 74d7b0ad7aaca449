"""Checkpoints: whole or not there, refused when changed, and never code."""

import errno
import hashlib
import json
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from llmtutor.train import state as state_module
from llmtutor.train.state import (
    CheckpointError,
    TrainState,
    checkpoints,
    load_checkpoint,
    load_latest,
    random_state,
    save_checkpoint,
    set_random_state,
    sweep,
)
from llmtutor.train.trees import put_tensors, take_tensors, unique


def some_state(step: int = 3, loss: float | None = None) -> TrainState:
    weight = torch.arange(6.0).view(2, 3)
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3, dtype=torch.float64)}
    groups = [{"lr": 0.1, "betas": (0.9, 0.95), "params": [0], "name": "rest", "fused": None}]
    return TrainState(
        step=step,
        config={"lr": 0.1},
        tokenizer="abc",
        text="def",
        model={"embedding.weight": weight, "head.weight": weight, "norm": weight[0] + 1},
        optimizer={"state": {0: moments}, "param_groups": groups},
        random=random_state(),
        valid_loss=loss,
        n_tokens=99,
        seconds=1.5,
    )


def same(one, two) -> bool:
    """Equal to the bit, types and all."""
    if isinstance(one, Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    before = some_state()
    path = save_checkpoint(tmp_path, before)
    after = load_checkpoint(path)
    assert path.name == "step-00000003"
    assert sorted(p.name for p in path.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    for name in TrainState.__dataclass_fields__:
        one, two = getattr(before, name), getattr(after, name)
        if name == "model":
            two = {k: two[k] for k in one}  # names in another order
        assert same(one, two), name


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some_state())
    stored, aliases = unique(some_state().model)
    assert list(stored) == ["embedding.weight", "norm"]
    assert aliases == {"head.weight": "embedding.weight"}
    model = load_checkpoint(path).model
    assert torch.equal(model["head.weight"], model["embedding.weight"])


def test_views_of_one_storage_are_not_the_same_weight() -> None:
    whole = torch.arange(6.0)
    stored, aliases = unique({"a": whole[:3], "b": whole[3:], "c": whole.view(2, 3)})
    assert aliases == {} and list(stored) == ["a", "b", "c"]
    assert stored["b"].tolist() == [3, 4, 5] and stored["b"].untyped_storage().nbytes() == 12


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some_state())

    def draw() -> list:
        return [random.random(), float(np.random.rand()), torch.rand(3).tolist(), np.random.randn()]

    first = draw()
    set_random_state(load_latest(tmp_path).random)
    # the state was taken in some_state(), right before the first draw
    assert draw() == first


def test_a_state_of_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="x/1: a checkpoint cannot hold a set"):
        take_tensors([1, {2}], {}, "x")


def test_trees_keep_tuples_and_keys_that_are_numbers() -> None:
    tree = {0: (1, [2.5, None]), "a": {"b": torch.ones(2)}, "": "text"}
    tensors: dict[str, Tensor] = {}
    plain = json.loads(json.dumps(take_tensors(tree, tensors, "t")))
    assert same(put_tensors(plain, tensors), tree)


# Damage -------------------------------------------------------------------------------------------

FILES = ["model.safetensors", "optimizer.safetensors", "state.json"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, name, damage) -> None:
    path = save_checkpoint(tmp_path, some_state())
    damage(path / name)
    with pytest.raises(CheckpointError, match="damaged") as error:
        load_checkpoint(path)
    assert str(path / name) in str(error.value)


def test_every_byte_of_the_record_counts(tmp_path: Path) -> None:
    """Whatever character is changed, the record is refused (or means the same as before)."""
    path = save_checkpoint(tmp_path, some_state()) / "state.json"
    whole = path.read_bytes()
    before = json.loads(whole)
    for place in range(400):
        data = bytearray(whole)
        data[place] ^= 2
        path.write_bytes(bytes(data))
        try:
            load_checkpoint(path.parent)
        except CheckpointError:
            continue
        assert json.loads(bytes(data)) == before


def test_the_one_before_is_used_only_when_asked(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, some_state(step), keep=3)
    for step in (2, 3):
        cut(tmp_path / f"step-0000000{step}" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"step-00000003.*--fallback"):
        load_latest(tmp_path)
    told: list[str] = []
    assert load_latest(tmp_path, fallback=True, warn=told.append).step == 1
    assert ["step-00000003" in told[0], "step-00000002" in told[1], len(told)] == [True, True, 2]
    cut(tmp_path / "step-00000001" / "state.json")
    with pytest.raises(CheckpointError, match="step-00000001"):
        load_latest(tmp_path, fallback=True, warn=told.append)


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match="expected a checkpoint"):
            load_latest(folder)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", FILES[:2])
def test_a_pickle_under_another_name_is_refused_and_not_run(tmp_path: Path, name) -> None:
    """Even if the one who put it there also corrected the sums."""
    path = save_checkpoint(tmp_path / "run", some_state())
    bait = tmp_path / "bait"
    (path / name).write_bytes(pickle.dumps(Trap(str(bait))))
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(path)
    record = json.loads((path / "state.json").read_text(encoding="utf-8"))
    record["sha256"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    record["seal"] = state_module._seal(record)
    (path / "state.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(path)
    assert not bait.exists()
    pickle.loads((path / name).read_bytes()).close()
    assert bait.exists()  # the trap works where somebody unpickles


def test_a_record_that_does_not_fit_its_tensors_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some_state())
    record = json.loads((path / "state.json").read_text(encoding="utf-8"))
    record["aliases"] = {"head.weight": "nobody"}
    record["seal"] = state_module._seal(record)
    (path / "state.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not fit the tensors"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_version_is_refused_by_a_sentence_that_says_so(tmp_path) -> None:
    path = save_checkpoint(tmp_path, some_state(), keep=1)
    record = json.loads((path / "state.json").read_text(encoding="utf-8"))
    record["format"] = 1
    record["seal"] = state_module._seal(record)
    (path / "state.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match="format 2, found 1; it was written by another vers"):
        load_checkpoint(path)


def test_nothing_that_reads_files_unpickles() -> None:
    room = Path(state_module.__file__).parent
    for path in room.glob("*.py"):
        if path.name == "ranks.py":  # talks to processes that it has started itself
            continue
        text = path.read_text(encoding="utf-8")
        for word in ("torch.load", "import pickle", "torch.save", "np.load", "import dill"):
            assert word not in text, f"{path.name} has {word}"


# Writing ------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, loss in enumerate([3.0, 1.0, None, 2.0, None, 1.5], start=1):
        save_checkpoint(tmp_path, some_state(step, loss), keep=2)
    assert names(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]


def test_one_that_cannot_be_removed_stops_nobody(tmp_path: Path, monkeypatch) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, some_state(step), keep=2)
    monkeypatch.setattr(state_module, "_remove", lambda _: (_ for _ in ()).throw(PermissionError))
    monkeypatch.setattr(state_module, "_write_folder", lambda path, _: path.mkdir())
    assert save_checkpoint(tmp_path, some_state(3), keep=1).name in names(tmp_path)


def test_a_loss_that_is_none_is_not_saved_and_never_the_best(tmp_path: Path, monkeypatch) -> None:
    """Earlier versions saved it."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_checkpoint(tmp_path, some_state(1, float("nan")))
    assert names(tmp_path) == []
    dumps = json.dumps
    with monkeypatch.context() as earlier:
        earlier.setattr(json, "dumps", lambda x, **how: dumps(x, **how | {"allow_nan": True}))
        save_checkpoint(tmp_path, some_state(1, float("nan")))
    for step, loss in ((2, 1.0), (3, 2.0)):
        save_checkpoint(tmp_path, some_state(step, loss), keep=1)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]


def test_saving_again_replaces(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some_state(4, 2.0))
    cut(tmp_path / "step-00000004" / "state.json")
    save_checkpoint(tmp_path, some_state(4, 1.0))
    assert names(tmp_path) == ["step-00000004"]
    assert load_latest(tmp_path).valid_loss == 1.0


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_checkpoint_alone(tmp_path, monkeypatch, function) -> None:
    save_checkpoint(tmp_path, some_state(1))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match="cannot save the checkpoint: No space") as error:
        save_checkpoint(tmp_path, some_state(2))
    assert "step-00000002" in str(error.value)
    monkeypatch.undo()
    assert names(tmp_path) == ["step-00000001"]
    assert load_latest(tmp_path).step == 1


def test_an_interruption_in_the_middle_leaves_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, some_state(2))
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some_state(1))
    left = tmp_path / ".step-00000002.0f.partial"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000001"]
    sweep(tmp_path)
    assert names(tmp_path) == ["step-00000001"]


def test_checkpoints_are_ordered_by_number(tmp_path: Path) -> None:
    for name in ("step-00000009", "step-100000000", "step-00000100", "step-x", "other"):
        (tmp_path / name).mkdir()
    assert [p.name for p in checkpoints(tmp_path)] == [
        "step-00000009",
        "step-00000100",
        "step-100000000",
    ]
