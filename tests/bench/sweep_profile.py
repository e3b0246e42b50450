"""What the profile of an answer (airllm ask --profile) tells of its sweeps."""
import json
import os

from private_daemon import Daemon

SKIPPED = 2  # sweeps that fill what stays
MICROSECONDS = 1e6
LONGEST = ("read", "copy", "compute")


def busy_seconds(events: list[dict], begin: float, end: float) -> float:
    """The time between the two in which at least one of the events went on."""
    spans = sorted((max(e["ts"], begin), min(e["ts"] + e["dur"], end)) for e in events)
    total, reached = 0.0, begin
    for first, last in spans:
        total += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return total / MICROSECONDS


def measure_sweeps(daemon: Daemon, tokens: int) -> dict:
    """Of an answer's sweeps but the first two: seconds of one (`sweep`), in which something was read,
    copied, waited for, computed (did not wait); bytes a second of copying; `of_longest`, the sweep's
    time over the longest of reading, copying and computing."""
    path = os.path.join(daemon.folder, "profile.json")
    daemon.ask(tokens, "--profile", path)
    with open(path, encoding="utf-8") as file:
        events = [e for e in json.load(file)["traceEvents"] if e["ph"] == "X"]
    kinds = {kind: [e for e in events if e["cat"] == kind]
             for kind in ("sweep", "read", "copy", "wait")}
    sweeps = sorted(kinds["sweep"], key=lambda e: e["ts"])[SKIPPED:]
    begin, end = sweeps[0]["ts"], sweeps[-1]["ts"] + sweeps[-1]["dur"]
    found = {kind: busy_seconds(kinds[kind], begin, end) for kind in ("read", "copy", "wait")}
    copied = sum(e["args"]["bytes"] for e in kinds["copy"] if begin <= e["ts"] < end)
    found["copy_rate"] = copied / found["copy"] if copied else 0.0
    found["sweep"] = (end - begin) / MICROSECONDS
    found["compute"] = found["sweep"] - found["wait"]
    found["of_longest"] = found["sweep"] / max(found[kind] for kind in LONGEST)
    for kind in ("sweep", "wait", *LONGEST):
        found[kind] /= len(sweeps)
    return found
