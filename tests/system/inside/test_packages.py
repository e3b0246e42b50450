"""The packages: upgraded under a running job, removed, installed again, purged. In this order, and
after all other tests."""

import glob
import os
import re
import shutil

import machine
from machine import SERVICE, SOCKET, STORE, must, run

PACKAGES = sorted(glob.glob(f"{machine.PAYLOAD}/*.deb"))
NAMES = ["airllm", "airllm-daemon"]
CONFIG = "/etc/airllm/airllmd.conf"


def apt(*arguments):
    return must("apt-get", "--yes", "--no-download", *arguments, timeout=120,
                env={"DEBIAN_FRONTEND": "noninteractive"})


def next_version(package, folder):
    """Makes a later version of a package with the same files; its path."""
    tree = os.path.join(folder, os.path.basename(package)[:-4])
    must("dpkg-deb", "--raw-extract", package, tree)
    control = os.path.join(tree, "DEBIAN/control")
    with open(control, encoding="utf-8") as file:
        text = file.read()
    version = re.search(r"(?m)^Version: (.*)$", text).group(1)
    with open(control, "w", encoding="utf-8") as file:
        file.write(text.replace(version, f"{version}+next"))
    must("dpkg-deb", "--build", "--root-owner-group", tree, f"{tree}.deb")
    return f"{tree}.deb"


def store_bytes():
    return sum(os.lstat(os.path.join(folder, name)).st_size
               for folder, _, names in os.walk(STORE) for name in names)


class Packages(machine.MachineTest):
    def setUp(self):
        if not PACKAGES:
            self.skipTest("airllm was installed without its packages")

    def test_1_an_upgrade_with_a_running_job(self):
        with open(CONFIG, "a", encoding="utf-8") as file:
            file.write("kv = 300M\n")
        folder = "/tmp/next"
        os.mkdir(folder)
        self.addCleanup(shutil.rmtree, folder)
        later = [next_version(package, folder) for package in PACKAGES]
        client, pid = self.start_endless(), machine.main_pid()
        result = apt("install", *later)
        _, err = client.communicate(timeout=20)
        self.assertIn(b"ask again", err)
        self.assert_answers()
        self.assertNotIn(machine.main_pid(), (0, pid))
        with open(CONFIG, encoding="utf-8") as file:
            self.assertTrue(file.read().endswith("kv = 300M\n"))
        self.figure(f"took {result.seconds:.1f} s")

    def test_2_removed_and_installed_again(self):
        before = store_bytes()
        self.assert_answers()
        pid = machine.main_pid()
        apt("remove", *NAMES)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assertFalse(os.path.exists(machine.SOCKET_PATH))
        self.assertEqual(store_bytes(), before)
        self.assertTrue(os.path.exists(CONFIG))
        apt("install", *PACKAGES, "--allow-downgrades")
        self.assertEqual(machine.is_active(SOCKET), "active")
        self.assert_answers()
        self.figure(f"{before >> 20} MiB of models kept")

    def test_3_purged(self):
        self.assert_answers()
        result = apt("purge", *NAMES)
        self.assertFalse(os.path.exists(CONFIG))
        self.assertFalse(os.path.exists(machine.SOCKET_PATH))
        self.assertGreater(store_bytes(), 1 << 20)
        # What is left is named, with its size.
        named = [line for line in (result.out + result.err).splitlines() if STORE in line]
        self.assertTrue(any(re.search(r"\d ?[KMGTkB]", line) for line in named), result)
        self.assertNotIn("loaded", run("systemctl", "show", "--value", "--property=LoadState",
                                       SERVICE).out.split())
        self.figure(named[0].strip())
