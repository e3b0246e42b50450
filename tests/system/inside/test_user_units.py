"""A user's own daemon, under the user's own service manager."""

import os
import pwd
import signal

import machine
from machine import MEMBERS, must, wait_until

USER = MEMBERS[1]


def user_systemctl(*arguments):
    return machine.run("systemctl", "--user", *arguments, user=USER)


class UserUnits(machine.MachineTest):
    @classmethod
    def setUpClass(cls):
        uid = pwd.getpwnam(USER).pw_uid
        must("loginctl", "enable-linger", USER)
        wait_until(lambda: user_systemctl("is-system-running").out.strip() in (
            "running", "degraded"), what="the user's service manager")
        cls.socket = f"/run/user/{uid}/airllm/airllm.sock"

    @classmethod
    def tearDownClass(cls):
        must("loginctl", "disable-linger", USER)

    def property_of(self, name):
        return user_systemctl("show", "--value", f"--property={name}", machine.SERVICE).out.strip()

    def test_they_are_disabled_by_preset(self):
        must("systemctl", "--global", "preset", machine.SOCKET, machine.SERVICE)
        enabled = user_systemctl("is-enabled", machine.SOCKET, machine.SERVICE).out.split()
        self.assertEqual(enabled, ["disabled", "disabled"])
        self.assertFalse(os.path.exists(self.socket))

    def test_a_daemon_of_ones_own(self):
        self.assertEqual(user_systemctl("start", machine.SOCKET).status, 0)
        self.addCleanup(user_systemctl, "stop", machine.SOCKET, machine.SERVICE)
        # The user's own socket counts before the system's.
        result = self.client("split", machine.DEMO, "--name", "mine", user=USER)
        self.assertEqual(result.status, 0, result)
        result = self.client("ask", "-m", "mine", "--temperature", "0", machine.QUESTION, user=USER)
        self.assertIn("Paris", result.out, result)
        self.assertTrue(os.path.isdir(f"/home/{USER}/.local/share/airllm/models/mine"))
        pid = int(self.property_of("MainPID"))
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        self.assertEqual(status["Uid"].split()[0], str(pwd.getpwnam(USER).pw_uid))
        # No user namespace was made for it (see the unit).
        self.assertEqual(os.readlink(f"/proc/{pid}/ns/user"), os.readlink("/proc/self/ns/user"))
        self.figure(f"{status['Seccomp_filters']} filters, answered in {result.seconds:.2f} s")

    def test_killed_it_starts_again(self):
        self.assertEqual(user_systemctl("start", machine.SOCKET).status, 0)
        self.addCleanup(user_systemctl, "stop", machine.SOCKET, machine.SERVICE)
        for _ in range(3):
            self.assertEqual(self.client("list", user=USER).status, 0)
            os.kill(int(self.property_of("MainPID")), signal.SIGKILL)
        result = self.client("list", user=USER)
        self.assertEqual(result.status, 0, result)
