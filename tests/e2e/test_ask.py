"""`airllm ask`: answers, options, JSON, and what it refuses."""

import json
import math
import os
import unittest

import checkpoint
import harness
from harness import QUESTION


class Answers(harness.SharedDaemonTest):
    """The bundled model's answers, however they are asked for."""

    def test_the_capital_of_france(self):
        result = self.ok(self.ask(QUESTION))
        self.assertIn("Paris", result.out)
        self.assertEqual(result.err, "")

    def test_several_arguments_are_one_prompt(self):
        self.assertEqual(self.ok(self.ask(*QUESTION.split())).out, self.ok(self.ask(QUESTION)).out)

    def test_the_prompt_may_come_from_stdin(self):
        self.assertIn("Paris", self.ok(self.ask(stdin=QUESTION.encode())).out)

    def test_stdin_comes_before_the_question(self):
        both = self.ask_json("--prompt-logprobs", 1, QUESTION, stdin=b"Some text.")
        joined = self.ask_json("--prompt-logprobs", 1, "Some text.\n\n" + QUESTION)
        self.assertEqual(both["prompt_logprobs"], joined["prompt_logprobs"])

    def test_an_empty_stdin_adds_nothing(self):
        empty = self.ask_json("--prompt-logprobs", 1, QUESTION, stdin=b"")
        none = self.ask_json("--prompt-logprobs", 1, "--no-stdin", QUESTION, stdin=b"Not read.")
        self.assertEqual(empty["prompt_logprobs"], none["prompt_logprobs"])

    def test_a_system_message_is_part_of_the_prompt(self):
        plain = self.ask_json(QUESTION)
        system = self.ask_json("--system", "Answer in one word.", QUESTION)
        self.assertGreater(system["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"])

    def test_only_special_takes_texts_for_tokens(self):
        def count(*arguments):
            return self.ask_json("-n", 1, *arguments)["usage"]["prompt_tokens"]
        plain = count("a")
        self.assertGreater(count("a<|end|>a"), count("a a") + 2)
        self.assertEqual(count("--special", "<|end|>a"), plain + 1)
        self.assertEqual(count("--special", "a"), plain)
        raw = count("--raw", "<|user|>a")
        self.assertEqual(count("--raw", "--special", "<|user|>a"), raw)
        self.assertEqual(self.assert_fails(self.ask("--special", "--prompt-ids", "1"), 64).out, "")

    def test_json_and_plain_text_agree(self):
        plain = self.ok(self.ask(QUESTION)).out
        self.assertEqual(plain.rstrip("\n"), self.ask_json(QUESTION)["text"].rstrip("\n"))

    def test_the_default_is_greedy_so_answers_repeat(self):
        first, second = self.ask_json(QUESTION), self.ask_json(QUESTION)
        self.assertEqual(first["token_ids"], second["token_ids"])

    def test_verbose_tells_of_time_and_bytes_on_stderr(self):
        result = self.ok(self.ask("--verbose", QUESTION))
        self.assertIn("Paris", result.out)
        self.assertIn("tokens/s", result.err)

    def test_quoted_arguments_stay_as_they_are(self):
        self.ok(self.ask("--max-tokens", 3, "What does 'a  b' \\n $HOME \"c\" mean?"))


