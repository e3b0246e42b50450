"""airllmd under a service manager: notifications, the watchdog, reloading, socket activation, crashes."""

import contextlib
import fcntl
import os
import pty
import shutil
import signal
import socket
import subprocess
import termios
import threading
import time

import checkpoint
import harness
from harness import AIRLLMD, DEMO, QUESTION, needs_root

MARKED_PROMPT = "xylophone-4711"


class Datagrams:
    """A datagram socket that keeps all that comes, as a list of dictionaries from their lines."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.messages = []
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            text = self.socket.recv(65536).decode("utf-8", "replace")
            if text == "end":
                return
            message = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
            with self.changed:
                self.messages.append((time.monotonic(), message))
                self.changed.notify_all()

    def close(self):
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as last:
            last.sendto(b"end", self.path)
        self.thread.join()
        self.socket.close()

    def all(self):
        with self.changed:
            return [message for _, message in self.messages]

    def wait_for(self, condition, seconds=20, since=0):
        """The index of the first message from `since` on that fulfils `condition`."""
        def found():
            return next((i for i in range(since, len(self.messages))
                         if condition(self.messages[i][1])), None)
        with self.changed:
            ok = self.changed.wait_for(lambda: found() is not None, seconds * harness.SLOWNESS)
            assert ok, f"waited in vain; there came {self.messages}"
            return found()


class ServiceTest(harness.E2eTest):
    """Daemons with a fake service manager, and a store with two models."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        source = os.path.join(cls.home, "endless")
        checkpoint.write_endless(source)
        cls.pristine = os.path.join(cls.home, "pristine")
        daemon = cls.make_daemon(cls.home, store=cls.pristine)
        cls.addClassCleanup(cls.check_end, daemon)
        daemon.start()
        assert daemon.client("split", DEMO, "--name", "demo").status == 0
        assert daemon.client("split", source).status == 0
        daemon.stop()

    def setUp(self):
        super().setUp()
        shutil.copytree(self.pristine, self.path("store"))
        self.manager = Datagrams(self.path("notify"))
        self.addCleanup(self.manager.close)

    def service(self, env=None, start=True, **options):
        env = {"NOTIFY_SOCKET": self.manager.path, **(env or {})}
        return self.daemon(start=start, store=self.path("store"), env=env,
                           **{"kv": "256M", "ram": "32M", **options})

    def begin(self, daemon, *arguments):
        """A client whose answer does not end soon; it has had a first piece of it."""
        client = daemon.spawn_client("ask", "-m", "endless", "--ignore-eos", *arguments, "Hello")
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        self.assertNotEqual(client.stdout.read(1), b"")
        return client

    def ask(self, daemon, **options):
        return daemon.client("ask", "-m", "demo", QUESTION, **options)

    def wait_for_log(self, daemon, text):
        harness.wait_until(lambda: text in daemon.log, what=f"'{text}' in the log")


class Notifications(ServiceTest):
    """What the service manager is told."""

    def test_from_the_start_to_the_stop(self):
        daemon = self.service(stop_timeout=3)
        ready = self.manager.wait_for(lambda m: m.get("READY") == "1")
        self.manager.wait_for(lambda m: m.get("STATUS") == "Idle: 2 models, no jobs", since=ready)
        client = self.begin(daemon)
        self.manager.wait_for(lambda m: m.get("STATUS") == "Running 1 job of 1 model")
        daemon.process.terminate()
        stopping = self.manager.wait_for(lambda m: m.get("STOPPING") == "1")
        message = self.manager.all()[stopping]
        self.assertGreater(int(message["EXTEND_TIMEOUT_USEC"]), 3_000_000)
        self.assertIn("1 jobs have 3 s", message["STATUS"])
        _, err = client.communicate(timeout=30 * harness.SLOWNESS)
        self.assertIn(b"restarted, ask again", err)
        self.assertEqual(client.returncode, 69)
        self.assertEqual(daemon.process.wait(20 * harness.SLOWNESS), 0)
        for told in self.manager.all():
            self.assertNotIn("endless", str(told))

    def test_checking_the_store_asks_for_time(self):
        self.service()
        first = self.manager.wait_for(lambda m: "EXTEND_TIMEOUT_USEC" in m)
        self.assertIn("checking the store", self.manager.all()[first]["STATUS"])
        self.assertGreater(self.manager.wait_for(lambda m: m.get("READY") == "1"), first)

    def test_without_a_watchdog_none_is_petted(self):
        daemon = self.service()
        self.ok(self.ask(daemon))
        daemon.stop()
        self.assertFalse([m for m in self.manager.all() if "WATCHDOG" in m])


