"""What streaming promises: bytes read once, the same bits under any budget, memory within it."""

import concurrent.futures
import os
import shutil
import sys
import tempfile
import unittest

import checkpoint
import harness
from harness import MIB, QUESTION


class Reading(harness.E2eTest):
    """How many bytes of weights an answer reads."""

    def ready(self, **options):
        daemon = self.daemon(**options)
        self.split(daemon, harness.DEMO, "demo")
        return daemon

    def ask(self, daemon, *arguments):
        return self.ok(daemon.client("ask", "-m", "demo", "--json", *arguments)).json

    def test_the_second_ask_reads_nothing_when_the_weights_fit(self):
        daemon = self.ready(ram="64M")
        first, second = self.ask(daemon, QUESTION)["io"], self.ask(daemon, QUESTION)["io"]
        self.assertGreater(first["read_bytes"], 4 * MIB)
        self.assertLess(first["read_bytes"], 12 * MIB)
        self.assertEqual(second["read_bytes"], 0)
        self.assertGreater(second["cache_bytes"], 0)

    def test_the_kernel_counts_what_the_answer_says(self):
        daemon = self.ready(ram="1M")
        before = daemon.reads()
        told = self.ask(daemon, "--raw", "--ignore-eos", "--max-tokens", 8, "x")["io"]["read_bytes"]
        counted = daemon.bytes_read_since(before)
        self.assertGreater(told, 20 * MIB)
        # Read-ahead may have begun a sweep that no job rode.
        self.assertGreaterEqual(counted, told * 0.98)
        self.assertLess(counted, told + 12 * MIB)

    def test_two_at_once_read_what_one_reads(self):
        daemon = self.ready(ram="1M")
        params = {"model": "demo", "prompt_ids": [1, 5, 6], "ignore_eos": True, "max_tokens": 40,
                  "sampling": {}}
        with harness.Wire(daemon.socket) as wire:
            counts = []
            for numbers in ((1,), (2, 3)):
                before = daemon.reads()
                wire.send(*(wire.generate(n, **params) for n in numbers))
                ends = wire.until_ended(numbers)
                counts.append((daemon.bytes_read_since(before),
                               [ends[n]["body"]["read_bytes"] for n in numbers]))
        (one, [told_one]), (two, told_two) = counts
        self.assertGreater(one, 100 * MIB)
        # At most three sweeps of forty may not be shared: the two do not start in the same one.
        self.assertLess(two, one * 43 / 40)
        for told in told_two:
            self.assertLess(abs(told - told_one), told_one * 3 / 40)

    def test_a_budget_in_between_reads_in_between(self):
        read = {}
        for budget in ("1M", "3M", "64M"):
            daemon = self.ready(ram=budget, name=budget)
            read[budget] = self.ask(daemon, "--raw", "--ignore-eos", "--max-tokens", 10,
                                    "x")["io"]["read_bytes"]
            daemon.stop()
        self.assertGreater(read["1M"], 1.2 * read["3M"])
        self.assertGreater(read["3M"], 1.2 * read["64M"])


