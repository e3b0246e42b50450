"""Too little memory, too little room: one job fails, the others go on."""

import os

import checkpoint
import machine
from machine import SERVICE, STORE, main_pid, must, systemctl, wait_until

MIB = 1 << 20
# Where tests/system/run puts a group of the memory controller that has a hierarchy of its own.
MEMORY_V1 = "/opt/airllm/memory"


class MemoryLimit:
    """Limits the memory that the daemon takes from now on, below the unit's settings, so that the
    budget which the daemon has chosen does not know of it."""

    def __init__(self, limit_bytes):
        group = "/sys/fs/cgroup" + machine.property_of("ControlGroup")
        if os.path.exists(f"{group}/memory.max"):
            self.limit_file, self.no_limit = f"{group}/memory.max", "max"
        else:
            group = f"{MEMORY_V1}/limit"
            os.makedirs(group, exist_ok=True)
            self.limit_file, self.no_limit = f"{group}/memory.limit_in_bytes", "-1"
            self.write(f"{group}/cgroup.procs", main_pid())
        self.write(self.limit_file, limit_bytes)

    @staticmethod
    def available():
        return os.path.exists(MEMORY_V1) or "memory" in open(
            "/sys/fs/cgroup/cgroup.controllers", encoding="ascii").read().split()

    @staticmethod
    def write(path, value):
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))

    def lift(self):
        if os.path.exists(self.limit_file):
            self.write(self.limit_file, self.no_limit)


class Limits(machine.MachineTest):
    def test_out_of_memory_in_its_cgroup(self):
        if not MemoryLimit.available():
            self.skipTest("this machine has no memory controller, neither of cgroup2 nor of 1")
        checkpoint.write("/tmp/wide", layers=8, hidden=1024, inter=4096)
        self.addCleanup(self.client, "rm", "wide", user=None)
        must("airllm", "split", "/tmp/wide", "--share")
        systemctl("restart", SERVICE)
        self.assert_answers()
        pid = main_pid()
        limit = MemoryLimit(32 * MIB)
        self.addCleanup(limit.lift)
        cursor = machine.journal_cursor()
        result = self.client("ask", "-m", "wide", "-n", "4", "hello")
        self.assertNotEqual(result.status, 0, result)
        wait_until(lambda: main_pid() not in (0, pid), what="a new daemon")
        limit.lift()
        seconds = self.assert_answers()
        entries = [entry["MESSAGE"] for entry in machine.journal(
            since=cursor) if entry.get("_PID") == "1"]
        self.assertTrue(any("status=9/KILL" in text or "oom" in text for text in entries), entries)
        self.figure(f"killed at 32 MiB; the next answer {seconds:.2f} s after")

    def test_a_full_store(self):
        systemctl("stop", SERVICE)
        must("mount", "-t", "tmpfs", "-o", "size=6m,mode=700,uid=airllm,gid=airllm", "none", STORE)
        try:
            # Root has no quota, which would be half of this disk.
            result = self.client("split", machine.DEMO, "--name", "demo", user=None)
            self.assertEqual(result.status, 74, result)
            self.assertIn(f"free on the disk of {STORE}", result.err)
            pid = main_pid()
            self.assertFalse(any(model["complete"] for model in self.client("list", "--json").json))
            self.assertEqual(main_pid(), pid)
            self.figure(result.err.strip().splitlines()[0])
        finally:
            systemctl("stop", SERVICE)
            must("umount", STORE)
        self.assert_answers()
