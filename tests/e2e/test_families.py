"""Every model family against transformers: the fixtures of tests/families through the real programs.

Logits come out as log-probabilities of the whole vocabulary, which say the same but for what is
added to all logits of a position.
"""

import array
import base64
import glob
import json
import math
import os
import sys

import harness
import seeded

FOLDER = os.path.join(harness.SOURCE, "tests/families")
TOLERANCE = 1e-4  # of ‖difference‖ / ‖reference‖


def logits_of(text, width):
    numbers = array.array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        numbers.byteswap()
    return [numbers[i:i + width] for i in range(0, len(numbers), width)]


def log_probabilities(logits):
    top = max(logits)
    total = top + math.log(math.fsum(math.exp(number - top) for number in logits))
    return [number - total for number in logits]


def relative_difference(actual, reference):
    difference = math.fsum((a - r) ** 2 for a, r in zip(actual, reference))
    return math.sqrt(difference / math.fsum(r * r for r in reference))


class Families(harness.E2eTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shared = cls.make_daemon(cls.home, ram="64M")
        cls.addClassCleanup(cls.check_end, cls.shared)
        cls.shared.start()

    def add_model(self, name, config, tensors):
        folder = self.path(name)
        os.mkdir(folder)
        seeded.write_config(folder, config)
        seeded.write_weights(folder, tensors)
        self.split(self.shared, folder, name)

    def ask(self, model, ids, *arguments):
        return self.ok(self.shared.client(
            "ask", "-m", model, "--raw", "--json", "--temperature", "0", "--prompt-ids",
            ",".join(map(str, ids)), *arguments)).json

    def check(self, name):
        with open(os.path.join(FOLDER, name + ".json"), encoding="utf-8") as file:
            fixture = json.load(file)
        tensors = [seeded.Tensor(*tensor) for tensor in fixture["tensors"]]
        width = fixture["config"]["vocab_size"]
        self.add_model(name, fixture["config"], tensors)
        self.add_model(name + "-saved", fixture["config_saved"], tensors)
        for prompt in fixture["prompts"]:
            everything = ("--max-tokens", "1", "--prompt-logprobs", str(width))
            answer = self.ask(name, prompt["ids"], *everything)
            for position, (found, logits) in enumerate(
                    zip(answer["prompt_logprobs"], logits_of(prompt["logits"], width), strict=True)):
                actual = [number for _, number in sorted(found)]
                difference = relative_difference(actual, log_probabilities(logits))
                self.assertLessEqual(difference, TOLERANCE,
                                     f"position {position} of {len(prompt['ids'])}")
            saved = self.ask(name + "-saved", prompt["ids"], *everything)
            self.assertEqual(saved["prompt_logprobs"], answer["prompt_logprobs"])
        greedy = self.ask(name, fixture["prompts"][-1]["ids"], "--ignore-eos", "--max-tokens",
                          str(len(fixture["greedy"])))
        self.assertEqual(greedy["token_ids"], fixture["greedy"])


def add_tests():
    for path in sorted(glob.glob(os.path.join(FOLDER, "*.json"))):
        name = os.path.basename(path)[:-len(".json")]

        def test(self, name=name):
            self.check(name)

        setattr(Families, "test_" + name.replace("-", "_"), test)


add_tests()

if __name__ == "__main__":
    harness.main()
