"""`airllm split`: what it makes, what it survives, and what it refuses."""

import contextlib
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import unittest

import checkpoint
import harness
import safetensors_header
from harness import DEMO, MIB, QUESTION

# Takes a second or so to split.
LARGE = {"hidden": 1024, "inter": 4096, "layers": 12, "heads": 16, "kv_heads": 4, "vocab": 8192,
         "tokenizer": False}


def contents_below(folder):
    out = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            out[name] = file.read()
    return out


def files_below(folder):
    """{relative path: (inode, size, mtime)} of all files."""
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                found[os.path.relpath(path, folder)] = (
                    status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def contents(folder, ending):
    """{relative path: bytes} of the files whose names end so."""
    found = {}
    for name in files_below(folder):
        if name.endswith(ending):
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = file.read()
    return found


class Split(harness.E2eTest):
    def test_what_is_made_is_listed_shown_and_whole(self):
        daemon = self.daemon()
        self.split(daemon, DEMO, "demo")
        self.assertEqual([m["name"] for m in self.ok(daemon.client("list", "--json")).json],
                         ["demo"])
        self.assertIsInstance(self.ok(daemon.client("show", "demo", "--json")).json, dict)
        self.ok(daemon.client("verify", "demo"))
        model = os.path.join(daemon.store, "models/demo")
        with open(os.path.join(model, "manifest.json"), encoding="utf-8") as file:
            self.assertIsInstance(json.load(file), dict)
        shards = os.listdir(os.path.join(model, "shards"))
        self.assertGreaterEqual(len(shards), 14)  # embedding, 12 layers, head
        self.assertEqual(os.listdir(os.path.join(daemon.store, "incoming")), [])

    def test_additional_chat_templates_are_kept(self):
        daemon = self.daemon()
        folder = self.path("templates")
        checkpoint.write(folder)
        os.mkdir(os.path.join(folder, "additional_chat_templates"))
        for name in ("rag.jinja", "tool_use.jinja", "README"):
            with open(os.path.join(folder, "additional_chat_templates", name), "w",
                      encoding="utf-8") as file:
                file.write("{{ messages }} " + name)
        self.split(daemon, folder, "m")
        self.assertEqual(contents(os.path.join(daemon.store, "models/m"), ".jinja"), {
            "additional_chat_templates.rag.jinja": b"{{ messages }} rag.jinja",
            "additional_chat_templates.tool_use.jinja": b"{{ messages }} tool_use.jinja"})
        self.ok(daemon.client("verify", "m"))
        self.split(daemon, folder, "m")  # again: nothing to do
        os.symlink("/etc/passwd", os.path.join(folder, "additional_chat_templates/x.jinja"))
        refused = daemon.client("split", folder, "--name", "n")
        self.assertEqual(refused.status, 66, refused.err)
        self.assertIn("symbolic link", refused.err)

    def test_shards_are_valid_safetensors_on_page_boundaries(self):
        daemon = self.daemon()
        self.split(daemon, DEMO, "demo")
        folder = os.path.join(daemon.store, "models/demo/shards")
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            (length,) = struct.unpack("<Q", data[:8])
            header = json.loads(data[8:8 + length])
            header.pop("__metadata__", None)
            end = 0
            for tensor, entry in sorted(header.items(), key=lambda i: i[1]["data_offsets"]):
                begin, stop = entry["data_offsets"]
                self.assertEqual(begin, end, f"{name}: gap before {tensor}")
                end = stop
                if not tensor.startswith("pad."):
                    self.assertEqual((8 + length + begin) % 4096, 0, f"{name}: {tensor}")
            self.assertEqual(8 + length + end, len(data), name)

    def test_the_name_comes_from_the_folder(self):
        folder = self.path("my-model")
        checkpoint.write(folder)
        daemon = self.daemon()
        self.ok(daemon.client("split", folder + "/"))
        self.ok(daemon.client("show", "my-model"))

    def test_the_same_source_again_succeeds_at_once(self):
        daemon = self.daemon()
        self.split(daemon, DEMO, "demo")
        before = files_below(os.path.join(daemon.store, "models"))
        self.split(daemon, DEMO, "demo")
        self.assertEqual(files_below(os.path.join(daemon.store, "models")), before)

    def test_another_source_under_a_taken_name_is_refused(self):
        folder = self.path("other")
        checkpoint.write(folder)
        daemon = self.daemon()
        self.split(daemon, DEMO, "demo")
        result = self.assert_fails(daemon.client("split", folder, "--name", "demo"), 73)
        self.assertIn("demo", result.err)
        self.ok(daemon.client("verify", "demo"))

    def test_a_checkpoint_in_many_files_gives_the_same_answers_as_in_one(self):
        shape = dict(layers=6, vocab=512, tokenizer=False, tied=False)
        tensors = list(checkpoint.Shape(layers=6, vocab=512, tied=False).tensors())
        checkpoint.write(self.path("one"), **shape)
        shutil.copytree(self.path("one"), self.path("many"))
        self.cut_into_files(self.path("many"), tensors, 70)
        daemon = self.daemon()
        answers = []
        for name in ("one", "many"):
            self.split(daemon, self.path(name), name)
            answers.append(self.ok(daemon.client(
                "ask", "-m", name, "--json", "--prompt-ids", "1,2,3", "--ignore-eos",
                "--max-tokens", 8, "--logprobs", 3)).json)
        self.assertEqual(answers[0]["logprobs"], answers[1]["logprobs"])

    @staticmethod
    def cut_into_files(folder, tensors, most):
        """Turns model.safetensors into one file for each tensor (more than 64), with an index."""
        whole = os.path.join(folder, "model.safetensors")
        with open(whole, "rb") as file:
            data = file.read()
        os.remove(whole)
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8:8 + length])
        weight_map = {}
        for i, (name, extents) in enumerate(tensors[:most]):
            begin, end = header[name]["data_offsets"]
            part = f"part-{i:03}.safetensors"
            prefix, _ = safetensors_header.header_of([(name, "BF16", extents)])
            with open(os.path.join(folder, part), "wb") as file:
                file.write(prefix + data[8 + length + begin:8 + length + end])
            weight_map[name] = part
        checkpoint.write_json(os.path.join(folder, "model.safetensors.index.json"),
                              {"weight_map": weight_map})

    def test_removing_a_model_frees_its_name(self):
        daemon = self.daemon()
        self.split(daemon, DEMO, "demo")
        self.ok(daemon.client("rm", "demo"))
        self.assertEqual(self.ok(daemon.client("list", "--json")).json, [])
        self.assertEqual(daemon.client("show", "demo").status, 66)
        self.split(daemon, DEMO, "demo")


