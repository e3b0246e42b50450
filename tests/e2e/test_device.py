"""A device with memory of its own, simulated: answers, budgets, copies, several models."""

import json

import checkpoint
import harness
import seeded
from harness import MIB, QUESTION
from test_families import FixtureTest, load_fixture


def simulated(vram, ram, **options):
    return {"device": "simulated", "vram": vram, "ram": ram, "kv": "8M", **options}


class OnDevice(FixtureTest):
    """Against the same daemon without such a device."""

    # All on the device; all in RAM; all that streams from disk.
    BUDGETS = (("64M", "2M"), ("3M", "64M"), ("3M", "1M"), ("1M", "512K"))

    def answer(self, daemon, *arguments, model="demo"):
        return self.ok(daemon.client("ask", "-m", model, "--json", *arguments, QUESTION)).json

    def status(self, daemon):
        return self.ok(daemon.client("status", "--json")).json

    def check_memory(self, daemon):
        """Nothing takes more than it was given."""
        status = self.status(daemon)
        self.assertEqual(status["device"], "simulated")
        self.assertLessEqual(status["vram_peak_bytes"], status["vram_bytes"])
        self.assertLessEqual(status["ram_used_bytes"], status["ram_bytes"])
        for model in status["models"]:
            self.assertGreater(model["vram_bytes"], 0)
        return status

    def test_answers_are_the_same_in_every_bit(self):
        cpu = self.daemon(ram="64M", kv="8M")
        self.split(cpu, harness.DEMO, "demo")
        expected = self.answer(cpu, "--prompt-logprobs", "5", "--logprobs", "5")
        self.assertIsNone(self.status(cpu)["vram_bytes"])
        cpu.stop()
        for number, (vram, ram) in enumerate(self.BUDGETS):
            with self.subTest(vram=vram, ram=ram):
                daemon = self.daemon(name=f"d{number}", store=cpu.store, **simulated(vram, ram))
                for _ in range(2):
                    found = self.answer(daemon, "--prompt-logprobs", "5", "--logprobs", "5")
                    for key in ("text", "token_ids", "prompt_logprobs", "logprobs"):
                        self.assertEqual(found[key], expected[key], key)
                status = self.check_memory(daemon)
                reads = found["io"]["read_bytes"]
                streams = status["models"][0]["streams"]
                self.assertEqual(reads > 0, streams, "a warm model that fits is not read again")
                daemon.stop()

    def test_a_mixture_of_experts_streams_through_the_device(self):
        fixture, tensors = load_fixture("mixtral")
        folder = self.source("experts", fixture["config"])
        seeded.write_weights(folder, tensors)
        for number, (vram, ram) in enumerate((("64M", "8M"), ("768K", "8M"), ("768K", "768K"))):
            with self.subTest(vram=vram, ram=ram):
                daemon = self.daemon(name=f"d{number}", store=self.path(f"store{number}"),
                                     **simulated(vram, ram))
                self.split(daemon, folder, "experts")
                for _ in range(2):
                    found = self.ask(daemon, "experts", fixture["prompts"][-1]["ids"],
                                     "--ignore-eos", "--max-tokens", str(len(fixture["greedy"])))
                    self.assertEqual(found["token_ids"], fixture["greedy"])
                self.check_memory(daemon)
                daemon.stop()

    def test_a_second_model_takes_the_devices_memory_when_both_do_not_fit(self):
        daemon = self.daemon(**simulated("10M", "32M"))
        for name in ("one", "two"):
            self.split(daemon, harness.DEMO, name)
        for name in ("one", "two", "one"):
            self.assertIn("Paris", self.answer(daemon, model=name)["text"])
            status = self.check_memory(daemon)
            self.assertIn(name, [model["name"] for model in status["models"]])
        self.ok(daemon.client("stop", "one"))
        self.ok(daemon.client("stop", "two"))
        self.assertEqual(self.status(daemon)["vram_used_bytes"], 0)

    def test_two_models_stay_when_both_fit(self):
        daemon = self.daemon(**simulated("64M", "32M", kv="2M"))
        for name in ("one", "two"):
            self.split(daemon, harness.DEMO, name)
            self.answer(daemon, model=name)
        self.assertEqual(self.answer(daemon, model="one")["io"]["read_bytes"], 0)
        self.assertEqual(len(self.check_memory(daemon)["models"]), 2)

    def test_many_jobs_share_the_sweeps(self):
        daemon = self.daemon(**simulated("2M", "1M"))
        self.split(daemon, harness.DEMO, "demo")
        clients = [daemon.spawn_client("ask", "-m", "demo", QUESTION) for _ in range(6)]
        for client in clients:
            out, err = client.communicate(timeout=60 * harness.SLOWNESS)
            self.assertEqual((client.returncode, err), (0, b""))
            self.assertIn(b"Paris", out)
        self.check_memory(daemon)

    def test_a_profile_shows_copies(self):
        daemon = self.daemon(**simulated("3M", "64M", bus_speed="1G"))
        self.split(daemon, harness.DEMO, "demo")
        path = self.path("profile.json")
        done = self.ok(daemon.client("ask", "-m", "demo", "--profile", path, QUESTION))
        self.assertIn("copying", done.err)
        with open(path, encoding="utf-8") as file:
            events = json.load(file)["traceEvents"]
        copies = [event for event in events if event.get("cat") == "copy"]
        self.assertGreater(sum(event["args"]["bytes"] for event in copies), MIB)
        self.assertIn("copies", [event["args"].get("name") for event in events])

    def test_a_bench_reads_what_neither_the_device_nor_memory_keeps(self):
        for number, (vram, ram, streams) in enumerate((("3M", "64M", False), ("3M", "1M", True))):
            daemon = self.daemon(name=f"d{number}", store=self.path(f"store{number}"),
                                 **simulated(vram, ram))
            self.split(daemon, harness.DEMO, "demo")
            result = self.ok(daemon.client("bench", "stream", "demo", "--sweeps", "2",
                                           "--json")).json
            self.assertEqual(result["streams"], streams)
            self.assertEqual(result["tiers"][0]["ratio"] is None, not streams)
            daemon.stop()

    def test_ps_shows_what_is_on_the_device(self):
        daemon = self.daemon(**simulated("64M", "64M"))
        self.split(daemon, harness.DEMO, "demo")
        self.answer(daemon)
        self.assertIn("VRAM", self.ok(daemon.client("ps")).out)


