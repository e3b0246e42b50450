"""Every model family against transformers: the fixtures of tests/families through the real programs.

Logits come out as log-probabilities of the whole vocabulary, which say the same but for what is
added to all logits of a position.
"""

import base64
import glob
import json
import os

import harness
import pytorch_file
import seeded
from logits import log_probabilities, logits_of, relative_difference

FOLDER = os.path.join(harness.SOURCE, "tests/families")
TOLERANCE = 1e-4  # of ‖difference‖ / ‖reference‖
TOLERANCE_OF_ROUNDED = 2e-2  # of weights that are expanded to 16 bits


# Quantized checkpoints whose weights stay as they are, and in which format.
KEPT_PACKED = {"deepseek_v3-fp8": "fp8", "llama-fp8": "fp8", "llama-nf4-whole": "nf4"}


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


class ComparedWithTransformers(FixtureTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shared = cls.make_daemon(cls.home, ram="64M")
        cls.addClassCleanup(cls.check_end, cls.shared)
        cls.shared.start()

    def add_model(self, name, config, tensors, kept=()):
        folder = self.source(name, config)
        seeded.write_weights(folder, tensors, kept)
        self.split(self.shared, folder, name)
        return folder

    def check_logits(self, name, fixture, width, tolerance=TOLERANCE):
        """The log-probabilities of each prompt, as they came."""
        answers = []
        for prompt in fixture["prompts"]:
            answer = self.ask(self.shared, name, prompt["ids"], "--max-tokens", "1",
                              "--prompt-logprobs", str(width))["prompt_logprobs"]
            for position, (found, logits) in enumerate(
                    zip(answer, logits_of(prompt["logits"], width), strict=True)):
                actual = [number for _, number in sorted(found)]
                difference = relative_difference(actual, log_probabilities(logits))
                self.assertLessEqual(difference, tolerance,
                                     f"position {position} of {len(prompt['ids'])}")
            answers.append(answer)
        return answers

    def check_greedy(self, name, fixture):
        greedy = self.ask(self.shared, name, fixture["prompts"][-1]["ids"], "--ignore-eos",
                          "--max-tokens", str(len(fixture["greedy"])))
        self.assertEqual(greedy["token_ids"], fixture["greedy"])


class Families(ComparedWithTransformers):
    def check(self, name):
        fixture, tensors = load_fixture(name)
        config = fixture["config"]
        width = config["vocab_size" if "vocab_size" in config else "padded_vocab_size"]
        self.add_model(name, config, tensors)
        self.add_model(name + "-saved", fixture["config_saved"], tensors)
        answers = self.check_logits(name, fixture, width)
        self.assertEqual(self.check_logits(name + "-saved", fixture, width), answers)
        self.check_greedy(name, fixture)


class FamiliesOnDevice(ComparedWithTransformers):
    """On a device whose memory the host may not touch but by copies: weights, rows, keys and values
    that the pass would reach otherwise end the daemon."""

    @classmethod
    def setUpClass(cls):
        harness.E2eTest.setUpClass.__func__(cls)
        cls.shared = cls.make_daemon(cls.home, device="simulated", vram="24M", ram="24M", kv="4M",
                                     env={"AIRLLM_DEBUG_GUARD": "1"})
        cls.addClassCleanup(cls.check_end, cls.shared)
        cls.shared.start()

    def check(self, name):
        fixture, tensors = load_fixture(name)
        self.add_model(name, fixture["config"], tensors)
        self.check_greedy(name, fixture)
        self.assertEqual(self.ok(self.shared.client("status", "--json")).json["device"],
                         "simulated")
        self.ok(self.shared.client("rm", name))


class QuantizedCheckpoints(ComparedWithTransformers):
    """Against the same model with its weights expanded."""

    def check(self, name):
        fixture, tensors = load_fixture(name)
        config = fixture["config"]
        kept = [(*entry[:3], base64.b64decode(entry[3])) for entry in fixture["kept"]]
        name = os.path.basename(name)
        folder = self.add_model(name, config, tensors, kept)
        is_rounded = config["torch_dtype"] != "float32"
        self.check_logits(name, fixture, config["vocab_size"],
                          TOLERANCE_OF_ROUNDED if is_rounded else TOLERANCE)
        self.check_greedy(name, fixture)
        again = self.ok(self.shared.client("split", folder, "--name", name, "--json")).json
        self.assertTrue(again["unchanged"])
        shown = self.ok(self.shared.client("show", name, "--json")).json
        self.assertEqual(shown["dtype"],
                         KEPT_PACKED.get(name, "f16" if is_rounded else "f32"))


class Experts(FixtureTest):
    """A mixture of experts that memory has no room for."""

    def test_the_same_tokens_whatever_stays_and_ps_tells_what_is_saved(self):
        fixture, tensors = load_fixture("mixtral")
        folder = self.source("moe", fixture["config"])
        seeded.write_weights(folder, tensors)
        rooms, reads = [], []
        for ram in ("512K", "560K", "600K", "64M"):
            daemon = self.daemon(name=ram, ram=ram)
            self.split(daemon, folder, "moe")
            for _ in range(2):
                answer = self.ask(daemon, "moe", fixture["prompts"][-1]["ids"], "--ignore-eos",
                                  "--max-tokens", str(len(fixture["greedy"])))
                self.assertEqual(answer["token_ids"], fixture["greedy"])
            (model,) = self.ok(daemon.client("status", "--json")).json["models"]
            experts = model["experts"]
            self.assertEqual(experts["count"], 3 * 5)
            # Each of 11 sweeps or more uses two experts of each layer, or more.
            self.assertGreaterEqual(experts["hits"] + experts["misses"], 2 * 11 * 3 * 2)
            self.assertLessEqual(experts["resident_bytes"], model["resident_bytes"])
            rooms.append(experts["slots"])
            reads.append(experts["read_bytes"])
            shown = self.ok(daemon.client("ps")).out
            self.assertIn("EXPERTS OF", shown)
            self.assertIn(f"{experts['slots']} of 15", shown)
            daemon.stop()
        self.assertEqual(rooms, sorted(rooms))
        self.assertTrue(0 < rooms[0] < 15, rooms)
        self.assertEqual(rooms[-1], 15)
        self.assertEqual(reads, sorted(reads, reverse=True))
        self.assertGreater(reads[0], reads[-1])

    def test_a_dense_model_has_none(self):
        daemon = self.daemon(ram="64M")
        self.split(daemon, harness.DEMO, "demo")
        self.ok(daemon.client("ask", "-m", "demo", "--max-tokens", "2", "x"))
        (model,) = self.ok(daemon.client("status", "--json")).json["models"]
        self.assertIsNone(model["experts"])
        self.assertNotIn("EXPERTS", self.ok(daemon.client("ps")).out)


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


def add_tests(cls, folder=""):
    for path in sorted(glob.glob(os.path.join(FOLDER, folder, "*.json"))):
        name = os.path.basename(path)[:-len(".json")]

        def test(self, name=os.path.join(folder, name)):
            self.check(name)

        setattr(cls, "test_" + name.replace("-", "_"), test)


add_tests(Families)
add_tests(FamiliesOnDevice)
add_tests(QuantizedCheckpoints, "quantized")

if __name__ == "__main__":
    harness.main()
