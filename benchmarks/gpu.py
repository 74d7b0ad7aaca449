"""What only a GPU can tell: parity with the CPU, exact resuming, compiling, NCCL, speed.

    python benchmarks/gpu.py                      # these parts, into data/results/gpu-PART.json
    python benchmarks/gpu.py --only parity speed  # or --skip compile
    python benchmarks/gpu.py --only choosing      # a study, ten minutes more: only when named
    python benchmarks/gpu.py --device cpu --tiny  # a trial; its results are kept with --out only

One GPU, ten minutes at most, and as many for a study. Each part is a process of its own with a
limit of its own: one that hangs, or breaks the GPU for all that comes after in its process, costs
that part alone. What a part finds is in its file as soon as it is found. Nothing is installed: a
part that needs a package that is not there says which. The parts are in `benchmarks/_gpu`, one file
each.
The last line is one JSON object; the exit status is 0 when every part was fine.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"
PARTS = {"parity": 100, "resume": 90, "compile": 100, "parallel": 60, "speed": 240}
"""Seconds that each part has."""
STUDIES = {"choosing": 600}
"""Those of parts that are made only when they are named."""
LIMITS = {**PARTS, **STUDIES}
PACKAGES = ("torch", "numpy", "transformers", "safetensors", "jaxtyping", "regex")

SHAPES = ("Bool", "Float", "Float32", "Float64", "Int", "Int32", "Int64", "Num", "UInt8")
"""Of jaxtyping, in annotations."""


def versions() -> dict[str, str | None]:
    """Of the packages that the parts use; None for one that is not there."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
        found.setdefault(name, None)
    return found


def prepare() -> None:
    """Make the checkout importable, without jaxtyping too, which is in annotations alone."""
    sys.path.insert(0, str(ROOT))
    try:
        import_module("jaxtyping")
    except ImportError:
        anything = type("Anything", (), {"__class_getitem__": classmethod(lambda cls, _: Any)})
        stub = ModuleType("jaxtyping")
        for name in SHAPES:
            setattr(stub, name, anything)
        sys.modules["jaxtyping"] = stub


def work(part: str, device: str, tiny: bool, sender: Connection) -> None:
    """What the process of a part does: send figures as they come."""
    prepare()
    try:
        import_module(f"_gpu.{part}").run(device, tiny, sender.send)
    except ModuleNotFoundError as error:
        sender.send({"error": f"needs the package {error.name}, which is not here"})
    except Exception as error:
        traceback.print_exc()
        sender.send({"error": f"{type(error).__name__}: {str(error).splitlines()[0]:.200}"})


def carry_out(
    part: str, device: str, tiny: bool, limit: float, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run a part in a process of its own; ``keep`` gets its record whenever that grows."""
    record: dict[str, Any] = {
        "part": part,
        "date": datetime.now(UTC).date().isoformat(),
        "device": device,
        "tiny": tiny,
        "versions": versions(),
    }
    start = time.monotonic()
    # A fork shares what is imported; the GPU is not touched before it.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(part, device, tiny, sender))
    process.start()
    sender.close()
    try:
        while receiver.poll(max(0.0, start + limit - time.monotonic())):
            record |= receiver.recv()
            keep(record)
        record["error"] = f"stopped when its {limit:.0f} s were over"
    except EOFError:
        process.join()
        if process.exitcode:
            record.setdefault("error", f"its process ended with status {process.exitcode}")
    process.kill()
    process.join()
    record["ok"] = bool(record.get("ok")) and "error" not in record
    record["seconds"] = round(time.monotonic() - start, 1)
    keep(record)
    return record


def write(record: dict[str, Any], folder: Path) -> None:
    """``gpu-PART.json``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gpu-{record['part']}.json"
    half = path.with_suffix(".part")
    half.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(half, path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=LIMITS, default=list(PARTS))
    parser.add_argument("--skip", nargs="+", choices=LIMITS, default=[])
    parser.add_argument("--device", default="cuda", help="cuda (default) or, for a trial, cpu")
    parser.add_argument("--tiny", action="store_true", help="sizes for a trial")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    folder = options.out or (None if options.tiny else RESULTS)
    if folder is RESULTS and options.device == "cpu":
        parser.error("results of a CPU are no results of a GPU: name another folder with --out")
    prepare()
    with suppress(ImportError):
        import_module("llmtutor.train.step")  # once, for all parts
    records = []
    for part in (part for part in LIMITS if part in options.only and part not in options.skip):
        print(f"{part} …", flush=True)
        record = carry_out(
            part,
            options.device,
            options.tiny,
            LIMITS[part],
            lambda found: write(found, folder) if folder else None,
        )
        said = record.get("summary", "nothing found")
        print(f"{part}: {'fine' if record['ok'] else 'NOT FINE'}, {record['seconds']} s, {said}")
        if "error" in record:
            print(f"{part}: {record['error']}")
        records.append(record)
    print(json.dumps({record["part"]: record["ok"] for record in records}))
    return 0 if all(record["ok"] for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
