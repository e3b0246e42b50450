"""What airllmd(8) tells an administrator to do, done."""

import os

import machine
from machine import CONFIG, SERVICE, STORE, config, drop_in, must, systemctl


class Administration(machine.MachineTest):
    def test_a_budget(self):
        self.addCleanup(systemctl, "restart", SERVICE)
        with config("ram = 3M", "kv = 16M"):
            systemctl("restart", SERVICE)
            seconds = self.assert_answers()
            status = self.client("status", "--json").json
            self.assertEqual(status["ram_bytes"], 3 << 20, status)
        self.figure(f"answered with 3 MiB in {seconds:.2f} s")

    def test_a_wrong_setting_is_named_and_mended(self):
        cursor = machine.journal_cursor()
        systemctl("stop", SERVICE)
        with config("ram = much"):
            waiting = machine.start("airllm", "ask", "-m", "demo", "--temperature", "0",
                                    machine.QUESTION, user=machine.MEMBERS[0])
            machine.wait_until(lambda: int(machine.property_of("NRestarts")) >= 2,
                               what="two restarts")
        out, err = waiting.communicate(timeout=20)
        self.assertIn(b"Paris", out, err)
        self.assertEqual(machine.is_active(machine.SOCKET), "active")
        messages = [entry["MESSAGE"] for entry in machine.journal(since=cursor)]
        self.assertTrue(any(f"{CONFIG}:1" in message for message in messages), messages)

    def test_a_store_elsewhere(self):
        must("install", "--directory", "--owner=airllm", "--group=airllm", "--mode=0700",
             "/srv/airllm")
        with drop_in(f"BindPaths=/srv/airllm:{STORE}"):
            self.assertEqual(self.client("list", "--json").json, [])
            must("airllm", "split", machine.DEMO, "--name", "demo", "--share")
            self.assert_answers()
            self.assertTrue(os.path.isdir("/srv/airllm/models/demo"))
        must("rm", "-r", "/srv/airllm")
        self.assert_answers()