class JsonForm(harness.SharedDaemonTest):
    """The object of --json: exactly the keys and types that scripts rely on."""

    def check_object(self, answer):
        number = (int, float)
        self.assertIsInstance(answer["model"], str)
        self.assertIsInstance(answer["text"], str)
        self.assertTrue(all(type(i) is int for i in answer["token_ids"]))
        self.assertIn(answer["finish_reason"],
                      ("stop", "stop_string", "length", "context", "cancelled"))
        self.assertEqual(set(answer["usage"]), {"prompt_tokens", "completion_tokens"})
        self.assertIs(type(answer["seed"]), int)
        self.assertIsInstance(answer["options"], dict)
        self.assertEqual(set(answer["timings_ms"]), {"queued", "first_token", "total"})
        self.assertTrue(all(isinstance(v, number) for v in answer["timings_ms"].values()))
        self.assertEqual(set(answer["io"]), {"sweeps", "read_bytes", "cache_bytes"})
        self.assertTrue(all(type(v) is int for v in answer["io"].values()))

    def test_keys_and_types(self):
        answer = self.ask_json(QUESTION)
        self.check_object(answer)
        self.assertEqual(answer["model"], "demo")
        self.assertEqual(answer["finish_reason"], "stop")
        self.assertEqual(len(answer["token_ids"]), answer["usage"]["completion_tokens"])
        timings = answer["timings_ms"]
        self.assertLessEqual(timings["queued"], timings["first_token"])
        self.assertLessEqual(timings["first_token"], timings["total"])
        self.assertGreaterEqual(answer["io"]["sweeps"], answer["usage"]["completion_tokens"])

    def test_options_are_those_that_were_used(self):
        options = self.ask_json("--temperature", 0.5, "--top-k", 7, "--top-p", 0.9, "--min-p", 0.01,
                                "--repeat-penalty", 1.1, "-s", 5, "--max-tokens", 2, "x")
        used = options["options"]
        self.assertEqual(options["seed"], 5)
        for key, value in {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.01,
                           "repetition_penalty": 1.1}.items():
            self.assertEqual(used[key], value, used)

    def test_logprobs_are_sorted_and_sum_to_one_over_the_vocabulary(self):
        vocabulary = 3072
        answer = self.ask_json("--logprobs", 1000000, "--max-tokens", 3, QUESTION)
        self.assertEqual(len(answer["logprobs"]), len(answer["token_ids"]))
        for position, token in zip(answer["logprobs"], answer["token_ids"]):
            self.assertEqual(len(position), vocabulary)
            values = [value for _, value in position]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertEqual(position[0][0], token)
            self.assertAlmostEqual(math.fsum(map(math.exp, values)), 1, places=4)

    def test_prompt_logprobs_has_one_entry_for_each_prompt_token(self):
        answer = self.ask_json("--prompt-logprobs", 3, "--logprobs", 2, "--max-tokens", 2, QUESTION)
        self.assertEqual(len(answer["prompt_logprobs"]), answer["usage"]["prompt_tokens"])
        self.assertTrue(all(len(p) == 3 for p in answer["prompt_logprobs"]))
        # What follows the whole prompt is what the first generated token was chosen from.
        self.assertEqual(answer["prompt_logprobs"][-1][:2], answer["logprobs"][0])

    def test_stream_json_is_lines_that_add_up(self):
        lines = [json.loads(l) for l in self.ok(self.ask("--stream-json", QUESTION)).out.splitlines()]
        self.assertGreater(len(lines), 2)
        whole = self.ask_json(QUESTION)
        self.assertEqual("".join(l.get("text", "") for l in lines[:-1]), whole["text"])
        self.assertEqual(lines[-1]["finish_reason"], "stop")

    def test_a_failure_is_an_object_with_the_same_exit_status(self):
        plain = self.shared.client("ask", "-m", "nothing", "x")
        result = self.shared.client("ask", "--json", "-m", "nothing", "x")
        self.assertEqual(result.status, plain.status)
        self.assertEqual(set(result.json), {"error"})
        self.assertEqual(set(result.json["error"]), {"code", "message", "remedy"})
        self.assertEqual(result.json["error"]["code"], "no_input")


