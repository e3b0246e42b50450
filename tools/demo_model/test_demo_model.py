"""Tests of the corpus generator and of `evaluate`; standard library only.

Usage:  python3 -m unittest discover -s tools/demo_model -p 'test_*.py'
"""

from __future__ import annotations

import json
import random
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import corpus  # noqa: E402
import facts  # noqa: E402
import heldout  # noqa: E402

FAKE_CLIENT = """#!{python}
import json, sys
answers = json.load(open({answers!r}))
question = sys.argv[-1]
text = {text}
print(json.dumps({{"text": text, "token_ids": [], "finish_reason": "stop"}}))
"""


class Tables(unittest.TestCase):
    def test_countries_are_complete_and_unique(self) -> None:
        countries = facts.load_countries()
        self.assertGreaterEqual(len(countries), 195)
        names = [c.name for c in countries]
        self.assertEqual(len(names), len(set(names)))
        capitals = [c.capital for c in countries]
        self.assertEqual(len(capitals), len(set(capitals)))

    def test_elements_are_in_order(self) -> None:
        numbers = [int(row[2]) for row in facts.read_table("elements.tsv")]
        self.assertEqual(numbers, list(range(1, 119)))

    def test_answers_end_with_one_full_stop(self) -> None:
        for country in facts.load_countries():
            answer = facts.capital_answer(country)
            self.assertTrue(answer.endswith(".") and not answer.endswith(".."), answer)


class Conversations(unittest.TestCase):
    def test_same_seed_gives_same_conversations(self) -> None:
        first = corpus.Corpus(random.Random("a"))
        second = corpus.Corpus(random.Random("a"))
        for _ in range(200):
            self.assertEqual(first.conversation(), second.conversation())

    def test_no_heldout_question_is_trained(self) -> None:
        def plain(text: str) -> str:
            return text.lower().strip(" ?.!\n")
        kept_out = {plain(item["question"]) for item in heldout.held_out()}
        generator = corpus.Corpus(random.Random("b"))
        for _ in range(20_000):
            for message in generator.conversation(40):
                self.assertNotIn(plain(message.content), kept_out)

    def test_every_conversation_ends_with_an_answer(self) -> None:
        generator = corpus.Corpus(random.Random("c"))
        for _ in range(2_000):
            messages = generator.conversation()
            self.assertEqual(messages[-1].role, "assistant")
            for message in messages:
                self.assertTrue(message.content.strip())

    def test_arithmetic_is_right(self) -> None:
        generator = corpus.Corpus(random.Random("d"))
        for _ in range(2_000):
            answer = generator.arithmetic().answer.rstrip(".")
            expression, result = answer.split(" is ")
            for word, sign in (("divided by", "//"), ("plus", "+"), ("minus", "-"), ("times", "*")):
                expression = expression.replace(word, sign)
            self.assertEqual(eval(expression), int(result))  # built from digits and a sign only


class Evaluate(unittest.TestCase):
    def run_with(self, text: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            answers = Path(folder) / "answers.json"
            answers.write_text(json.dumps({i["question"]: i["answer"] for i in heldout.held_out()}))
            client = Path(folder) / "airllm"
            client.write_text(FAKE_CLIENT.format(
                python=sys.executable, answers=str(answers), text=text))
            client.chmod(client.stat().st_mode | stat.S_IXUSR)
            return subprocess.run(
                [HERE / "evaluate", "--airllm", str(client), "--limit", "3", "--json"],
                capture_output=True, text=True, check=False)

    def test_right_answers_pass(self) -> None:
        done = self.run_with("answers[question]")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["categories"]["capital"]["accuracy"], 1.0)

    def test_wrong_answers_fail(self) -> None:
        done = self.run_with("answers[question] + ' Or so.'")
        self.assertEqual(done.returncode, 1, done.stderr)

    def test_a_client_that_fails_is_reported(self) -> None:
        done = self.run_with("sys.exit(3)")
        self.assertEqual(done.returncode, 2)
        self.assertIn("could not ask", done.stderr)


if __name__ == "__main__":
    unittest.main()
