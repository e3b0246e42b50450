"""What the tests of a booted machine share: users, units, the journal, an installed airllm.

Everything here runs as root inside the machine that tests/system/run boots.
"""

import contextlib
import json
import os
import pwd
import re
import subprocess
import sys
import time
import unittest

sys.path.insert(0, "/opt/airllm/tests/e2e")

import harness
from harness import Result, wait_until  # used by the tests as well

PAYLOAD = "/opt/airllm/payload"
DEMO = "/opt/airllm/models/demo"
QUESTION = harness.QUESTION
SERVICE = "airllmd.service"
SOCKET = "airllmd.socket"
SOCKET_PATH = "/run/airllm/airllm.sock"
STORE = "/var/lib/airllm"
CONFIG = "/etc/airllm/airllmd.conf"
MEMBERS = ("alice", "bob")  # of the group airllm
STRANGER = "carol"


def run(*command, user=None, stdin=b"", timeout=60, env=None):
    """Runs a command to its end, as root or as `user` with nothing of root's environment."""
    started = time.monotonic()
    done = subprocess.run(as_user(user, command, env), input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout, check=False)
    return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def start(*command, user=None):
    """A command that runs beside the test."""
    return subprocess.Popen(as_user(user, command), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def as_user(user, command, env=None):
    settings = [f"{name}={value}" for name, value in (env or {}).items()]
    if user is None:
        return ["env", *settings, *command]
    entry = pwd.getpwnam(user)
    # Not by runuser(1), which stays as the parent: who kills it leaves the command behind.
    return ["setpriv", f"--reuid={user}", f"--regid={entry.pw_gid}", "--init-groups",
            "env", "-i", f"HOME={entry.pw_dir}", f"USER={user}", "LANG=C.UTF-8", "TERM=dumb",
            f"XDG_RUNTIME_DIR=/run/user/{entry.pw_uid}", f"PATH={os.environ['PATH']}",
            *settings, *command]


def must(*command, **options):
    """Runs a command that has to succeed."""
    result = run(*command, **options)
    assert result.status == 0, f"{' '.join(command)}: {result}"
    return result


def systemctl(*arguments, **options):
    return must("systemctl", *arguments, **options)


def property_of(name, unit=SERVICE):
    return systemctl("show", "--value", f"--property={name}", unit).out.strip()


def is_active(unit):
    return property_of("ActiveState", unit)


def daemon_command():
    """The program and the options that the unit starts."""
    return re.search(r"argv\[\]=(.*?) ;", property_of("ExecStart")).group(1)


def main_pid():
    """The daemon's process, or 0."""
    return int(property_of("MainPID"))


def journal(*arguments, since=None):
    """The entries of the daemon's unit, oldest first; those after journal_cursor() with `since`."""
    must("journalctl", "--sync")
    after = [f"--after-cursor={since}"] if since else []
    lines = must("journalctl", "--output=json", f"--unit={SERVICE}", *after, *arguments).out
    return [json.loads(line) for line in lines.splitlines()]


def journal_cursor():
    """The unit's last entry. (After another unit's, journalctl leaves out the first match.)"""
    last = journal("--lines=1")
    return last[0]["__CURSOR"] if last else None


@contextlib.contextmanager
def drop_in(*lines, section="Service", unit=SERVICE):
    """Settings of a unit for a while; the daemon is restarted with them, and again without."""
    folder = f"/run/systemd/system/{unit}.d"
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "test.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"[{section}]\n" + "\n".join(lines) + "\n")
    systemctl("daemon-reload")
    systemctl("restart", unit)
    try:
        yield
    finally:
        os.remove(path)
        systemctl("daemon-reload")
        systemctl("restart", unit)


@contextlib.contextmanager
def config(*lines):
    """Other lines in the configuration file for a while."""
    os.makedirs(os.path.dirname(CONFIG), exist_ok=True)
    before = None
    if os.path.exists(CONFIG):
        with open(CONFIG, encoding="utf-8") as file:
            before = file.read()
    write_config("\n".join(lines) + "\n")
    try:
        yield
    finally:
        if before is None:
            os.remove(CONFIG)
        else:
            write_config(before)


def write_config(text):
    with open(CONFIG, "w", encoding="utf-8") as file:
        file.write(text)


class MachineTest(unittest.TestCase):
    """airllm is installed, MEMBERS may ask, the model `demo` is in the store."""

    maxDiff = 4000

    def figure(self, text):
        """A measured value for the table."""
        self.figures = [*getattr(self, "figures", []), text]

    def client(self, *arguments, user=MEMBERS[0], **options):
        return run("airllm", *arguments, user=user, **options)

    def ask(self, *arguments, user=MEMBERS[0], **options):
        return self.client("ask", "-m", "demo", "--temperature", "0", *arguments, user=user,
                           **options)

    def assert_answers(self, user=MEMBERS[0]):
        """The daemon gives the right answer; the seconds it took."""
        result = self.ask(QUESTION, user=user)
        self.assertEqual(result.status, 0, result)
        self.assertIn("Paris", result.out)
        return result.seconds

    def start_endless(self, user=MEMBERS[0]):
        """A client whose job runs until it is ended."""
        client = start("airllm", "ask", "-m", "endless", "--ignore-eos", "go", user=user)
        self.addCleanup(end, client)
        self.assertTrue(client.stdout.read(1), "the answer did not begin")
        return client


def end(process):
    process.kill()
    process.communicate(timeout=20)
