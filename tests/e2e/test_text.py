"""`airllm tokenize`, `detokenize` and `template`: by the daemon, as users and scripts call them."""

import json
import os
import signal
import subprocess
import time

import checkpoint
import harness
from harness import BIN, DEMO, QUESTION, Wire, wait_until

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]


def reference(command, line, *options):
    """What airllm-text, which needs no daemon, says."""
    done = subprocess.run([os.path.join(BIN, "airllm-text"), command, DEMO, *options],
                          input=json.dumps(line).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def mixed_text(size):
    line = "Hello wörld, 東京 🗼 — \tint main() { return 0x2A; } \r\n"
    return (line * (size // len(line.encode()) + 1)).encode()[:size].decode("utf-8", "ignore")


class Text(harness.SharedDaemonTest):
    options = {"send_buffer": "4M"}

    def run_ok(self, command, *arguments, **options):
        return self.ok(self.shared.client(command, "-m", "demo", *arguments, **options))

    def ids(self, *arguments, **options):
        return [int(word) for word in self.run_ok("tokenize", *arguments, **options).out.split()]

    def test_ids_are_those_of_the_tokenizer(self):
        for text in ("", "x", QUESTION, mixed_text(5000), "a\0b"):
            for special, add_special in ((0, 0), (0, 1), (1, 0), (1, 1)):
                wanted = reference("encode", {"text": text + "<|user|>", "add_special": bool(add_special),
                                              "parse_special": bool(special)})["ids"]
                options = ["--special"] * special + ["--no-add-special"] * (1 - add_special)
                ids = self.ids(*options, stdin=(text + "<|user|>").encode())
                self.assertEqual(ids, wanted, (text, options))

    def test_the_forms_agree(self):
        ids = self.ids(QUESTION)
        pieces = self.run_ok("tokenize", "--pieces", QUESTION).out.splitlines()
        count = self.run_ok("tokenize", "--count", QUESTION).out
        self.assertEqual(len(pieces), len(ids))
        self.assertEqual(count, f"{len(ids)}\n")
        self.assertEqual(self.run_ok("tokenize", "--json", QUESTION).json,
                         {"model": "demo", "count": len(ids), "ids": ids, "pieces": pieces})
        self.assertEqual("".join(pieces[1:]).replace("Ġ", " "), QUESTION)

    def test_what_a_user_writes_is_no_control_token(self):
        plain = self.ids("--no-add-special", "a<|end|>")
        special = self.ids("--no-add-special", "--special", "a<|end|>")
        self.assertEqual(len(special), 2)
        self.assertGreater(len(plain), 3)

    def test_eight_megabytes(self):
        text = mixed_text(8_000_000).encode()
        done = subprocess.run([os.path.join(BIN, "airllm-text"), "count", DEMO], input=text,
                              stdout=subprocess.PIPE, check=True)
        count = self.run_ok("tokenize", "--no-add-special", "--count", stdin=text)
        self.assertEqual(int(count.out), int(done.stdout))
        ids = self.run_ok("tokenize", "--no-add-special", stdin=text).raw_out
        self.assertEqual(len(ids.split()), int(done.stdout))

    def test_megabytes_come_back_as_they_went(self):
        text = mixed_text(2_000_000).encode()
        ids = self.run_ok("tokenize", "--no-add-special", stdin=text).raw_out
        self.assertEqual(self.run_ok("detokenize", stdin=ids).raw_out, text)

    def test_more_than_max_prompt_is_refused(self):
        text = b"x " * 4_500_000
        result = self.assert_fails(self.shared.client("tokenize", "-m", "demo", stdin=text), 64)
        self.assertIn("max-prompt", result.err)

    def test_a_round_trip_in_a_pipe(self):
        text = "two lines\nand  spaces \n\n"
        ids = self.run_ok("tokenize", stdin=text.encode()).raw_out
        self.assertEqual(self.run_ok("detokenize", "--skip-special", stdin=ids).out, text)
        self.assertEqual(self.run_ok("detokenize", stdin=ids).out, "<|begin|>" + text)
        listed = json.dumps([int(word) for word in ids.split()]).encode()
        self.assertEqual(self.run_ok("detokenize", "--skip-special", stdin=listed).out, text)
        self.assertEqual(self.run_ok("detokenize", "--json", "--skip-special", stdin=ids).json,
                         {"model": "demo", "text": text})

    def test_a_template_makes_the_prompt_that_ask_sends(self):
        prompt = self.run_ok("template", json.dumps(CHAT)).out
        self.assertEqual(prompt, reference("template", {"messages": CHAT,
                                                        "add_generation_prompt": True})["text"])
        count = self.run_ok("tokenize", "--special", "--no-add-special", "--count",
                            stdin=prompt.encode()).out
        asked = self.ask_json("--system", CHAT[0]["content"], "-n", 1, QUESTION)
        self.assertEqual(int(count), asked["usage"]["prompt_tokens"])

    def test_an_object_says_more_of_a_conversation(self):
        whole = self.run_ok("template", stdin=json.dumps(CHAT).encode()).out
        without = self.run_ok("template", "--no-generation-prompt", json.dumps(CHAT)).out
        self.assertTrue(whole.startswith(without) and whole != without)
        said = {"messages": CHAT, "add_generation_prompt": False, "enable_thinking": True}
        self.assertEqual(self.run_ok("template", json.dumps(said)).out, without)
        answered = CHAT + [{"role": "assistant", "content": "It is"}]
        going_on = {"messages": answered, "continue_final_message": True}
        self.assertTrue(self.run_ok("template", json.dumps(going_on)).out.endswith("It is"))
        self.assertEqual(self.run_ok("template", "--json", json.dumps(CHAT)).json,
                         {"model": "demo", "text": whole})

    def test_refusals_name_the_trouble(self):
        client = self.shared.client
        cases = (
            (("tokenize", "-m", "nothing", "x"), 66, "nothing"),
            (("detokenize", "-m", "demo", "3072"), 64, "0 to 3071"),
            (("template", "-m", "demo", "[]"), 64, "empty"),
            (("template", "-m", "demo", "7"), 64, "list of messages"),
            (("template", "-m", "demo", "{\"messages\": 1}"), 64, "messages"),
            (("template", "-m", "demo", "[1"), 65, "JSON"),
            (("template", "-m", "demo", '[{"role":"user","content":"a","role":"b"}]'), 65, "role"),
        )
        for arguments, status, text in cases:
            result = self.assert_fails(client(*arguments), status)
            self.assertIn(text, result.err)
            told = client("--json", *arguments)
            self.assertEqual((told.status, told.err), (status, ""))
            self.assertIn(text, told.json["error"]["message"])

    def test_a_model_without_tokenizer_and_template_says_so(self):
        folder = self.path("bare")
        checkpoint.write(folder, tokenizer=False, context=48)
        self.split(self.shared, folder, "bare")
        for command, argument in (("tokenize", "x"), ("detokenize", "1"),
                                  ("template", json.dumps(CHAT))):
            result = self.assert_fails(self.shared.client(command, "-m", "bare", argument), 64)
            self.assertIn("has no", result.err)

    def test_a_client_that_pauses_keeps_nobody_waiting_and_can_be_cancelled(self):
        text = mixed_text(6_000_000).encode()
        with open(self.path("long.txt"), "wb") as file:
            file.write(text)
        with open(self.path("long.txt"), "rb") as file:
            slow = self.shared.spawn_client("tokenize", "-m", "demo", "--pieces", stdin=file)
        try:
            job = wait_until(lambda: [j for j in self.shared.jobs() if j["kind"] == "tokenize"],
                             what="the job")[0]
            self.assertEqual(job["model"], "demo")
            self.assertEqual(len(self.ids("--no-add-special", "a")), 1)
            self.assertTrue(self.shared.jobs())
            slow.send_signal(signal.SIGINT)
            self.assertEqual(slow.wait(20), 130)
        finally:
            slow.kill()
            slow.communicate()
        wait_until(lambda: not self.shared.jobs(), what="the job's end")

    def test_many_small_ones_on_one_connection(self):
        with Wire(self.shared.socket) as wire:
            for number in range(1, 201):
                wire.send({"type": "request", "id": number, "method": "tokenize",
                           "params": {"model": "demo", "text": f"x {number}", "count_only": True}})
                while wire.receive()["event"] != "done":
                    pass


class SlowReader(harness.SharedDaemonTest):
    options = {"send_buffer": "4M", "send_timeout": 1}

    def test_one_that_reads_nothing_is_cancelled(self):
        with Wire(self.shared.socket) as wire:
            wire.send({"type": "request", "id": 1, "method": "tokenize",
                       "params": {"model": "demo", "text": mixed_text(4_000_000), "pieces": True}})
            wait_until(lambda: not self.shared.jobs(), what="the job's end")
            time.sleep(0.1)
            last = None
            while last is None or last["event"] == "tokens" or last["event"] == "accepted":
                last = wire.receive()
            self.assertEqual((last["event"], last["body"]["code"]), ("error", "temporary"))
            self.assertIn("send-timeout", last["body"]["message"])


if __name__ == "__main__":
    harness.main()
