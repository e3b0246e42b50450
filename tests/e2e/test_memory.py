"""How long a model's memory is kept, and who gives it back."""

import os
import signal
import subprocess
import time

import harness
from harness import AIRLLM, MIB, QUESTION


class MemoryTest(harness.E2eTest):
    """A daemon with the bundled model."""

    def ready(self, **options):
        daemon = self.daemon(ram="64M", **options)
        self.split(daemon, harness.DEMO, "demo")
        return daemon

    def ask(self, daemon, *arguments, model="demo"):
        return self.ok(daemon.client("ask", "-m", model, "--json", *arguments, QUESTION)).json

    def in_memory(self, daemon):
        """The rows of models in memory, by name."""
        status = self.ok(daemon.client("status", "--json")).json
        return {row["name"]: row for row in status["models"]}

    def idle_row(self, daemon):
        """That of the bundled model, once its last job has left the engine."""
        return harness.wait_until(lambda: next(
            (row for row in self.in_memory(daemon).values() if not row["in_use"]), None))


class Stopped(MemoryTest):
    """airllm stop."""

    def test_gives_memory_back_at_once(self):
        daemon = self.ready()
        self.assertIn("was not in memory", self.ok(daemon.client("stop", "demo")).out)
        self.ask(daemon)
        (stopped,) = self.ok(daemon.client("stop", "demo", "--json")).json["stopped"]
        self.assertEqual((stopped["name"], stopped["was_in_memory"]), ("demo", True))
        self.assertGreater(stopped["freed_bytes"], 4 * MIB)
        self.assertEqual(self.in_memory(daemon), {})
        self.assertGreater(self.ask(daemon)["io"]["read_bytes"], 4 * MIB)

    def test_an_unknown_model_is_named_as_by_show(self):
        daemon = self.ready()
        shown = self.assert_fails(daemon.client("show", "dmeo"), 66)
        stopped = self.assert_fails(daemon.client("stop", "dmeo"), 66)
        self.assertEqual(stopped.err, shown.err)


