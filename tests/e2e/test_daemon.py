"""airllmd: sockets and locks, start and stop, being killed, and many clients at once."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import unittest

import checkpoint
import harness
from harness import AIRLLMD, DEMO, QUESTION, needs_root


def run_to_end(daemon, prefix=()):
    """Starts a daemon that should end by itself; its exit status."""
    daemon.launch(prefix)
    try:
        return daemon.process.wait(20 * harness.SLOWNESS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        raise AssertionError(f"airllmd goes on:\n{daemon.log}") from None


class Start(harness.E2eTest):
    """What a daemon needs to start, and what it says when it is not there."""

    def assert_ends(self, daemon, *statuses, says=(), prefix=()):
        status = run_to_end(daemon, prefix)
        self.assertIn(status, statuses, daemon.log)
        for text in says:
            self.assertIn(text, daemon.log)
        return daemon.log

    def test_it_answers_as_soon_as_the_socket_is_there(self):
        for _ in range(3):
            daemon = self.daemon(start=False, name="x").launch()
            harness.wait_until(lambda: os.path.exists(daemon.socket), what="the socket")
            self.assertTrue(daemon.answers())
            self.ok(daemon.client("status"))
            daemon.stop()
            self.assertFalse(os.path.exists(daemon.socket), "the socket stays after the daemon")

    def test_a_socket_path_that_is_too_long(self):
        path = os.path.join(self.folder, "x" * 120)
        daemon = self.daemon(start=False, socket=path)
        self.assert_ends(daemon, 64, 78, 73, says=["107"])
        result = self.assert_fails(daemon.client("status"), 64, 69)
        self.assertIn("107", result.err)

    def test_a_socket_in_a_folder_that_is_missing(self):
        path = self.path("missing/s")
        log = self.assert_ends(self.daemon(start=False, socket=path), 66, 73, 77, 78)
        self.assertIn("missing", log)

    def test_a_second_daemon_on_the_same_socket_names_the_holder(self):
        first = self.daemon()
        second = self.daemon(start=False, name="second", socket=first.socket,
                             store=self.path("other"))
        self.assert_ends(second, 75, says=[str(first.pid)])
        self.assert_lives(first)

    def test_a_second_daemon_on_the_same_store_names_the_holder(self):
        first = self.daemon()
        second = self.daemon(start=False, name="second", store=first.store)
        self.assert_ends(second, 75, says=[str(first.pid)])
        self.assertFalse(os.path.exists(second.socket))
        self.assert_lives(first)

    def test_a_socket_left_by_a_killed_daemon_is_replaced(self):
        daemon = self.daemon()
        daemon.kill()
        self.assertTrue(os.path.exists(daemon.socket))
        daemon.start()
        self.ok(daemon.client("status"))

    def test_a_file_that_is_no_socket_is_not_replaced(self):
        path = self.path("precious")
        with open(path, "w", encoding="ascii") as file:
            file.write("keep")
        self.assert_ends(self.daemon(start=False, socket=path), 73, 75, 78, says=["precious"])
        with open(path, encoding="ascii") as file:
            self.assertEqual(file.read(), "keep")

    def test_a_socket_of_another_program_is_not_replaced(self):
        path = self.path("foreign")
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as other:
            other.bind(path)
            other.listen()
            daemon = self.daemon(start=False, socket=path).launch()
            try:
                daemon.process.wait(3)
            except subprocess.TimeoutExpired:
                pass  # it may replace it: nobody holds the lock
            self.assertNotIn("terminate", daemon.log)

    def test_a_store_that_cannot_be(self):
        with open(self.path("file"), "w", encoding="ascii"):
            pass
        for store in (self.path("file"), self.path("file/below"), "/proc/nothing/store"):
            with self.subTest(store=store):
                daemon = self.daemon(start=False, store=store, name="n")
                self.assert_ends(daemon, 66, 73, 74, 77, 78, says=[store])

    def test_a_store_that_is_missing_is_made(self):
        daemon = self.daemon(store=self.path("deep/store"))
        self.assertEqual(self.ok(daemon.client("list", "--json")).json, [])

    def test_a_store_that_went_away_is_an_error_for_all(self):
        daemon = self.daemon()
        shutil.rmtree(daemon.store)
        for arguments in (("list",), ("ask", "x"), ("ask", "-m", "demo", "x"), ("show", "demo"),
                          ("split", harness.DEMO)):
            with self.subTest(arguments=arguments):
                result = daemon.client(*arguments, "--json")
                self.assertEqual(result.status, 66, result)
                error = result.json["error"]
                self.assertEqual(error["code"], "no_input")
                self.assertIn(daemon.store, error["message"])
                self.assertNotEqual(error["remedy"], "")
        self.assert_lives(daemon)

    def test_settings_that_are_wrong(self):
        for key, value in (("ram", "lots"), ("ram", "-1"), ("ram", "1K"), ("threads", "x"),
                           ("kv", "1X"), ("nonsense", "1")):
            with self.subTest(key=key, value=value):
                daemon = self.daemon(start=False, name="n", **{key: value})
                self.assert_ends(daemon, 64, 78, says=[key])

    def test_the_file_has_the_same_names_as_the_options(self):
        config = self.path("airllmd.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write("# comment\nram = 3M\nthreads = 1\n")
        daemon = self.daemon(config=config)
        status = self.ok(daemon.client("status", "--json")).json
        self.assertIn(3 << 20, flat_values(status))
        self.assertIn(1, flat_values(status))

    def test_an_option_overrules_the_file(self):
        config = self.path("airllmd.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write("ram = 3M\n")
        daemon = self.daemon(config=config, ram="5M")
        values = flat_values(self.ok(daemon.client("status", "--json")).json)
        self.assertIn(5 << 20, values)
        self.assertNotIn(3 << 20, values)

    def test_a_mistake_in_the_file_is_named_with_its_line(self):
        config = self.path("airllmd.conf")
        for text in ("ram = 3M\nnonsense = 1\n", "ram = 3M\nthreads = many\n", "ram = 3M\n\x00\xff\n"):
            with open(config, "w", encoding="latin-1") as file:
                file.write(text)
            daemon = self.daemon(start=False, name="n", config=config)
            self.assert_ends(daemon, 78, says=["airllmd.conf", "2"])

    def test_a_missing_file_that_was_named(self):
        daemon = self.daemon(start=False, config=self.path("missing.conf"))
        self.assert_ends(daemon, 66, 78, says=["missing.conf"])

    def test_version_and_help_need_no_store(self):
        for option in ("--version", "--help"):
            done = subprocess.run([AIRLLMD, option], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  env=harness.environment(self.folder), timeout=20, check=False)
            self.assertEqual(done.returncode, 0, done)
            self.assertIn(b"airllmd", done.stdout)


def flat_values(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [x for item in value for x in flat_values(item)]
    return [value]


@needs_root
class Permissions(harness.NobodyTest):
    """What an ordinary user may not do is said with exit status 77."""

    def test_a_store_that_may_not_be_written(self):
        os.mkdir(self.path("store"), 0o755)
        os.mkdir(self.path("run"), 0o777)
        os.chmod(self.path("run"), 0o777)
        daemon = self.daemon(start=False, socket=self.path("run/s"), store=self.path("store"))
        self.assertEqual(run_to_end(daemon, self.NOBODY), 77, daemon.log)
        self.assertIn(self.path("store"), daemon.log)

    def test_a_folder_for_the_socket_that_may_not_be_written(self):
        os.mkdir(self.path("store"))
        os.chmod(self.path("store"), 0o777)
        daemon = self.daemon(start=False, socket=self.path("s"), store=self.path("store"))
        self.assertEqual(run_to_end(daemon, self.NOBODY), 77, daemon.log)

    def test_a_socket_that_may_not_be_used(self):
        daemon = self.daemon()
        os.chmod(daemon.socket, 0o600)
        done = subprocess.run([*self.NOBODY, *daemon.command("status")], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=20, check=False)
        self.assertEqual(done.returncode, 77, done)
        self.assertIn(daemon.socket, done.stderr)

    def test_files_that_the_caller_may_not_read_are_refused(self):
        folder = self.path("model")
        checkpoint.write(folder)
        os.chmod(os.path.join(folder, "model.safetensors"), 0o600)
        daemon = self.daemon()
        os.chmod(daemon.socket, 0o666)
        done = subprocess.run([*self.NOBODY, *daemon.command("split", folder)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20,
                              check=False)
        self.assertIn(done.returncode, (65, 66, 77), done)
        self.assertIn("model.safetensors", done.stderr)


class Running(harness.E2eTest):
    """Jobs that run for long: several clients, killed ones, killed daemons, and the stop."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.endless = os.path.join(cls.home, "endless")
        checkpoint.write_endless(cls.endless)
        cls.pristine = os.path.join(cls.home, "pristine")
        daemon = cls.make_daemon(cls.home, store=cls.pristine)
        cls.addClassCleanup(cls.check_end, daemon)
        daemon.start()
        assert daemon.client("split", DEMO, "--name", "demo").status == 0
        assert daemon.client("split", cls.endless).status == 0
        daemon.stop()

    def ready(self, **options):
        store = self.path("store")
        shutil.copytree(self.pristine, store)
        return self.daemon(store=store, **{"kv": "256M", "ram": "32M", **options})

    def begin(self, daemon, *arguments):
        """A client whose answer does not end soon; it has had a first piece of it."""
        client = daemon.spawn_client("ask", "-m", "endless", "--ignore-eos", *arguments, "Hello")
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        self.assertNotEqual(client.stdout.read(1), b"")
        return client

    def assert_no_jobs(self, daemon):
        harness.wait_until(lambda: daemon.jobs() == [], what="the jobs to end")

    def test_two_clients_at_once_get_what_they_asked_for(self):
        daemon = self.ready()
        questions = (QUESTION, "What is the capital of Japan?")
        alone = [self.ok(daemon.client("ask", "-m", "demo", q)).out for q in questions]
        clients = [daemon.spawn_client("ask", "-m", "demo", q) for q in questions * 2]
        together = [c.communicate(timeout=60 * harness.SLOWNESS)[0].decode() for c in clients]
        self.assertEqual(together, alone * 2)

    def test_a_job_of_another_model_waits_its_turn(self):
        daemon = self.ready()
        first = self.begin(daemon)
        second = daemon.spawn_client("ask", "-m", "demo", QUESTION)
        self.addCleanup(second.kill)
        harness.wait_until(lambda: len(daemon.jobs()) == 2 or second.poll() is not None,
                           what="the second job")
        first.kill()
        self.assertIn(b"Paris", second.communicate(timeout=60 * harness.SLOWNESS)[0])

    def test_a_running_job_is_seen_and_can_be_cancelled(self):
        daemon = self.ready()
        client = self.begin(daemon)
        jobs = harness.wait_until(daemon.jobs)
        self.assertEqual(len(jobs), 1)
        self.assertEqual(jobs[0]["kind"], "generate")
        self.assertEqual(jobs[0]["model"], "endless")
        self.ok(daemon.client("cancel", jobs[0]["job"]))
        client.communicate(timeout=20 * harness.SLOWNESS)
        self.assertEqual(client.returncode, 130)
        self.assert_no_jobs(daemon)

    def test_cancelling_nothing_is_an_error(self):
        daemon = self.daemon()
        self.assert_fails(daemon.client("cancel", 12345), 66)
        self.assert_fails(daemon.client("cancel", "x"), 64)

    def test_a_client_killed_in_the_middle_of_an_answer(self):
        daemon = self.ready()
        client = self.begin(daemon)
        self.assertEqual(len(daemon.jobs()), 1)
        client.kill()
        self.assert_no_jobs(daemon)
        self.assertIn("Paris", self.ok(daemon.client("ask", "-m", "demo", QUESTION)).out)

    def test_a_daemon_killed_in_the_middle_of_an_answer(self):
        daemon = self.ready()
        client = self.begin(daemon)
        daemon.kill()
        _, err = client.communicate(timeout=20 * harness.SLOWNESS)
        self.assertIn(client.returncode, (69, 74, 76))
        self.assertNotEqual(err.strip(), b"")
        self.assert_fails(daemon.client("status", "--connect-timeout", 0), 69)
        daemon.start()
        self.assertIn("Paris", self.ok(daemon.client("ask", "-m", "demo", QUESTION)).out)

    def test_a_model_in_use_is_not_removed(self):
        daemon = self.ready()
        client = self.begin(daemon)
        self.assert_fails(daemon.client("rm", "endless"), 75)
        client.kill()
        self.assert_no_jobs(daemon)
        self.ok(daemon.client("rm", "endless"))

    def test_sigterm_ends_running_jobs_and_the_daemon_with_0(self):
        daemon = self.ready()
        client = self.begin(daemon)
        os.kill(daemon.pid, signal.SIGTERM)
        harness.wait_until(lambda: daemon.process.poll() is not None, 40, "the daemon to stop")
        self.assertEqual(daemon.process.returncode, 0, daemon.log)
        client.communicate(timeout=20 * harness.SLOWNESS)
        self.assertNotEqual(client.returncode, 0)
        self.assertFalse(os.path.exists(daemon.socket))

    def test_a_short_answer_is_finished_before_the_stop(self):
        daemon = self.ready()
        client = self.begin(daemon, "--max-tokens", "200")
        os.kill(daemon.pid, signal.SIGTERM)
        client.communicate(timeout=40 * harness.SLOWNESS)
        self.assertEqual(client.returncode, 0)
        harness.wait_until(lambda: daemon.process.poll() is not None, what="the daemon to stop")
        self.assertEqual(daemon.process.returncode, 0, daemon.log)

    def test_sigint_stops_as_well(self):
        daemon = self.ready()
        os.kill(daemon.pid, signal.SIGINT)
        harness.wait_until(lambda: daemon.process.poll() is not None, what="the daemon to stop")
        self.assertEqual(daemon.process.returncode, 0, daemon.log)

    def test_more_jobs_than_may_wait_are_refused_not_lost(self):
        daemon = self.ready()
        with harness.Wire(daemon.socket, timeout=60) as wire:
            wire.send(*(wire.generate(n, model="demo", prompt_ids=[1, 5], ignore_eos=True,
                                      max_tokens=2, sampling={}) for n in range(1, 201)))
            ends = wire.until_ended(range(1, 201))
        kinds = [e["event"] for e in ends.values()]
        self.assertGreaterEqual(kinds.count("generated"), 64)
        for event in ends.values():
            if event["event"] == "error":
                self.assertEqual(event["body"]["code"], "temporary")

    def test_no_prompt_and_no_answer_is_in_the_log(self):
        daemon = self.ready()
        out = self.ok(daemon.client("ask", "-m", "demo", "zebra crossing " + QUESTION)).out
        self.assertNotIn("zebra", daemon.log)
        self.assertNotIn(out.strip(), daemon.log)


if __name__ == "__main__":
    harness.main()
