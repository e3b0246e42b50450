"""A private daemon over a store of its own, and a synthetic model for it."""
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GB = 1e9


class Daemon:
    """A private airllmd over one store; stopped at the end of a with block."""

    def __init__(self, build: str, folder: str, **settings: str):
        self.airllm = os.path.join(build, "bin", "airllm")
        self.socket = os.path.join(folder, "bench.sock")
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(
            [os.path.join(build, "bin", "airllmd"), "--foreground", "--socket", self.socket,
             "--store", os.path.join(folder, "store"), "--kv", "256M", "--log-level", "warning",
             *options])

    def __enter__(self) -> "Daemon":
        while not os.path.exists(self.socket):
            if self.process.poll() is not None:
                sys.exit("the daemon did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_exc) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def run(self, *arguments: str) -> dict:
        out = subprocess.run([self.airllm, "--socket", self.socket, *arguments, "--json"],
                             stdout=subprocess.PIPE, check=False)
        result = json.loads(out.stdout)
        if out.returncode != 0:
            sys.exit(f"airllm {arguments[0]}: {result}")
        return result

    def ask(self, tokens: int, *arguments: str) -> dict:
        """One answer of so many tokens."""
        return self.run("ask", "-m", "bench", "--prompt-ids", "1,2,3", "--temperature", "0",
                        "--ignore-eos", "--max-tokens", str(tokens), *arguments)

    def decode(self, tokens: int) -> dict:
        """The rate of decoding: bytes of weights per second, over all tokens but the first."""
        result = self.ask(tokens)
        io, timings = result["io"], result["timings_ms"]
        seconds = (timings["total"] - timings["first_token"]) / 1000
        bytes_per_sweep = (io["read_bytes"] + io["cache_bytes"]) / io["sweeps"]
        return {"rate": bytes_per_sweep * (tokens - 1) / seconds,
                "read_rate": io["read_bytes"] / io["sweeps"] * (tokens - 1) / seconds,
                "seconds": seconds / (tokens - 1), "read": io["read_bytes"] / io["sweeps"],
                "bytes": bytes_per_sweep}


def split_synthetic(daemon: Daemon, folder: str, size: str) -> str:
    """Makes a model of Llama-3-8B shapes (bf16) and splits it as `bench`; says how fast. The folder
    of its shards."""
    source = os.path.join(folder, "source")
    subprocess.run([os.path.join(ROOT, "tools", "make_synthetic"), source, "--preset",
                    "llama-3-8b", "--vocab", "32000", "--size", size], check=True)
    start = time.monotonic()
    daemon.run("split", source, "--name", "bench")
    bytes_split = sum(entry.stat().st_size for entry in os.scandir(source))
    print(f"split: {bytes_split / GB:.2f} GB at "
          f"{bytes_split / GB / (time.monotonic() - start):.2f} GB/s", flush=True)
    shutil.rmtree(source)
    return os.path.join(folder, "store", "models", "bench", "shards")


def tell(title: str, rates: list[float], limits: list[float], more: str = "") -> None:
    ratios = [a / b for a, b in zip(rates, limits, strict=True)]
    print(f"{title}: {statistics.median(rates) / GB:.2f} GB/s, "
          f"limit {statistics.median(limits) / GB:.2f} GB/s, "
          f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, "
          f"{len(ratios)} pairs){more}", flush=True)
