"""What the journal says, and what it never says."""

import os
import signal

import machine
from machine import MEMBERS, SERVICE, drop_in, journal, main_pid, must, wait_until

SECRET = "xylophone-7731"


class Journal(machine.MachineTest):
    def test_no_level_writes_prompts_or_answers(self):
        cursor = machine.journal_cursor()
        program = machine.property_of("ExecStart").split("argv[]=")[1].split(" ;")[0]
        with drop_in("ExecStart=", f"ExecStart={program} --log-level debug"):
            self.assertEqual(self.ask(SECRET, "-n", "8").status, 0)
            self.assertIn("Paris", self.ask(machine.QUESTION).out)
        text = "".join(str(entry) for entry in journal(since=cursor))
        self.assertNotIn(SECRET, text)
        self.assertNotIn("Paris", text)
        self.figure(f"{len(text)} bytes of journal at level debug")

    def test_a_crash_leaves_no_core(self):
        with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
            if file.read().startswith("|"):
                self.skipTest("this machine gives cores to a program, whatever the limit")
        self.assert_answers()
        cursor, pid = machine.journal_cursor(), main_pid()
        os.kill(pid, signal.SIGABRT)
        wait_until(lambda: main_pid() not in (0, pid), what="a new daemon")
        messages = [entry["MESSAGE"] for entry in journal(since=cursor)]
        ended = [message for message in messages if "6/ABRT" in message]
        self.assertTrue(ended)
        self.assertIn("code=killed", ended[0])
        self.assert_answers()
