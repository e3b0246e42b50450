"""The benches: figures that hold together, a job like others, and others' jobs beside it."""

import os
import signal
import unittest

import harness
from harness import MIB, QUESTION, needs_root
from test_users import UsersTest

TIER_KEYS = {"name", "bytes_per_sweep", "bytes_per_second", "ceiling_bytes_per_second", "ratio",
             "ratio_min", "ratio_max", "ceiling_bytes"}


class BenchTest(harness.E2eTest):
    """What is so of every bench."""

    def assert_a_signal_ends(self, daemon, *arguments):
        client = daemon.spawn_client("bench", *arguments)
        [job] = harness.wait_until(daemon.jobs)
        self.assertEqual(job["kind"], "bench")
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=30 * harness.SLOWNESS)
        self.assertEqual((client.returncode, out), (130, b""), err)
        harness.wait_until(lambda: not daemon.jobs())


class BenchStream(BenchTest):
    """With the bundled model, of which a budget of 1 MiB streams most."""

    def ready(self, **options):
        options.setdefault("ram", "1M")
        daemon = self.daemon(**options)
        self.split(daemon, harness.DEMO, "demo")
        return daemon

    def bench(self, daemon, *arguments):
        return self.ok(daemon.client("bench", "stream", "demo", "--json", *arguments)).json

    def tiers(self, result):
        disk, ram = result["tiers"]
        self.assertEqual((disk["name"], ram["name"]), ("disk", "ram"))
        self.assertEqual(set(disk), TIER_KEYS)
        self.assertEqual(set(ram), TIER_KEYS | {"resident_bytes"})
        return disk, ram

    def assert_holds_together(self, result, sweeps):
        """What is so in every result, whatever the machine does."""
        runs = result["runs"]
        self.assertEqual((result["sweeps"], len(runs)), (sweeps, sweeps))
        self.assertEqual(result["lost_reads"], 0)
        self.assertIn(result["bound"], ("disk", "memory", "compute"))
        for run in runs:
            self.assertAlmostEqual(run["waiting_seconds"] + run["computing_seconds"],
                                   run["seconds"], places=6)
            self.assertLessEqual(run["reading_seconds"], run["seconds"])
            for key, value in run.items():
                if "bytes" in key and value is not None:
                    self.assertIs(type(value), int, key)
        self.assert_median_of(result["sweep_seconds"], [run["seconds"] for run in runs])
        self.assertEqual(result["sweep_seconds_min"], min(run["seconds"] for run in runs))
        self.assertEqual(result["sweep_seconds_max"], max(run["seconds"] for run in runs))
        for tier in self.tiers(result):
            if tier["ratio"] is None:
                continue
            rates = [(run[tier["name"] + "_bytes_per_second"],
                      run[tier["name"] + "_ceiling_bytes_per_second"]) for run in runs]
            self.assert_median_of(tier["bytes_per_second"], [rate for rate, _ in rates])
            self.assert_median_of(tier["ratio"], [rate / ceiling for rate, ceiling in rates])
            self.assertLessEqual(tier["ratio_min"], tier["ratio"])
            self.assertLessEqual(tier["ratio"], tier["ratio_max"])

    def assert_median_of(self, median, values):
        values = sorted(values)
        self.assertEqual(len(values) % 2, 1)
        middle = values[len(values) // 2]
        self.assertLessEqual(abs(median - middle), max(1e-6 * abs(middle), 1e-9))

    def test_what_streams_comes_from_disk_in_every_sweep(self):
        daemon = self.ready()
        before = daemon.reads()
        result = self.bench(daemon, "--sweeps", 3)
        counted = daemon.bytes_read_since(before)
        self.assert_holds_together(result, 3)
        self.assertGreater(result["cold_sweep_seconds"], 0)
        disk, ram = self.tiers(result)
        self.assertGreater(disk["bytes_per_sweep"], 2 * MIB)
        self.assertGreater(ram["bytes_per_sweep"], disk["bytes_per_sweep"])
        self.assertLess(ram["resident_bytes"], MIB)
        for run in result["runs"]:
            # What a sweep reads is what it uses, but for what the ring holds at its ends.
            read = run["disk_bytes_per_second"] * run["seconds"]
            self.assertLess(abs(read - run["disk_bytes"]), MIB / 2)
        # The ceilings read, too: at least as much as the sweeps.
        self.assertGreater(counted, 2 * 3 * disk["bytes_per_sweep"])
        self.assertEqual((result["model"], result["other_jobs"]), ("demo", 0))
        again = self.bench(daemon, "--sweeps", 1)
        self.assertIsNone(again["cold_sweep_seconds"])

    def test_nothing_comes_from_disk_when_all_is_in_memory(self):
        daemon = self.ready(ram="64M")
        result = self.bench(daemon, "--sweeps", 3)
        self.assert_holds_together(result, 3)
        disk, ram = self.tiers(result)
        self.assertEqual((disk["bytes_per_sweep"], disk["ratio"]), (0, None))
        self.assertGreater(disk["ceiling_bytes_per_second"], 0)
        self.assertGreater(ram["ratio"], 0)
        self.assertGreater(ram["resident_bytes"], 4 * MIB)
        self.assertNotEqual(result["bound"], "disk")
        self.assertEqual(result["waiting_seconds"], 0)

    def test_every_reader_is_told(self):
        for name, options in (("threads", {"reader": "threads"}),
                              ("buffered", {"direct_io": "no"})):
            daemon = self.ready(name=name, store=self.path(name + "-store"), **options)
            result = self.bench(daemon, "--sweeps", 1)
            self.assert_holds_together(result, 1)
            if name == "threads":
                self.assertEqual((result["reader"], result["ceiling_reader"]), (name, name))
            else:
                self.assertFalse(result["direct"])
                text = self.ok(daemon.client("bench", "stream", "demo", "--sweeps", 1)).out
                self.assertIn("page cache", text)

    def test_the_text_is_one_screen(self):
        result = self.ok(self.ready().client("bench", "stream", "-m", "demo", "--sweeps", "1"))
        for word in ("disk", "ram", "GB/s", "reading", "waiting", "computing", "bound by"):
            self.assertIn(word, result.out)
        self.assertLess(result.out.count("\n"), 24)
        self.assertEqual(result.err, "")

    def test_the_memory_is_bounded(self):
        daemon = self.ready()
        self.bench(daemon, "--sweeps", 1)
        if not harness.SANITIZED:
            self.assertLess(daemon.status_field("VmHWM"), 65 * MIB)

    def test_it_is_a_job_that_others_do_not_wait_for(self):
        daemon = self.ready()
        expected = self.ok(daemon.client("ask", "-m", "demo", QUESTION)).out
        client = daemon.spawn_client("bench", "stream", "demo", "--sweeps", "1000")
        [job] = harness.wait_until(lambda: [job for job in daemon.jobs()
                                            if job["state"] == "decode"])
        self.assertEqual((job["kind"], job["model"]), ("bench", "demo"))
        self.assertEqual(self.ok(daemon.client("ask", "-m", "demo", QUESTION)).out, expected)
        busy = self.assert_fails(daemon.client("stop", "demo"), 75)
        self.assertIn(f"job {job['job']}", busy.err)
        self.ok(daemon.client("cancel", job["job"]))
        _, err = client.communicate(timeout=30 * harness.SLOWNESS)
        self.assertEqual(client.returncode, 130, err)
        self.assertEqual(daemon.jobs(), [])
        self.ok(daemon.client("stop", "demo"))

    def test_a_signal_ends_it(self):
        daemon = self.ready()
        self.assert_a_signal_ends(daemon, "stream", "demo", "--sweeps", "1000")
        self.bench(daemon, "--sweeps", 1)

    def test_one_that_asks_meanwhile_is_told_of(self):
        daemon = self.ready()
        with harness.Wire(daemon.socket) as wire:
            wire.send(wire.generate(1, model="demo", prompt_ids=[1, 5, 6], ignore_eos=True,
                                    max_tokens=1000, sampling={}))
            harness.wait_until(lambda: [j for j in daemon.jobs() if j["state"] == "decode"])
            result = self.bench(daemon, "--sweeps", 1)
        self.assertGreaterEqual(result["other_jobs"], 1)

    def test_a_read_that_hangs_ends_it(self):
        daemon = self.daemon(ram="1M", read_timeout=1, env={"AIRLLM_DEBUG_HANG": "read:40"})
        self.split(daemon, harness.DEMO, "demo")
        failed = self.assert_fails(daemon.client("bench", "stream", "demo"), 74)
        self.assertIn("did not come back", failed.err)
        self.assert_lives(daemon)

    def test_refusals_name_what_is_wrong(self):
        daemon = self.ready()
        unknown = self.assert_fails(daemon.client("bench", "stream", "nothing"), 66)
        self.assertIn("nothing", unknown.err)
        self.assert_fails(daemon.client("bench", "stream", "demo", "--sweeps", "1001"), 64)
        self.assert_fails(daemon.client("bench", "strem", "demo"), 64)
        error = daemon.client("bench", "stream", "nothing", "--json")
        self.assertEqual(error.json["error"]["code"], "no_input")

    def test_a_damaged_shard_is_named(self):
        daemon = self.ready()
        shards = os.path.join(daemon.store, "models/demo/shards")
        path = os.path.join(shards, sorted(os.listdir(shards))[4])
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            file.write(b"\xa5" * 4096)
        damaged = self.assert_fails(daemon.client("bench", "stream", "demo"), 65)
        self.assertIn(path, damaged.err)
        self.assert_lives(daemon)


@unittest.skipIf(harness.SANITIZED, "some 100 GFLOP, which sanitizers make a matter of minutes")
class BenchKernels(BenchTest):
    """Of the processor's operations, without a model."""

    def test_figures_hold_together(self):
        daemon = self.daemon(ram="16M")
        result = self.ok(daemon.client("bench", "kernels", "--rounds", "1", "--json")).json
        status = self.ok(daemon.client("status", "--json")).json
        self.assertEqual(result["backend"], status["cpu"])
        self.assertEqual((result["rounds"], result["other_jobs"]), (1, 0))
        self.assertGreater(result["memory_bytes_per_second"], 1e8)
        self.assertGreater(result["peak_flop_per_second"], 1e8)
        operations = result["operations"]
        self.assertEqual({o["operation"] for o in operations},
                         {"product", "attention", "norm", "activation"})
        self.assertEqual({o["format"] for o in operations if o["operation"] == "product"},
                         {"f32", "f16", "bf16", "q8", "q4", "nf4", "fp8"})
        for operation in operations:
            for amount in ("bytes", "flop"):
                if operation[amount] is None:
                    self.assertIsNone(operation[amount + "_per_second"])
                    continue
                rate = operation[amount] / operation["seconds"]
                self.assertAlmostEqual(operation[amount + "_per_second"] / rate, 1, places=3)
            if operation["flop"] is None:
                self.assertIsNone(operation["of_memory"])
                continue
            # Taken right beside it, which the median of the whole run need not be near.
            self.assertGreater(operation["of_peak"]["median"], 0)
            self.assertEqual(operation["of_memory"]["min"], operation["of_memory"]["max"])
        self.assertEqual(daemon.jobs(), [])

    def test_the_reference_is_measured_as_well(self):
        daemon = self.daemon(ram="16M", env={"AIRLLM_CPU": "scalar"})
        text = self.ok(daemon.client("bench", "kernels", "--rounds", "1")).out
        self.assertTrue(text.startswith("scalar, "), text)
        for word in ("OF MEMORY", "GFLOP/s", "GB/s", "q4", "attention, 4096 positions"):
            self.assertIn(word, text)

    def test_a_signal_ends_it(self):
        self.assert_a_signal_ends(self.daemon(ram="16M"), "kernels", "--rounds", "1000")

    def test_refusals_name_what_is_wrong(self):
        daemon = self.daemon(ram="16M")
        self.assert_fails(daemon.client("bench", "kernels", "--rounds", "1001"), 64)
        self.assert_fails(daemon.client("bench", "kernels", "demo"), 64)
        self.assert_fails(daemon.client("bench", "kernels", "--sweeps", "3"), 64)


@needs_root
class BenchOfUsers(UsersTest):
    """Who may measure what."""

    def test_a_private_model_is_measured_by_its_user_alone(self):
        daemon = self.open_daemon(ram="16M")
        ann, ben, _ = self.people(daemon)
        self.assertEqual(ann.client("split", self.sources[0], "--name", "hers").status, 0)
        self.assertEqual(ann.json("bench", "stream", "hers", "--sweeps", "1")["model"], "hers")
        self.refused(ben.client("bench", "stream", "hers", "--sweeps", "1"), 66, "hers")


if __name__ == "__main__":
    harness.main()
