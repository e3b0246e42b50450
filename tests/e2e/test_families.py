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
import pytorch_file
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


def load_fixture(name):
    """The fixture, and its tensors."""
    with open(os.path.join(FOLDER, name + ".json"), encoding="utf-8") as file:
        fixture = json.load(file)
    return fixture, [seeded.Tensor(*tensor) for tensor in fixture["tensors"]]


class FixtureTest(harness.E2eTest):
    def source(self, name, config):
        """A folder with the settings alone."""
        folder = self.path(name)
        os.mkdir(folder)
        seeded.write_config(folder, config)
        return folder

    def ask(self, server, model, ids, *arguments):
        return self.ok(server.client(
            "ask", "-m", model, "--raw", "--json", "--temperature", "0", "--prompt-ids",
            ",".join(map(str, ids)), *arguments)).json


class Families(FixtureTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shared = cls.make_daemon(cls.home, ram="64M")
        cls.addClassCleanup(cls.check_end, cls.shared)
        cls.shared.start()

    def add_model(self, name, config, tensors):
        folder = self.source(name, config)
        seeded.write_weights(folder, tensors)
        self.split(self.shared, folder, name)

    def check(self, name):
        fixture, tensors = load_fixture(name)
        config = fixture["config"]
        width = config["vocab_size" if "vocab_size" in config else "padded_vocab_size"]
        self.add_model(name, fixture["config"], tensors)
        self.add_model(name + "-saved", fixture["config_saved"], tensors)
        for prompt in fixture["prompts"]:
            everything = ("--max-tokens", "1", "--prompt-logprobs", str(width))
            answer = self.ask(self.shared, name, prompt["ids"], *everything)
            for position, (found, logits) in enumerate(
                    zip(answer["prompt_logprobs"], logits_of(prompt["logits"], width), strict=True)):
                actual = [number for _, number in sorted(found)]
                difference = relative_difference(actual, log_probabilities(logits))
                self.assertLessEqual(difference, TOLERANCE,
                                     f"position {position} of {len(prompt['ids'])}")
            saved = self.ask(self.shared, name + "-saved", prompt["ids"], *everything)
            self.assertEqual(saved["prompt_logprobs"], answer["prompt_logprobs"])
        greedy = self.ask(self.shared, name, fixture["prompts"][-1]["ids"], "--ignore-eos",
                          "--max-tokens", str(len(fixture["greedy"])))
        self.assertEqual(greedy["token_ids"], fixture["greedy"])


class Runs:
    """Pickled as a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class PytorchCheckpoints(FixtureTest):
    """The same weights as PyTorch keeps them."""

    def setUp(self):
        super().setUp()
        self.server = self.daemon(ram="64M")
        self.fixture, self.tensors = load_fixture("llama")

    def answer(self, model):
        answer = self.ask(self.server, model, self.fixture["prompts"][1]["ids"], "--max-tokens",
                          "4", "--prompt-logprobs", "131")
        return answer["token_ids"], answer["prompt_logprobs"]

    def test_one_file_or_several_are_as_safetensors(self):
        entries = [(tensor.name, tensor.dtype, tensor.shape, seeded.tensor_bytes(tensor))
                   for tensor in self.tensors]
        plain, single, several = (
            self.source(name, self.fixture["config"]) for name in ("plain", "single", "several"))
        seeded.write_weights(plain, self.tensors)
        pytorch_file.write(os.path.join(single, "pytorch_model.bin"), entries)
        weight_map = {}
        for number, part in enumerate((entries[::2], entries[1::2])):
            name = f"pytorch_model-{number + 1:05}-of-00002.bin"
            pytorch_file.write(os.path.join(several, name), part)
            weight_map.update({entry[0]: name for entry in part})
        with open(os.path.join(several, "pytorch_model.bin.index.json"), "w",
                  encoding="utf-8") as file:
            json.dump({"metadata": {}, "weight_map": weight_map}, file)
        for folder in (plain, single, several):
            self.split(self.server, folder, os.path.basename(folder))
        self.assertEqual(self.answer("single"), self.answer("plain"))
        self.assertEqual(self.answer("several"), self.answer("plain"))

    def test_what_would_run_is_refused_by_name(self):
        folder, trace = self.source("hostile", self.fixture["config"]), self.path("it-ran")
        pytorch_file.write(os.path.join(folder, "pytorch_model.bin"), Runs(f"touch {trace}"))
        refused = self.assert_fails(self.server.client("split", folder, "--name", "hostile"), 65)
        self.assertIn("pytorch_model.bin", refused.err)
        self.assertIn("posix.system", refused.err)
        self.assertFalse(os.path.exists(trace))
        self.assert_lives(self.server)


def add_tests():
    for path in sorted(glob.glob(os.path.join(FOLDER, "*.json"))):
        name = os.path.basename(path)[:-len(".json")]

        def test(self, name=name):
            self.check(name)

        setattr(Families, "test_" + name.replace("-", "_"), test)


add_tests()

if __name__ == "__main__":
    harness.main()