class Hangs(ServiceTest):
    """The watchdog is petted while the engine thread goes on, and by nothing else."""

    WATCHDOG = {"WATCHDOG_USEC": str(2_000_000 * harness.SLOWNESS)}

    def pets(self):
        return [m for m in self.manager.all() if m.get("WATCHDOG") == "1"]

    def test_idle_and_busy_it_is_petted(self):
        daemon = self.service(self.WATCHDOG)
        harness.wait_until(lambda: len(self.pets()) >= 3, 30, "pets while idle")
        self.begin(daemon)
        before = len(self.pets())
        harness.wait_until(lambda: len(self.pets()) >= before + 3, 30, "pets while busy")

    def test_an_engine_thread_that_hangs_is_noticed(self):
        daemon = self.service({**self.WATCHDOG, "AIRLLM_DEBUG_HANG": "engine:20"})
        client = daemon.spawn_client("ask", "-m", "demo", QUESTION)
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        self.wait_for_log(daemon, "engine thread hangs for ever")
        before = len(self.pets())
        # The loop of the connections goes on, and does not pet.
        end = time.monotonic() + 2 * harness.SLOWNESS
        while time.monotonic() < end:
            self.assertEqual(daemon.client("status").status, 0)
        self.assertEqual(len(self.pets()), before)
        daemon.kill()

    def test_a_read_that_hangs_fails_its_job_and_the_daemon_goes_on(self):
        daemon = self.service({**self.WATCHDOG, "AIRLLM_DEBUG_HANG": "read:3"}, read_timeout=1)
        result = self.assert_fails(self.ask(daemon), 74)
        self.assertIn("did not come back within 1 s", result.err)
        self.assertIn("Paris", self.ok(self.ask(daemon)).out)
        before = len(self.pets())
        harness.wait_until(lambda: len(self.pets()) > before, 30, "a pet")
        self.assertEqual(daemon.stop(15), 0)

    def test_a_wrong_debugging_setting(self):
        for text in ("engine", "disk:1", "read:x"):
            daemon = self.service({"AIRLLM_DEBUG_HANG": text}, start=False).launch()
            self.assertEqual(daemon.process.wait(20 * harness.SLOWNESS), 78, daemon.log)


