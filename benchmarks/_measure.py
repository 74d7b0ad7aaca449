"""What the benchmarks share: works timed in turn, the machine they ran on, the file they leave."""

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"

Times = dict[str, list[float]]
Work = Callable[[], object]


def timed(times: Times, name: str, work: Work) -> None:
    start = time.perf_counter()
    work()
    times.setdefault(name, []).append(time.perf_counter() - start)


def in_turn(rounds: int, works: Mapping[str, Work]) -> Times:
    """Time the works one after the other, round by round; the first round is a warm-up."""
    times: Times = {}
    for _ in range(rounds + 1):
        for name, work in works.items():
            timed(times, name, work)
    return without_first(times)


def without_first(times: Times) -> Times:
    return {name: values[1:] for name, values in times.items()}


def ratio(times: Times, name: str = "ours", peer: str | None = None) -> float:
    """Median time to the median of ``peer``, which is the first work unless it is named."""
    return round(median(times[name]) / median(times[peer or next(iter(times))]), 3)


def peak_mb() -> float:
    """The largest memory (resident set) of this process so far, in MB of a million bytes."""
    if sys.platform == "linux":  # getrusage would count the parent's memory before exec
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e6
    import resource  # noqa: PLC0415 - there is none on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def can_compile() -> bool:
    """Whether there is a C++ compiler, which torch.compile calls on a CPU."""
    return bool(shutil.which("g++") or shutil.which("clang++"))


def machine(*packages: str) -> dict[str, object]:
    """Date, processor, load and versions, as the performance page shows them."""
    cpu = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    versions = {name: version(name) for name in packages}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system()},
        "load_before": round(psutil.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), **versions},
    }


def record(
    name: str, figures: Mapping[str, object], seconds: Mapping[str, Times], **more: object
) -> None:
    """Write ``data/results/bench-<name>.json``, whole or not at all."""
    rounded = {
        work: {who: [round(value, 5) for value in values] for who, values in times.items()}
        for work, times in seconds.items()
    }
    content = json.dumps({**figures, **more, "seconds": rounded}, indent=1) + "\n"
    path = RESULTS / f"bench-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text(content, encoding="utf-8")
    os.replace(half, path)


def from_command_line(main: Callable[[bool], None], doc: str | None) -> None:
    """Run ``main``, with True for ``--quick``; any other argument gets the benchmark's doc."""
    if sys.argv[1:] not in ([], ["--quick"]):
        sys.exit(doc)
    main("--quick" in sys.argv)
