"""The client's manners: signals, closed pipes, terminals, finding the daemon, and its start."""

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

import checkpoint
import harness
from harness import AIRLLM, QUESTION


class Signals(harness.EndlessDaemonTest):
    """An answer that is not wanted to its end."""

    def begin(self, *arguments, **options):
        client = self.shared.spawn_client("ask", "-m", "endless", "--ignore-eos", *arguments,
                                          "Hello", **options)
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        return client

    def assert_no_jobs(self):
        harness.wait_until(lambda: self.shared.jobs() == [], what="the job to end")

    def test_an_interrupt_cancels_and_exits_with_130(self):
        client = self.begin()
        client.stdout.read(1)
        start = time.monotonic()
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=20 * harness.SLOWNESS)
        self.assertEqual(client.returncode, 130)
        self.assertLess(time.monotonic() - start, 2 * harness.SLOWNESS)
        self.assert_no_jobs()

    def test_an_interrupted_json_answer_says_so(self):
        client = self.begin("--json")
        harness.wait_until(lambda: any(j["completion_tokens"] > 3 for j in self.shared.jobs()))
        client.send_signal(signal.SIGINT)
        out, _ = client.communicate(timeout=20 * harness.SLOWNESS)
        self.assertEqual(client.returncode, 130)
        answer = json.loads(out)
        self.assertEqual(answer["finish_reason"], "cancelled")
        self.assertEqual(len(answer["token_ids"]), answer["usage"]["completion_tokens"])

    def test_sigterm_and_sighup_cancel_too(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            client = self.begin()
            client.stdout.read(1)
            client.send_signal(number)
            client.communicate(timeout=20 * harness.SLOWNESS)
            self.assertIn(client.returncode, (128 + number, -number, 130))
            self.assert_no_jobs()

    def test_a_closed_stdout_ends_quietly(self):
        client = self.begin()
        client.stdout.read(1)
        client.stdout.close()
        err = client.stderr.read()
        client.wait(20 * harness.SLOWNESS)
        self.assertEqual(client.returncode, -signal.SIGPIPE)
        self.assertEqual(err, b"")
        self.assert_no_jobs()

    def in_shell(self, script, *arguments):
        """Runs `script`, in which "$@" is the client with `arguments`."""
        command = self.shared.command("ask", "-m", "endless", *arguments, "Hello")
        return subprocess.run(["sh", "-c", script, "sh", *command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.shared.env,
                              timeout=20 * harness.SLOWNESS, check=False)

    def test_head_takes_what_it_wants(self):
        done = self.in_shell('exec 2>&1; "$@" | head -c1', "--ignore-eos")
        self.assertEqual(len(done.stdout), 1)
        self.assert_no_jobs()

    def test_stdout_that_was_never_open(self):
        done = self.in_shell('"$@" >&-', "--max-tokens", 3)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotEqual(done.stderr, b"")
        self.assert_no_jobs()

    def test_the_summary_begins_a_line_of_its_own(self):
        done = self.in_shell('"$@" 2>&1', "-v", "--max-tokens", 3)
        self.assertRegex(done.stdout.decode(), r"\nprompt \d+ tokens; ")
        done = self.in_shell('"$@"', "-v", "--max-tokens", 3)
        self.assertRegex(done.stderr.decode(), r"^prompt \d+ tokens; ")

    def test_a_full_disk_behind_stdout_is_an_error(self):
        with open("/dev/full", "wb") as full:
            client = self.begin("--max-tokens", "5", stdout=full)
            _, err = client.communicate(timeout=20 * harness.SLOWNESS)
        self.assertEqual(client.returncode, 74)
        self.assertNotEqual(err.strip(), b"")

    def test_a_reader_that_pauses_loses_nothing(self):
        client = self.begin("--max-tokens", "2000", "--seed", "1")
        time.sleep(1)
        client.send_signal(signal.SIGSTOP)
        time.sleep(1)
        client.send_signal(signal.SIGCONT)
        time.sleep(1)
        slow = client.communicate(timeout=60 * harness.SLOWNESS)[0]
        self.assertEqual(client.returncode, 0)
        quick = self.ok(self.shared.client("ask", "-m", "endless", "--ignore-eos", "--max-tokens",
                                           2000, "--seed", 1, "Hello"))
        self.assertEqual(slow, quick.raw_out)

    def test_tokens_appear_as_they_come(self):
        client = self.begin()
        self.assertTrue(select.select([client.stdout], [], [], 20 * harness.SLOWNESS)[0])
        os.read(client.stdout.fileno(), 1)
        self.assertIsNone(client.poll())


class Terminal(harness.SharedDaemonTest):
    """What is different when stdout, stdin or stderr is a terminal."""

    def on_terminal(self, *arguments, keys=b"", shared=True):
        """Runs the client with a terminal for all three; (exit status, what it showed)."""
        master, slave = pty.openpty()
        command = self.shared.command(*arguments) if shared else [AIRLLM, *arguments]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave,
                                   env=self.shared.env, start_new_session=True)
        os.close(slave)
        if keys:
            os.write(master, keys)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        return process.wait(20 * harness.SLOWNESS), shown

    def test_no_prompt_prints_usage_and_exits_with_64(self):
        status, shown = self.on_terminal("ask", "-m", "demo")
        self.assertEqual(status, 64)
        self.assertIn(b"sage", shown)

    def test_an_answer_comes_without_waiting_for_stdin(self):
        status, shown = self.on_terminal("ask", "-m", "demo", QUESTION)
        self.assertEqual(status, 0)
        self.assertIn(b"Paris", shown)

    def test_control_characters_in_errors_are_escaped(self):
        _, shown = self.on_terminal("show", "evil\x1b[31m\x07\u202e")
        self.assertNotIn(b"\x1b[31m", shown)
        self.assertNotIn(b"\x07", shown)
        self.assertNotIn("\u202e".encode(), shown)

    def test_no_command_prints_usage(self):
        status, shown = self.on_terminal(shared=False)
        self.assertEqual(status, 64)
        self.assertIn(b"ask", shown)


class Commands(harness.SharedDaemonTest):
    """The other subcommands, with and without --json."""

    def test_list(self):
        models = self.ok(self.shared.client("list", "--json")).json
        self.assertEqual([m["name"] for m in models], ["demo"])
        self.assertIn("demo", self.ok(self.shared.client("list")).out)

    def test_show(self):
        self.assertIsInstance(self.ok(self.shared.client("show", "demo", "--json")).json, dict)
        self.assertIn("12", self.ok(self.shared.client("show", "demo")).out)
        self.assert_fails(self.shared.client("show", "nothing"), 66)

    def test_ps(self):
        self.assertEqual(self.ok(self.shared.client("ps", "--json")).json, [])
        self.ok(self.shared.client("ps"))

    def test_status(self):
        status = self.ok(self.shared.client("status", "--json")).json
        self.assertIsInstance(status, dict)
        self.assertIn("reader", json.dumps(status))
        self.ok(self.shared.client("status"))

    def test_verify(self):
        self.assertIsInstance(self.ok(self.shared.client("verify", "demo", "--json")).json, dict)
        self.assert_fails(self.shared.client("verify", "nothing"), 66)

    def test_version(self):
        version = self.ok(self.shared.client("version", "--json")).json
        self.assertRegex(version["version"], r"^\d+\.\d+\.\d+")
        self.assertIn(version["version"], self.ok(self.shared.client("version")).out)

    def test_default(self):
        self.addCleanup(self.shared.client, "default", "--unset")
        self.ok(self.shared.client("default", "demo"))
        self.assertEqual(self.ok(self.shared.client("default", "--json")).json["model"], "demo")

    def test_what_other_programs_call_it_names_ours(self):
        for word, ours in (("run", "ask"), ("serve", "airllmd"), ("quit", "cancel"),
                           ("unload", "airllm stop")):
            result = self.assert_fails(self.shared.client(word), 64)
            self.assertIn(ours, result.err)

    def test_a_word_that_is_nearly_one_of_ours(self):
        self.assertIn("list", self.assert_fails(self.shared.client("lsit"), 64).err)

    def test_help_of_every_command(self):
        for command in ("ask", "split", "list", "show", "ps", "rm", "verify", "cancel", "stop", "status",
                        "doctor", "default", "version"):
            self.assertIn(command, self.ok(self.shared.client(command, "--help")).out)

    def test_failures_as_json(self):
        for arguments, status in ((("show", "nothing"), 66), (("rm", "nothing"), 66),
                                  (("verify", "nothing"), 66), (("cancel", "9999"), 66),
                                  (("split", "/nonexistent"), 66)):
            result = self.shared.client(*arguments, "--json")
            self.assertEqual(result.status, status, result)
            self.assertEqual(set(result.json["error"]), {"code", "message", "remedy"})


class Finding(harness.E2eTest):
    """Which daemon a client talks to."""

    def run_client(self, *arguments, **extra):
        done = subprocess.run([AIRLLM, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=harness.environment(self.folder, extra),
                              timeout=60 * harness.SLOWNESS, check=False)
        return harness.Result(done.returncode, done.stdout, done.stderr, 0)

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("run"), 0o700)

    def test_without_a_daemon_it_says_how_to_start_one(self):
        result = self.assert_fails(self.run_client("list"), 69)
        self.assertIn("--spawn", result.err)

    def test_the_socket_option_stands_before_or_after_the_command(self):
        daemon = self.daemon()
        self.ok(self.run_client("--socket", daemon.socket, "list"))
        self.ok(self.run_client("list", "--socket", daemon.socket))
        self.ok(self.run_client(f"--socket={daemon.socket}", "list"))
        self.ok(self.run_client("list", AIRLLM_SOCKET=daemon.socket))

    def test_the_option_comes_before_the_environment(self):
        daemon = self.daemon()
        self.ok(self.run_client("list", "--socket", daemon.socket, AIRLLM_SOCKET="/nonexistent"))
        result = self.assert_fails(
            self.run_client("list", "--socket", "/nonexistent", AIRLLM_SOCKET=daemon.socket), 69)
        self.assertIn("/nonexistent", result.err)

    def test_the_users_own_socket_is_found(self):
        env = harness.environment(self.folder)
        daemon = subprocess.Popen([harness.AIRLLMD, "--foreground"], env=env,
                                  stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.terminate)
        harness.wait_until(lambda: self.run_client("status").status == 0, what="the user's daemon")

    def test_spawn_starts_a_private_daemon_once(self):
        spawn = ("--spawn", "--store", self.path("store"))
        first = self.ok(self.run_client(*spawn, "list", "--json"))
        self.assertEqual(first.json, [])
        pid = self.pid_of_spawned()
        self.addCleanup(os.kill, pid, signal.SIGTERM)
        self.ok(self.run_client(*spawn, "list"))
        self.assertEqual(self.pid_of_spawned(), pid)
        self.ok(self.run_client("list"))

    def test_spawn_pairs_a_private_socket_with_a_private_store(self):
        self.ok(self.run_client("--spawn", "list"))
        self.addCleanup(os.kill, self.pid_of_spawned(), signal.SIGTERM)
        status = self.ok(self.run_client("status", "--json")).json
        self.assertEqual(status["store"], self.path(".local/share/airllm"))
        self.assertEqual(status["socket"], self.path("run/airllm/airllm.sock"))

    @harness.needs_root
    def test_spawn_without_a_runtime_folder_or_a_home(self):
        uid = 54321
        place = f"/tmp/airllm-{uid}"
        shutil.rmtree(place, ignore_errors=True)
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        os.chmod(self.home, 0o755)
        os.chmod(self.folder, 0o777)

        def run_client(*arguments):
            done = subprocess.run(
                [AIRLLM, *arguments, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, user=uid, group=uid, extra_groups=[], cwd="/",
                env={"PATH": os.environ["PATH"]}, check=False)
            return harness.Result(done.returncode, done.stdout, done.stderr, 0)

        os.mkdir(place, 0o700)  # another's
        self.assertEqual(run_client("--spawn", "--store", self.path("s"), "list").status, 77)
        os.rmdir(place)
        self.ok(run_client("--spawn", "--store", self.path("s"), "list"))
        status = self.ok(run_client("status")).json
        self.addCleanup(os.kill, status["pid"], signal.SIGTERM)
        self.assertEqual(status["socket"], place + "/airllm.sock")

    def test_a_socket_that_cannot_be_does_not_end_the_search(self):
        extra = {"XDG_RUNTIME_DIR": "/tmp/" + "x" * 100}
        result = self.assert_fails(self.run_client("list", **extra), 64)
        self.assertIn("/run/airllm/airllm.sock", result.err)

    def pid_of_spawned(self):
        with harness.Wire(self.path("run/airllm/airllm.sock")) as wire:
            return wire.hello["pid"]


class HostileDaemon(harness.E2eTest):
    """A daemon that asks for files it should not have, or breaks the protocol."""

    def serve(self, *answers):
        """A false daemon that says `answers` after the first request; what it received."""
        path = self.path("hostile")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        server.settimeout(20)
        self.addCleanup(server.close)
        received = []

        def run():
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(10 * harness.SLOWNESS)
                peer.sendall(harness.Wire.frame({"type": "hello", "version": 1, "program": "evil",
                                                 "features": [], "pid": 1}))
                try:
                    data, fds, _, _ = socket.recv_fds(peer, 65536, 64)
                    peer.sendall(b"".join(answers))
                    while data:
                        received.append((data, len(fds)))
                        for fd in fds:
                            os.close(fd)
                        data, fds, _, _ = socket.recv_fds(peer, 65536, 64)
                except OSError:
                    pass

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return path, received, thread

    def run_client(self, path, *arguments):
        done = subprocess.run([AIRLLM, "--socket", path, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=harness.environment(self.folder), timeout=30 * harness.SLOWNESS,
                              check=False)
        return harness.Result(done.returncode, done.stdout, done.stderr, 0)

    @staticmethod
    def event(kind, body, number=1):
        return harness.Wire.frame({"type": "event", "id": number, "event": kind, "body": body})

    def test_it_gets_no_file_from_elsewhere(self):
        folder = self.path("model")
        checkpoint.write(folder)
        with open(self.path("secret"), "w", encoding="ascii") as file:
            file.write("secret")
        os.symlink(self.path("secret"), os.path.join(folder, "link"))
        os.symlink("/etc/passwd", os.path.join(folder, "config2.json"))
        os.mkfifo(os.path.join(folder, "pipe"))
        for name in ("../secret", self.path("secret"), "/etc/passwd", "link", "config2.json", "pipe",
                     ".", "..", "", "/dev/zero", "./config.json/../../secret"):
            with self.subTest(name=name):
                path, received, thread = self.serve(self.event("open_files", {"names": [name]}))
                self.run_until_answered(path, folder, received)
                thread.join(20)
                os.unlink(path)
                self.assertEqual(sum(count for _, count in received), 0, received)

    def run_until_answered(self, path, folder, received):
        """The client waits on after it has answered: it is stopped then."""
        client = subprocess.Popen([AIRLLM, "--socket", path, "split", folder],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, env=harness.environment(self.folder))
        try:
            harness.wait_until(lambda: client.poll() is not None or
                               any(b"files" in data for data, _ in received), 10, "an answer")
        finally:
            client.kill()
            client.communicate(timeout=20 * harness.SLOWNESS)

    def test_it_gets_what_lies_in_the_folder_and_only_to_read(self):
        folder = self.path("model")
        checkpoint.write(folder)
        path, received, thread = self.serve(
            self.event("open_files", {"names": ["config.json", "missing"]}))
        self.run_until_answered(path, folder, received)
        thread.join(20)
        self.assertEqual(sum(count for _, count in received), 1)

    def test_an_ask_gives_no_files_at_all(self):
        path, received, thread = self.serve(self.event("open_files", {"names": ["passwd"]}))
        client = subprocess.Popen([AIRLLM, "--socket", path, "ask", "-m", "x", "hello"], cwd="/etc",
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, env=harness.environment(self.folder))
        try:
            client.wait(3)
        except subprocess.TimeoutExpired:
            client.terminate()
        client.communicate(timeout=20 * harness.SLOWNESS)
        thread.join(20)
        self.assertEqual(sum(count for _, count in received), 0)

    def test_broken_frames_end_the_client_with_76(self):
        for raw in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\xc1",
                    harness.Wire.frame([1, 2]), self.event("nonsense", {}),
                    self.event("done", {"result": 7}),
                    self.event("token", {"text": 7})):
            with self.subTest(raw=raw[:40]):
                path, _, thread = self.serve(raw)
                result = self.run_client(path, "list")
                thread.join(20)
                os.unlink(path)
                self.assert_fails(result, 76)

    def test_control_characters_in_what_it_says_do_not_reach_a_terminal(self):
        path, _, thread = self.serve(self.event("error", {
            "code": "no_input", "message": "\x1b]0;owned\x07\x1b[31m", "remedy": "\x1b[2J"}))
        master, slave = pty.openpty()
        process = subprocess.Popen([AIRLLM, "--socket", path, "list"], stdin=subprocess.DEVNULL,
                                   stdout=slave, stderr=slave,
                                   env=harness.environment(self.folder))
        os.close(slave)
        self.assertEqual(process.wait(20 * harness.SLOWNESS), 66)
        shown = os.read(master, 65536)
        os.close(master)
        thread.join(20)
        for sign in (b"\x1b]", b"\x07", b"\x1b[31m", b"\x1b[2J"):
            self.assertNotIn(sign, shown)

    def test_control_characters_in_an_answer_are_escaped_on_a_terminal_only(self):
        text = "a\x1b[31mb\x07\tc\n"
        generated = {"finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1,
                     "queued_ms": 0.0, "first_token_ms": 1.0, "total_ms": 1.0, "sweeps": 1,
                     "read_bytes": 0, "cache_bytes": 0}
        answers = (self.event("accepted", {"job": 1, "model": "x", "prompt_tokens": 1, "seed": 1,
                                           "options": {}, "max_tokens": 0}),
                   self.event("token", {"token_id": 5, "text": text, "logprobs": []}),
                   self.event("generated", generated))
        path, _, thread = self.serve(*answers)
        result = self.run_client(path, "ask", "-m", "x", "hello")
        thread.join(20)
        os.unlink(path)
        self.assertEqual(result.raw_out.rstrip(b"\n"), text.encode().rstrip(b"\n"))
        path, _, thread = self.serve(*answers)
        master, slave = pty.openpty()
        process = subprocess.Popen([AIRLLM, "--socket", path, "ask", "-m", "x", "hello"],
                                   stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                                   env=harness.environment(self.folder))
        os.close(slave)
        self.assertEqual(process.wait(20 * harness.SLOWNESS), 0)
        shown = os.read(master, 65536)
        os.close(master)
        thread.join(20)
        self.assertNotIn(b"\x1b[31m", shown)
        self.assertNotIn(b"\x07", shown)
        self.assertIn(b"\tc", shown)


@harness.needs_plain_build
class Lightness(harness.E2eTest):
    """The client starts in milliseconds and stays small (tests/bench measures more closely)."""

    def test_version_is_quick_and_small(self):
        env = harness.environment(self.folder)
        best = 1.0
        for _ in range(20):
            start = time.monotonic()
            subprocess.run([AIRLLM, "version"], stdout=subprocess.DEVNULL, env=env, check=True)
            best = min(best, time.monotonic() - start)
        # 10 ms on a quiet machine; Python's own start of a process is in the figure.
        self.assertLess(best, 0.030)
        self.assertLess(self.peak_of_version(env), 10 << 20)

    @staticmethod
    def peak_of_version(env):
        """VmHWM of `airllm version` at its end: held there by a pipe that takes no more."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while os.write(writer, b"x" * 4096):
                pass
        except BlockingIOError:
            pass
        os.set_blocking(writer, True)
        process = subprocess.Popen([AIRLLM, "version"], stdout=writer, env=env)
        try:
            time.sleep(0.3)
            with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
                fields = dict(line.split(":", 1) for line in file)
            assert "sleeping" in fields["State"], fields["State"]
            return int(fields["VmHWM"].split()[0]) * 1024
        finally:
            os.close(writer)
            os.close(reader)
            process.wait()


if __name__ == "__main__":
    harness.main()