class Reload(ServiceTest):
    """SIGHUP."""

    def configure(self, text):
        with open(self.path("airllmd.conf"), "w", encoding="ascii") as file:
            file.write(text)
        return self.path("airllmd.conf")

    def hang_up(self, daemon):
        """Sends SIGHUP; returns when the daemon has said that it is ready again."""
        since = len(self.manager.all())
        os.kill(daemon.pid, signal.SIGHUP)
        reloading = self.manager.wait_for(lambda m: m.get("RELOADING") == "1", since=since)
        self.assertGreater(int(self.manager.all()[reloading]["MONOTONIC_USEC"]), 0)
        self.manager.wait_for(lambda m: m.get("READY") == "1", since=reloading)

    def default_model(self, daemon):
        return self.ok(daemon.client("status", "--json")).json["default_model"]

    def test_what_can_change_changes_and_the_rest_is_named(self):
        config = self.configure("model = demo\nmax-jobs = 3\nram = 32M\n")
        daemon = self.daemon(store=self.path("store"), config=config, max_connections=200,
                             env={"NOTIFY_SOCKET": self.manager.path})
        self.assertEqual(self.default_model(daemon), "demo")
        self.configure("model = endless\nmax-jobs = 1\nram = 64M\nlog-level = debug\n"
                       "max-connections = 1\n")
        self.hang_up(daemon)
        self.assertEqual(self.default_model(daemon), "endless")
        self.wait_for_log(daemon, "only a restart can change: ram")
        self.assertIn("changed: model, log-level, max-jobs", daemon.log)
        self.begin(daemon)
        self.assert_fails(self.ask(daemon), 75)
        self.configure("")
        self.hang_up(daemon)
        self.assertEqual(self.default_model(daemon), "")
        self.ok(daemon.client("list"))

    def test_a_broken_file_changes_nothing(self):
        config = self.configure("model = demo\n")
        daemon = self.service(config=config)
        self.configure("model = endless\nnonsense = 1\n")
        self.hang_up(daemon)
        self.wait_for_log(daemon, "airllmd.conf:2: unknown setting 'nonsense'")
        self.assertEqual(self.default_model(daemon), "demo")
        os.remove(config)
        self.hang_up(daemon)
        self.assertEqual(self.default_model(daemon), "demo")

    def test_with_a_terminal_it_stops(self):
        daemon = self.daemon(start=False, store=self.path("store"))
        leader, follower = pty.openpty()
        self.addCleanup(os.close, leader)

        def take_terminal():
            os.setsid()
            fcntl.ioctl(follower, termios.TIOCSCTTY, 0)

        with open(daemon.log_path, "ab") as log:
            daemon.process = subprocess.Popen(  # pylint: disable=consider-using-with
                [AIRLLMD, *daemon.arguments], stdout=log, stderr=log, env=daemon.env,
                pass_fds=[follower], preexec_fn=take_terminal)
        os.close(follower)
        harness.wait_until(daemon.answers, what="the daemon")
        os.kill(daemon.pid, signal.SIGHUP)
        self.assertEqual(daemon.process.wait(20 * harness.SLOWNESS), 0, daemon.log)


class Activation(ServiceTest):
    """A socket that systemd passes."""

    def setUp(self):
        super().setUp()
        self.listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listening.close)
        self.listening.bind(self.path("s"))
        self.listening.listen(64)

    def activated(self, **options):
        daemon = self.service(start=False, **options)
        descriptor = self.listening.fileno()

        def pass_socket():
            os.dup2(descriptor, 3)

        with open(daemon.log_path, "ab") as log:
            daemon.process = subprocess.Popen(  # pylint: disable=consider-using-with
                ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh", AIRLLMD,
                 *daemon.arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=daemon.env, pass_fds=[3], preexec_fn=pass_socket)
        return daemon

    def test_who_connects_while_it_stops_is_served_by_the_next(self):
        first = self.activated(stop_timeout=2)
        running = self.begin(first)
        first.process.terminate()
        self.manager.wait_for(lambda m: m.get("STOPPING") == "1")
        late = [first.spawn_client("ask", "-m", "demo", QUESTION) for _ in range(3)]
        _, err = running.communicate(timeout=30 * harness.SLOWNESS)
        self.assertIn(b"restarted, ask again", err)
        self.assertEqual(first.process.wait(30 * harness.SLOWNESS), 0, first.log)
        self.assertTrue(os.path.exists(self.path("s")))
        self.assertEqual([client.poll() for client in late], [None] * 3)
        self.activated()
        for client in late:
            out, err = client.communicate(timeout=60 * harness.SLOWNESS)
            self.assertIn(b"Paris", out, err)