class DeviceSettings(harness.E2eTest):
    def refusal(self, **options):
        daemon = self.daemon(start=False, **options).launch()
        self.assertEqual(daemon.process.wait(20 * harness.SLOWNESS), 78)
        return daemon.log

    def test_what_does_not_go_together_is_refused(self):
        self.assertIn("give it some: --vram", self.refusal(device="simulated"))
        self.assertIn("computes in RAM", self.refusal(vram="4M"))
        self.assertIn("computes in RAM", self.refusal(device="cpu", bus_speed="4G"))

    def test_a_budget_that_is_too_small_names_the_least(self):
        folder = self.path("wide")
        checkpoint.write(folder, inter=1 << 17, layers=1)
        for number, (vram, ram, option) in enumerate((("512K", "8M", "--vram"),
                                                      ("64M", "512K", "--ram"))):
            daemon = self.daemon(name=f"d{number}", store=self.path(f"store{number}"),
                                 **simulated(vram, ram))
            self.split(daemon, folder, "wide")
            ask = ("ask", "-m", "wide", "--raw", "--max-tokens", "1", "x")
            refused = self.assert_fails(daemon.client(*ask), 78)
            self.assertIn(f"give {option} at least ", refused.err)
            least = refused.err.split(f"give {option} at least ")[1].split()[0]
            self.assertEqual(least[-1], "K")
            daemon.stop()


if __name__ == "__main__":
    harness.main()
