"""`airllm split --in-place`: weights that are read where they lie, and files that change there."""

import contextlib
import json
import os
import shutil
import struct
import subprocess
import time
import types

import checkpoint
import harness
import seeded
import test_families
import test_users
from harness import needs_root

SIZES = {"layers": 6, "tied": False, "tokenizer": False}
ASK = ("--json", "--prompt-ids", "1,2,3", "--ignore-eos", "-n", "8", "--logprobs", "3")
TEXT_ASK = [word for word in ASK if word not in ("--json", "--logprobs", "3")]


def answer(daemon, name):
    result = daemon.client("ask", "-m", name, *ASK)
    assert result.status == 0, result
    return result.json["logprobs"]


def flip_bit(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def shift_data(path, by):
    """Rewrites a safetensors file with a header that is longer by so many bytes."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", length + by) + data[8:8 + length] + b" " * by
                   + data[8 + length:])


def hub_cache(folder, source, revision="abc"):
    """A repository of the hub's cache with the checkpoint; returns the snapshot's folder."""
    repository = os.path.join(folder, "models--org--m")
    snapshot = os.path.join(repository, "snapshots", revision)
    os.makedirs(os.path.join(repository, "blobs"), exist_ok=True)
    os.makedirs(snapshot)
    for name in sorted(os.listdir(source)):
        blob = os.path.join(repository, "blobs", "blob-of-" + name)
        if not os.path.exists(blob):
            shutil.copyfile(os.path.join(source, name), blob)
        os.symlink("../../blobs/blob-of-" + name, os.path.join(snapshot, name))
    return snapshot


class InPlaceTest(harness.E2eTest):
    def setUp(self):
        super().setUp()
        self.source = self.path("source")
        checkpoint.write(self.source, files=2, **SIZES)

    def weights(self, number=1):
        return os.path.join(self.source, f"model-{number:05}-of-00002.safetensors")

    def split_in_place(self, daemon, folder=None, name="m"):
        return self.ok(daemon.client("split", "--in-place", folder or self.source, "--name", name))

    @staticmethod
    def stored(daemon):
        total = 0
        for base, _, names in os.walk(os.path.join(daemon.store, "models")):
            total += sum(os.path.getsize(os.path.join(base, name)) for name in names)
        return total


class InPlace(InPlaceTest):
    def test_the_same_answers_as_a_copy_and_no_weight_is_copied(self):
        daemon = self.daemon(ram="2M")
        said = self.split_in_place(daemon)
        self.assertIn("read where they lie", said.out)
        self.assertIn("Needs ", said.err)
        held = sum(os.path.getsize(self.weights(i)) for i in (1, 2))
        self.assertLess(self.stored(daemon), held / 10)
        row, = self.ok(daemon.client("list", "--json")).json
        self.assertEqual(row["in_place"], os.path.realpath(self.source))
        self.assertEqual(row["elsewhere_bytes"], held)
        self.assertEqual(row["bytes"], self.stored(daemon) - self.manifest_bytes(daemon))
        self.assertIn("in place", self.ok(daemon.client("list")).out)
        self.assertIn(os.path.realpath(self.source), self.ok(daemon.client("show", "m")).out)
        self.assertGreater(self.ok(daemon.client("verify", "m", "--json")).json["bytes"],
                           held * 9 // 10)
        self.split(daemon, self.source, "copy")
        self.assertEqual(answer(daemon, "m"), answer(daemon, "copy"))
        self.ok(daemon.client("rm", "m"))
        self.assertTrue(os.path.exists(self.weights(1)))
        self.assertEqual([m["name"] for m in self.ok(daemon.client("list", "--json")).json],
                         ["copy"])

    @staticmethod
    def manifest_bytes(daemon):
        folder = os.path.join(daemon.store, "models/m")
        return sum(os.path.getsize(os.path.join(folder, name)) for name in ("manifest.json", "owner")
                   if os.path.exists(os.path.join(folder, name)))

    def test_data_at_any_offset_gives_the_same_answer(self):
        daemon = self.daemon(ram="2M")
        self.split(daemon, self.source, "copy")
        expected = answer(daemon, "copy")
        for by in (1, 2, 3, 61):
            shifted = self.path(f"shifted{by}")
            shutil.copytree(self.source, shifted)
            for name in os.listdir(shifted):
                if name.endswith(".safetensors"):
                    shift_data(os.path.join(shifted, name), by)
            self.split_in_place(daemon, shifted, f"m{by}")
            self.assertEqual(answer(daemon, f"m{by}"), expected, by)
            self.ok(daemon.client("verify", f"m{by}"))

    def test_again_is_done_at_once_and_a_copied_folder_is_taken_over(self):
        daemon = self.daemon()
        self.split_in_place(daemon)
        self.assertIn("already there", self.split_in_place(daemon).out)
        refused = self.assert_fails(daemon.client("split", self.source, "--name", "m"), 73)
        self.assertIn("in place", refused.err)
        moved = self.path("moved")
        shutil.copytree(self.source, moved)
        shutil.rmtree(self.source)
        self.assertIn("already there", self.split_in_place(daemon, moved).out)
        answer(daemon, "m")

    def test_a_hub_cache_is_read_through_its_links(self):
        daemon = self.daemon()
        snapshot = hub_cache(self.path("hub"), self.source)
        self.split_in_place(daemon, snapshot)
        self.split(daemon, self.source, "copy")
        self.assertEqual(answer(daemon, "m"), answer(daemon, "copy"))

    def test_links_that_lead_elsewhere_are_refused(self):
        daemon = self.daemon()
        outside = self.path("outside.safetensors")
        os.rename(self.weights(1), outside)
        os.symlink(outside, self.weights(1))
        refused = self.assert_fails(
            daemon.client("split", "--in-place", self.source, "--name", "m"), 66)
        self.assertIn("symbolic link", refused.err)
        self.assertEqual(self.ok(daemon.client("list", "--json")).json, [])
        # One that comes later, at the very same file, as well.
        os.remove(self.weights(1))
        os.rename(outside, self.weights(1))
        self.split_in_place(daemon)
        os.rename(self.weights(1), outside)
        os.symlink(outside, self.weights(1))
        refused = self.assert_fails(daemon.client("ask", "-m", "m", *TEXT_ASK), 66)
        self.assertIn("symbolic link", refused.err)

    def test_what_has_to_be_made_anew_is_refused_before_anything_is_written(self):
        daemon = self.daemon()
        gpt2 = self.path("gpt2")
        os.mkdir(gpt2)
        fixture, tensors = test_families.load_fixture("gpt2")
        seeded.write_config(gpt2, fixture["config"])
        seeded.write_weights(gpt2, tensors)
        refused = self.assert_fails(
            daemon.client("split", "--in-place", gpt2, "--name", "m"), 65)
        self.assertIn("transposed", refused.err)
        self.assertIn("without --in-place", refused.err)
        self.assertEqual(os.listdir(os.path.join(daemon.store, "incoming")), [])
        self.assertEqual(self.ok(daemon.client("list", "--json")).json, [])


class ChangedFiles(InPlaceTest):
    """What a file that is no longer what it was does to asks and verifications."""

    def setUp(self):
        super().setUp()
        self.running = self.daemon(ram="1M")
        self.split_in_place(self.running)
        self.expected = answer(self.running, "m")

    def check_refused(self, says, *statuses):
        for command in (("ask", "-m", "m", *TEXT_ASK), ("verify", "m")):
            refused = self.assert_fails(self.running.client(*command), *statuses)
            self.assertIn(self.weights(1), refused.err)
            self.assertIn(says, refused.err)
        self.assert_lives(self.running)

    def test_a_file_that_was_replaced(self):
        copy = self.path("copy")
        shutil.copyfile(self.weights(1), copy)
        os.replace(copy, self.weights(1))
        self.check_refused("split --in-place", 65)
        # The content is the same, so giving the command again is enough.
        self.split_in_place(self.running)
        self.assertEqual(answer(self.running, "m"), self.expected)

    def test_a_file_that_was_written_to(self):
        with open(self.weights(1), "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"x")
        self.check_refused("changed", 65)

    def test_a_file_that_was_truncated(self):
        os.truncate(self.weights(1), os.path.getsize(self.weights(1)) // 2)
        self.check_refused("changed", 65)

    def test_a_file_with_other_bytes_and_the_same_look(self):
        self.running.stop()
        status = os.stat(self.weights(1))
        flip_bit(self.weights(1), status.st_size - 1000)  # in the head
        os.utime(self.weights(1), ns=(status.st_atime_ns, status.st_mtime_ns))
        self.running.start()
        self.check_refused("checksum", 65)

    def test_a_file_that_is_gone_and_comes_back(self):
        away = self.path("away")
        os.rename(self.weights(1), away)
        self.check_refused("", 66)
        os.rename(away, self.weights(1))
        self.assertEqual(answer(self.running, "m"), self.expected)

    def test_a_damaged_index_is_found(self):
        folder = os.path.join(self.running.store, "models/m/shards")
        path = os.path.join(folder, sorted(os.listdir(folder))[0])
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
        index["tensors"][0]["file"] = "../../secret"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(index, file)
        self.running.stop()
        self.running.start()
        refused = self.assert_fails(self.running.client("ask", "-m", "m", *TEXT_ASK), 65)
        self.assertIn(path, refused.err)


class InPlaceKilled(InPlaceTest):
    """kill -9 in the middle, and the same command again."""

    def test_a_killed_daemon_goes_on(self):
        source = self.path("large")
        checkpoint.write(source, hidden=1024, inter=4096, layers=8, heads=16, kv_heads=4,
                         vocab=4096, tokenizer=False)
        daemon = self.daemon()
        client = daemon.spawn_client("split", "--in-place", source, "--name", "m")
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        incoming = os.path.join(daemon.store, "incoming/m/shards")
        harness.wait_until(
            lambda: client.poll() is not None or len(self.names_in(incoming)) >= 3,
            what="some indexes")
        daemon.kill()
        client.kill()
        done = self.names_in(incoming)
        daemon.start()
        self.split_in_place(daemon, source)
        self.ok(daemon.client("verify", "m"))
        self.assertEqual(os.listdir(os.path.join(daemon.store, "incoming")), [])
        if done:  # otherwise the split was over before the kill
            self.assertLessEqual(
                set(done) - {done[-1]},
                set(os.listdir(os.path.join(daemon.store, "models/m/shards"))))

    @staticmethod
    def names_in(folder):
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(folder))
        return []


class DeleteOriginal(InPlaceTest):
    """`--delete-original`: what is removed, what is not, and what a kill leaves."""

    def delete(self, daemon, folder=None, *arguments, name="m", **options):
        return daemon.client("split", "--delete-original", "--yes", folder or self.source,
                             "--name", name, *arguments, **options)

    def kept(self, folder=None):
        return set(os.listdir(folder or self.source))

    def test_the_weights_go_and_all_else_stays(self):
        daemon = self.daemon()
        self.split(daemon, self.source, "copy")
        with open(os.path.join(self.source, "other.safetensors"), "w", encoding="ascii") as file:
            file.write("not of the checkpoint")
        held = sum(os.path.getsize(self.weights(i)) for i in (1, 2))
        said = self.ok(self.delete(daemon, None, "--json"))
        self.assertIn("removes 3 files", said.err)
        self.assertGreaterEqual(said.json["freed_bytes"], held)
        self.assertEqual(self.kept(),
                         {"config.json", "generation_config.json", "other.safetensors"})
        self.assertEqual(answer(daemon, "m"), answer(daemon, "copy"))

    def test_nothing_begins_without_a_yes(self):
        daemon = self.daemon()
        before = self.kept()
        refused = self.assert_fails(
            daemon.client("split", "--delete-original", self.source, "--name", "m"), 64)
        self.assertIn("--yes", refused.err)
        both = daemon.client("split", "--delete-original", "--in-place", "-y", self.source)
        self.assert_fails(both, 64)
        self.assertEqual(self.ok(daemon.client("list", "--json")).json, [])
        self.assertEqual(self.kept(), before)

    def test_weights_that_a_model_reads_in_place_stay(self):
        daemon = self.daemon()
        self.split_in_place(daemon)
        before = self.kept()
        refused = self.assert_fails(self.delete(daemon, name="n"), 64)
        self.assertIn("in place", refused.err)
        self.assertEqual(self.kept(), before)

    def test_a_hub_cache_keeps_what_another_snapshot_uses(self):
        daemon = self.daemon()
        cache = self.path("hub")
        snapshot = hub_cache(cache, self.source)
        other = hub_cache(cache, self.source, "def")
        os.remove(os.path.join(other, os.path.basename(self.weights(2))))
        self.ok(self.delete(daemon, snapshot))
        self.assertEqual(self.kept(snapshot), {"config.json", "generation_config.json"})
        blobs = self.kept(os.path.join(cache, "models--org--m/blobs"))
        self.assertIn("blob-of-" + os.path.basename(self.weights(1)), blobs)
        self.assertNotIn("blob-of-" + os.path.basename(self.weights(2)), blobs)
        self.assertIn("blob-of-config.json", blobs)
        self.assertEqual(len(self.kept(other)), len(self.kept(self.source)) - 1)

    def test_a_removal_that_was_interrupted_goes_on(self):
        daemon = self.daemon()
        self.split(daemon, self.source, "m")
        os.remove(self.weights(1))
        said = self.ok(self.delete(daemon))
        self.assertIn("Goes on", said.err)
        self.assertEqual(self.kept(), {"config.json", "generation_config.json"})

    def test_an_interrupted_removal_in_a_hub_cache_goes_on(self):
        daemon = self.daemon()
        cache = self.path("hub")
        snapshot = hub_cache(cache, self.source)
        self.split(daemon, snapshot, "m")
        blobs = os.path.join(cache, "models--org--m/blobs")
        os.remove(os.path.join(blobs, "blob-of-" + os.path.basename(self.weights(1))))
        self.ok(self.delete(daemon, snapshot))
        self.assertEqual(self.kept(snapshot), {"config.json", "generation_config.json"})
        self.assertEqual(self.kept(blobs),
                         {"blob-of-config.json", "blob-of-generation_config.json"})

    def test_an_incomplete_download_is_left_alone(self):
        daemon = self.daemon()
        os.remove(self.weights(1))
        before = self.kept()
        refused = self.assert_fails(self.delete(daemon), 65)
        self.assertIn("missing", refused.err)
        self.assertEqual(self.kept(), before)

    def test_files_that_the_model_was_not_made_of_are_left_alone(self):
        daemon = self.daemon()
        self.split(daemon, self.source, "m")
        os.remove(self.weights(1))
        with open(self.weights(2), "r+b") as file:
            file.write(b"\0")
        before = self.kept()
        refused = self.assert_fails(self.delete(daemon), 65)
        self.assertIn(self.weights(2), refused.err)
        self.assertEqual(self.kept(), before)

    def test_a_damaged_store_keeps_the_original(self):
        daemon = self.daemon()
        self.split(daemon, self.source, "m")
        folder = os.path.join(daemon.store, "models/m/shards")
        path = os.path.join(folder, sorted(os.listdir(folder))[0])
        flip_bit(path, 8192)
        before = self.kept()
        self.assert_fails(self.delete(daemon), 65)
        self.assertEqual(self.kept(), before)

    def test_a_kill_anywhere_loses_nothing(self):
        daemon = self.daemon()
        self.split(daemon, self.source, "copy")
        expected = answer(daemon, "copy")
        for wait in (0.0, 0.02, 0.05, 0.1, 0.2):
            client = daemon.spawn_client("split", "--delete-original", "--yes", self.source,
                                         "--name", "m")
            time.sleep(wait)
            client.kill()
            client.communicate()
        if "model.safetensors.index.json" in self.kept():
            self.ok(self.retry_delete(daemon))
        self.assertEqual(self.kept(), {"config.json", "generation_config.json"})
        self.ok(daemon.client("verify", "m"))
        self.assertEqual(answer(daemon, "m"), expected)

    def retry_delete(self, daemon):
        """A split of a client that was killed may be about to end."""
        def attempt():
            result = self.delete(daemon)
            return None if result.status == 75 else result
        return harness.wait_until(attempt, what="the split that was left behind")


@needs_root
class InPlaceOfOthers(test_users.UsersTest):
    """A service that may not open its users' files."""

    SERVICE = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

    def setUp(self):
        super().setUp()
        if shutil.which("setpriv") is None:
            self.skipTest("no setpriv")
        programs = self.path("bin")
        os.mkdir(programs, 0o755)
        os.chmod(self.folder, 0o777)
        self.airllmd = shutil.copy(harness.AIRLLMD, programs)
        if subprocess.run([*self.SERVICE, self.airllmd, "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode != 0:
            self.skipTest("another user cannot run the programs where they lie")

    def service(self):
        daemon = self.daemon(start=False)
        os.makedirs(daemon.store, exist_ok=True)
        os.chown(daemon.store, 65534, 65534)
        with open(daemon.log_path, "ab") as log:
            daemon.process = subprocess.Popen(
                [*self.SERVICE, self.airllmd, *daemon.arguments], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=daemon.env, cwd="/")
        harness.wait_until(daemon.answers, what="the service")
        os.chmod(daemon.socket, 0o666)
        return daemon

    def person(self, daemon, uid):
        home = self.path(f"home{uid}")
        os.makedirs(home, exist_ok=True)
        os.chown(home, uid, uid)
        at_home = types.SimpleNamespace(command=daemon.command, env={**daemon.env, "HOME": home})
        return test_users.Person(self, at_home, uid)

    def source_of(self, uid):
        """A checkpoint that this user alone can read."""
        source = self.path(f"source{uid}")
        shutil.copytree(self.sources[0], source)
        for name in os.listdir(source):
            os.chown(os.path.join(source, name), uid, uid)
            os.chmod(os.path.join(source, name), 0o600)
        os.chown(source, uid, uid)
        os.chmod(source, 0o700)
        return source

    def test_the_owner_passes_the_files_and_others_are_told(self):
        daemon = self.service()
        ann = self.person(daemon, test_users.ANN)
        ben = self.person(daemon, test_users.BEN)
        source = self.source_of(test_users.ANN)
        said = self.ok(ann.client("split", "--in-place", source, "--name", "m", "--share"))
        self.assertIn("may not open", said.out)
        for command in (("ask", "-m", "m", *TEXT_ASK), ("verify", "m")):
            self.refused(ben.client(*command), 66, str(test_users.ANN), "owner", source)
        self.ok(ben.client("tokenize", "-m", "m", "Hello"))
        expected = self.ok(ann.client("ask", "-m", "m", *ASK)).json
        self.assertEqual(self.ok(ben.client("ask", "-m", "m", *ASK)).json["logprobs"],
                         expected["logprobs"])
        self.ok(ann.client("verify", "m"))
        with open(os.path.join(source, "model.safetensors"), "r+b") as file:
            file.write(b"\0")
        self.refused(ann.client("ask", "-m", "m", *TEXT_ASK), 65, "changed")

    def test_a_client_passes_files_of_folders_alone_that_its_user_named(self):
        daemon = self.service()
        ann = self.person(daemon, test_users.ANN)
        source = self.source_of(test_users.ANN)
        self.ok(ann.client("split", "--in-place", source, "--name", "m"))
        os.remove(self.path(f"home{test_users.ANN}", ".local/state/airllm/in-place"))
        self.refused(ann.client("ask", "-m", "m", *TEXT_ASK), 77, "not among the folders")
        self.ok(ann.client("split", "--in-place", source, "--name", "m"))
        self.ok(ann.client("ask", "-m", "m", *ASK))


if __name__ == "__main__":
    harness.main()
