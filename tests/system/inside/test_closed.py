"""What the unit's settings keep the daemon from, tried with the very settings."""

import json
import os
import re
import socket

import machine
from machine import systemctl

PROBE = "/opt/airllm/tests/system/inside/probe.py"


def probe(*arguments, closed=True):
    """Runs probe.py with all settings of the daemon's unit but its program, or as the daemon's user
    with none of them; what it found."""
    unit = systemctl("cat", machine.SERVICE).out
    if not closed:
        unit = "[Service]\nUser=airllm\n"
    unit = re.sub(r"(?m)^(Type|Exec\w+|Requires|After|Restart|Watchdog\w*|NotifyAccess)=.*\n", "",
                  unit)
    unit = unit.replace("[Service]", "[Service]\nType=oneshot\nStandardOutput=file:/run/probe.out\n"
                        f"ExecStart=/usr/bin/python3 {PROBE} {' '.join(arguments)}\n")
    with open("/run/systemd/system/airllm-probe.service", "w", encoding="utf-8") as file:
        file.write(unit)
    systemctl("daemon-reload")
    if os.path.exists("/run/probe.out"):
        os.remove("/run/probe.out")
    systemctl("start", "airllm-probe.service")
    with open("/run/probe.out", encoding="utf-8") as file:
        return json.load(file)


def limits_of(pid):
    """The hard limits of a process by name."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        return dict(re.findall(r"(?m)^Max (.*?)  +\S+ +(\S+)", file.read()))


class Closed(machine.MachineTest):
    def test_no_network_by_io_uring(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = ["network", "127.0.0.1", str(server.getsockname()[1])]
            closed, open_ = probe(*address), probe(*address, closed=False)
        # The probe finds the way out where there is one.
        self.assertEqual((open_["plain"], open_["ring"]), ("connected", "connected"))
        self.assertNotEqual(closed["plain"], "connected")
        self.assertNotEqual(closed["ring"], "connected")
        self.figure(f"socket(): {closed['plain']}; IORING_OP_SOCKET: {closed['ring']}")

    def test_what_it_needs_is_there(self):
        found = probe("needs")
        self.assertEqual(found, {name: "ok" for name in found})
        self.figure(", ".join(found))

    def test_what_it_does_not_need_is_not(self):
        with open("/home/alice/secret", "w", encoding="utf-8") as file:
            file.write("secret")
        os.chmod("/home/alice", 0o755)
        os.chmod("/home/alice/secret", 0o644)
        found = probe("forbidden", "/home/alice/secret")
        # The daemon's user may do these, but for the unit.
        open_ = probe("forbidden", "/home/alice/secret", closed=False)
        for name in ("home", "keyring", "writable code", "a program of the store"):
            self.assertEqual(open_[name], "ok", name)
        self.assertEqual([name for name, what in found.items() if what == "ok"], [])
        self.figure("; ".join(f"{name}: {what}" for name, what in found.items()))

    def test_the_daemon_is_closed_as_the_unit_says(self):
        self.assert_answers()
        with open(f"/proc/{machine.main_pid()}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[name], 16), 0, name)
        self.figure(f"{status['Seccomp_filters']} filters")

    def test_limits_of_the_daemon(self):
        self.assert_answers()
        limits, most = limits_of(machine.main_pid()), limits_of(1)
        self.assertEqual(limits["core file size"], "0")
        # What the machine itself may not have, it cannot give.
        self.assertEqual(int(limits["open files"]), min(65536, int(most["open files"])))
        self.assertEqual(limits["locked memory"], most["locked memory"])
        self.figure(f"locked memory {limits['locked memory']}, open files {limits['open files']}")
