"""Weights in memory outlast a restart of the service, and no stop."""

import os
import signal

import machine
from machine import SERVICE, main_pid, systemctl, wait_until

MIB = 1 << 20


class WarmRestart(machine.MachineTest):
    def setUp(self):
        systemctl("stop", SERVICE)
        self.cold = self.io()
        self.assertGreater(self.cold["read_bytes"], MIB)

    def io(self):
        result = self.ask("--json", "-n", "4", machine.QUESTION)
        self.assertEqual(result.status, 0, result)
        return result.json["io"]

    def status(self):
        return self.client("status", "--json", user=None).json

    def held(self):
        return int(machine.property_of("NFileDescriptorStore"))

    @staticmethod
    def memory():
        """Of the daemon itself, and of all shared memory of the machine: what the manager holds is
        in it once."""
        with open(f"/proc/{main_pid()}/status", encoding="ascii") as file:
            own = next(line for line in file if line.startswith("RssAnon:"))
        with open("/proc/meminfo", encoding="ascii") as file:
            shared = next(line for line in file if line.startswith("Shmem:"))
        return sum(int(line.split()[1]) * 1024 for line in (own, shared))

    def test_a_restart_reads_nothing_again(self):
        wait_until(lambda: self.held() == 1, what="a held descriptor")
        result = systemctl("restart", SERVICE)
        row, = self.status()["models"]
        self.assertTrue(row["received"])
        io = self.io()
        self.assertEqual(io["read_bytes"], 0)
        self.figure(f"{self.cold['read_bytes'] / MIB:.1f} MiB read cold, {io['read_bytes']} B after "
                    f"a restart of {result.seconds:.2f} s")

    def test_a_stop_gives_all_back(self):
        systemctl("stop", SERVICE)
        self.assertEqual(self.held(), 0)
        self.assertGreater(self.io()["read_bytes"], MIB)

    def test_ten_restarts_and_a_kill_keep_budget_and_memory(self):
        budgets, memory = set(), []
        for restart in range(11):
            self.assertEqual(self.io()["read_bytes"], 0)
            status = self.status()
            budgets.add((status["ram_bytes"], status["kv_bytes"]))
            memory.append(self.memory())
            self.assertEqual(self.held(), 1)
            if restart == 5:
                pid = main_pid()
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda old=pid: main_pid() not in (0, old), what="a new daemon")
            else:
                systemctl("restart", SERVICE)
        self.assertEqual(len(budgets), 1, budgets)
        self.assertLess(max(memory) - min(memory), 16 * MIB, memory)
        self.figure(f"RAM budget {budgets.pop()[0] / MIB:.0f} MiB each time, memory between "
                    f"{min(memory) / MIB:.1f} and {max(memory) / MIB:.1f} MiB")

    def test_another_budget_gives_it_back_first(self):
        with machine.config("ram = 3M"):
            systemctl("restart", SERVICE)
            self.assertEqual(self.held(), 0)
            self.assertEqual(self.status()["models"], [])
            self.assertGreater(self.io()["read_bytes"], MIB)
        systemctl("restart", SERVICE)

    def test_airllm_stop_gives_it_back(self):
        systemctl("restart", SERVICE)
        stopped = self.client("stop", "demo", "--json", user=None).json["stopped"]
        self.assertTrue(stopped[0]["was_in_memory"])
        wait_until(lambda: self.held() == 0, what="an empty store of descriptors")

    def test_where_the_unit_holds_nothing(self):
        with machine.drop_in("FileDescriptorStoreMax=0"):
            self.io()
            systemctl("restart", SERVICE)
            self.assertGreater(self.io()["read_bytes"], MIB)
            self.assertEqual(self.held(), 0)
