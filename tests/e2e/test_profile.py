"""`ask --profile`: a trace that holds together, agrees with the answer, and tells of this job only."""

import collections
import json
import os

import harness
from harness import MIB, QUESTION

# Times are nanoseconds, written as microseconds with a fraction.
EXACT = 0.002


def events_of(trace, category):
    return [event for event in trace["traceEvents"] if event.get("cat") == category]


def end_of(event):
    return event["ts"] + event["dur"]


class Profile(harness.E2eTest):
    """With the bundled model, of which a budget of 1 MiB streams most."""

    def ready(self, **options):
        options.setdefault("ram", "1M")
        daemon = self.daemon(**options)
        self.split(daemon, harness.DEMO, "demo")
        return daemon

    def profile(self, daemon, *arguments, name="trace.json"):
        """The answer, its trace, and what stderr said."""
        path = self.path(name)
        result = self.ok(daemon.client("ask", "-m", "demo", "--json", "--profile", path,
                                       *arguments))
        with open(path, encoding="utf-8") as file:
            return result.json, json.load(file), result.err

    def assert_within(self, inner, outer):
        self.assertTrue(any(o["ts"] - EXACT <= inner["ts"] and end_of(inner) <= end_of(o) + EXACT
                            for o in outer), inner)

    def test_times_nest_and_sums_agree_with_the_answer(self):
        answer, trace, _ = self.profile(self.ready(), "--ignore-eos", "--max-tokens", 6, QUESTION)
        sweeps, stages = events_of(trace, "sweep"), events_of(trace, "stage")
        waits, samples = events_of(trace, "wait"), events_of(trace, "sample")
        self.assertEqual(len(sweeps), answer["io"]["sweeps"])
        self.assertEqual(len(samples), answer["usage"]["completion_tokens"])
        for key in ("read_bytes", "cache_bytes"):
            for events in (sweeps, stages):
                self.assertEqual(sum(event["args"][key] for event in events), answer["io"][key])
        # Every token of the prompt, and every one that was chosen but the last, was a row.
        self.assertEqual(sum(event["args"]["rows"] for event in sweeps),
                         answer["usage"]["prompt_tokens"] + 5)
        self.assertEqual({event["args"]["other_rows"] for event in sweeps}, {0})
        for stage in stages:
            self.assert_within(stage, sweeps)
        for wait in waits:
            self.assert_within(wait, stages)
        for sample in samples:
            self.assertFalse(any(sweep["ts"] < sample["ts"] < end_of(sweep) for sweep in sweeps))
        stages_ms = sum(event["dur"] for event in stages) / 1000
        sweeps_ms = sum(event["dur"] for event in sweeps) / 1000
        busy_ms = sweeps_ms + sum(event["dur"] for event in samples) / 1000
        self.assertLessEqual(stages_ms, sweeps_ms)
        self.assertLessEqual(busy_ms, answer["timings_ms"]["total"])
        first_token = min(end_of(event) for event in samples) / 1000
        self.assertLessEqual(first_token, answer["timings_ms"]["first_token"])
        self.assertGreaterEqual(first_token, answer["timings_ms"]["queued"])

    def test_stages_and_threads_have_names(self):
        _, trace, _ = self.profile(self.ready(), "--max-tokens", 2, QUESTION)
        with open(os.path.join(harness.DEMO, "config.json"), encoding="utf-8") as file:
            layers = json.load(file)["num_hidden_layers"]
        self.assertEqual({event["name"] for event in events_of(trace, "stage")},
                         {"embedding", "head", *(f"layer {i}" for i in range(layers))})
        names = {event["tid"]: event["args"]["name"] for event in trace["traceEvents"]
                 if event["name"] == "thread_name"}
        self.assertEqual({names[event["tid"]] for event in events_of(trace, "sweep")}, {"engine"})
        for event in trace["traceEvents"]:
            self.assertIn(event["ph"], "XM")
            self.assertIn("pid", event)

    def test_reads_are_those_of_the_shards(self):
        daemon = self.ready()
        answer, trace, _ = self.profile(daemon, "--ignore-eos", "--max-tokens", 8, QUESTION)
        reads = events_of(trace, "read")
        shards = os.path.join(daemon.store, "models", "demo", "shards")
        for read in reads:
            size = os.path.getsize(os.path.join(shards, read["args"]["shard"] + ".safetensors"))
            self.assertLessEqual(read["args"]["offset"] + read["args"]["bytes"],
                                 (size + 4095) // 4096 * 4096)
        # What was read ahead for a sweep that never came is in the trace alone, or in neither.
        told = sum(read["args"]["bytes"] for read in reads)
        self.assertLess(abs(told - answer["io"]["read_bytes"]), MIB)
        by_thread = collections.defaultdict(list)
        for read in reads:
            by_thread[read["tid"]].append(read)
        for mine in by_thread.values():  # a reader does one thing after the other
            mine.sort(key=lambda event: event["ts"])
            for before, after in zip(mine, mine[1:]):
                self.assertLessEqual(end_of(before), after["ts"] + EXACT)

    def test_the_summary_is_one_screen_on_stderr(self):
        answer, _, err = self.profile(self.ready(), "--max-tokens", 3, QUESTION)
        for word in ("computing", "waiting", "sampling", "reading", "GB/s", "slowest stages"):
            self.assertIn(word, err)
        self.assertIn(f"{answer['io']['sweeps']} sweeps", err)
        self.assertLess(err.count("\n"), 24)
        self.assertNotIn("left out", err)

    def test_nothing_is_read_when_all_is_in_memory(self):
        daemon = self.ready(ram="64M")
        self.ok(daemon.client("ask", "-m", "demo", "--max-tokens", 1, QUESTION))
        answer, trace, _ = self.profile(daemon, "--max-tokens", 3, QUESTION)
        self.assertEqual(answer["io"]["read_bytes"], 0)
        self.assertEqual(events_of(trace, "read"), [])

    def test_a_file_that_cannot_be_written_is_told_before_the_job(self):
        daemon = self.ready()
        for path in (self.path("nowhere", "trace.json"), self.folder):
            result = self.assert_fails(
                daemon.client("ask", "-m", "demo", "--profile", path, QUESTION), 73)
            self.assertIn(path, result.err)
            self.assertEqual(result.out, "")

    def test_a_cancelled_job_leaves_a_whole_file(self):
        daemon = self.ready()
        path = self.path("cut.json")
        client = daemon.spawn_client("ask", "-m", "demo", "--ignore-eos", "--profile", path,
                                     QUESTION)
        harness.wait_until(lambda: os.path.exists(path) and os.path.getsize(path) > 0)
        client.send_signal(2)
        client.communicate(timeout=30 * harness.SLOWNESS)
        with open(path, encoding="utf-8") as file:
            trace = json.load(file)
        sweeps = events_of(trace, "sweep")
        self.assertGreater(len(sweeps), 0)
        for stage in events_of(trace, "stage"):
            self.assert_within(stage, sweeps)


class ProfileAmongJobs(harness.EndlessDaemonTest):
    """A profile of a job that rides with another one."""

    def test_other_jobs_are_a_number_of_rows(self):
        path = self.path("trace.json")
        with harness.Wire(self.shared.socket) as wire:
            wire.send(wire.generate(1, model="endless", prompt_ids=[1, 5, 6], ignore_eos=True,
                                    sampling={}))
            harness.wait_until(lambda: [j for j in self.shared.jobs() if j["state"] == "decode"])
            self.ok(self.shared.client("ask", "-m", "endless", "--prompt-ids", "1,7,8",
                                       "--ignore-eos", "--max-tokens", 4, "--profile", path))
            wire.send({"type": "cancel", "id": 1})
            events = {}
            while "generated" not in events:
                event = wire.receive()
                events[event["event"]] = event
        with open(path, encoding="utf-8") as file:
            sweeps = events_of(json.load(file), "sweep")
        self.assertEqual({sweep["args"]["other_rows"] for sweep in sweeps}, {1})
        self.assertEqual(sum(sweep["args"]["rows"] for sweep in sweeps), 6)
        self.assertNotIn("profile", events)


if __name__ == "__main__":
    harness.main()