class Compressed(harness.E2eTest):
    def test_bits_and_formats(self):
        daemon = self.daemon()
        for name, options, dtype in (("eight", ["--bits", "8"], "q8"), ("four", ["--bits=4"], "q4"),
                                     ("mixed", ["--format", "q8,keep"], "q8"),
                                     ("normal", ["--format", "nf4"], "nf4"),
                                     ("floats", ["--format", "fp8"], "fp8"),
                                     ("some", ["--bits", "4", "--outliers", "0.05"], "q4"),
                                     ("ends", ["--format", "keep,q8"], "bf16")):
            self.ok(daemon.client("split", DEMO, "--name", name, *options))
            self.ok(daemon.client("verify", name))
            shown = self.ok(daemon.client("show", name, "--json")).json
            self.assertEqual(shown["dtype"], dtype)
            asked = self.ok(daemon.client("ask", "-m", name, "--temperature", "0", QUESTION))
            self.assertIn("Paris", asked.out, name)
        sizes = {m["name"]: m["bytes"] for m in self.ok(daemon.client("list", "--json")).json}
        self.assertLess(sizes["four"], sizes["some"])
        self.assertLess(sizes["some"], sizes["eight"])
        self.assertLess(sizes["eight"], sizes["mixed"])

    def test_requantize_makes_the_same_of_a_model_as_split_of_its_folder(self):
        daemon = self.daemon()
        self.ok(daemon.client("split", DEMO, "--name", "m"))
        self.ok(daemon.client("split", DEMO, "--name", "there", "--in-place"))
        self.ok(daemon.client("split", DEMO, "--name", "split", "--bits", "4"))
        for model in ("m", "there"):
            made = self.ok(daemon.client("requantize", model, "--bits", "4", "--json")).json
            self.assertEqual((made["name"], made["unchanged"]), (model + "-q4", False))
            self.ok(daemon.client("verify", model + "-q4"))
            self.assertEqual(*[contents_below(os.path.join(daemon.store, "models", name, "shards"))
                               for name in (model + "-q4", "split")])
            again = self.ok(daemon.client("requantize", model, "--bits", "4", "--json")).json
            self.assertTrue(again["unchanged"])
        made = self.ok(daemon.client("requantize", "m", "--bits", "4", "--outliers", "0.1", "--json"))
        self.assertEqual(made.json["name"], "m-q4-outliers")
        text = self.ok(daemon.client("requantize", "m", "--format", "nf4", "--name", "other"))
        self.assertIn("other: ", text.out)
        asked = self.ok(daemon.client("ask", "-m", "other", "--temperature", "0", QUESTION))
        self.assertIn("Paris", asked.out)
        for status, words, named in (
                (64, ["m"], "--bits"), (64, ["m", "--bits", "5"], "8 or 4 bits"),
                (64, ["m-q4", "--bits", "8"], "is compressed as q4,q8,values=q8"),
                (66, ["absent", "--bits", "8"], "absent"), (64, ["--bits", "8"], "MODEL"),
                (64, ["m", "--format", "q5"], "q5"),
                (73, ["m", "--bits", "8", "--name", "m-q4"], "m-q4")):
            refused = daemon.client("requantize", *words)
            self.assertEqual(refused.status, status, refused)
            self.assertIn(named, refused.err)

    def test_numbers_that_are_none_are_refused_by_name_unless_they_are_wanted(self):
        folder = self.path("odd")
        checkpoint.write(folder)
        named = "model.layers.1.mlp.up_proj.weight"
        with open(os.path.join(folder, "model.safetensors"), "r+b") as file:
            length = int.from_bytes(file.read(8), "little")
            begin = json.loads(file.read(length))[named]["data_offsets"][0]
            file.seek(8 + length + begin + 2 * (3 * 64 + 5))  # row 3, column 5
            file.write(b"\x80\x7f")  # bf16's infinity
        daemon = self.daemon()
        for options in ([], ["--bits", "8"], ["--format", "q4"], ["--format", "nf4"],
                        ["--in-place"]):
            refused = daemon.client("split", folder, "--name", "m", *options)
            self.assertEqual(refused.status, 65, refused)
            self.assertIn(named, refused.err)
            self.assertIn("--allow-nonfinite", refused.err)
        models = self.ok(daemon.client("list", "--json")).json
        self.assertEqual([m["name"] for m in models if m["complete"]], [])
        for name, options in (("plain", []), ("eight", ["--bits", "8"]), ("four", ["--bits", "4"]),
                              ("normal", ["--format", "nf4"]), ("there", ["--in-place"])):
            self.ok(daemon.client("split", folder, "--name", name, "--allow-nonfinite", *options))
            self.ok(daemon.client("verify", name))
            self.ok(daemon.client("ask", "-m", name, "--raw", "--prompt-ids", "5,6,7",
                                  "--max-tokens", "2"))

    def test_what_cannot_be_is_refused(self):
        daemon = self.daemon()
        for options, named in ((["--bits", "5"], "8 or 4 bits"), (["--bits", "x"], "--bits"),
                               (["--bits", "8", "--format", "q4"], "exclude each other"),
                               (["--format", "q5"], "q5"), (["--format", "q4,"], "q4,"),
                               (["--outliers", "0.1"], "--outliers"),
                               (["--format", "keep,q8", "--outliers", "0.1"], "outliers"),
                               (["--bits", "4", "--outliers", "1"], "above 0 and not above 0.5"),
                               (["--bits", "4", "--outliers", "x"], "'x'"),
                               (["--bits", "4", "--in-place"], "--in-place")):
            refused = daemon.client("split", DEMO, "--name", "m", *options)
            self.assertEqual(refused.status, 64, refused)
            self.assertIn(named, refused.err)
        self.assertEqual(self.ok(daemon.client("list", "--json")).json, [])

    def test_another_format_needs_another_name(self):
        daemon = self.daemon()
        self.ok(daemon.client("split", DEMO, "--name", "m", "--bits", "8"))
        self.ok(daemon.client("split", DEMO, "--name", "m", "--bits", "8"))
        refused = daemon.client("split", DEMO, "--name", "m")
        self.assertEqual(refused.status, 73, refused)
        self.assertIn("compressed as q8,q8", refused.err)

    def test_killed_and_resumed_it_is_the_same(self):
        folder = self.path("large")
        checkpoint.write(folder, **{**LARGE, "layers": 4})
        daemon = self.daemon()
        self.ok(daemon.client("split", folder, "--name", "whole", "--bits", "4",
                              timeout=60 * harness.SLOWNESS))
        incoming = os.path.join(daemon.store, "incoming")
        for written in (2 * MIB, 20 * MIB):
            client = daemon.spawn_client("split", folder, "--name", "parts", "--bits", "4")
            harness.wait_until(
                lambda w=written, c=client: c.poll() is not None
                or sum(f[1] for f in files_below(incoming).values()) >= w, what="bytes")
            self.assertIsNone(client.poll())
            daemon.kill()
            client.communicate(timeout=30 * harness.SLOWNESS)
            daemon.start()
        self.ok(daemon.client("split", folder, "--name", "parts", "--bits", "4",
                              timeout=60 * harness.SLOWNESS))
        whole, parts = (contents(os.path.join(daemon.store, "models", name), ".safetensors")
                        for name in ("whole", "parts"))
        self.assertEqual(whole, parts)