class Stopping(ServiceTest):
    """By hand, with a socket of the daemon's own."""

    def test_a_new_request_is_told(self):
        daemon = self.service(stop_timeout=3)
        with harness.Wire(daemon.socket) as wire:
            self.begin(daemon)
            daemon.process.terminate()
            self.manager.wait_for(lambda m: m.get("STOPPING") == "1")
            wire.send(wire.generate(1, model="demo", prompt_ids=[1, 5], sampling={}))
            body = wire.until_ended([1])[1]["body"]
        self.assertEqual(body["code"], "unavailable")
        self.assertIn("restarted, ask again", body["message"])

    def test_a_job_that_waits_its_turn_is_told(self):
        daemon = self.service(stop_timeout=1)
        self.begin(daemon)
        waiting = daemon.spawn_client("ask", "-m", "demo", QUESTION)
        harness.wait_until(lambda: len(daemon.jobs()) == 2, what="the second job")
        daemon.process.terminate()
        _, err = waiting.communicate(timeout=30 * harness.SLOWNESS)
        self.assertIn(b"restarted, ask again", err)
        self.assertEqual(waiting.returncode, 69)


    def test_who_does_not_read_is_told_all_the_same(self):
        daemon = self.service(stop_timeout=1)
        with harness.Wire(daemon.socket, timeout=60) as wire:
            wire.send(wire.generate(1, model="endless", prompt_ids=[1, 5], ignore_eos=True,
                                    sampling={}, logprobs=20))
            harness.wait_until(lambda: any(job["completion_tokens"] > 1000
                                           for job in daemon.jobs()), what="a full socket")
            daemon.process.terminate()
            self.assertEqual(daemon.process.wait(30 * harness.SLOWNESS), 0)
            body = wire.until_ended([1])[1]["body"]
        self.assertIn("restarted, ask again", body["message"])


class CrashLoop(ServiceTest):
    """A model that was loading at two crashes in a row is refused, and no other."""

    def crash_while_loading(self, model):
        daemon = self.service({"AIRLLM_DEBUG_HANG": "engine:0"})
        hangs = daemon.log.count("engine thread hangs")
        client = daemon.spawn_client("ask", "-m", model, "Hello")
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        harness.wait_until(lambda: daemon.log.count("engine thread hangs") > hangs, what="the hang")
        daemon.kill()

    def test_two_crashes_refuse_it_until_it_is_verified(self):
        self.crash_while_loading("demo")
        self.crash_while_loading("demo")
        daemon = self.service()
        result = self.assert_fails(self.ask(daemon), 65)
        self.assertIn("'demo' is refused", result.err)
        self.assertIn("airllm verify demo", result.err)
        self.ok(daemon.client("ask", "-m", "endless", "--max-tokens", "2", "Hello"))
        daemon.kill()
        daemon = self.service()
        self.assert_fails(self.ask(daemon), 65)
        self.ok(daemon.client("verify", "demo"))
        self.assertIn("Paris", self.ok(self.ask(daemon)).out)
        self.assertFalse(os.path.exists(self.path("store/loading.json"))
                         and "demo" in open(self.path("store/loading.json"), encoding="ascii").read())

    def test_a_load_between_two_crashes_forgets_the_first(self):
        self.crash_while_loading("demo")
        daemon = self.service()
        self.ok(self.ask(daemon))
        daemon.kill()
        self.crash_while_loading("demo")
        self.ok(self.ask(self.service()))

    def test_being_killed_ten_times_after_the_load_or_idle_changes_nothing(self):
        for i in range(10):
            daemon = self.service()
            if i % 2 == 0:
                self.begin(daemon)
            daemon.kill()
        self.ok(daemon.start().client("ask", "-m", "endless", "--max-tokens", "2", "Hello"))

    def test_a_stop_while_it_loads_is_no_crash(self):
        for name in "abc":
            daemon = self.service({"AIRLLM_DEBUG_HANG": "read:0"}, stop_timeout=0, name=name)
            client = daemon.spawn_client("ask", "-m", "demo", QUESTION)
            self.addCleanup(client.communicate)
            self.wait_for_log(daemon, "a read hangs")
            self.assertEqual(daemon.stop(), 0)
        self.ok(self.ask(self.service()))


