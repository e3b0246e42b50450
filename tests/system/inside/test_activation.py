"""The socket is there before the daemon, and stays without it."""

import contextlib
import os
import signal
import socket

import machine
from machine import SERVICE, SOCKET, is_active, systemctl


class Activation(machine.MachineTest):
    def test_presets(self):
        enabled = machine.run("systemctl", "is-enabled", SOCKET, SERVICE).out.split()
        self.assertEqual(enabled, ["enabled", "disabled"])

    def test_the_first_ask_starts_the_daemon(self):
        systemctl("stop", SERVICE)
        self.assertEqual((is_active(SERVICE), is_active(SOCKET)), ("inactive", "active"))
        seconds = self.assert_answers()
        self.assertEqual(is_active(SERVICE), "active")
        self.figure(f"answered from cold in {seconds:.2f} s")

    def test_stop_leaves_the_socket_and_the_next_ask_starts_it_again(self):
        for _ in range(3):
            self.assert_answers()
            systemctl("stop", SERVICE)
            self.assertEqual((is_active(SERVICE), is_active(SOCKET)), ("inactive", "active"))
        self.assert_answers()

    def test_a_thousand_may_wait_for_a_daemon_that_does_not_answer(self):
        self.assert_answers()
        os.kill(machine.main_pid(), signal.SIGSTOP)
        try:
            with contextlib.ExitStack() as waiting:
                for _ in range(1000):
                    peer = waiting.enter_context(socket.socket(socket.AF_UNIX))
                    peer.setblocking(False)  # a full queue would be an error
                    peer.connect(machine.SOCKET_PATH)
        finally:
            os.kill(machine.main_pid(), signal.SIGCONT)
        self.figure(f"the next answer {self.assert_answers():.2f} s after they left")

    def test_many_who_come_at_once_find_it_cold(self):
        systemctl("stop", SERVICE)
        clients = [machine.start("airllm", "ask", "-m", "demo", "--temperature", "0",
                                 machine.QUESTION, user=user) for user in machine.MEMBERS * 10]
        for client in clients:
            out, err = client.communicate(timeout=60)
            self.assertEqual(client.returncode, 0, err)
            self.assertIn(b"Paris", out)
        self.assertEqual(machine.property_of("NRestarts"), "0")
        self.figure(f"{len(clients)} asks, one start")
