"""Who may ask: the members of the group, each for himself."""

import os
import stat

import machine
from machine import MEMBERS, STRANGER


class Members(machine.MachineTest):
    def test_the_socket_is_the_groups(self):
        info = os.stat(machine.SOCKET_PATH)
        self.assertEqual(stat.S_IMODE(info.st_mode), 0o660)
        self.assertEqual((info.st_uid, os.stat("/run/airllm").st_uid), (0, 0))

    def test_the_store_is_the_daemons_alone(self):
        info = os.stat(machine.STORE)
        self.assertEqual(stat.S_IMODE(info.st_mode), 0o700)
        self.assertEqual(machine.run("ls", machine.STORE, user=MEMBERS[0]).status, 2)

    def test_a_member_is_answered(self):
        self.figure(f"{self.assert_answers():.2f} s")

    def test_a_stranger_is_told_what_to_do(self):
        result = self.ask("hello", user=STRANGER)
        self.assertEqual(result.status, 77, result)
        self.assertIn(machine.SOCKET_PATH, result.err)
        self.assertIn("airllm", result.err.split(machine.SOCKET_PATH)[-1])
        self.assertIn("log in again", result.err)

    def test_two_users_at_once(self):
        clients = [machine.start("airllm", "ask", "-m", "demo", "--temperature", "0", "--json",
                                 machine.QUESTION, user=user) for user in MEMBERS * 4]
        answers = [client.communicate(timeout=60) for client in clients]
        for client, (out, err) in zip(clients, answers):
            self.assertEqual(client.returncode, 0, err)
            self.assertIn(b"Paris", out)
        self.figure(f"{len(clients)} asks")

    def test_a_job_is_its_users(self):
        owner, other = MEMBERS
        client = self.start_endless(user=owner)
        (mine,) = self.client("ps", "--json", user=owner).json
        (theirs,) = self.client("ps", "--json", user=other).json
        self.assertIn("prompt_tokens", mine)
        self.assertNotIn("prompt_tokens", theirs)
        job = str(mine["job"])
        self.assertEqual(self.client("cancel", job, user=other).status, 77)
        self.assertIsNone(client.poll())
        self.assertEqual(self.client("cancel", job, user=None).status, 0)
        client.communicate(timeout=20)

    def test_a_model_is_its_users_until_it_is_shared(self):
        owner, other = MEMBERS
        result = self.client("split", machine.DEMO, "--name", "own", user=owner)
        self.assertEqual(result.status, 0, result)
        self.addCleanup(self.client, "rm", "own", user=owner)
        asked = ("ask", "-m", "own", "--temperature", "0", machine.QUESTION)
        self.assertIn("Paris", self.client(*asked, user=owner).out)
        self.assertEqual(self.client(*asked, user=other).status, 66)
        self.assertEqual(self.client("share", "own", user=other).status, 66)
        self.assertEqual(self.client("share", "own", user=owner).status, 0)
        self.assertIn("Paris", self.client(*asked, user=other).out)
        self.assertEqual(self.client("rm", "own", user=other).status, 77)

    def test_doctor_knows_who_may_ask(self):
        self.assertEqual(self.client("doctor").status, 0)
        result = self.client("doctor", user=STRANGER)
        self.assertNotEqual(result.status, 0)
        self.assertIn("usermod", result.out + result.err)
