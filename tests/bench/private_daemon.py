"""A private daemon over a store of its own, a synthetic model for it, and what benchmarks of it share."""
import argparse
import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GB = 1e9


def parser_of(description: str) -> argparse.ArgumentParser:
    """With the options that all have."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "release"),
                        help="a build folder with bin/")
    parser.add_argument("--size", default="4G")
    parser.add_argument("--dir", help="where the model goes; default: a temporary folder")
    return parser


@contextlib.contextmanager
def bench_folder(name: str, parent: str | None) -> Iterator[str]:
    """A folder that goes with all that is in it."""
    folder = tempfile.mkdtemp(prefix=f"airllm-{name}-", dir=parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Daemon:
    """A private airllmd over one store; stopped at the end of a with block."""

    def __init__(self, build: str, folder: str, start=None, **settings: str):
        """`start` is what the daemon's process does first."""
        self.folder = folder
        self.airllm = os.path.join(build, "bin", "airllm")
        self.socket = os.path.join(folder, "bench.sock")
        settings = {"kv": "256M"} | settings
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(
            [os.path.join(build, "bin", "airllmd"), "--foreground", "--socket", self.socket,
             "--store", os.path.join(folder, "store"), "--log-level", "warning", *options],
            preexec_fn=start)

    def __enter__(self) -> "Daemon":
        while not os.path.exists(self.socket):
            if self.process.poll() is not None:
                sys.exit("the daemon did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_exc) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def bytes_above_budget(self) -> int:
        """The most memory that it had at once, as the kernel counts (VmHWM), less what it may take
        for weights, or takes of that, and its keys and values."""
        status = self.run("status")
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            line = next(text for text in file if text.startswith("VmHWM:"))
        return (int(line.split()[1]) * 1024 - min(status["ram_bytes"], status["ram_used_bytes"]) -
                status["kv_used_bytes"])

    def run(self, *arguments: str) -> dict:
        out = subprocess.run([self.airllm, "--socket", self.socket, *arguments, "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
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

    def tokens_per_second(self, jobs: int, tokens: int) -> float:
        """Of so many jobs at once, all together, while each decodes."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            seconds = list(pool.map(lambda _: self.decode(tokens)["seconds"], range(jobs)))
        return sum(1 / s for s in seconds)


VOCABULARY = 32000  # of the synthetic model


def make_synthetic(folder: str, size: str, dtype: str) -> str:
    """Makes a model of Llama-3-8B shapes; its folder."""
    source = os.path.join(folder, "source")
    subprocess.run([os.path.join(ROOT, "tools", "make_synthetic"), source, "--preset",
                    "llama-3-8b", "--vocab", str(VOCABULARY), "--size", size,
                    "--dtype", dtype], check=True)
    return source


def split_synthetic(daemon: Daemon, folder: str, size: str, dtype: str = "bf16",
                    keep_source: bool = False) -> str:
    """Makes a model of Llama-3-8B shapes and splits it as `bench`; says how fast. The folder of its
    shards; that of its source is `source`."""
    source = make_synthetic(folder, size, dtype)
    start = time.monotonic()
    daemon.run("split", source, "--name", "bench")
    bytes_split = bytes_in(source)
    print(f"split: {bytes_split / GB:.2f} GB at "
          f"{bytes_split / GB / (time.monotonic() - start):.2f} GB/s", flush=True)
    if not keep_source:
        shutil.rmtree(source)
    return os.path.join(folder, "store", "models", "bench", "shards")


def bytes_in(folder: str) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def size_of(text: str) -> float:
    """Bytes of a size such as 300M, as the daemon's options take it."""
    return float(text[:-1]) * 1024 ** ("KMGT".index(text[-1]) + 1)


def ram_read_rate(build: str) -> float:
    """Bytes per second of a plain sum over memory, by all processors; of a build with benchmarks."""
    out = subprocess.run([os.path.join(build, "bench", "kernels_bench"),
                          "--benchmark_filter=^machine/read_memory", "--benchmark_format=json"],
                         stdout=subprocess.PIPE, check=True)
    return max(b["bytes_per_second"] for b in json.loads(out.stdout)["benchmarks"])


def spread(values: list[float]) -> str:
    return (f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}, "
            f"{len(values)} runs)")


def tell_sweeps(title: str, found: list[dict]) -> None:
    """Of what measure_sweeps() has found: the sweep's time, and what it is made of."""
    parts = ", ".join(f"{kind} {statistics.median(f[kind] for f in found):.3f} s"
                      for kind in ("read", "copy", "compute", "wait"))
    print(f"{title}: {statistics.median(f['sweep'] for f in found):.3f} s ({parts}), of the longest "
          f"of reading, copying, computing {spread([f['of_longest'] for f in found])}", flush=True)


def tell(title: str, rates: list[float], limits: list[float], more: str = "") -> None:
    ratios = [a / b for a, b in zip(rates, limits, strict=True)]
    print(f"{title}: {statistics.median(rates) / GB:.2f} GB/s, "
          f"limit {statistics.median(limits) / GB:.2f} GB/s, "
          f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, "
          f"{len(ratios)} pairs){more}", flush=True)
