"""Starts the real daemon in a temporary folder and drives the real client.

AIRLLM_BIN names the folder with airllm and airllmd. AIRLLM_SANITIZE is set for programs built with
a sanitizer: waits are longer then, and measurements of memory are left out.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import msgpack

import checkpoint

SOURCE = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
BIN = os.environ.get("AIRLLM_BIN") or os.path.join(SOURCE, "build/dev/bin")
AIRLLM = os.path.join(BIN, "airllm")
AIRLLMD = os.path.join(BIN, "airllmd")
SANITIZED = bool(os.environ.get("AIRLLM_SANITIZE"))
SLOWNESS = 6 if SANITIZED else 1
DEMO = os.path.join(SOURCE, "models/demo")
STORIES = os.path.join(SOURCE, "../shared/models/stories260k")
MIB = 1 << 20
QUESTION = "What is the capital of France?"

IS_ROOT = os.geteuid() == 0
needs_root = unittest.skipUnless(IS_ROOT, "needs root")
needs_plain_build = unittest.skipIf(SANITIZED, "a sanitizer's own memory would be measured")


def wait_until(condition, seconds=20.0, what="a condition"):
    """The first true value of condition()."""
    end = time.monotonic() + seconds * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds * SLOWNESS:.0f} s in vain for {what}")
        time.sleep(0.01)


class Result:
    """What a client run left behind."""

    def __init__(self, status, out, err, seconds):
        self.status = status
        self.raw_out = out
        self.out = out.decode("utf-8", "replace")
        self.err = err.decode("utf-8", "replace")
        self.seconds = seconds

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.status}\nstdout: {self.out[:2000]!r}\nstderr: {self.err[:2000]!r}"


def environment(home, extra=None):
    """Nothing of the caller's settings reaches the programs."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AIRLLM_", "XDG_"))}
    env.update(HOME=home, XDG_RUNTIME_DIR=os.path.join(home, "run"), LC_ALL="C.UTF-8", TERM="xterm",
               AIRLLM_DEBUG_PRESSURE="/nonexistent")  # the machine's memory is no part of a test
    for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
        if name in os.environ:
            env[name] = os.environ[name]
    env.update(extra or {})
    return env


class Daemon:
    """One airllmd. Use E2eTest.daemon() to make one."""

    def __init__(self, home, store=None, name="s", env=None, **options):
        self.home = home
        self.store = store or os.path.join(home, "store")
        self.socket = options.pop("socket", None) or os.path.join(home, name)
        self.log_path = os.path.join(home, f"{name}.log")
        self.env = environment(home, env)
        self.arguments = ["--foreground", "--socket", self.socket, "--store", self.store]
        for key, value in options.items():
            self.arguments += [f"--{key.replace('_', '-')}", str(value)]
        self.process = None

    def launch(self, prefix=()):
        """Starts the process without waiting for it to answer."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*prefix, AIRLLMD, *self.arguments], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=self.env, cwd="/")
        return self

    def start(self):
        self.launch()
        wait_until(lambda: self.process.poll() is not None or self.answers(),
                   what=f"the daemon at {self.socket}")
        if self.process.poll() is not None:
            raise AssertionError(f"airllmd ended with {self.process.returncode}:\n{self.log}")
        return self

    def answers(self):
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as peer:
                peer.connect(self.socket)
            return True
        except OSError:
            return False

    @property
    def pid(self):
        return self.process.pid

    @property
    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=30):
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds * SLOWNESS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"airllmd did not stop on SIGTERM:\n{self.log}") from None
        return self.process.returncode

    def status_field(self, name):
        """A field of /proc/PID/status in bytes, such as VmHWM."""
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
        raise KeyError(name)

    def reads(self):
        """What the kernel has counted so far: bytes that calls have read, and bytes from disks."""
        with open(f"/proc/{self.pid}/io", encoding="ascii") as file:
            fields = dict(line.split(": ") for line in file)
        return int(fields["rchar"]), int(fields["read_bytes"])

    def bytes_read_since(self, before):
        """The larger of the two: io_uring counts as no call, and a page cache as no disk."""
        return max(now - then for now, then in zip(self.reads(), before))

    def command(self, *arguments):
        return [AIRLLM, "--socket", self.socket, *map(str, arguments)]

    def client(self, *arguments, stdin=b"", timeout=60, env=None):
        """Runs the client to its end, with `stdin` in a pipe."""
        start = time.monotonic()
        done = subprocess.run(
            self.command(*arguments), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**self.env, **(env or {})}, timeout=timeout * SLOWNESS, check=False)
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    def spawn_client(self, *arguments, **options):
        """A client that runs beside the test."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE, "env": self.env, **options}
        return subprocess.Popen(self.command(*arguments), **options)

    def jobs(self):
        result = self.client("ps", "--json")
        assert result.status == 0, result
        return result.json


