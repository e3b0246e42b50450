"""A client that comes while the daemon is away."""

import os
import signal
import subprocess

import harness
from harness import DEMO, QUESTION


class Waiting(harness.E2eTest):
    """One daemon ends and the next one comes, with clients that wait for it meanwhile."""

    def setUp(self):
        super().setUp()
        self.first = self.daemon()
        self.split(self.first, DEMO, "demo")

    def next_daemon(self):
        """Another daemon on the same store and socket."""
        return self.daemon()

    def waiting_client(self, *arguments):
        """A client on a terminal, once it has said that it waits; and that terminal."""
        terminal, other = os.openpty()
        self.addCleanup(os.close, terminal)
        client = self.first.spawn_client(*arguments, stderr=other)
        os.close(other)
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        said = b""
        while b"waiting" not in said:
            said += os.read(terminal, 4096)
        return client

    def test_a_killed_daemon_is_waited_for(self):
        self.first.kill()
        client = self.waiting_client("ask", "-m", "demo", QUESTION)
        self.next_daemon()
        out, _ = client.communicate(timeout=30 * harness.SLOWNESS)
        self.assertEqual(client.returncode, 0)
        self.assertIn(b"Paris", out)

    def test_a_daemon_that_is_still_to_come_is_waited_for_when_asked(self):
        self.first.stop()
        self.assertFalse(os.path.exists(self.first.socket))
        self.assert_fails(self.first.client("list"), 69)
        client = self.waiting_client("list", "--json", "--connect-timeout", "30")
        self.next_daemon()
        out, _ = client.communicate(timeout=30 * harness.SLOWNESS)
        self.assertEqual((client.returncode, b"demo" in out), (0, True))

    def test_an_interrupt_ends_the_wait(self):
        self.first.kill()
        client = self.waiting_client("list")
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=20 * harness.SLOWNESS)
        self.assertEqual(client.returncode, 130)

    def test_the_wait_has_an_end(self):
        self.first.kill()
        result = self.assert_fails(self.first.client("list", "--connect-timeout", 0.3), 69)
        self.assertGreaterEqual(result.seconds, 0.3)

    def test_scripts_see_nothing_of_it(self):
        self.first.kill()
        client = self.first.spawn_client("ask", "-m", "demo", QUESTION, stdin=subprocess.DEVNULL)
        self.addCleanup(client.kill)
        self.next_daemon()
        out, err = client.communicate(timeout=30 * harness.SLOWNESS)
        self.assertEqual((client.returncode, err), (0, b""))
        self.assertIn(b"Paris", out)


if __name__ == "__main__":
    harness.main()