class Secrets(ServiceTest):
    """No prompt in the log at any level, nor in a core file."""

    def test_no_prompt_is_in_the_log_at_debug(self):
        daemon = self.service(log_level="debug")
        result = self.ok(daemon.client("ask", "-m", "demo", f"{MARKED_PROMPT} {QUESTION}"))
        client = self.begin(daemon, "--system", MARKED_PROMPT)
        client.kill()
        daemon.stop()
        self.assertIn("generate with model demo", daemon.log)
        self.assertNotIn("xylophone", daemon.log)
        self.assertNotIn(result.out.strip(), daemon.log)
        self.assertNotIn("xylophone", str(self.manager.all()))

    def test_memory_is_left_out_of_core_files(self):
        daemon = self.service()
        self.begin(daemon)
        with open(f"/proc/{daemon.pid}/coredump_filter", encoding="ascii") as file:
            self.assertEqual(int(file.read(), 16), 0)
        flags = []
        with open(f"/proc/{daemon.pid}/smaps", encoding="utf-8") as file:
            is_slab = False
            for line in file:
                if "-" in line.split()[0] and not line[0].isupper():
                    is_slab = "memfd:airllm-" in line
                elif is_slab and line.startswith("VmFlags:"):
                    flags.append(line.split())
        self.assertTrue(flags)
        for words in flags:
            self.assertIn("dd", words)


@needs_root
class Journal(ServiceTest):
    """The fields of the journal's entries, by a fake journal in a mount namespace."""

    def setUp(self):
        super().setUp()
        if subprocess.run(["unshare", "-m", "true"], check=False,
                          stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("no mount namespace can be made")
        os.mkdir(self.path("journal"))
        self.journal = Datagrams(self.path("journal/socket"))
        self.addCleanup(self.journal.close)

    def started(self):
        daemon = self.service(start=False)
        daemon.arguments.remove("--foreground")
        with open(daemon.log_path, "ab") as log:
            info = os.fstat(log.fileno())
        daemon.env["JOURNAL_STREAM"] = f"{info.st_dev}:{info.st_ino}"
        script = ('mount -t tmpfs none /run && mkdir -p /run/systemd/journal && '
                  'mount --bind "$0" /run/systemd/journal && exec "$@"')
        daemon.launch(["unshare", "-m", "sh", "-c", script, self.path("journal")])
        self.manager.wait_for(lambda m: m.get("READY") == "1")
        return daemon

    def event(self, text):
        index = self.journal.wait_for(lambda m: text in m.get("MESSAGE", ""))
        return self.journal.all()[index]

    def test_events_have_their_fields(self):
        daemon = self.started()
        self.ok(self.ask(daemon))
        self.assert_fails(daemon.client("ask", "-m", "demo", "--prompt-ids", "999999"), 64)
        started = self.event("listens on")
        self.assertEqual(started["MESSAGE_ID"], "3a747d9506e6435eab65d8aa1584ae4b")
        self.assertEqual(started["SYSLOG_IDENTIFIER"], "airllmd")
        accepted = self.event("generate with model demo")
        self.assertEqual(accepted["MESSAGE_ID"], "785c42a6d6d34b52ad3e6d5a9977a8d2")
        self.assertEqual(accepted["PRIORITY"], "6")
        self.assertEqual(accepted["AIRLLM_UID"], str(os.getuid()))
        self.assertEqual(accepted["AIRLLM_MODEL"], "demo")
        self.assertEqual(accepted["AIRLLM_KIND"], "generate")
        finished = self.event("is done")
        self.assertEqual(finished["AIRLLM_JOB"], accepted["AIRLLM_JOB"])
        failed = self.event("ended: usage")
        self.assertEqual(failed["MESSAGE_ID"], "a520c0a409f244d4b4807a74708e60a9")
        self.assertEqual(failed["AIRLLM_ERROR"], "usage")
        self.assertNotIn("capital", str(self.journal.all()))


if __name__ == "__main__":
    harness.main()
