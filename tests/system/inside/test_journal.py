"""What the journal says, and what it never says."""

import os
import pwd
import re
import signal

import machine
from machine import MEMBERS, SERVICE, drop_in, journal, main_pid, must, wait_until

ACCEPTED = "785c42a6d6d34b52ad3e6d5a9977a8d2"
FINISHED = "69277c56634840b981c89b2c98dd08d0"
SECRET = "xylophone-7731"


class Journal(machine.MachineTest):
    def test_no_level_writes_prompts_or_answers(self):
        cursor, command = machine.journal_cursor(), machine.daemon_command()
        with drop_in("ExecStart=", f"ExecStart={command} --log-level debug"):
            self.assertEqual(self.ask(SECRET, "-n", "8").status, 0)
            self.assertIn("Paris", self.ask(machine.QUESTION).out)
        text = "".join(str(entry) for entry in journal(since=cursor))
        self.assertNotIn(SECRET, text)
        self.assertNotIn("Paris", text)
        self.figure(f"{len(text)} bytes of journal at level debug")

    def test_events_have_fields(self):
        cursor = machine.journal_cursor()
        self.assert_answers()
        client = self.start_endless(user=MEMBERS[1])
        machine.end(client)
        uids = {user: str(pwd.getpwnam(user).pw_uid) for user in MEMBERS}
        wanted = [
            {"MESSAGE_ID": ACCEPTED, "AIRLLM_MODEL": "demo", "AIRLLM_UID": uids[MEMBERS[0]]},
            {"MESSAGE_ID": FINISHED, "AIRLLM_MODEL": "demo", "AIRLLM_UID": uids[MEMBERS[0]]},
            {"MESSAGE_ID": ACCEPTED, "AIRLLM_MODEL": "endless", "AIRLLM_UID": uids[MEMBERS[1]]},
            {"MESSAGE_ID": FINISHED, "AIRLLM_MODEL": "endless", "AIRLLM_UID": uids[MEMBERS[1]]},
        ]
        for fields in wanted:
            entries = wait_until(lambda f=fields: [
                entry for entry in journal(since=cursor) if f.items() <= entry.items()],
                what=str(fields))
            self.assertEqual(len(entries), 1)
            self.assertTrue(int(entries[0]["AIRLLM_JOB"]))
        # As an administrator asks for them.
        found = journal(f"AIRLLM_UID={uids[MEMBERS[1]]}", since=cursor)
        self.assertEqual({entry["AIRLLM_MODEL"] for entry in found}, {"endless"})
        self.figure(found[-1]["MESSAGE"])

    def test_the_status_says_what_it_does_now(self):
        client = self.start_endless()
        wait_until(lambda: "Running 1 job" in machine.property_of("StatusText"), what="a status")
        machine.end(client)
        self.figure(wait_until(lambda: re.match(
            "Idle.*", machine.property_of("StatusText")), what="an idle status").group())

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
