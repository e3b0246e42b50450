"""A process of a peer that stays, and decodes when told to; peer_worker.py is its other side."""
import json
import os
import subprocess

from private_daemon import ROOT

WORKER = os.path.join(ROOT, "tests", "bench", "peer_worker.py")


class Peer:
    """Run by a Python that has the peer; ended at the end of a with block."""

    def __init__(self, python: str, arguments: list[str], start=None):
        """`start` is what the process does first."""
        self.process = subprocess.Popen(
            [python, WORKER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, preexec_fn=start)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_exc) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _told(self, line: str) -> float:
        print(line, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def tokens_per_second(self, tokens: int) -> float:
        return 1 / self._told(f"decode {tokens}")

    def prompt_seconds(self, tokens: int) -> float:
        return self._told(f"prompt {tokens}")