class Wire:
    """A bare connection to the daemon that speaks frames, right or wrong."""

    def __init__(self, path, hello=True, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout * SLOWNESS)
        self.socket.connect(path)
        self.hello = None
        if hello:
            self.send({"type": "hello", "version": 1, "program": "test", "features": []})
            self.hello = self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    @staticmethod
    def frame(message):
        payload = msgpack.packb(message)
        return struct.pack("<I", len(payload)) + payload

    def send(self, *messages):
        self.socket.sendall(b"".join(self.frame(m) for m in messages))

    def send_raw(self, data):
        self.socket.sendall(data)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the daemon closed the connection")
            data += piece
        return data

    def receive(self):
        (length,) = struct.unpack("<I", self._exactly(4))
        return msgpack.unpackb(self._exactly(length))

    def generate(self, number, **params):
        return {"type": "request", "id": number, "method": "generate", "params": params}

    def until_ended(self, numbers):
        """Reads events until each request in `numbers` has ended; the last event of each."""
        ended = {}
        while set(numbers) - set(ended):
            event = self.receive()
            if event["type"] == "event" and event["event"] in ("generated", "done", "error"):
                ended[event["id"]] = event
        return ended

    def closed_by_peer(self):
        """Reads what is left; True when the daemon then closes."""
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except socket.timeout:
            return False


class E2eTest(unittest.TestCase):
    """A temporary folder for each class, and daemons that must end well."""

    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        # A socket's path must be short, so not below TMPDIR.
        cls.home = tempfile.mkdtemp(prefix="airllm-e2e-", dir="/tmp")
        os.mkdir(os.path.join(cls.home, "run"), 0o700)
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)

    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=self.home)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def daemon(self, start=True, **options):
        """A daemon that is stopped after the test, which must succeed."""
        daemon = self.make_daemon(self.folder, **options)
        self.addCleanup(self.check_end, daemon)
        return daemon.start() if start else daemon

    @staticmethod
    def make_daemon(home, **options):
        options.setdefault("kv", "64M")
        return Daemon(home, **options)

    @staticmethod
    def check_end(daemon):
        if daemon.process is None:
            return
        ended_before = daemon.process.poll()
        status = daemon.stop()
        log = daemon.log
        for sign in ("CHECK failed", "Sanitizer", "runtime error:", "terminate called"):
            assert sign not in log, log
        assert status in (0, -signal.SIGKILL) or ended_before is not None, (
            f"airllmd ended with {status}:\n{log}")

    def ok(self, result):
        """The result of a client run that must have succeeded."""
        self.assertEqual(result.status, 0, result)
        return result

    def split(self, daemon, folder, name, **options):
        return self.ok(daemon.client("split", folder, "--name", name, **options))

    def assert_lives(self, daemon):
        self.assertIsNone(daemon.process.poll(), f"the daemon died:\n{daemon.log}")
        self.assertEqual(daemon.client("status").status, 0)

    def assert_fails(self, result, *statuses):
        """A failure with a clear message: the status is one of those given, and stderr says why."""
        self.assertIn(result.status, statuses, result)
        self.assertNotEqual(result.err.strip(), "", result)
        return result


class NobodyTest(E2eTest):
    """Tests with another user, who may reach the test's folder; needs root."""

    NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

    def setUp(self):
        super().setUp()
        os.chmod(self.home, 0o755)
        os.chmod(self.folder, 0o755)
        if shutil.which("setpriv") is None:
            self.skipTest("no setpriv")
        if subprocess.run([*self.NOBODY, AIRLLM, "version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode != 0:
            self.skipTest("another user cannot run the programs where they lie")


class SharedDaemonTest(E2eTest):
    """One daemon with the bundled model (as `demo`) for all tests of a class."""

    options = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shared = cls.make_daemon(cls.home, **cls.options)
        cls.addClassCleanup(cls.check_end, cls.shared)
        cls.shared.start()
        result = cls.shared.client("split", DEMO, "--name", "demo")
        assert result.status == 0, result

    def ask(self, *arguments, **options):
        return self.shared.client("ask", "-m", "demo", *arguments, **options)

    def ask_json(self, *arguments, **options):
        return self.ok(self.ask("--json", *arguments, **options)).json


class EndlessDaemonTest(E2eTest):
    """One daemon with a small model (as `endless`) whose answers do not end soon."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        source = os.path.join(cls.home, "endless")
        checkpoint.write_endless(source)
        cls.shared = cls.make_daemon(cls.home, kv="256M", ram="16M")
        cls.addClassCleanup(cls.check_end, cls.shared)
        cls.shared.start()
        result = cls.shared.client("split", source)
        assert result.status == 0, result


def main():
    """Runs the test classes named on the command line, or all; exits with 77 when all are skipped."""
    program = unittest.main(verbosity=2, exit=False, module="__main__")
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    if result.testsRun == 0:
        sys.exit("no tests were run")
    sys.exit(77 if len(result.skipped) >= result.testsRun else 0)
