"""airllm doctor, and what a user is told who may not connect."""

import grp
import os
import pwd
import shutil
import subprocess

import harness
from harness import DEMO

STATUSES = {"ok", "warning", "problem"}


def by_name(result):
    """The checks of a `doctor --json`, by their names."""
    return {check["name"]: check for check in result.json["checks"]}


class Doctor(harness.E2eTest):
    """Whether asking would work, as `doctor` sees it and as it is."""

    def diagnose(self, daemon, *arguments, status=0):
        result = daemon.client("doctor", "--json", *arguments)
        self.assertEqual(result.status, status, result)
        self.assertEqual(result.json["ok"], status == 0, result)
        for check in result.json["checks"]:
            self.assertEqual(list(check), ["name", "status", "message", "remedy"])
            self.assertIn(check["status"], STATUSES)
            self.assertEqual(check["remedy"] == "", check["status"] == "ok", check)
        return by_name(result)

    def test_no_daemon(self):
        daemon = self.daemon(start=False)
        checks = self.diagnose(daemon, status=69)
        self.assertEqual(checks["socket"]["status"], "problem")
        self.assertIn(daemon.socket, checks["socket"]["message"])
        self.assertIn("airllmd --foreground", checks["socket"]["remedy"])
        self.assertEqual(checks["program"]["status"], "ok", checks)
        self.assertNotIn("model", checks)
        self.assertLess(daemon.client("doctor").seconds, 5 * harness.SLOWNESS)

    def test_a_socket_that_its_daemon_left_behind(self):
        daemon = self.daemon()
        daemon.kill()
        checks = self.diagnose(daemon, status=69)
        self.assertIn("nobody answers", checks["socket"]["message"])

    def test_a_store_without_a_model(self):
        daemon = self.daemon()
        checks = self.diagnose(daemon, status=64)
        self.assertEqual(checks["model"]["status"], "problem")
        self.assertIn("airllm split", checks["model"]["remedy"])
        self.assertEqual(checks["models"]["status"], "warning")
        self.assertEqual(daemon.client("ask", "hi").status, 64)

    def test_a_model_that_can_be_asked(self):
        daemon = self.daemon()
        self.split(daemon, DEMO, "demo")
        checks = self.diagnose(daemon)
        self.assertIn("demo", checks["model"]["message"])
        self.assertEqual(checks["daemon"]["status"], "ok")
        self.assertEqual(checks["store"]["status"], "ok")
        self.assertIn(daemon.store, checks["store"]["message"])
        self.assertRegex(checks["io_uring"]["message"], "weights are read with (io_uring|threads)$")
        self.assertNotIn("disk", self.diagnose(daemon, "--no-disk"))
        text = self.ok(daemon.client("doctor"))
        self.assertTrue(text.out.endswith("\nasking works\n"), text)
        self.assertNotIn("\x1b", text.out)
        self.assertLess(text.seconds, 3 * harness.SLOWNESS)

    def test_a_model_that_is_not_there(self):
        daemon = self.daemon()
        self.split(daemon, DEMO, "demo")
        checks = self.diagnose(daemon, "-m", "dema", status=66)
        self.assertIn("demo", checks["model"]["remedy"])

    def test_the_disks_speed_with_and_without_a_model(self):
        daemon = self.daemon()
        result = daemon.client("doctor", "--json")
        self.assertIn("GB/s", by_name(result)["disk"]["message"])
        self.assertIn("speed-test", by_name(result)["disk"]["message"])
        self.assertNotIn("speed-test", os.listdir(daemon.store))
        self.split(daemon, DEMO, "demo")
        checks = self.diagnose(daemon)
        self.assertIn("models/demo/shards/", checks["disk"]["message"])

    def test_a_store_that_may_not_be_written(self):
        if harness.IS_ROOT and shutil.which("setpriv") is None:
            self.skipTest("no setpriv")
        os.chmod(self.home, 0o755)
        os.chmod(self.folder, 0o777)
        daemon = self.daemon(start=False)
        daemon.launch(ClosedSocket.NOBODY if harness.IS_ROOT else ())
        harness.wait_until(daemon.answers, what="the daemon")
        self.split(daemon, DEMO, "demo")
        os.chmod(daemon.store, 0o555)
        self.addCleanup(os.chmod, daemon.store, 0o755)
        checks = self.diagnose(daemon)  # asking goes on
        self.assertEqual(checks["store"]["status"], "warning", checks)
        self.assertIn(daemon.store, checks["store"]["message"])
        self.assertIn("chown", checks["store"]["remedy"])


@harness.needs_root
class ClosedSocket(harness.NobodyTest):
    """A user whom the socket is closed to, with the exact command that opens it."""

    def setUp(self):
        super().setUp()
        self.opened = self.daemon()

    def open_to(self, group):
        os.chown(self.opened.socket, 0, group)
        os.chmod(self.opened.socket, 0o660)

    def run_as(self, user, *arguments):
        done = subprocess.run([*user, *self.opened.command(*arguments)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.opened.env,
                              timeout=30 * harness.SLOWNESS, check=False)
        return harness.Result(done.returncode, done.stdout, done.stderr, 0)

    def test_one_who_is_not_in_the_group(self):
        name = pwd.getpwuid(65534).pw_name
        group = grp.getgrnam("daemon")
        self.open_to(group.gr_gid)
        result = self.assert_fails(self.run_as(self.NOBODY, "status"), 77)
        self.assertIn(f"not in group {group.gr_name}", result.err)
        self.assertIn(f"sudo usermod -aG {group.gr_name} {name}", result.err)
        self.assertIn("log in again", result.err)
        self.assertIn(self.opened.socket, result.err)
        report = self.run_as(self.NOBODY, "doctor", "--json")
        self.assertEqual(report.status, 77, report)
        socket = by_name(report)["socket"]
        self.assertEqual(socket["status"], "problem")
        self.assertIn("usermod -aG", socket["remedy"])

    def test_one_who_came_into_the_group_after_the_login(self):
        user = pwd.getpwnam("daemon")  # the database has its own group for it
        login = ("setpriv", f"--reuid={user.pw_uid}", "--regid=65534", "--clear-groups")
        self.open_to(user.pw_gid)
        group = grp.getgrgid(user.pw_gid).gr_name
        result = self.assert_fails(self.run_as(login, "status"), 77)
        self.assertIn("log in again", result.err)
        self.assertIn(f"newgrp {group}", result.err)
        self.assertNotIn("usermod", result.err)

    def test_one_who_is_in_the_group(self):
        user = pwd.getpwnam("daemon")
        login = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
        self.open_to(user.pw_gid)
        self.ok(self.run_as(login, "status"))
        report = self.run_as(login, "doctor", "--json")
        self.assertEqual(report.status, 64, report)  # the store has no model
        self.assertEqual(by_name(report)["group"]["status"], "ok")

    def test_a_socket_of_another_user_alone(self):
        result = self.assert_fails(self.run_as(self.NOBODY, "status"), 77)
        self.assertIn("for user root alone", result.err)
        self.assertNotIn("usermod", result.err)

    def test_a_folder_that_is_closed_is_named(self):
        os.chmod(self.folder, 0o700)
        result = self.assert_fails(self.run_as(self.NOBODY, "status"), 77)
        self.assertIn(f"the folder {self.folder} is closed", result.err)


if __name__ == "__main__":
    harness.main()
