"""The script for GPUs, tried on a CPU: its parts, their limits, what is missing, the page."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
LATER = "import runpy, sys; sys.argv[0] = {script!r}; sys.path.insert(0, {folder!r}); "
WITHOUT = "sys.modules |= dict.fromkeys(('jaxtyping', 'safetensors', 'transformers')); "
RUN = "runpy.run_path({script!r}, run_name='__main__')"


def load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tried(out: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = (LATER + before + RUN).format(script=str(SCRIPT), folder=str(SCRIPT.parent))
    command = [sys.executable, "-c", code, "--device", "cpu", "--tiny", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, env=environment
    )


def records(out: Path) -> dict[str, dict[str, Any]]:
    found = (json.loads(path.read_text(encoding="utf-8")) for path in out.glob("gpu-*.json"))
    return {record["part"]: record for record in found}


def test_the_parts_run_and_say_what_they_found(tmp_path: Path) -> None:
    ran = tried(tmp_path, "--skip", "compile", "speed")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = records(tmp_path)
    last = json.loads(ran.stdout.splitlines()[-1])
    assert last == dict.fromkeys(("parity", "resume", "parallel"), True)
    assert {part for part, record in found.items() if record["ok"] and record["tiny"]} == set(last)
    models = found["parity"]["models"]
    assert {"mixer attention", "rope_scaling yarn", "norm_placement sandwich"} <= set(models)
    assert found["parity"]["table"][1][0] == next(iter(models))
    assert "to the bit" in found["resume"]["summary"]
    assert set(found["parallel"]["differences"]) == {"ddp", "fsdp"}


def test_what_is_missing_is_named_and_costs_no_more_than_what_needs_it(tmp_path: Path) -> None:
    """Three packages are hidden; only the checkpoints of ``resume`` cannot do without."""
    ran = tried(tmp_path, "--only", "resume", "speed", before=WITHOUT)
    found = records(tmp_path)
    assert ran.returncode == 1 and not found["resume"]["ok"]
    assert found["resume"]["error"] == "needs the package safetensors, which is not here"
    assert found["speed"]["ok"] and found["speed"]["missing"] == "transformers"
    assert [row[0] for row in found["speed"]["table"]] == ["by", "ours"]


def test_a_study_is_made_when_it_is_named_and_in_its_order(tmp_path: Path) -> None:
    ran = tried(tmp_path, "--only", "choosing")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (found,) = records(tmp_path).values()
    assert [run["option"] for run in found["runs"]] == ["baseline", "baseline again", "mla"]
    sizes = [run["n_params"] for run in found["runs"]]
    assert max(sizes) - min(sizes) <= 0.01 * max(sizes)
    assert all(run["bits_per_byte"] > found["floor"] > 0 for run in found["runs"])
    assert [row[0] for row in found["table"]] == ["option", *(r["option"] for r in found["runs"])]


def hang(device: str, tiny: bool, report: Any) -> None:
    report({"found": 1, "ok": True})
    time.sleep(60)


def crash(device: str, tiny: bool, report: Any) -> None:
    report({"found": 1, "ok": True})
    os._exit(3)


def fail(device: str, tiny: bool, report: Any) -> None:
    raise RuntimeError("out of\nluck")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a new process knows no such part")
@pytest.mark.parametrize(
    ("part", "error"),
    [
        (hang, "stopped when its 1 s were over"),
        (crash, "its process ended with status 3"),
        (fail, "RuntimeError: out of"),
    ],
)
def test_a_part_that_hangs_or_dies_keeps_what_it_found_and_is_not_fine(
    part: Any, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, kept = load(SCRIPT), []
    monkeypatch.setitem(sys.modules, "_gpu", types.ModuleType("_gpu"))
    monkeypatch.setitem(sys.modules, "_gpu.x", types.SimpleNamespace(run=part))
    record = script.carry_out("x", "cpu", True, 1, lambda found: kept.append(dict(found)))
    assert record["error"] == error and record["ok"] is False and record["seconds"] < 30
    assert kept[-1] == record
    assert part is fail or kept[0]["found"] == record["found"] == 1


def test_results_of_a_cpu_are_not_taken_for_those_of_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "name another folder with --out" in ran.stderr


def test_limits_keep_within_ten_minutes_and_the_page_shows_each_part() -> None:
    script, extension = load(SCRIPT), load(ROOT / "book" / "_ext" / "measured.py")
    assert sum(script.PARTS.values()) <= 600 and max(script.STUDIES.values()) <= 600
    page = (ROOT / "book" / "performance.md").read_text(encoding="utf-8")
    assert re.findall(r"{gpu} (\w+)", page) == list(script.LIMITS)
    for path in (ROOT / "data" / "results").glob("gpu-*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert not record["tiny"] and "cpu" not in record["device"]
        assert record["date"] in extension.gpu_sentence(record)
    bad = {"date": "D", "device": "X", "versions": {"torch": "2"}, "ok": False, "error": "no"}
    assert extension.gpu_sentence(bad) == "Not as it should be, on D on X with torch 2: no."