class Sampling(harness.SharedDaemonTest):
    """Seeds, ends and limits."""

    def test_a_seed_makes_sampling_repeat(self):
        options = ("--raw", "--temperature", 1.5, "--max-tokens", 30, "The")
        first = self.ask_json("--seed", 7, *options)
        self.assertEqual(self.ask_json("--seed", 7, *options)["token_ids"], first["token_ids"])
        others = [self.ask_json("--seed", s, *options)["token_ids"] for s in (8, 9, 10)]
        self.assertTrue(any(other != first["token_ids"] for other in others))

    def test_a_random_seed_is_told_and_repeats(self):
        options = ("--raw", "--temp", 1.5, "--max-tokens", 30, "The")
        first, second = self.ask_json(*options), self.ask_json(*options)
        self.assertNotEqual(first["seed"], second["seed"])
        again = self.ask_json("--seed", first["seed"], *options)
        self.assertEqual(again["token_ids"], first["token_ids"])

    def test_max_tokens_ends_with_length(self):
        answer = self.ask_json("--raw", "--ignore-eos", "--max-tokens", 5, "The")
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(answer["usage"]["completion_tokens"], 5)
        self.assertEqual(len(answer["token_ids"]), 5)

    def test_no_tokens_at_all_is_a_limit_too(self):
        answer = self.ask_json("--max-tokens", 0, QUESTION)
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(answer["token_ids"], [])
        self.assertEqual(answer["options"]["max_tokens"], 0)
        self.assertIsNone(self.ask_json(QUESTION)["options"]["max_tokens"])

    def test_minus_one_is_no_limit_no_seed_and_all_tokens(self):
        answer = self.ask_json("-n", -1, "-s", -1, "--top-k", -1, QUESTION)
        self.assertEqual(answer["finish_reason"], "stop")
        self.assertIsNone(answer["options"]["max_tokens"])
        self.assertEqual(answer["options"]["top_k"], 0)
        self.assertNotEqual(answer["seed"], self.ask_json("-s", -1, QUESTION)["seed"])

    def test_top_k_1_is_greedy_at_any_temperature(self):
        greedy = self.ask_json(QUESTION)["token_ids"]
        for temperature in (1e-300, 2, 1e300):
            answer = self.ask_json("--temp", temperature, "--top-k", 1, QUESTION)
            self.assertEqual(answer["token_ids"], greedy)

    def test_ignore_eos_goes_on_past_the_end_token(self):
        ended = self.ask_json(QUESTION)
        count = ended["usage"]["completion_tokens"]
        longer = self.ask_json("--ignore-eos", "--max-tokens", count + 5, QUESTION)
        self.assertEqual(longer["usage"]["completion_tokens"], count + 5)
        self.assertEqual(longer["token_ids"][:count], ended["token_ids"])

    def test_a_stop_string_ends_the_text_before_it(self):
        text = self.ask_json(QUESTION)["text"]
        middle = text[len(text) // 3:2 * len(text) // 3]
        answer = self.ask_json("--stop", "never to be seen", "--stop", middle, QUESTION)
        self.assertEqual(answer["finish_reason"], "stop_string")
        self.assertEqual(answer["text"], text[:text.index(middle)])

    def test_a_stop_string_that_does_not_come_changes_nothing(self):
        plain = self.ask_json(QUESTION)
        stopped = self.ask_json("--stop", plain["text"] + "!!", QUESTION)
        self.assertEqual(stopped["text"], plain["text"])
        self.assertEqual(stopped["finish_reason"], "stop")

    def test_zero_temperature_takes_the_likeliest(self):
        answer = self.ask_json("--temperature", 0, "--logprobs", 1, QUESTION)
        self.assertEqual([p[0][0] for p in answer["logprobs"]], answer["token_ids"])

    def test_options_out_of_range_are_refused(self):
        for option, value in (("--temperature", "-1"), ("--top-p", "1.5"), ("--min-p", "2"),
                              ("--top-k", "-2"), ("--repeat-penalty", "0"),
                              ("--temperature", "nan"), ("--max-tokens", "-2"),
                              ("--max-tokens", "many"), ("--seed", "x")):
            with self.subTest(option=option, value=value):
                self.assert_fails(self.ask(option, value, "x"), 64)


class Context(harness.E2eTest):
    """What happens when the context is full, and prompts of any length."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        checkpoint.write(os.path.join(cls.home, "small"), context=48)
        checkpoint.write(os.path.join(cls.home, "bare"), tokenizer=False, context=48)
        cls.shared = cls.make_daemon(cls.home)
        cls.addClassCleanup(cls.check_end, cls.shared)
        cls.shared.start()
        for name in ("small", "bare"):
            result = cls.shared.client("split", os.path.join(cls.home, name), "--name", name)
            assert result.status == 0, result

    def ask(self, *arguments, model="small", **options):
        return self.shared.client("ask", "-m", model, *arguments, **options)

    def test_a_full_context_is_an_end_of_its_own(self):
        answer = self.ok(self.ask("--json", "--ignore-eos", "--prompt-ids", "1,5,9")).json
        self.assertEqual(answer["finish_reason"], "context")
        self.assertEqual(answer["usage"]["prompt_tokens"], 3)
        self.assertIn(answer["usage"]["completion_tokens"], (45, 46))

    def test_a_prompt_longer_than_the_context_names_both_numbers(self):
        ids = ",".join(["5"] * 100)
        result = self.assert_fails(self.ask("--prompt-ids", ids), 64, 65)
        self.assertIn("100", result.err)
        self.assertIn("48", result.err)

    def test_ids_are_taken_as_they_are(self):
        answer = self.ok(self.ask("--json", "--prompt-ids", "7,8,9", "--max-tokens", 1)).json
        self.assertEqual(answer["usage"]["prompt_tokens"], 3)

    def test_a_model_without_tokenizer_takes_ids(self):
        answer = self.ok(self.ask("--json", "--ignore-eos", "--prompt-ids", "1,2,3",
                                  "--max-tokens", 4, model="bare", stdin=b"not read")).json
        self.assertEqual(len(answer["token_ids"]), 4)
        same = self.ok(self.ask("--json", "--ignore-eos", "--prompt-ids", "1,2,3",
                                "--max-tokens", 4)).json
        self.assertEqual(answer["token_ids"], same["token_ids"])

    def test_a_model_without_tokenizer_refuses_text(self):
        result = self.assert_fails(self.ask("some text", model="bare"), 64, 65, 66)
        self.assertIn("token", result.err)

    def test_ids_outside_the_vocabulary_are_refused(self):
        for ids in ("3072", "-1", "99999999999", "1,,2", "a", "1;2", ""):
            with self.subTest(ids=ids):
                self.assert_fails(self.ask(f"--prompt-ids={ids}"), 64, 65)

    def test_a_prompt_of_no_characters(self):
        result = self.ask("--raw", "", "--max-tokens", 2, "--ignore-eos")
        self.assertIn(result.status, (0, 64, 65), result)
        self.assert_lives(self.shared)

    def test_a_prompt_of_a_million_characters(self):
        for text in (b"a" * 1000000, b"word " * 200000, "\u4e16".encode() * 333333):
            result = self.assert_fails(self.ask(stdin=text), 64, 65)
            self.assertIn("48", result.err)
            self.assertLess(len(result.err), 2000)
        self.assert_lives(self.shared)

    def test_a_prompt_longer_than_a_frame(self):
        result = self.assert_fails(self.ask(stdin=b"a " * (10 << 20)), 64, 65)
        self.assertLess(len(result.err), 2000)
        self.assert_lives(self.shared)


class Refusals(harness.SharedDaemonTest):
    """Prompts and models that cannot be had: each has its exit status and a message."""

    def test_stdin_that_is_not_text(self):
        for data in (bytes(range(256)), b"\xff\xfe\x00x", "\u00e9".encode()[:1]):
            self.assert_fails(self.ask(stdin=data), 65)

    def test_arguments_that_are_not_text(self):
        self.assert_fails(self.ask(b"caf\xe9".decode("utf-8", "surrogateescape")), 65)

    def test_no_prompt_at_all(self):
        self.assert_fails(self.ask(), 64)

    def test_an_unknown_model_has_near_names_suggested(self):
        result = self.assert_fails(self.shared.client("ask", "-m", "dmeo", "x"), 66)
        self.assertIn("demo", result.err)

    def test_names_that_lead_elsewhere_are_unknown_models(self):
        for name in ("../demo", "/etc", ".", "..", "demo/../demo", "a/b", "x" * 300, "\n"):
            with self.subTest(name=name):
                self.assert_fails(self.shared.client("ask", "-m", name, "x"), 64, 66)
        self.assert_lives(self.shared)

    def test_an_unknown_option_is_a_usage_error(self):
        for arguments in (("ask", "--nonsense", "x"), ("nonsense",), ("ask", "--max-tokens")):
            self.assert_fails(self.shared.client(*arguments), 64)

    def test_the_only_other_model_comes_before_the_bundled_one(self):
        # Also covers the choice among several: exit 64 with the list and the way out.
        self.assertIn("Paris", self.ok(self.shared.client("ask", QUESTION)).out)
        for name in ("one", "two"):
            folder = os.path.join(self.home, name)
            checkpoint.write(folder, seed=len(name) + ord(name[0]))
            self.split(self.shared, folder, name)
        self.addCleanup(self.shared.client, "rm", "one")
        self.addCleanup(self.shared.client, "rm", "two")
        result = self.assert_fails(self.shared.client("ask", "x"), 64)
        self.assertIn("one", result.err)
        self.assertIn("two", result.err)
        self.assertIn("airllm default", result.err)
        self.ok(self.shared.client("ask", "--max-tokens", 1, "x", env={"AIRLLM_MODEL": "one"}))


@unittest.skipUnless(os.path.isdir(harness.STORIES), "no stories260k beside the repository")
class Stories(harness.E2eTest):
    """The text published for stories260K, to the letter."""

    # Smaller than the model (1 MB), and larger.
    BUDGETS = ("512K", "64M")

    def check(self, cpu):
        with open(os.path.join(harness.STORIES, "expected-greedy.txt"), "rb") as file:
            expected = file.read()
        for budget in self.BUDGETS:
            with self.subTest(ram=budget):
                daemon = self.daemon(name=f"s{budget}", ram=budget, env={"AIRLLM_CPU": cpu},
                                     store=self.path("store"))
                self.split(daemon, harness.STORIES, "stories")
                arguments = ("ask", "-m", "stories", "--raw", "--temperature", 0, "--max-tokens",
                             256, "--json", "")
                answer = self.ok(daemon.client(*arguments)).json
                self.assertEqual(answer["usage"]["prompt_tokens"], 1)
                self.assertEqual(answer["text"].encode().strip(), expected.strip())
                plain = self.ok(daemon.client(*(a for a in arguments if a != "--json")))
                self.assertEqual(plain.raw_out.strip(), expected.strip())
                daemon.stop()

    def test_on_the_scalar_path(self):
        self.check("scalar")

    def check_if_cpu_has(self, cpu, *flags):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            has = file.read().split()
        if any(flag not in has for flag in flags):
            self.skipTest("this CPU lacks one of " + ", ".join(flags))
        self.check(cpu)

    def test_on_the_avx2_path(self):
        self.check_if_cpu_has("avx2", "avx2", "fma", "f16c")

    def test_on_the_avx512_path(self):
        self.check_if_cpu_has("avx512", "avx512f", "avx512bw", "avx512dq", "avx512vl",
                              "avx512_vnni")


if __name__ == "__main__":
    harness.main()
