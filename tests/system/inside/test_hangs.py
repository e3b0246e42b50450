"""What stands still is noticed: the engine by the watchdog, a read by its deadline."""

import machine
from machine import drop_in, journal, main_pid, wait_until


class Hangs(machine.MachineTest):
    def test_the_watchdog_restarts_an_engine_that_hangs(self):
        cursor = machine.journal_cursor()
        with drop_in("Environment=AIRLLM_DEBUG_HANG=engine:40", "WatchdogSec=3"):
            pid = main_pid()
            result = self.ask(machine.QUESTION)
            self.assertNotEqual(result.status, 0, result)
            wait_until(lambda: main_pid() not in (0, pid), what="a new daemon")
        messages = [entry["MESSAGE"] for entry in journal(since=cursor)]
        self.assertTrue([text for text in messages if "Watchdog timeout" in text], messages)
        self.assert_answers()
        self.figure(f"WatchdogSec=3: the client was told after {result.seconds:.1f} s")

    def test_a_model_that_brings_it_down_twice_is_refused_until_verified(self):
        with drop_in("Environment=AIRLLM_DEBUG_HANG=engine:0", "WatchdogSec=2"):
            for _ in range(2):
                pid = wait_until(main_pid, what="the daemon")
                self.assertNotEqual(self.ask(machine.QUESTION).status, 0)
                wait_until(lambda old=pid: main_pid() not in (0, old), what="a new daemon")
            result = self.ask(machine.QUESTION)
            self.assertEqual(result.status, 65, result)
            self.assertIn("airllm verify demo", result.err)
        # A restart does not make it sound.
        self.assertEqual(self.ask(machine.QUESTION).status, 65)
        self.assertEqual(self.client("verify", "demo").status, 0)
        self.assert_answers()
        self.figure(result.err.strip().splitlines()[0])

    def test_a_daemon_that_has_work_or_none_is_left_alone(self):
        with drop_in("WatchdogSec=2"):
            pid, client = main_pid(), self.start_endless()
            # Idle for longer than the watchdog waits, then busy for longer.
            machine.must("sleep", "5")
            self.assertIsNone(client.poll())
            machine.end(client)
            machine.must("sleep", "5")
            self.assertEqual(main_pid(), pid)
            self.assert_answers()

    def test_a_read_that_hangs_fails_its_job_alone(self):
        command = machine.daemon_command()
        with drop_in("Environment=AIRLLM_DEBUG_HANG=read:2", "ExecStart=",
                     f"ExecStart={command} --read-timeout 2"):
            pid = main_pid()
            # What was in memory before the restart would not be read.
            self.assertEqual(self.client("stop", "demo", user=None).status, 0)
            result = self.ask(machine.QUESTION)
            self.assertEqual(result.status, 74, result)
            self.assert_answers()
            self.assertEqual(main_pid(), pid)
            failed = [entry for entry in journal() if entry.get("AIRLLM_ERROR") == "io"]
            self.assertEqual(failed[-1]["AIRLLM_MODEL"], "demo")
        self.figure(result.err.strip().splitlines()[0])