class Interrupted(harness.E2eTest):
    """kill -9 at any point of a split, of the daemon or of the client; then the same again."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.source = os.path.join(cls.home, "large")
        checkpoint.write(cls.source, **LARGE)

    def begin(self, daemon, bytes_in_incoming, source=None):
        """A split under way that has written at least so many bytes; the client's process."""
        client = daemon.spawn_client("split", source or self.source, "--name", "large")
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        incoming = os.path.join(daemon.store, "incoming")
        harness.wait_until(
            lambda: sum(f[1] for f in files_below(incoming).values()) >= bytes_in_incoming
            or client.poll() is not None, what="bytes in incoming/")
        return client

    def check_model(self, daemon):
        """The model is whole, and byte for byte what an undisturbed split makes."""
        self.ok(daemon.client("verify", "large"))
        self.assertEqual(os.listdir(os.path.join(daemon.store, "incoming")), [])
        other = self.daemon(name="other", store=self.path("other-store"))
        self.split(other, self.source, "large")
        self.assertEqual(contents(os.path.join(daemon.store, "models/large"), ".safetensors"),
                         contents(os.path.join(other.store, "models/large"), ".safetensors"))

    def test_a_killed_daemon_goes_on_where_it_stopped(self):
        daemon = self.daemon()
        client = self.begin(daemon, 60 * MIB)
        daemon.kill()
        _, err = client.communicate(timeout=30 * harness.SLOWNESS)
        self.assertNotIn(client.returncode, (0, None))
        self.assertNotEqual(err.strip(), b"")
        self.assertEqual(os.listdir(os.path.join(daemon.store, "models")), [])
        # All shards but the last ones written are complete and must not be written again.
        shards = sorted((f for f in files_below(os.path.join(daemon.store, "incoming")).items()
                         if f[0].endswith(".safetensors")), key=lambda f: f[1][2])
        inodes = {value[:1] + value[2:] for _, value in shards[:-2]}
        self.assertGreater(len(inodes), 0)
        daemon.start()
        self.assertEqual(daemon.client("show", "large").status, 66)
        self.assertNotIn("large", [m["name"] for m in daemon.client("list", "--json").json
                                   if m.get("complete", True)])
        self.split(daemon, self.source, "large")
        after = {value[:1] + value[2:]
                 for value in files_below(os.path.join(daemon.store, "models")).values()}
        self.assertLessEqual(inodes, after, "complete shards were written again")
        self.check_model(daemon)

    def test_killed_again_and_again_it_still_ends_whole(self):
        daemon = self.daemon()
        for size in (0, 1, 20 * MIB, 40 * MIB, 80 * MIB, 120 * MIB):
            client = self.begin(daemon, size)
            daemon.kill()
            client.wait(30 * harness.SLOWNESS)
            daemon.start()
        self.split(daemon, self.source, "large")
        self.check_model(daemon)

    def test_a_killed_client_ends_the_job_and_the_same_command_goes_on(self):
        daemon = self.daemon()
        client = self.begin(daemon, 40 * MIB)
        client.kill()
        harness.wait_until(lambda: daemon.jobs() == [], what="the job to end")
        self.assertEqual(daemon.client("show", "large").status, 66)
        self.split(daemon, self.source, "large")
        self.check_model(daemon)

    def test_an_interrupt_ends_with_130(self):
        daemon = self.daemon()
        client = self.begin(daemon, 20 * MIB)
        client.send_signal(signal.SIGINT)
        self.assertEqual(client.wait(30 * harness.SLOWNESS), 130)
        harness.wait_until(lambda: daemon.jobs() == [], what="the job to end")
        self.assert_lives(daemon)

    def test_a_source_that_changed_meanwhile_is_not_mixed(self):
        source = self.path("changing")
        shutil.copytree(self.source, source)
        daemon = self.daemon()
        client = self.begin(daemon, 60 * MIB, source)
        daemon.kill()
        client.wait(30 * harness.SLOWNESS)
        checkpoint.write(source, seed=99, **LARGE)
        daemon.start()
        self.split(daemon, source, "large")
        other = self.daemon(name="other", store=self.path("other-store"))
        self.split(other, source, "large")
        self.assertEqual(contents(os.path.join(daemon.store, "models/large"), ".safetensors"),
                         contents(os.path.join(other.store, "models/large"), ".safetensors"))