class KeptAlive(MemoryTest):
    """keep-alive, and what ps shows of it."""

    def wait_until_empty(self, daemon):
        harness.wait_until(lambda: not self.in_memory(daemon), what="the model to go")

    def test_a_model_that_nobody_asks_goes(self):
        daemon = self.ready(keep_alive="1s")
        self.ask(daemon)
        resident = daemon.status_field("RssShmem")
        self.wait_until_empty(daemon)
        if not harness.SANITIZED:
            self.assertLess(daemon.status_field("RssShmem"), resident - 4 * MIB)
        self.assertIn("demo: not used for 1 s", daemon.log)
        self.assertGreater(self.ask(daemon)["io"]["read_bytes"], 4 * MIB)

    def test_a_question_may_say_how_long(self):
        daemon = self.ready(keep_alive="forever")
        self.ask(daemon)
        self.assertIsNone(self.idle_row(daemon)["expires_seconds"])
        self.assertIn("never", self.ok(daemon.client("ps")).out)
        self.ask(daemon, "--keep-alive", "3h")
        self.assertAlmostEqual(self.idle_row(daemon)["expires_seconds"], 10800, delta=600)
        self.assertIn("in 3 h", self.ok(daemon.client("ps")).out)
        self.ask(daemon, "--keep-alive", "0")
        self.wait_until_empty(daemon)
        self.assertNotIn("IN MEMORY", self.ok(daemon.client("ps")).out)

    def test_a_wrong_duration_is_refused(self):
        daemon = self.ready()
        refused = self.assert_fails(daemon.client("ask", "--keep-alive", "soon", "x"), 64)
        self.assertIn("--keep-alive: not a duration: 'soon'", refused.err)

    def test_the_default_by_hand_and_as_a_service(self):
        for env, minutes in ({}, 5), ({"AIRLLM_KEEP_ALIVE": "30m"}, 30):
            daemon = self.ready(env=env, name=f"s{minutes}", store=self.path(f"store{minutes}"))
            self.ask(daemon)
            expires = self.idle_row(daemon)["expires_seconds"]
            self.assertAlmostEqual(expires, minutes * 60, delta=60 * harness.SLOWNESS)

    def test_a_reload_changes_it(self):
        config = self.path("airllmd.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write("keep-alive = forever\nkeep = other\n")
        # As under a service manager: on a terminal, SIGHUP means its end.
        daemon = self.ready(config=config, env={"NOTIFY_SOCKET": self.path("manager")})
        self.ask(daemon)
        self.assertIsNone(self.idle_row(daemon)["expires_seconds"])
        with open(config, "w", encoding="ascii") as file:
            file.write("keep-alive = 1\n")
        daemon.process.send_signal(signal.SIGHUP)
        self.wait_until_empty(daemon)
        self.assertIn("changed: keep-alive, keep", daemon.log)


class Kept(MemoryTest):
    """The setting keep."""

    def test_neither_time_nor_another_model_takes_it(self):
        daemon = self.daemon(ram="1M", keep="demo", keep_alive="0")
        for name in ("demo", "other"):
            self.split(daemon, harness.DEMO, name)
        self.ask(daemon)
        row = self.in_memory(daemon)["demo"]
        self.assertEqual((row["kept"], row["expires_seconds"]), (True, None))
        refused = self.assert_fails(daemon.client("ask", "-m", "other", QUESTION), 78)
        self.assertIn("the setting keep holds demo in memory", refused.err)
        self.ok(daemon.client("stop", "demo"))
        self.ask(daemon, model="other")


class Spawned(harness.E2eTest):
    """A daemon of --spawn ends when it is not needed."""

    def run_client(self, *arguments):
        done = subprocess.run([AIRLLM, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=harness.environment(self.folder),
                              timeout=60 * harness.SLOWNESS, check=False)
        return self.ok(harness.Result(done.returncode, done.stdout, done.stderr, 0))

    def prepare(self, settings):
        os.makedirs(self.path(".config/airllm"))
        os.mkdir(self.path("run"), 0o700)
        with open(self.path(".config/airllm/airllmd.conf"), "w", encoding="ascii") as file:
            file.write("ram = 64M\nkv = 16M\n" + settings)
        self.run_client("--spawn", "split", harness.DEMO, "--name", "demo")

    def ask(self):
        """Asks a daemon, which is started if none is there any more; its pid."""
        self.run_client("--spawn", "ask", "-m", "demo", QUESTION)
        pid = self.run_client("--spawn", "status", "--json").json["pid"]
        self.addCleanup(self.kill, pid)
        return pid

    @staticmethod
    def kill(pid):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass

    def has_ended(self, pid):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                is_gone = file.read().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            is_gone = True
        return is_gone and not os.path.exists(self.path("run/airllm/airllm.sock"))

    def test_when_nothing_was_asked_for_its_time(self):
        self.prepare("keep-alive = 1s\n")
        pid = self.ask()
        harness.wait_until(lambda: self.has_ended(pid), what="the daemon's end")

    def test_at_once_when_its_memory_was_given_back(self):
        self.prepare("keep-alive = 1h\n")
        pid = self.ask()
        self.run_client("stop", "demo")
        harness.wait_until(lambda: self.has_ended(pid), what="the daemon's end")

    def test_not_while_a_model_stays(self):
        self.prepare("keep-alive = 1s\nkeep = demo\n")
        pid = self.ask()
        time.sleep(3)
        self.assertEqual(self.run_client("status", "--json").json["pid"], pid)


class UnderPressure(MemoryTest):
    """What the kernel says of memory, by a file in its place."""

    def say(self, some, full):
        with open(self.path("new"), "w", encoding="ascii") as file:
            file.write(f"some avg10={some} avg60=0 avg300=0 total=1\nfull avg10={full} total=1\n")
        os.rename(self.path("new"), self.path("pressure"))

    def test_the_budget_shrinks_and_ps_says_why(self):
        self.say(0, 0)
        daemon = self.ready(env={"AIRLLM_DEBUG_PRESSURE": self.path("pressure")})
        self.ask(daemon)
        self.assertNotIn("RAM budget", self.ok(daemon.client("ps")).out)
        self.say(30, 12.5)
        status = harness.wait_until(
            lambda: self.smaller(daemon, 64 * MIB), what="a smaller budget")
        self.assertEqual(status["ram_bytes"], 64 * MIB)
        self.assertIn("full 12.5 %", status["ram_budget_reason"])
        self.assertIn("RAM budget: 48 MiB of 64 MiB", self.ok(daemon.client("ps")).out)
        self.assertIn("RAM budget: 48 MiB of 64 MiB", daemon.log)
        self.assertIn("Paris", self.ask(daemon)["text"])

    def smaller(self, daemon, size):
        status = self.ok(daemon.client("status", "--json")).json
        return status if status["ram_budget_bytes"] < size else None

    def test_without_the_files_nothing_happens(self):
        daemon = self.ready()
        self.ask(daemon)
        self.assertIsNone(self.smaller(daemon, 64 * MIB))


if __name__ == "__main__":
    harness.main()
