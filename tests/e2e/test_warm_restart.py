"""What of a model stays in memory over a restart, with a service manager that holds descriptors."""

import array
import os
import random
import shutil
import socket
import subprocess
import sys
import threading

import checkpoint
import harness
from harness import AIRLLMD, DEMO, MIB, QUESTION, needs_plain_build

PREFIX = "airllm-weights-"

# Puts descriptors where a service manager puts them, and becomes the program.
PASS_DESCRIPTORS = """
import fcntl, os, sys
passed = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 200) for n in sys.argv[1].split(",") if n]
for number in filter(None, sys.argv[1].split(",")):
    os.close(int(number))
for at, descriptor in enumerate(passed):
    os.dup2(descriptor, 3 + at, inheritable=True)
os.environ.update(LISTEN_FDS=str(len(passed)), LISTEN_PID=str(os.getpid()),
                  LISTEN_FDNAMES=sys.argv[2])
os.closerange(200, 200 + len(passed))
os.execv(sys.argv[3], sys.argv[3:])
"""


def allocated(info):
    return info.st_blocks * 512


class Manager:
    """A service manager's file descriptor store: NOTIFY_SOCKET, FDSTORE=1, LISTEN_FDS."""

    def __init__(self, path, holds=True):
        self.path = path
        self.holds = holds
        self.store = []  # (name, descriptor)
        self.messages = []
        self.changed = threading.Condition()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            text, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(64 * 4))
            if text == b"end":
                return
            passed = array.array("i")
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    passed.frombytes(data[:len(data) - len(data) % passed.itemsize])
            message = dict(line.split("=", 1) for line in text.decode().splitlines())
            with self.changed:
                self._take(message, list(passed))
                self.messages.append(message)
                self.changed.notify_all()

    def _take(self, message, passed):
        name = message.get("FDNAME", "stored")
        if message.get("FDSTORE") == "1" and self.holds:
            self.store += [(name, descriptor) for descriptor in passed]
            passed = []
        for descriptor in passed:
            os.close(descriptor)
        if message.get("FDSTOREREMOVE") == "1":
            for _, descriptor in filter(lambda entry: entry[0] == name, self.store):
                os.close(descriptor)
            self.store = [entry for entry in self.store if entry[0] != name]

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", self.path)
        self.thread.join()
        self.socket.close()
        self.empty()

    def empty(self):
        """As after a stop."""
        for _, descriptor in self.store:
            os.close(descriptor)
        self.store = []

    def names(self):
        with self.changed:
            return [name for name, _ in self.store]

    def wait_for_names(self, count):
        with self.changed:
            ok = self.changed.wait_for(lambda: len(self.store) == count, 20 * harness.SLOWNESS)
            assert ok, f"waited in vain for {count} names: {self.store}, {self.messages}"

    def put(self, name, descriptor):
        with self.changed:
            self.store.append((name, descriptor))

    def start(self, daemon, sockets=()):
        """Starts the daemon with what is held."""
        passed = [("airllmd.socket", listening.fileno()) for listening in sockets] + self.store
        numbers = [descriptor for _, descriptor in passed]
        ready = len(self.messages)
        with open(daemon.log_path, "ab") as log:
            daemon.process = subprocess.Popen(
                [sys.executable, "-c", PASS_DESCRIPTORS, ",".join(map(str, numbers)),
                 ":".join(name for name, _ in passed), AIRLLMD, *daemon.arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=daemon.env, cwd="/",
                pass_fds=numbers)
        with self.changed:
            ok = self.changed.wait_for(
                lambda: any("READY" in message for message in self.messages[ready:])
                or daemon.process.poll() is not None, 60 * harness.SLOWNESS)
        assert ok and daemon.process.poll() is None, daemon.log
        return daemon


class RestartTest(harness.E2eTest):
    """Daemons one after the other on one store, with one manager."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pristine = os.path.join(cls.home, "pristine")
        untied = os.path.join(cls.home, "untied")
        checkpoint.write(untied, tied=False, hidden=256, inter=512)
        daemon = cls.make_daemon(cls.home, store=cls.pristine)
        cls.addClassCleanup(cls.check_end, daemon)
        daemon.start()
        assert daemon.client("split", DEMO, "--name", "demo").status == 0
        assert daemon.client("split", untied).status == 0
        daemon.stop()

    def setUp(self):
        super().setUp()
        shutil.copytree(self.pristine, self.path("store"))
        self.manager = Manager(self.path("notify"))
        self.addCleanup(self.manager.close)

    def start(self, env=None, sockets=(), **options):
        options = {"ram": "64M", **options}
        daemon = self.daemon(
            start=False, store=self.path("store"),
            env={"NOTIFY_SOCKET": self.manager.path, **(env or {})},
            **{name: value for name, value in options.items() if value is not None})
        return self.manager.start(daemon, sockets)

    def ask(self, daemon, *arguments, model="demo"):
        return self.ok(daemon.client("ask", "-m", model, "--json", *arguments, QUESTION)).json

    def status(self, daemon):
        return self.ok(daemon.client("status", "--json")).json

    def rows(self, daemon):
        return {row["name"]: row for row in self.status(daemon)["models"]}

    def held(self):
        """The only descriptor that is held."""
        self.manager.wait_for_names(1)
        return self.manager.store[0][1]

    def memory(self, daemon):
        """What the daemon takes of the machine's memory, with what is held for it: each memfd
        counts once, however many hold it."""
        files = {}
        for _, descriptor in self.manager.store:
            info = os.fstat(descriptor)
            files[info.st_ino] = allocated(info)
        folder = f"/proc/{daemon.pid}/fd"
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            try:
                if os.readlink(path).startswith("/memfd:"):
                    info = os.stat(path)
                    files[info.st_ino] = allocated(info)
            except FileNotFoundError:
                pass
        return daemon.status_field("RssAnon") + sum(files.values())


class Restarts(RestartTest):
    """systemctl restart, as the daemon sees it."""

    def test_the_first_question_reads_nothing(self):
        for model in ("demo", "untied"):
            with self.subTest(model):
                self.manager.empty()
                daemon = self.start()
                before = self.ask(daemon, model=model)
                self.assertGreater(before["io"]["read_bytes"], MIB)
                daemon.stop()
                daemon = self.start()
                row = self.rows(daemon)[model]
                self.assertTrue(row["received"], row)
                self.assertGreater(row["resident_bytes"], MIB)
                self.assertIn(model, self.ok(daemon.client("ps")).out)
                after = self.ask(daemon, model=model)
                self.assertEqual(after["io"]["read_bytes"], 0)
                self.assertGreater(after["io"]["cache_bytes"], MIB)
                self.assertEqual(after["text"], before["text"])
                daemon.stop()

    def test_with_a_socket_of_the_managers(self):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.path("s"))
            listening.listen(64)
            daemon = self.start(sockets=[listening])
            self.ask(daemon)
            for _ in range(2):
                self.held()
                daemon.stop()
                daemon = self.start(sockets=[listening])
                self.assertEqual(self.ask(daemon)["io"]["read_bytes"], 0)

    @needs_plain_build
    def test_ten_restarts_change_neither_budget_nor_memory(self):
        """The kernel's MemAvailable is that of a machine in which other things happen."""
        source = random.Random(7)
        meminfo = self.path("meminfo")
        budgets, memory, inodes = [], [], set()
        for restart in range(11):
            held = sum(allocated(os.fstat(descriptor)) for _, descriptor in self.manager.store)
            free = 2048 * MIB - held - source.randrange(24 * MIB)
            with open(meminfo, "w", encoding="ascii") as file:
                file.write(f"MemTotal: {4 << 20} kB\nMemAvailable: {free >> 10} kB\n")
            daemon = self.start(env={"AIRLLM_DEBUG_MEMINFO": meminfo}, ram=None, kv=None)
            answer = self.ask(daemon)
            self.assertEqual(answer["io"]["read_bytes"] == 0, restart > 0)
            status = self.status(daemon)
            budgets.append((status["ram_bytes"], status["kv_bytes"]))
            memory.append(self.memory(daemon))
            inodes.add(os.fstat(self.held()).st_ino)
            if restart % 3 == 2:
                daemon.kill()
            else:
                daemon.stop()
        self.assertEqual(len(set(budgets)), 1, budgets)
        self.assertEqual(len(inodes), 1)
        self.assertLess(max(memory) - min(memory), 3 * MIB, memory)

    def test_a_kill_loses_nothing(self):
        daemon = self.start()
        self.ask(daemon)
        for _ in range(3):
            self.held()
            daemon.kill()
            daemon = self.start()
            self.assertEqual(self.ask(daemon)["io"]["read_bytes"], 0)

    def test_a_kill_in_the_middle_of_loading_loses_only_what_was_not_read(self):
        daemon = self.start(env={"AIRLLM_DEBUG_HANG": "engine:20"})
        client = daemon.spawn_client("ask", "-m", "demo", QUESTION)
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        harness.wait_until(lambda: "engine thread hangs for ever" in daemon.log, what="the hang")
        self.held()
        daemon.kill()
        daemon = self.start()
        answer = self.ask(daemon)
        self.assertIn("Paris", answer["text"])
        self.assertGreater(answer["io"]["cache_bytes"], 0)

    def test_streamed_weights_are_read_and_the_others_are_not(self):
        daemon = self.start(ram="3M")
        self.ask(daemon, "-n", "1")
        usual = self.ask(daemon, "-n", "1")["io"]
        daemon.stop()
        daemon = self.start(ram="3M")
        io = self.ask(daemon, "-n", "1")["io"]
        # Once more what lay in the workspace, which is at most a quarter of the budget.
        more = io["read_bytes"] - usual["read_bytes"]
        self.assertGreater(more, -(256 << 10))
        self.assertLess(more, 3 * MIB // 4)


class NotAdopted(RestartTest):
    """What is not of use is given back before the next takes memory."""

    def prepare(self):
        """A duplicate of what a daemon that has ended has left."""
        daemon = self.start()
        self.ask(daemon)
        copy = os.dup(self.held())
        self.addCleanup(os.close, copy)
        daemon.stop()
        return copy

    def test_a_smaller_budget(self):
        copy = self.prepare()
        daemon = self.start(ram="3M")
        self.manager.wait_for_names(0)
        self.assertEqual(allocated(os.fstat(copy)), 0)
        self.assertEqual(self.status(daemon)["ram_used_bytes"], 0)
        self.assertGreater(self.ask(daemon)["io"]["read_bytes"], 0)
        self.manager.wait_for_names(1)

    def test_damaged_weights_are_read_again(self):
        copy = self.prepare()
        middle = os.fstat(copy).st_size // 2
        os.pwrite(copy, bytes(b ^ 0xFF for b in os.pread(copy, 64, middle)), middle)
        answer = self.ask(self.start())
        self.assertIn("Paris", answer["text"])
        self.assertGreater(answer["io"]["read_bytes"], 0)
        self.assertGreater(answer["io"]["cache_bytes"], answer["io"]["read_bytes"])

    def test_another_version(self):
        copy = self.prepare()
        end = os.fstat(copy).st_size - 4096
        page = os.pread(copy, 4096, end)
        os.pwrite(copy, page.replace(b'"version":1', b'"version":7'), end)
        daemon = self.start()
        self.manager.wait_for_names(0)
        self.assertIn("another version", daemon.log)
        self.assertEqual(allocated(os.fstat(copy)), 0)
        self.assertGreater(self.ask(daemon)["io"]["read_bytes"], MIB)

    def test_what_is_not_ours(self):
        self.prepare()
        (name, descriptor), = self.manager.store
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        pipe = os.readlink(f"/proc/self/fd/{reading}")
        self.manager.store = []
        for number, wrong in enumerate(("stored", "unknown", PREFIX + "0" * 16, PREFIX, "x" * 255)):
            self.manager.put(wrong, os.dup(descriptor) if number % 2 else os.dup(reading))
        self.manager.put(name, os.open("/dev/null", os.O_RDWR))
        os.close(descriptor)
        os.close(reading)
        daemon = self.start()
        self.manager.wait_for_names(0)
        self.assertGreater(self.ask(daemon)["io"]["read_bytes"], MIB)
        # None of it stays open.
        folder = f"/proc/{daemon.pid}/fd"
        links = [os.readlink(os.path.join(folder, entry)) for entry in os.listdir(folder)]
        self.assertNotIn(pipe, links)

    def test_a_manager_that_forgets_nothing_keeps_no_memory(self):
        copy = self.prepare()
        daemon = self.start()
        self.ok(daemon.client("stop", "demo"))
        self.assertEqual(allocated(os.fstat(copy)), 0)

    def test_without_a_store_of_descriptors(self):
        self.manager.holds = False
        daemon = self.start()
        self.ask(daemon)
        daemon.stop()
        self.assertEqual(self.manager.names(), [])
        self.assertGreater(self.ask(self.start())["io"]["read_bytes"], MIB)


class GivenBack(RestartTest):
    """When a model leaves memory, what is held of it goes as well."""

    def test_by_a_stop_by_time_and_by_removal(self):
        daemon = self.start()
        self.ask(daemon)
        self.held()
        self.ok(daemon.client("stop", "demo"))
        self.manager.wait_for_names(0)
        self.ask(daemon, "--keep-alive", "0")
        self.manager.wait_for_names(0)
        self.ask(daemon)
        self.held()
        daemon.stop()
        # From before the start, by a daemon in which nobody asked it.
        daemon = self.start()
        (stopped,) = self.ok(daemon.client("stop", "demo", "--json")).json["stopped"]
        self.assertTrue(stopped["was_in_memory"])
        self.assertGreater(stopped["freed_bytes"], MIB)
        self.manager.wait_for_names(0)
        self.ask(daemon)
        self.held()
        daemon.stop()
        daemon = self.start()
        self.ok(daemon.client("rm", "demo"))
        self.manager.wait_for_names(0)

    def test_what_nobody_asks_expires(self):
        daemon = self.start()
        self.ask(daemon)
        self.held()
        daemon.stop()
        daemon = self.start(keep_alive="1s")
        self.manager.wait_for_names(0)
        harness.wait_until(lambda: not self.rows(daemon), what="an empty list")

    def test_no_name_tells_a_model(self):
        daemon = self.start()
        self.ask(daemon)
        self.held()
        for message in self.manager.messages:
            self.assertNotIn("demo", str(message))


if __name__ == "__main__":
    harness.main()