@harness.needs_root
class DiskFull(harness.E2eTest):
    """A store on a small tmpfs."""

    def setUp(self):
        super().setUp()
        self.mount = self.path("small")
        os.mkdir(self.mount)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3M,mode=755", "none", self.mount],
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"cannot mount a tmpfs: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", self.mount], check=True)

    def test_too_little_room_is_said_with_both_numbers(self):
        daemon = self.daemon(store=os.path.join(self.mount, "store"))
        result = self.assert_fails(daemon.client("split", DEMO, "--name", "demo"), 73, 74)
        self.assertRegex(result.err, r"\d.*\d")
        self.assertRegex(result.err, r"(?i)room|space|free")
        self.assertEqual(daemon.client("show", "demo").status, 66)
        self.assert_lives(daemon)

    def test_a_small_model_still_fits_afterwards(self):
        daemon = self.daemon(store=os.path.join(self.mount, "store"))
        self.assert_fails(daemon.client("split", DEMO, "--name", "demo"), 73, 74)
        folder = self.path("tiny")
        checkpoint.write(folder, layers=1, vocab=256, tokenizer=False)
        self.split(daemon, folder, "tiny")
        self.ok(daemon.client("verify", "tiny"))


class Damaged(harness.E2eTest):
    """Shards that were cut or changed on disk are found before they are used, and named."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pristine = os.path.join(cls.home, "pristine")
        daemon = cls.make_daemon(cls.home, store=cls.pristine)
        cls.addClassCleanup(cls.check_end, daemon)
        daemon.start()
        assert daemon.client("split", DEMO, "--name", "demo").status == 0
        daemon.stop()

    def damaged(self, which, change):
        """A daemon whose shard number `which` was changed; and the shard's file name."""
        store = self.path("store")
        shutil.copytree(self.pristine, store)
        folder = os.path.join(store, "models/demo/shards")
        name = sorted(os.listdir(folder))[which]
        path = os.path.join(folder, name)
        os.chmod(path, 0o600)
        change(path)
        return self.daemon(store=store), name

    def check(self, which, change):
        daemon, name = self.damaged(which, change)
        result = self.assert_fails(daemon.client("ask", "-m", "demo", QUESTION), 65, 66, 74)
        self.assertIn(name, result.err)
        self.assertNotIn("Paris", result.out)
        verified = self.assert_fails(daemon.client("verify", "demo"), 65, 66, 74)
        self.assertIn(name, verified.err)
        self.assert_lives(daemon)

    @staticmethod
    def flip(offset):
        def change(path):
            with open(path, "r+b") as file:
                file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 4]))
        return change

    @staticmethod
    def cut(size):
        return lambda path: os.truncate(path, max(0, os.path.getsize(path) + size)
                                        if size < 0 else size)

    def test_a_flipped_bit_in_a_layer(self):
        self.check(5, self.flip(-20000))

    def test_a_flipped_bit_in_the_last_weight_of_the_head(self):
        self.check(-1, self.flip(-5000))

    def test_a_flipped_bit_in_a_header(self):
        self.check(3, self.flip(40))

    def test_a_shard_that_was_cut(self):
        self.check(7, self.cut(-8192))

    def test_a_shard_that_is_empty(self):
        self.check(2, self.cut(0))

    def test_a_shard_that_is_missing(self):
        self.check(4, os.remove)

    def test_a_shard_that_is_a_fifo_does_not_hang(self):
        def change(path):
            os.remove(path)
            os.mkfifo(path)
        self.check(4, change)

    def test_a_broken_manifest_is_named(self):
        store = self.path("store")
        shutil.copytree(self.pristine, store)
        path = os.path.join(store, "models/demo/manifest.json")
        os.chmod(path, 0o600)
        for text in (b"", b"{", b"[" * 100000, b'{"version":99}', b"\xff", b"null"):
            with open(path, "wb") as file:
                file.write(text)
            daemon = self.daemon(store=store, name="m")
            self.assert_fails(daemon.client("ask", "-m", "demo", QUESTION), 65, 66)
            self.ok(daemon.client("list", "--json"))
            daemon.stop()


