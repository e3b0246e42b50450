"""Installs airllm in the machine, runs the tests as they are named (all without a name), and prints
a table of them with what they measured."""

import glob
import os
import shutil
import signal
import sys
import time
import unittest

import machine
from machine import must, run, systemctl

# In this order: the last ones remove what the others need.
MODULES = ["test_members", "test_activation", "test_restart", "test_warm", "test_hangs", "test_reload",
           "test_closed", "test_limits", "test_administration", "test_journal",
           "test_user_units", "test_packages"]
MOST_SECONDS = 120  # for a test


def install():
    packages = sorted(glob.glob(os.path.join(machine.PAYLOAD, "*.deb")))
    if packages:
        must("apt-get", "install", "--yes", *packages, timeout=300)
    else:
        must("cp", "-a", machine.PAYLOAD + "/.", "/")
        must("systemd-sysusers")
        must("systemd-tmpfiles", "--create")
        systemctl("daemon-reload")
        systemctl("preset", machine.SOCKET, machine.SERVICE)
        systemctl("start", machine.SOCKET)


def add_users():
    for user in (*machine.MEMBERS, machine.STRANGER):
        must("useradd", "--create-home", "--shell", "/bin/bash", user)
    for user in machine.MEMBERS:
        must("usermod", "--append", "--groups", "airllm", user)


def add_models():
    """`demo`, and `endless`, whose answers do not end soon; both root's, and shared."""
    import checkpoint
    if not os.path.exists(machine.STORE + "/models/demo"):  # packages bring it
        must("airllm", "split", machine.DEMO, "--name", "demo", "--share")
    checkpoint.write_endless("/tmp/endless")
    must("airllm", "split", "/tmp/endless", "--share")
    shutil.rmtree("/tmp/endless")


class TableResult(unittest.TestResult):
    """Prints each test when it ends, and the journal of one that failed."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        self.verdict, self.note = "passed", ""
        signal.alarm(MOST_SECONDS)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.started = getattr(self, "started", time.monotonic())
        self.verdict, self.note = "skipped", reason

    def addError(self, test, err):
        super().addError(test, err)
        self.failed(self.errors[-1][1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.failed(self.failures[-1][1])

    def failed(self, traceback):
        self.verdict = "FAILED"
        print(traceback)
        print(run("journalctl", "--no-pager", "--lines=30", "--unit=airllmd*").out, flush=True)

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)
        name = ".".join(test.id().split(".")[-2:])
        note = self.note or "; ".join(getattr(test, "figures", []))
        self.rows.append(f"{self.verdict:8} {time.monotonic() - self.started:5.1f} s  {name}"
                         + (f": {note}" if note else ""))
        print(self.rows[-1], flush=True)


def give_up(*_):
    raise AssertionError(f"the test took more than {MOST_SECONDS} s")


def chosen_tests(names):
    loader = unittest.TestLoader()
    loaded = [__import__(name) for name in MODULES]
    if not names:
        return unittest.TestSuite(loader.loadTestsFromModule(module) for module in loaded)
    home = {name: module for module in loaded for name in vars(module)}
    return loader.loadTestsFromNames(
        f"{home[name.split('.')[0]].__name__}.{name}" for name in names)


def main():
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
    signal.signal(signal.SIGALRM, give_up)
    started = time.monotonic()
    tests = chosen_tests(sys.argv[1:])
    install()
    add_users()
    add_models()
    print(f"installed in {time.monotonic() - started:.1f} s", flush=True)
    result = TableResult()
    tests.run(result)
    print("\n=== tests of the machine\n" + "\n".join(result.rows))
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed, "
          f"{len(result.skipped)} skipped")
    sys.exit(1 if failed or not result.testsRun else 0)


main()
