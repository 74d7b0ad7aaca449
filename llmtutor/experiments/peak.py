"""The most memory that some work holds at one time, counted by the allocator."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that tensors made during ``work`` held at one time, by the allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as traced:
        kept = work()
    del kept
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        traced.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    sizes = [event["args"]["Bytes"] for event in events if event["name"] == "[memory]"]
    return int(np.cumsum(sizes).max())