class HostileSource(harness.E2eTest):
    """Checkpoints that would make the client or the daemon open, read or allocate too much."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shared = cls.make_daemon(cls.home)
        cls.addClassCleanup(cls.check_end, cls.shared)
        cls.shared.start()
        cls.secret = os.path.join(cls.home, "secret")
        with open(cls.secret, "wb") as file:
            file.write(b"not for you")

    def refuse(self, folder, *statuses):
        statuses = statuses or (65, 66, 77)
        result = self.shared.client("split", folder, "--name", "hostile", timeout=20)
        if result.status == 0:
            self.shared.client("rm", "hostile")
        self.assert_fails(result, *statuses)
        self.assertLess(result.seconds, 15 * harness.SLOWNESS)
        self.assertLess(len(result.err), 4000)
        self.assertNotIn("hostile", os.listdir(os.path.join(self.shared.store, "models")))
        self.assert_lives(self.shared)
        return result

    def test_indexes_that_lead_out_of_the_folder(self):
        folder = self.path("model")
        checkpoint.write(folder, files=2)
        index = os.path.join(folder, "model.safetensors.index.json")
        with open(index, encoding="utf-8") as file:
            good = json.load(file)
        os.mkdir(os.path.join(folder, "sub"))
        os.symlink(self.secret, os.path.join(folder, "link.safetensors"))
        os.symlink("/dev/zero", os.path.join(folder, "zero.safetensors"))
        os.mkfifo(os.path.join(folder, "fifo.safetensors"))
        for target in ("../secret", self.secret, "/etc/passwd", "sub/../../secret", ".", "..", "",
                       "link.safetensors", "zero.safetensors", "fifo.safetensors", "sub",
                       "a\0b", "x" * 5000, "missing.safetensors", 7, None, ["a"], {}):
            with self.subTest(target=str(target)[:40]):
                hostile = {"weight_map": dict(good["weight_map"])}
                hostile["weight_map"]["model.norm.weight"] = target
                checkpoint.write_json(index, hostile)
                result = self.refuse(folder)
                self.assertNotIn("not for you", result.err)

    def test_special_files_in_place_of_the_weights(self):
        for kind in ("fifo", "folder", "device", "link", "socket"):
            with self.subTest(kind=kind):
                folder = self.path(kind)
                checkpoint.write(folder)
                path = os.path.join(folder, "model.safetensors")
                os.remove(path)
                if kind == "fifo":
                    os.mkfifo(path)
                elif kind == "folder":
                    os.mkdir(path)
                elif kind == "link":
                    os.symlink("/dev/zero", path)
                elif kind == "socket":
                    os.mknod(path, stat.S_IFSOCK | 0o600)
                elif harness.IS_ROOT:
                    try:
                        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
                    except PermissionError:
                        continue
                self.refuse(folder)

    def test_configs_that_are_broken_or_ask_for_too_much(self):
        broken = [b"", b"{", b"[" * 1000000, b'{"a":' * 100000, b"\xff\xfe", b"null", b"[]", b"{}",
                  b'{"model_type":"llama","model_type":"llama"}']
        values = [("hidden_size", 0), ("hidden_size", -64), ("hidden_size", 2**31),
                  ("hidden_size", 2**63), ("hidden_size", "64"), ("num_hidden_layers", 10**9),
                  ("num_hidden_layers", 0), ("vocab_size", 2**40), ("num_attention_heads", 0),
                  ("num_key_value_heads", 3), ("rms_norm_eps", "small"), ("head_dim", 7),
                  ("rope_theta", -1), ("max_position_embeddings", 0), ("hidden_act", "nonsense"),
                  ("model_type", "nonsense"), ("vocab_size", 1e300)]
        folder = self.path("model")
        shape = checkpoint.write(folder)
        cases = [(text[:40], text) for text in broken]
        cases += [((key, value), json.dumps({**shape.config(), key: value}).encode())
                  for key, value in values]
        for what, text in cases:
            with self.subTest(config=what):
                with open(os.path.join(folder, "config.json"), "wb") as file:
                    file.write(text)
                self.refuse(folder)

    def test_safetensors_headers_that_lie(self):
        def with_header(text, data=b"\0" * 64, length=None):
            return struct.pack("<Q", len(text) if length is None else length) + text + data
        one = b'{"model.norm.weight":{"dtype":"BF16","shape":[64],"data_offsets":[0,%d]}}'
        cases = {
            "empty": b"", "seven bytes": b"\0" * 7, "no header": with_header(b""),
            "length beyond the file": with_header(b"{}", length=1 << 40),
            "length over the limit": with_header(b"{}", length=2**63),
            "length of 2^64-1": with_header(b"{}", length=2**64 - 1),
            "not an object": with_header(b"[]"), "spaces first": with_header(b"  {}"),
            "range beyond the file": with_header(one % 128),
            "range that does not fit the shape": with_header(one % 64),
            "data that no tensor has": with_header(one % 128, b"\0" * 200),
            "offsets reversed": with_header(
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', b"\0" * 4),
            "product overflows": with_header(
                b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', b""),
            "unknown dtype": with_header(
                b'{"a":{"dtype":"F99","shape":[4],"data_offsets":[0,4]}}', b"\0" * 4),
            "overlap": with_header(
                b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
                b'"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}', b"\0" * 6),
            "deep": with_header(b'{"a":' + b"[" * 500000, b""),
        }
        folder = self.path("model")
        checkpoint.write(folder)
        for what, data in cases.items():
            with self.subTest(what):
                with open(os.path.join(folder, "model.safetensors"), "wb") as file:
                    file.write(data)
                self.refuse(folder, 65)

    def test_tensors_of_another_shape_or_missing(self):
        folder = self.path("model")
        shape = checkpoint.write(folder)
        tensors = list(shape.tensors())
        path = os.path.join(folder, "model.safetensors")
        checkpoint.write_safetensors(path, tensors[:-1], "BF16")
        self.assertIn("model.norm.weight", self.refuse(folder).err)
        tensors[3] = (tensors[3][0], [tensors[3][1][0], tensors[3][1][1] + 1])
        checkpoint.write_safetensors(path, tensors, "BF16")
        self.assertIn(tensors[3][0], self.refuse(folder).err)

    def test_folders_that_are_none(self):
        for folder in ("/nonexistent", self.path("empty"), os.path.join(DEMO, "config.json"), ""):
            with self.subTest(folder=folder):
                if folder.endswith("empty"):
                    os.mkdir(folder)
                self.refuse(folder, 64, 65, 66)

    def test_names_that_are_none(self):
        for name in ("..", "../x", "/x", "a//b", ".hidden", "a b", "x" * 200, "a/../b", "\x1b[2J"):
            with self.subTest(name=name):
                self.assert_fails(self.shared.client("split", DEMO, f"--name={name}"), 64, 65)
        self.assertEqual(os.listdir(os.path.join(self.shared.store, "models")), [])


if __name__ == "__main__":
    harness.main()
