"""SIGHUP, as systemctl reload sends it: the settings are read again, nothing else changes."""

import machine
from machine import config, journal, main_pid, systemctl

RELOADED = "d421da920b9244e1b455c9adfe539265"
WRONG = "fd39199fd849484aa394fea9ccedd7b2"


class Reload(machine.MachineTest):
    def setUp(self):
        self.assert_answers()
        self.addCleanup(systemctl, "reload", machine.SERVICE)
        self.cursor = machine.journal_cursor()

    def events(self, kind):
        return [entry for entry in journal(since=self.cursor) if entry.get("MESSAGE_ID") == kind]

    def test_settings_change_under_a_running_job(self):
        pid, client = main_pid(), self.start_endless()
        with config("max-jobs = 1"):
            result = systemctl("reload", machine.SERVICE)
            self.assertIn("max-jobs", self.events(RELOADED)[-1]["MESSAGE"])
            refused = self.ask(machine.QUESTION)
            self.assertEqual(refused.status, 75, refused)
            self.assertIsNone(client.poll())
        systemctl("reload", machine.SERVICE)
        self.assert_answers_beside(client)
        self.assertEqual(main_pid(), pid)
        self.figure(f"took {result.seconds:.2f} s; then: {refused.err.strip().splitlines()[0]}")

    def assert_answers_beside(self, client):
        self.assertIsNone(client.poll())
        machine.end(client)
        self.assert_answers()

    def test_wrong_settings_change_nothing(self):
        pid = main_pid()
        with config("max-jobs = many"):
            systemctl("reload", machine.SERVICE)
            self.assertIn(f"{machine.CONFIG}:1", self.events(WRONG)[-1]["MESSAGE"])
            self.assert_answers()
            self.assertEqual((main_pid(), machine.is_active(machine.SERVICE)), (pid, "active"))