class Readers(harness.E2eTest):
    """How weights are read, and what happens to the file meanwhile."""

    ASK = ("--raw", "--ignore-eos", "--max-tokens", 6, "x")

    def ready(self, name, prefix=(), store=None, **options):
        daemon = self.daemon(start=False, name=name, store=store or self.path("store"),
                             **{"ram": "1M", **options}).launch(prefix)
        harness.wait_until(daemon.answers, what="the daemon")
        self.split(daemon, harness.DEMO, "demo")
        return daemon

    def answer(self, daemon):
        answer = self.ok(daemon.client("ask", "-m", "demo", "--json", "--logprobs", 3,
                                       *self.ASK)).json
        return answer["token_ids"], answer["logprobs"]

    def model(self, daemon):
        [model] = self.ok(daemon.client("status", "--json")).json["models"]
        return model

    def test_every_way_gives_the_same_answer_and_is_shown(self):
        daemon = self.ready("auto")
        expected, usual = self.answer(daemon), self.model(daemon)
        daemon.stop()
        for options in ({"reader": "threads"}, {"direct_io": "no"}, {"reader": usual["reader"]}):
            daemon = self.ready("-".join(options.values()), **options)
            self.assertEqual(self.answer(daemon), expected, options)
            shown = self.model(daemon)
            self.assertEqual(shown["reader"], options.get("reader", usual["reader"]))
            self.assertEqual(shown["direct"], "direct_io" not in options and usual["direct"])
            daemon.stop()

    def test_without_io_uring_threads_read(self):
        prefix = (sys.executable, os.path.join(harness.SOURCE, "tests/e2e/without_io_uring.py"))
        daemon = self.ready("refused", prefix)
        expected = self.answer(daemon)
        self.assertEqual(self.model(daemon)["reader"], "threads")
        self.assertEqual(daemon.client("status", "--json").json["reader"], "threads")
        daemon.stop()
        insisting = self.ready("insisting", prefix, reader="io_uring")
        refused = self.assert_fails(insisting.client("ask", "-m", "demo", *self.ASK), 77, 74, 71, 78)
        self.assertIn("io_uring", refused.err)
        self.assert_lives(insisting)
        insisting.stop()
        self.assertEqual(self.answer(self.ready("again")), expected)

    def test_where_o_direct_is_refused_the_page_cache_serves(self):
        if not os.path.isdir("/dev/shm"):
            self.skipTest("no /dev/shm")
        store = tempfile.mkdtemp(dir="/dev/shm")
        self.addCleanup(shutil.rmtree, store, ignore_errors=True)
        expected = self.answer(self.ready("disk"))
        daemon = self.ready("shm", store=store)
        self.assertEqual(self.answer(daemon), expected)
        # Newer kernels take O_DIRECT there, too.
        self.assertIn(self.model(daemon)["direct"], (True, False))

    def test_a_file_that_is_cut_or_changed_under_the_daemon_is_named(self):
        def cut(path):
            os.truncate(path, 8192)

        def change(path):
            size = os.path.getsize(path)
            with open(path, "r+b") as file:
                file.seek(size // 2)
                file.write(b"\xa5" * 4096)

        for damage in (cut, change):
            for reader in ("auto", "threads"):
                name = f"{damage.__name__}-{reader}"
                daemon = self.ready(name, store=self.path(name + "-store"), reader=reader)
                expected = self.answer(daemon)
                shards = os.path.join(daemon.store, "models/demo/shards")
                path = os.path.join(shards, sorted(os.listdir(shards))[4])
                shutil.copy(path, self.path("whole"))
                damage(path)
                broken = self.assert_fails(daemon.client("ask", "-m", "demo", *self.ASK), 65)
                self.assertIn(os.path.basename(path), broken.err)
                self.assert_lives(daemon)
                with open(self.path("whole"), "rb") as whole, open(path, "r+b") as file:
                    file.write(whole.read())
                self.assertEqual(self.answer(daemon), expected, name)
                daemon.stop()


class SameBits(harness.E2eTest):
    """The same tokens and log-probabilities, to the bit, whatever the budget and the company."""

    QUESTIONS = (QUESTION, "What is the symbol of gold?", "Hello. " * 60)

    def measure(self, daemon, question):
        answer = self.ok(daemon.client("ask", "-m", "demo", "--json", "--logprobs", 5,
                                       "--prompt-logprobs", 5, "--max-tokens", 12, question)).json
        return {key: answer[key] for key in ("token_ids", "logprobs", "prompt_logprobs", "text")}

    def start(self, name, **options):
        daemon = self.daemon(name=name, store=self.path("store"), **options)
        self.split(daemon, harness.DEMO, "demo")
        return daemon

    def test_budgets_threads_and_other_jobs_change_nothing(self):
        daemon = self.start("first", ram="64M")
        expected = [self.measure(daemon, q) for q in self.QUESTIONS]
        self.assertEqual([self.measure(daemon, q) for q in self.QUESTIONS], expected, "warm")
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            together = list(pool.map(lambda q: self.measure(daemon, q), self.QUESTIONS * 2))
        self.assertEqual(together, expected * 2, "among other jobs")
        daemon.stop()
        for options in ({"ram": "512K"}, {"ram": "1M", "threads": 1}, {"ram": "3M", "threads": 2},
                        {"ram": "64M", "threads": 1}):
            daemon = self.start("-".join(map(str, options.values())), **options)
            self.assertEqual([self.measure(daemon, q) for q in self.QUESTIONS], expected, options)
            daemon.stop()


class BudgetTest(harness.E2eTest):
    """Peak resident memory, as the kernel measured it."""

    KV = "8M"
    KV_BYTES = 8 * MIB

    def peak(self, store, model, budget, asks):
        daemon = self.make_daemon(self.folder, name=f"s{budget}", store=store, ram=budget,
                                  kv=self.KV)
        self.addCleanup(self.check_end, daemon)
        daemon.start()
        for arguments in asks:
            self.ok(daemon.client("ask", "-m", model, "--json", *arguments, timeout=300))
        peak = daemon.status_field("VmHWM")
        daemon.stop()
        return peak

    def check(self, store, model, budgets, asks):
        for budget in budgets:
            with self.subTest(ram=budget):
                limit = size_of(budget) + 64 * MIB
                self.assertLess(self.peak(store, model, budget, asks), limit)

    def make_store(self, folder, model):
        """A store with the model, split by a daemon of its own, whose peak counts as well."""
        daemon = self.make_daemon(self.folder, name="split", ram="1M", kv=self.KV)
        self.addCleanup(self.check_end, daemon)
        daemon.start()
        self.split(daemon, folder, model, timeout=300)
        self.assertLess(daemon.status_field("VmHWM"), 65 * MIB, "while splitting")
        self.ok(daemon.client("verify", model, timeout=300))
        self.assertLess(daemon.status_field("VmHWM"), 65 * MIB, "while verifying")
        daemon.stop()
        return daemon.store


def size_of(text):
    return int(text[:-1]) * {"K": 1 << 10, "M": MIB, "G": 1 << 30}[text[-1]]


@harness.needs_plain_build
class Memory(BudgetTest):
    def test_the_bundled_model_stays_within_any_budget(self):
        store = self.make_store(harness.DEMO, "demo")
        asks = [(QUESTION,), ("--max-tokens", 5, "word " * 300), ("--raw", "--logprobs", 3072, "x",
                                                                  "--max-tokens", 20)]
        self.check(store, "demo", ("1M", "2M", "8M", "32M", "256M", "1G"), asks)

    def test_a_model_larger_than_its_budget(self):
        folder = self.path("model")
        checkpoint.write(folder, hidden=1024, inter=2816, layers=10, heads=16, kv_heads=4,
                         vocab=8192, tied=False, tokenizer=False, context=1024)
        store = self.make_store(folder, "synthetic")
        ids = ",".join(str(5 + i % 3000) for i in range(200))
        asks = [("--prompt-ids", ids, "--ignore-eos", "--max-tokens", 3)]
        self.check(store, "synthetic", ("32M", "128M", "1G"), asks)


@harness.needs_plain_build
class MemoryHeavy(BudgetTest):
    """A synthetic model of 2 GB."""

    def test_two_gigabytes_within_any_budget(self):
        free = os.statvfs(self.folder)
        if free.f_bavail * free.f_frsize < 6 << 30:
            raise unittest.SkipTest("needs 6 GB of free disk below /tmp")
        folder = self.path("model")
        checkpoint.write(folder, hidden=2048, inter=7168, layers=16, heads=16, kv_heads=8,
                         vocab=32000, tied=False, tokenizer=False, context=512, files=4)
        store = self.make_store(folder, "synthetic")
        asks = [("--prompt-ids", "1,2,3,4", "--ignore-eos", "--max-tokens", 2)]
        self.check(store, "synthetic", ("32M", "256M", "1G"), asks)


if __name__ == "__main__":
    harness.main()
