"""The Debian packages: what an upgrade, a removal and a purge do to the daemon and to models."""

import glob
import os
import pwd
import shutil
import stat
import tempfile
import unittest

import machine
from machine import SERVICE, SOCKET, STORE, must, run, systemctl

PACKAGES = sorted(glob.glob(os.path.join(machine.PAYLOAD, "*.deb")))
CONFIG = "/etc/airllm/airllmd.conf"
BUNDLED = os.path.join(STORE, "models/demo")
MARK = os.path.join(BUNDLED, ".airllm-daemon")
POLICY = "/usr/sbin/policy-rc.d"


def apt(*arguments):
    return must("apt-get", "--yes", *arguments, timeout=300,
                env={"DEBIAN_FRONTEND": "noninteractive"})


def daemon_package():
    return next(path for path in PACKAGES if "airllm-daemon" in path)


def older_package(folder):
    """The daemon's package with a lower version and another bundled model."""
    tree = os.path.join(folder, "tree")
    must("dpkg-deb", "--raw-extract", daemon_package(), tree)
    must("sed", "-i", "s/^Version: .*/Version: 0.0.1-1/; /^Recommends:/d", tree + "/DEBIAN/control")
    must("sed", "-i", r's/"created": "[^"]*"/"created": "2001-01-01T00:00:00Z"/',
         tree + "/usr/share/airllm/models/demo/manifest.json")
    path = os.path.join(folder, "older.deb")
    must("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, path)
    return path


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


@unittest.skipUnless(PACKAGES, "not installed from packages (--debs)")
class Packages(machine.MachineTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.install_current()
        if not os.path.exists(BUNDLED):  # a test before removed it, and an upgrade leaves it so
            apt("purge", "airllm-daemon")
            self.install_current()

    def install_current(self):
        apt("install", "--reinstall", "--allow-downgrades", *PACKAGES)

    def install_older(self):
        apt("install", "--allow-downgrades", older_package(self.folder))

    def test_installed(self):
        self.assertEqual(must("systemctl", "is-enabled", SOCKET).out, "enabled\n")
        self.assertEqual(run("systemctl", "is-enabled", SERVICE).out, "disabled\n")
        self.assertEqual(machine.is_active(SOCKET), "active")
        for path, mode in ((STORE, 0o700), (BUNDLED, 0o700), (MARK, 0o600),
                           (BUNDLED + "/shards/000-embedding.safetensors", 0o600)):
            status = os.stat(path)
            self.assertEqual(stat.S_IMODE(status.st_mode), mode, path)
            self.assertEqual(pwd.getpwuid(status.st_uid).pw_name, "airllm", path)
        must("airllm", "verify", "demo")
        self.assertEqual(must("dpkg", "--verify", "airllm", "airllm-daemon").out, "")
        self.figure(f"answered in {self.assert_answers():.2f} s")

    def test_upgrade_refuses_no_question_and_brings_the_new_model(self):
        self.install_older()
        self.assertIn("2001-01-01", read(BUNDLED + "/manifest.json"))
        self.assert_answers()
        socket, pid = os.stat(machine.SOCKET_PATH).st_ino, machine.main_pid()
        upgrade = machine.start("apt-get", "--yes", "install", *PACKAGES)
        asked = 0
        while upgrade.poll() is None:
            self.assert_answers()
            asked += 1
        self.assertEqual(upgrade.returncode, 0, upgrade.communicate())
        upgrade.communicate()
        self.assert_answers()
        self.assertEqual(os.stat(machine.SOCKET_PATH).st_ino, socket)
        self.assertNotIn(machine.main_pid(), (0, pid))
        self.assertNotIn("2001-01-01", read(BUNDLED + "/manifest.json"))
        self.figure(f"{asked} questions during the upgrade")

    def test_upgrade_ends_a_running_job_with_what_to_do(self):
        self.install_older()
        client, pid = self.start_endless(), machine.main_pid()
        self.install_current()
        _, err = client.communicate(timeout=20)
        self.assertIn(b"again", err)
        self.assert_answers()
        self.assertNotIn(machine.main_pid(), (0, pid))

    def test_upgrade_leaves_a_stopped_service_and_settings_alone(self):
        self.install_older()
        systemctl("stop", SERVICE)
        with open(CONFIG, "a", encoding="utf-8") as file:
            file.write("ram = 64M\n")
        self.install_current()
        self.assertEqual(machine.is_active(SERVICE), "inactive")
        self.assertIn("\nram = 64M\n", read(CONFIG))
        self.assert_answers()

    def test_upgrade_keeps_a_model_of_that_name_that_is_not_ours(self):
        must("airllm", "rm", "--yes", "demo")
        must("airllm", "split", machine.DEMO, "--name", "demo", "--share")
        before = read(BUNDLED + "/manifest.json")
        self.install_older()
        self.install_current()
        self.assertEqual(read(BUNDLED + "/manifest.json"), before)
        apt("purge", "airllm-daemon")
        self.assertEqual(read(BUNDLED + "/manifest.json"), before)
        shutil.rmtree(BUNDLED)

    def test_upgrade_does_not_bring_back_what_was_removed(self):
        must("airllm", "rm", "--yes", "demo")
        self.install_older()
        self.install_current()
        self.assertFalse(os.path.exists(BUNDLED))

    def test_remove_and_install_again(self):
        models = sorted(os.listdir(STORE + "/models"))
        apt("remove", "airllm-daemon")
        self.assertEqual(machine.is_active(SOCKET), "inactive")
        self.assertFalse(os.path.exists(machine.SOCKET_PATH))
        self.assertEqual(sorted(os.listdir(STORE + "/models")), models)
        self.assertTrue(os.path.exists(CONFIG))
        self.install_current()
        self.assert_answers()

    def test_purge_takes_the_bundled_model_and_names_what_it_keeps(self):
        for _ in range(2):
            said = apt("purge", "airllm-daemon").out
            self.assertFalse(os.path.exists(BUNDLED))
            self.assertFalse(os.path.exists(CONFIG))
            self.assertRegex(said, rf"[0-9.]+[KMG]  {STORE}/models/endless\s")
            self.assertRegex(said, rf"rm -r {STORE}\s")
            self.assertTrue(os.path.exists(STORE + "/models/endless/manifest.json"))
            self.install_current()
            self.assert_answers()
            must("airllm", "verify", "endless")

    def test_purge_of_the_last_leaves_nothing(self):
        os.rename(STORE + "/models/endless", "/var/tmp/endless")
        try:
            said = apt("purge", "airllm-daemon").out
            self.assertNotIn("kept", said)
            self.assertFalse(os.path.exists(STORE))
        finally:
            self.install_current()
            os.rename("/var/tmp/endless", STORE + "/models/endless")

    def test_nothing_starts_where_the_policy_forbids_it(self):
        apt("purge", "airllm-daemon")
        with open(POLICY, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(POLICY, 0o755)
        try:
            self.install_current()
            self.assertEqual(machine.is_active(SOCKET), "inactive")
        finally:
            os.remove(POLICY)
        systemctl("start", SOCKET)
        self.assert_answers()
