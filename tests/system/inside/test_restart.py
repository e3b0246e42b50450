"""Restarts, in order and by force: nobody is refused."""

import os
import signal
import threading

import machine
from machine import SERVICE, main_pid, systemctl, wait_until


class Asker(threading.Thread):
    """Asks one question after another until it is told to stop."""

    def __init__(self, user):
        super().__init__()
        self.user = user
        self.results = []
        self.enough = threading.Event()
        self.start()

    def run(self):
        while not self.enough.is_set():
            self.results.append(machine.run("airllm", "ask", "-m", "demo", "--temperature", "0",
                                            machine.QUESTION, user=self.user))

    def end(self):
        self.enough.set()
        self.join()
        return self.results


class Restart(machine.MachineTest):
    def test_under_load_nobody_is_refused(self):
        askers = [Asker(user) for user in machine.MEMBERS * 2]
        for count in range(1, 5):
            systemctl("restart", SERVICE)
            wait_until(lambda n=count: all(len(a.results) >= 2 * n for a in askers),
                       what="answers between restarts")
        results = [result for asker in askers for result in asker.end()]
        answered = [result for result in results if result.status == 0]
        for result in results:
            if result.status == 0:
                self.assertIn("Paris", result.out)
            else:
                self.assertIn("restarted", result.err)
                self.assertIn("ask again", result.err)
        self.assertTrue(answered)
        slowest = max(result.seconds for result in results)
        self.figure(f"4 restarts, {len(answered)} answered, {len(results) - len(answered)} told to "
                    f"ask again, slowest {slowest:.1f} s")

    def test_a_running_job_ends_with_a_reason_within_the_deadline(self):
        client = self.start_endless()
        result = machine.must("systemctl", "restart", SERVICE)
        out, err = client.communicate(timeout=20)
        self.assertNotEqual(client.returncode, 0)
        self.assertIn(b"ask again", err)
        self.assertLess(result.seconds, 20)
        self.figure(f"restart took {result.seconds:.1f} s, {len(out)} bytes of the answer came")

    def test_killed_ten_times_in_a_row(self):
        slowest = 0
        for _ in range(10):
            pid = wait_until(main_pid, what="the daemon's start")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda old=pid: main_pid() != old, what="the daemon's end")
            slowest = max(slowest, self.assert_answers())
        self.figure(f"the slowest next answer took {slowest:.1f} s")
