"""How long a model's memory is kept, and who gives it back."""

import harness
from harness import MIB, QUESTION


class MemoryTest(harness.E2eTest):
    """A daemon with the bundled model."""

    def ready(self, **options):
        daemon = self.daemon(ram="64M", **options)
        self.split(daemon, harness.DEMO, "demo")
        return daemon

    def ask(self, daemon, *arguments, model="demo"):
        return self.ok(daemon.client("ask", "-m", model, "--json", *arguments, QUESTION)).json

    def in_memory(self, daemon):
        """The rows of models in memory, by name."""
        status = self.ok(daemon.client("status", "--json")).json
        return {row["name"]: row for row in status["models"]}


class Stopped(MemoryTest):
    """airllm stop."""

    def test_gives_memory_back_at_once(self):
        daemon = self.ready()
        self.assertIn("was not in memory", self.ok(daemon.client("stop", "demo")).out)
        self.ask(daemon)
        (stopped,) = self.ok(daemon.client("stop", "demo", "--json")).json["stopped"]
        self.assertEqual((stopped["name"], stopped["was_in_memory"]), ("demo", True))
        self.assertGreater(stopped["freed_bytes"], 4 * MIB)
        self.assertEqual(self.in_memory(daemon), {})
        self.assertGreater(self.ask(daemon)["io"]["read_bytes"], 4 * MIB)

    def test_an_unknown_model_is_named_as_by_show(self):
        daemon = self.ready()
        shown = self.assert_fails(daemon.client("show", "dmeo"), 66)
        stopped = self.assert_fails(daemon.client("stop", "dmeo"), 66)
        self.assertEqual(stopped.err, shown.err)


if __name__ == "__main__":
    harness.main()
