"""airllm-fetch against the stand-in hub (tests/hub), right and wrong."""

import hashlib
import os
import random
import socket
import struct
import subprocess
import threading
import time

import fetch_peer
import harness
from fetch_peer import BLOCK, MIB, Failed, Fetch, Target, frame_of

from hub import HOSTILE_LISTINGS, HOSTILE_NAMES, Hub, ManyFiles, hostile_listing

HELLO = {"type": "hello", "version": 1, "program": "test", "features": []}
TOKEN = "hf_alice0123456789"
CONFIG = b'{"model_type": "llama"}\n'


def random_bytes(size, seed=1):
    return random.Random(seed).randbytes(size)


class FetchTest(harness.E2eTest):
    """A hub for each class, with the repository acme/tiny, and a program for each test."""

    SIZE = 12 * MIB + 4567
    hub_options = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.weights = random_bytes(cls.SIZE)
        cls.hub = Hub(**cls.hub_options).start()
        cls.addClassCleanup(cls.hub.stop)
        cls.files_of_repo = {"model.safetensors": cls.weights, "config.json": CONFIG,
                             "sub dir/größe+%.txt": b"x" * 1000, "empty.txt": b""}
        cls.commit = cls.hub.add_repo("acme/tiny", cls.files_of_repo)
        cls.hub.add_token(TOKEN, read=["acme/private", "acme/gated"])

    def setUp(self):
        super().setUp()
        self.hub.clear_faults()
        self.hub.forget_requests()

    def start(self, *options, **more):
        fetch = Fetch(self.hub, *options, **more)
        self.addCleanup(self.end, fetch)
        return fetch

    def end(self, fetch):
        """It ends with its connection, in peace."""
        if fetch.process.poll() is None:
            fetch.close()
            self.assertEqual(fetch.process.returncode, 0)

    def target(self, name, folder=None, **more):
        data = self.files_of_repo[name]
        is_lfs = name.endswith(".safetensors")
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        file = {"name": name, "size": len(data), "git_sha1": blob,
                "sha256": hashlib.sha256(data).hexdigest() if is_lfs else ""}
        return Target(folder or self.folder, self.hub, "acme/tiny", self.commit, file, **more)

    def assert_whole(self, target):
        self.assertEqual(target.data, self.files_of_repo[target.params["name"]])

    def assert_brings(self, name="model.safetensors", fetch=None, **more):
        """The file arrives, whole."""
        target = self.target(name, **more)
        body = target.fetch(fetch or self.start())
        self.assert_whole(target)
        self.assertEqual(target.prefixes[-1], len(target.data))
        return body, target

    def assert_fails(self, reason, run):
        with self.assertRaises(Failed) as caught:
            run()
        self.assertEqual(caught.exception.reason, reason, caught.exception)
        return caught.exception


class FetchListings(FetchTest):
    def test_a_repository_has_a_commit_and_files(self):
        done, files = self.start().list(self.hub, "acme/tiny")
        self.assertEqual(done["commit"], self.commit)
        self.assertEqual(done["files"], 4)
        self.assertEqual(done["size"], sum(map(len, self.files_of_repo.values())))
        self.assertEqual({n: f["size"] for n, f in files.items()},
                         {n: len(d) for n, d in self.files_of_repo.items()})
        self.assertEqual(files["model.safetensors"]["sha256"],
                         hashlib.sha256(self.weights).hexdigest())
        self.assertEqual(files["config.json"]["sha256"], "")

    def test_revisions(self):
        self.hub.tag("acme/tiny", "v1")
        self.hub.commit("acme/tiny", {"a": b"1"}, branch="refs/pr/1")
        fetch = self.start()
        self.assertEqual(fetch.list(self.hub, "acme/tiny", "v1")[0]["commit"], self.commit)
        self.assertEqual(list(fetch.list(self.hub, "acme/tiny", "refs/pr/1")[1]), ["a"])
        self.assertEqual(fetch.list(self.hub, "acme/tiny", self.commit)[0]["commit"], self.commit)

    def test_renamed_and_of_other_case(self):
        self.hub.add_repo("acme/old", {"a": b"1"})
        self.hub.rename("acme/old", "acme/new")
        fetch = self.start()
        self.assertEqual(list(fetch.list(self.hub, "acme/old")[1]), ["a"])
        self.assertEqual(list(fetch.list(self.hub, "Acme/New")[1]), ["a"])

    def test_refusals_say_what_to_do(self):
        self.hub.add_repo("acme/private", {"a": b"1"}, private=True)
        fetch = self.start()
        for name, token, revision, reason, remedy in (
                ("acme/none", "", "main", "no_repository", "check the spelling"),
                ("acme/private", "", "main", "no_repository", "set HF_TOKEN"),
                ("acme/none", TOKEN, "main", "no_repository", "check the spelling"),
                ("acme/tiny", "hf_wrong", "main", "unauthorized", "/settings/tokens"),
                ("acme/tiny", "", "v9", "no_revision", "/acme/tiny")):
            with self.subTest(name=name, token=token, revision=revision):
                failed = self.assert_fails(
                    reason, lambda n=name, r=revision, t=token: fetch.list(self.hub, n, r, t))
                self.assertIn(remedy, failed.remedy)
                self.assertNotIn("hf_", failed.message)
        self.assertEqual(list(fetch.list(self.hub, "acme/private", token=TOKEN)[1]), ["a"])

    def test_what_is_formed_wrongly(self):
        fetch = self.start()
        for endpoint, name, revision in (("ftp://x", "a/b", "main"), ("", "a/b", "main"),
                                         (self.hub.url, "../b", "main"), (self.hub.url, "a/b", ""),
                                         (self.hub.url + "/?x=1", "a/b", "main")):
            self.assert_fails("usage", lambda e=endpoint, n=name, r=revision: fetch.list(e, n, r))
        self.assert_fails("usage", lambda: fetch.list(self.hub, "a/b", token="a\nb"))
        self.assert_fails("usage", lambda: list(fetch.events_of(fetch.request("dance", {}))))

    def test_hostile_names_are_refused_by_name(self):
        fetch = self.start()
        for number, name in enumerate(HOSTILE_NAMES):
            with self.subTest(name=name):
                repo = f"acme/hostile{number}"
                self.hub.add_repo(repo, [("config.json", CONFIG), (name, b"x")])
                failed = self.assert_fails("listing", lambda r=repo: fetch.list(self.hub, r))
                self.assertEqual(failed.code, "data")
                self.assertFalse(any(ord(c) < 32 or ord(c) == 127 for c in failed.message))

    def test_hostile_listings_are_refused(self):
        with Fetch(self.hub) as fetch:
            good = b'{"id": "acme/tiny", "sha": "%s", "siblings": [{"rfilename": "a", "size": 7, ' \
                   b'"blobId": "%s"}]}' % (self.commit.encode(), b"b" * 40)
            for kind in HOSTILE_LISTINGS:
                with self.subTest(kind=kind):
                    self.hub.fault("body", on="info", body=hostile_listing(kind, good))
                    with self.assertRaises(Failed) as caught:
                        fetch.list(self.hub, "acme/tiny")
                    self.assertIn(caught.exception.reason, ("listing", "too_large"))
            self.assertEqual(fetch.list(self.hub, "acme/tiny")[0]["files"], 4)

    def test_a_million_files_are_refused_in_little_memory(self):
        self.hub.add_repo("acme/many", ManyFiles(1_000_000))
        fetch = self.start()
        failed = self.assert_fails("too_large", lambda: fetch.list(self.hub, "acme/many"))
        self.assertIn("longer than", failed.message)
        if not harness.SANITIZED:
            self.assertLess(peak_bytes(fetch.process.pid), 128 * MIB)

    def test_many_files_come_in_batches(self):
        self.hub.add_repo("acme/thousands", ManyFiles(2500))
        fetch = self.start()
        request = fetch.request("repository", {"endpoint": self.hub.url, "revision": "main",
                                               "repository": "acme/thousands"})
        events = list(fetch.events_of(request))
        self.assertEqual([len(e["body"]["files"]) for e in events[:-1]], [1000, 1000, 500])

    def test_a_sign_in_page_is_no_hub(self):
        self.hub.fault("body", on="info", body="<html>Sign in</html>")
        self.assertIn("HF_ENDPOINT", self.assert_fails(
            "listing", lambda: self.start().list(self.hub, "acme/tiny")).remedy)

    def test_compressed_and_endless_answers(self):
        for fault in ({"kind": "headers", "set": {"Content-Encoding": "gzip"}},
                      {"kind": "endless", "what": "lines"}, {"kind": "endless", "what": "line"}):
            with self.subTest(**fault):
                self.hub.clear_faults()
                self.hub.fault(on="info", times=None, **fault)
                fetch = self.start("--tries=2")
                with self.assertRaises(Failed) as caught:
                    fetch.list(self.hub, "acme/tiny")
                self.assertIn(caught.exception.reason, ("server", "network"))

    def test_redirects_of_metadata_stay_at_the_host(self):
        for to in ("other", "plain", "loop"):
            with self.subTest(to=to):
                self.hub.clear_faults()
                self.hub.fault("redirect", on="info", to=to, times=None)
                fetch = self.start("--tries=2")
                self.assert_fails("server", lambda f=fetch: f.list(self.hub, "acme/tiny", token=TOKEN))
        self.assertEqual(self.hub.token_origins(), {"hub"})
        self.assertEqual(self.hub.requests(origin="other"), [])
        self.assertEqual(self.hub.requests(origin="plain"), [])


def peak_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


class FetchFiles(FetchTest):
    def test_files_of_all_sizes(self):
        fetch = self.start()
        for name, data in self.files_of_repo.items():
            with self.subTest(name=name):
                body, target = self.assert_brings(name, fetch)
                self.assertEqual(body["size"], len(data))
                self.assertEqual(body["received"], len(data))
                self.assertEqual(target.prefixes, sorted(target.prefixes))

    def test_of_a_hub_without_the_cache_of_small_files(self):
        self.hub.resolve_cache = False
        self.addCleanup(setattr, self.hub, "resolve_cache", True)
        self.assert_brings("config.json")

    def test_a_large_file_comes_in_parts_over_several_connections(self):
        self.assert_brings(fetch=self.start("--connections=4"))
        parts = self.hub.requests(purpose="data")
        self.assertGreater(len({r["connection"] for r in parts}), 1)
        self.assertLessEqual(len({r["connection"] for r in parts}), 4)
        self.assertEqual(sum(r["sent"] for r in parts), self.SIZE)
        self.assertTrue(all(r["range"] for r in parts))

    def test_several_files_at_once(self):
        fetch = self.start()
        targets = [self.target(name) for name in self.files_of_repo]
        requests = [target.start(fetch) for target in targets]
        for target, request in zip(targets, requests):
            target.finish(fetch, request)
            self.assert_whole(target)

    def test_a_small_window_holds(self):
        _, target = self.assert_brings(window=MIB)
        for name in (target.data_path, target.journal_path):
            self.assertTrue(os.path.exists(name))

    def test_nothing_is_written_beyond_the_grant(self):
        limit = 3 * MIB
        target = self.target("model.safetensors", limit=limit)
        fetch = self.start()
        request = target.start(fetch)
        while not target.prefixes or target.prefixes[-1] < limit:
            target.note(fetch.next_event(request))
        time.sleep(0.2)
        self.assertEqual(target.prefixes[-1], limit)
        data = target.data
        self.assertEqual(data[:limit], self.weights[:limit])
        self.assertEqual(data[limit:].count(0), len(data) - limit)
        fetch.send({"type": "grant", "id": request, "limit": 5 * MIB})
        while target.prefixes[-1] < 5 * MIB:
            target.note(fetch.next_event(request))
        fetch.send({"type": "grant", "id": request, "limit": self.SIZE})
        target.finish(fetch, request)
        self.assert_whole(target)

    def test_the_daemon_may_punch_holes_behind_the_prefix(self):
        target = self.target("model.safetensors", window=2 * MIB)
        fetch = self.start("--limit-rate=30M")
        request = target.start(fetch)
        punched = 0
        for event in fetch.events_of(request):
            target.note(event)
            if event["event"] == "progress" and event["body"]["prefix"] > punched:
                prefix = event["body"]["prefix"]
                with open(target.data_path, "rb") as file:
                    file.seek(punched)
                    self.assertEqual(file.read(prefix - punched), self.weights[punched:prefix])
                subprocess.run(["fallocate", "-p", "-o", str(punched), "-l", str(prefix - punched),
                                target.data_path], check=True)
                punched = prefix
        self.assertEqual(punched, self.SIZE)

    def test_cancelled_and_gone_on_with(self):
        target = self.target("model.safetensors")
        fetch = self.start("--limit-rate=8M")
        request = target.start(fetch)
        while not target.prefixes or target.prefixes[-1] < MIB:
            target.note(fetch.next_event(request))
        fetch.send({"type": "cancel", "id": request})
        failed = self.assert_fails("cancelled", lambda: target.finish(fetch, request))
        self.assertTrue(failed.resumable)
        fetch.send({"type": "settings", "limit_rate": 0})
        # The program's own limit stays; another program has none.
        body = target.fetch(self.start())
        self.assert_whole(target)
        self.assertLessEqual(body["received"], self.SIZE * 1.05)

    def test_a_limit_of_rate_holds(self):
        fetch = self.start("--limit-rate=6M")
        start = time.monotonic()
        self.assert_brings(fetch=fetch)
        seconds = time.monotonic() - start
        self.assertGreater(seconds, self.SIZE / (6 * MIB) * 0.85)
        self.assertLess(seconds, self.SIZE / (6 * MIB) * 1.5 * harness.SLOWNESS)

    def test_what_is_formed_wrongly(self):
        fetch = self.start()
        good = self.target("config.json")
        for change in ({"window": 0}, {"sha256": "x"}, {"git_sha1": ""}, {"sha256": "a" * 64},
                       {"size": 1 << 60}, {"name": "../x"}, {"revision": "main"}):
            target = self.target("config.json")
            target.params.update(change)
            with self.subTest(**change):
                self.assert_fails("usage", lambda t=target: t.fetch(fetch))
        self.assert_fails("usage", lambda: list(
            fetch.events_of(fetch.request("file", good.params))))
        with open(os.devnull, "rb") as null, open(self.path("x"), "wb+") as file:
            for pair in ([null, file], [file, null], [file, file], [file]):
                request = fetch.request("file", good.params, [f.fileno() for f in pair])
                self.assert_fails("usage", lambda r=request: list(fetch.events_of(r)))
        self.assert_brings("config.json", fetch)

    def test_what_is_not_there(self):
        fetch = self.start()
        target = self.target("config.json")
        target.params["name"] = "none.json"
        self.assert_fails("no_file", lambda: target.fetch(fetch))
        self.hub.add_repo("acme/gated", self.files_of_repo, gated="auto")
        self.hub.add_token("hf_stranger")
        for token, remedy in (("", "set HF_TOKEN"), ("hf_stranger", "accept its terms")):
            target = self.target("config.json")
            target.params.update(repository="acme/gated", token=token)
            self.assertIn(remedy, self.assert_fails("gated", lambda t=target: t.fetch(fetch)).remedy)
        target = self.target("config.json")
        target.params.update(repository="acme/gated", token=TOKEN)
        target.fetch(fetch)
        self.assert_whole(target)

    def test_ranges_are_read(self):
        fetch = self.start()
        name, size = "model.safetensors", self.SIZE
        read = lambda offset, length, **more: fetch.read(  # noqa: E731
            self.hub, "acme/tiny", self.commit, name, offset, length, **more)
        self.assertEqual(read(0, 8), self.weights[:8])
        self.assertEqual(read(8, 3 * MIB, size=size), self.weights[8:8 + 3 * MIB])
        self.assertEqual(read(size - 5, 100), self.weights[-5:])
        self.assertEqual(read(size, 100), b"")
        self.assert_fails("usage", lambda: read(0, 0))
        self.assert_fails("usage", lambda: read(0, 100_000_100))
        self.assert_fails("changed", lambda: read(0, 8, size=size + 1))
        self.hub.fault("no-range")
        self.assertEqual(read(1000, 100000), self.weights[1000:101000])
        self.hub.fault("cut", after=100000)
        self.assertEqual(read(5, MIB), self.weights[5:5 + MIB])


class FaultTest(FetchTest):
    """Each fault once or a few times: the file arrives, and no byte of it is wrong."""

    SIZE = 6 * MIB + 4567

    def brings_in_spite_of(self, most=1.5, times=1, **fault):
        with self.subTest(**fault):
            self.hub.clear_faults()
            set_fault = self.hub.fault(times=times, **fault)
            body, _ = self.assert_brings(folder=self.new_folder(),
                                         fetch=self.start("--stall-timeout=2s"))
            self.assertGreater(set_fault.hits, 0)
            self.assertLessEqual(body["received"], self.SIZE * most)

    def new_folder(self):
        folder = self.path(str(len(os.listdir(self.folder))))
        os.mkdir(folder)
        return folder


class FetchBreaks(FaultTest):
    """Connections and servers that fail for a while."""

    def test_cuts(self):
        for how in ("reset", "close", "drop"):
            self.brings_in_spite_of(kind="cut", after=200_000, how=how, times=5)
            self.brings_in_spite_of(kind="cut", after=0, how=how, times=3)

    def test_cuts_of_every_answer(self):
        self.brings_in_spite_of(kind="cut", after=700_000, times=None, most=1.05)

    def test_refusals_that_pass(self):
        for status in (429, 500, 502, 503, 504, 408):
            self.brings_in_spite_of(kind="status", on="data", status=status, times=2)
            self.brings_in_spite_of(kind="status", on="resolve", status=status, times=2)

    def test_a_server_that_asks_to_wait(self):
        for options in ({"retry_after": 1}, {"retry_after": 2, "http_date": True},
                        {"rate_limit": 1}):
            start = time.monotonic()
            self.brings_in_spite_of(kind="status", on="resolve", status=429, **options)
            # A date has whole seconds.
            self.assertGreater(time.monotonic() - start, 0.9)

    def test_stalls_and_drips(self):
        self.brings_in_spite_of(kind="stall", after=100_000)
        self.brings_in_spite_of(kind="drip", rate=500)
        self.brings_in_spite_of(kind="delay", on="resolve", seconds=0.5)

    def test_a_slow_connection_shares_what_it_has_to_bring(self):
        # Alone it would take 15 seconds for its piece.
        drip = self.hub.fault("drip", rate=50_000)
        start = time.monotonic()
        self.assert_brings()
        self.assertEqual(drip.hits, 1)
        self.assertLess(time.monotonic() - start, 10 * harness.SLOWNESS)

    def test_connections_that_are_refused(self):
        self.brings_in_spite_of(kind="refuse", origin="cdn", times=2)
        self.brings_in_spite_of(kind="refuse", origin="hub", times=1)


class FetchAnswers(FaultTest):
    """Answers that are wrong, odd, or about something else."""

    def test_no_ranges(self):
        self.brings_in_spite_of(kind="no-range", times=None, most=1)
        self.brings_in_spite_of(kind="no-range", skip=1, most=2)
        self.brings_in_spite_of(kind="no-range", skip=2, times=None, most=2.5)

    def test_no_ranges_in_a_small_window(self):
        self.hub.fault("no-range", times=None)
        body, _ = self.assert_brings(window=MIB)
        self.assertEqual(body["received"], self.SIZE)

    def test_no_ranges_goes_on_with_what_is_there(self):
        target = self.target("model.safetensors", limit=3 * MIB)
        fetch = self.start()
        request = target.start(fetch)
        while not target.prefixes or target.prefixes[-1] < 3 * MIB:
            target.note(fetch.next_event(request))
        fetch.kill()
        del target.params["limit"]
        self.hub.fault("no-range", times=None)
        target.fetch(self.start())
        self.assert_whole(target)
        self.assertGreaterEqual(min(target.prefixes[-3:]), 3 * MIB)

    def test_wrong_places_and_lengths(self):
        for fault in ({"kind": "range", "shift": 1}, {"kind": "range", "shift": -1, "skip": 1},
                      {"kind": "range", "total": 17}, {"kind": "range", "value": "bytes 0-1/2"},
                      {"kind": "range", "value": "nonsense"}, {"kind": "length", "by": 10},
                      {"kind": "length", "by": -10}, {"kind": "length", "by": 10, "surplus": True},
                      {"kind": "gzip"}, {"kind": "headers", "on": "data", "remove": ["Content-Range"]}):
            self.brings_in_spite_of(**fault)

    def test_other_forms_of_http(self):
        self.brings_in_spite_of(kind="chunked", times=None, most=1)
        self.brings_in_spite_of(kind="http10", times=None, most=1)

    def test_addresses_that_expire(self):
        self.brings_in_spite_of(kind="expire", times=1)
        target = self.target("model.safetensors", limit=3 * MIB)
        fetch = self.start()
        request = target.start(fetch)
        while not target.prefixes or target.prefixes[-1] < 3 * MIB:
            target.note(fetch.next_event(request))
        self.hub.expire_urls()
        fetch.send({"type": "grant", "id": request, "limit": self.SIZE})
        target.finish(fetch, request)
        self.assert_whole(target)

    def test_redirects_of_data(self):
        self.hub.fault("redirect", on="resolve", to="other", method="HEAD")
        self.brings_in_spite_of(kind="redirect", on="data", origin="cdn", to="other", times=1)

    def test_decompression_bombs(self):
        # CVE-2024-12886
        self.hub.fault("gzip", bomb=1 << 30, times=None)
        fetch = self.start("--tries=2")
        failed = self.assert_fails("server", lambda: self.target("model.safetensors").fetch(fetch))
        self.assertIn("encoded", failed.message)
        if not harness.SANITIZED:
            self.assertLess(peak_bytes(fetch.process.pid), 64 * MIB)

    def test_what_never_works_ends_and_can_be_gone_on_with(self):
        for reason, fault in (("server", {"kind": "status", "on": "data", "status": 503}),
                              ("network", {"kind": "cut", "after": 0}),
                              ("network", {"kind": "refuse", "origin": "cdn"}),
                              ("server", {"kind": "redirect", "on": "data", "to": "loop"}),
                              ("server", {"kind": "expire"}),
                              ("server", {"kind": "range", "shift": 65536})):
            with self.subTest(**fault):
                self.hub.clear_faults()
                self.hub.fault(times=None, **fault)
                target = self.target("model.safetensors", self.new_folder())
                failed = self.assert_fails(reason, lambda t=target: t.fetch(
                    self.start("--tries=3")))
                self.assertTrue(failed.resumable)
                self.assertIn("gave up after", failed.message)
                self.assertNotIn("Signature", failed.message)
                self.hub.clear_faults()
                target.fetch(self.start())
                self.assert_whole(target)

    def test_a_wrong_byte_in_a_large_file(self):
        flip = self.hub.fault("flip", at=1000)
        target = self.target("model.safetensors")
        fetch = self.start()
        failed = self.assert_fails("hash", lambda: target.fetch(fetch))
        self.assertIn(hashlib.sha256(self.weights).hexdigest(), failed.message)
        self.assertFalse(failed.resumable)
        # Nothing is left of it.
        self.assertEqual(flip.hits, 1)
        target.fetch(fetch)
        self.assert_whole(target)

    def test_a_wrong_byte_in_a_small_file(self):
        flip = self.hub.fault("flip", path="config.json")
        _, target = self.assert_brings("config.json")
        self.assertEqual(flip.hits, 1)
        self.assertIn(0, target.prefixes)
        self.hub.fault("flip", path="config.json", times=None)
        failed = self.assert_fails("hash", lambda: self.target(
            "config.json", self.new_folder()).fetch(self.start()))
        self.assertIn("config.json", failed.message)

    def test_a_file_that_is_another_one(self):
        for headers in ({"X-Linked-Size": "7"}, {"X-Linked-ETag": '"' + "a" * 64 + '"'},
                        {"X-Repo-Commit": "a" * 40}):
            with self.subTest(headers=headers):
                self.hub.fault("headers", on="resolve", set=headers)
                self.assert_fails("changed", lambda: self.target(
                    "model.safetensors", self.new_folder()).fetch(self.start()))
        self.hub.fault("headers", on="resolve", remove=["X-Repo-Commit"])
        self.assert_fails("server", lambda: self.target(
            "model.safetensors", self.new_folder()).fetch(self.start()))


class Proxy:
    """A proxy for CONNECT, which keeps what it was told."""

    def __init__(self):
        self.heads = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += peer.recv(1)
        self.heads.append(head)
        host, _, port = head.split()[1].decode().rpartition(":")
        server = socket.create_connection((host, int(port)))
        peer.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        threading.Thread(target=self.pump, args=(server, peer), daemon=True).start()
        self.pump(peer, server)

    @staticmethod
    def pump(source, target):
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class FetchTokens(FetchTest):
    SIZE = 2 * MIB

    def test_the_token_goes_to_the_hub_alone(self):
        # CVE-2025-51471
        fetch = self.start()
        for fault in (None, {"kind": "redirect", "on": "data", "to": "other"},
                      {"kind": "redirect", "on": "resolve", "to": "other"},
                      {"kind": "redirect", "on": "resolve", "to": "plain"},
                      {"kind": "redirect", "on": "data", "origin": "cdn", "to": "hub"},
                      {"kind": "expire"}):
            if fault:
                self.hub.fault(**fault)
            folder = self.path(str(len(os.listdir(self.folder))))
            os.mkdir(folder)
            try:
                self.target("model.safetensors", folder, token=TOKEN).fetch(fetch)
            except Failed as failed:
                self.assertNotIn(TOKEN, failed.message + failed.remedy)
        self.assertEqual(self.hub.token_origins(), {"hub"})
        self.assertEqual(self.hub.requests(origin="plain"), [])

    def test_the_token_is_not_to_be_seen(self):
        fetch = self.start("--log-level=debug", env={"HF_TOKEN": TOKEN})
        self.assert_fails("unauthorized", lambda: fetch.list(self.hub, "acme/tiny", token="hf_wrong"))
        self.target("model.safetensors", token=TOKEN).fetch(fetch)
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{fetch.process.pid}/{name}", "rb") as file:
                    content = file.read()
            except PermissionError:  # it may not be traced: better still
                continue
            if name == "cmdline":
                self.assertNotIn(TOKEN.encode(), content)
        log = fetch.close()
        self.assertNotIn(TOKEN, log)
        self.assertNotIn("hf_wrong", log)

    def test_the_programs_own_token(self):
        credentials = self.path("credentials")
        os.mkdir(credentials)
        with open(os.path.join(credentials, "hf-token"), "w", encoding="ascii") as file:
            file.write(TOKEN + "\n")
        self.hub.add_repo("acme/private", {"a": b"1"}, private=True)
        env = {"CREDENTIALS_DIRECTORY": credentials}
        mine = self.start(f"--endpoint={self.hub.url}/", env=env)
        self.assertEqual(list(mine.list(self.hub, "acme/private", own_token=True)[1]), ["a"])
        self.assert_fails("no_repository", lambda: mine.list(self.hub, "acme/private"))
        # Where the administrator did not name the endpoint, it does not go there.
        for fetch in (self.start("--endpoint=https://hub.example", env=env), self.start(env=env),
                      self.start(f"--endpoint={self.hub.url}")):
            self.hub.forget_requests()
            failed = self.assert_fails("usage", lambda f=fetch: f.list(
                self.hub, "acme/private", own_token=True))
            self.assertEqual(failed.code, "no_permission")
            self.assertEqual(self.hub.requests(), [])

    def test_without_encryption_only_to_this_machine(self):
        with Hub(tls=False) as plain:
            commit = plain.add_repo("acme/tiny", self.files_of_repo)
            plain.add_token(TOKEN, read=["*"])
            fetch = self.start(env={"http_proxy": "http://127.0.0.1:1"})
            self.assertEqual(fetch.list(plain, "acme/tiny", token=TOKEN)[0]["commit"], commit)
        self.assert_fails("usage", lambda: self.start().list("http://hub.invalid", "a/b", token=TOKEN))

    def test_a_proxy_gets_no_token(self):
        with Proxy() as proxy:
            fetch = self.start(env={"https_proxy": proxy.url})
            self.target("model.safetensors", token=TOKEN).fetch(fetch)
            fetch.list(self.hub, "acme/tiny", token=TOKEN)
        self.assertGreater(len(proxy.heads), 1)
        for head in proxy.heads:
            self.assertTrue(head.startswith(b"CONNECT "), head)
            self.assertNotIn(TOKEN.encode(), head)
        self.assertEqual(self.hub.token_origins(), {"hub"})

    def test_certificates_are_verified(self):
        for name in ("other-ca", "self-signed", "wrong-host", "expired", "not-yet"):
            for origin in ("hub", "cdn"):
                with self.subTest(name=name, origin=origin):
                    self.hub.clear_faults()
                    self.hub.fault("certificate", name=name, origin=origin, times=None)
                    failed = self.assert_fails("tls", lambda: self.target(
                        "model.safetensors").fetch(self.start()))
                    self.assertIn("certificates", failed.remedy)
        self.hub.clear_faults()
        # And not without the authority of the hub.
        with Fetch(None) as fetch:
            self.assert_fails("tls", lambda: fetch.list(self.hub, "acme/tiny"))
        with Fetch(None, env={"SSL_CERT_FILE": self.hub.ca}) as fetch:
            self.assertEqual(fetch.list(self.hub, "acme/tiny")[0]["commit"], self.commit)


class FetchResume(FetchTest):
    """kill -9 at random points."""

    SIZE = 24 * MIB + 4321

    def test_killed_at_random_points(self):
        kills = 100 if not harness.SANITIZED else 20
        chance = random.Random(5)
        target = self.target("model.safetensors", window=8 * MIB)
        done = None
        killed = 0
        # The rate of each connection keeps what is on its way small, and lets 100 runs see the file.
        self.hub.limit(rate_each=2_000_000)
        self.addCleanup(self.hub.limit)
        seen = 0
        while done is None:
            fetch = Fetch(self.hub, "--connections=6")
            request = target.start(fetch)
            if killed < kills:
                time.sleep(chance.uniform(0.005, 0.06) * harness.SLOWNESS)
                fetch.kill()
                killed += 1
                continue
            self.hub.limit()
            done = target.finish(fetch, request)
            seen = min(target.prefixes)
            self.end(fetch)
        self.assert_whole(target)
        self.assertGreater(seen, 0)
        self.assertLessEqual(done["received"], self.SIZE * 1.05)
        # What the hub sent, with what was in the kernel's buffers at each of the kills.
        self.assertLessEqual(self.hub.bytes_sent(purpose="data"), self.SIZE * 1.05 + kills * 6 * BLOCK)

    def test_killed_while_the_prefix_is_consumed(self):
        target = self.target("model.safetensors", window=4 * MIB)
        punched = 0
        copy = bytearray()
        chance = random.Random(6)
        for run in range(50):
            fetch = Fetch(self.hub)
            request = target.start(fetch)
            end = time.monotonic() + (chance.uniform(0.01, 0.05) if run < 15 else 60)
            try:
                while time.monotonic() < end:
                    event = fetch.next_event(request)
                    self.assertNotEqual(event["event"], "error", event)
                    if event["event"] == "progress" and event["body"]["prefix"] > punched:
                        prefix = event["body"]["prefix"]
                        with open(target.data_path, "rb+") as file:
                            file.seek(punched)
                            copy += file.read(prefix - punched)
                            file.seek(punched)
                            file.write(bytes(prefix - punched))  # as a hole is read
                        punched = prefix
                    if event["event"] == "done":
                        self.assertEqual(bytes(copy), self.weights)
                        self.end(fetch)
                        return
            finally:
                if fetch.process.poll() is None:
                    fetch.kill()
        self.fail("it did not end")

    def test_after_a_stop_of_the_machine_only_what_was_synced_counts(self):
        target = self.target("model.safetensors", limit=20 * MIB)
        with Fetch(self.hub) as fetch:
            request = target.start(fetch)
            while not target.prefixes or target.prefixes[-1] < 20 * MIB:
                target.note(fetch.next_event(request))
        # As if another kernel were running: the boot's id, and the checksum behind it.
        with open(target.journal_path, "rb+") as file:
            head = bytearray(file.read(152))
            head[128:144] = os.urandom(16)
            head[144:152] = hashlib.sha256(head[:144]).digest()[:8]
            file.seek(0)
            file.write(head)
        # What was not synced is lost.
        with open(target.data_path, "rb+") as file:
            file.truncate(0)
            file.truncate(self.SIZE)
        del target.params["limit"]
        target.prefixes.clear()
        target.fetch(self.start())
        self.assertEqual(target.prefixes[0], 0)
        self.assert_whole(target)

    def test_any_journal_is_borne(self):
        chance = random.Random(8)
        target = self.target("model.safetensors", limit=2 * MIB)
        with Fetch(self.hub) as fetch:
            request = target.start(fetch)
            while not target.prefixes or target.prefixes[-1] < 2 * MIB:
                target.note(fetch.next_event(request))
        with open(target.journal_path, "rb") as file:
            good = file.read()
        target.params["limit"] = MIB  # nothing more is fetched, if it goes on
        fetch = self.start()
        for _ in range(40):
            bad = bytearray(good)
            for _ in range(chance.randrange(1, 4)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            if chance.random() < 0.2:
                bad = bad[:chance.randrange(len(bad))]
            with open(target.journal_path, "wb") as file:
                file.write(bad)
            request = target.start(fetch)
            event = fetch.next_event(request)
            self.assertEqual(event["event"], "progress", event)
            fetch.send({"type": "cancel", "id": request})
            self.assert_fails("cancelled", lambda r=request: list(fetch.events_of(r)))

    def test_another_file_begins_anew(self):
        target = self.target("config.json")
        target.fetch(self.start())
        other = self.target("model.safetensors")
        other.data_path, other.journal_path = target.data_path, target.journal_path
        other.fetch(self.start())
        self.assert_whole(other)

    def test_a_whole_file_is_not_fetched_again(self):
        target = self.target("model.safetensors")
        target.fetch(self.start())
        self.hub.forget_requests()
        done = target.fetch(self.start())
        self.assertEqual(self.hub.requests(), [])
        self.assertEqual(done["received"], self.SIZE)


class FetchProcess(FetchTest):
    SIZE = 3 * MIB

    def test_a_full_disk_is_told_and_gone_on_from(self):
        folder = self.path("full")
        os.mkdir(folder)
        if not harness.IS_ROOT or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=False,
                stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("cannot mount a small file system")
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=True)
        target = self.target("model.safetensors", folder)
        fetch = self.start()
        failed = self.assert_fails("disk_full", lambda: target.fetch(fetch))
        self.assertTrue(failed.resumable)
        self.assertEqual(failed.code, "io")
        self.assertRegex(failed.message, "No space left.*free.*to come")
        subprocess.run(["mount", "-o", "remount,size=8m", folder], check=True)
        done = target.fetch(fetch)
        self.assert_whole(target)
        self.assertLessEqual(done["received"], self.SIZE * 1.5)

    def test_it_ends_with_its_daemon(self):
        self.hub.fault("stall", after=1000, times=None)
        fetch = Fetch(self.hub)
        self.target("model.safetensors").start(fetch)
        time.sleep(0.2)
        start = time.monotonic()
        fetch.close()
        self.assertLess(time.monotonic() - start, 1 * harness.SLOWNESS)
        self.assertEqual(fetch.process.returncode, 0)

    def test_it_holds_nothing_but_its_socket(self):
        fetch = self.start()
        fetch.list(self.hub, "acme/tiny")
        folder = f"/proc/{fetch.process.pid}/fd"
        try:
            links = {n: os.readlink(os.path.join(folder, n)) for n in os.listdir(folder)}
        except PermissionError:
            self.skipTest("only root may look")
        for number, link in links.items():
            if int(number) > 2:
                self.assertRegex(link, r"^(socket:|anon_inode:|pipe:)", links)
        with open(f"/proc/{fetch.process.pid}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        self.assertEqual(status["NoNewPrivs"], "1")
        with open(f"/proc/{fetch.process.pid}/limits", encoding="ascii") as file:
            core = next(line for line in file if line.startswith("Max core file size"))
        self.assertEqual(core.split()[4:6], ["0", "0"])

    def test_memory_is_bounded(self):
        fetch = self.start()
        self.target("model.safetensors").fetch(fetch)
        if not harness.SANITIZED:
            self.assertLess(peak_bytes(fetch.process.pid), 48 * MIB)

    def test_frames_that_are_wrong(self):
        for raw in (struct.pack("<I", 0), struct.pack("<I", 1 << 30), b"\x01\0\0\0\xc1",
                    frame_of({"type": "grant", "id": 1, "limit": 1}),
                    frame_of({**HELLO, "version": 2}), frame_of(HELLO) * 2,
                    frame_of(HELLO) + frame_of({"type": "request", "id": 0, "method": "read"}),
                    frame_of(HELLO) + frame_of({"type": "settings", "connections": 0})):
            fetch = Fetch(self.hub, hello=False)
            fetch.socket.sendall(raw)
            event = fetch.receive()
            if event["type"] == "hello":
                event = fetch.receive()
            self.assertEqual((event["id"], event["event"]), (0, "error"))
            self.assertEqual(event["body"]["reason"], "protocol")
            fetch.close()
            self.assertEqual(fetch.process.returncode, 76)

    def test_descriptors_that_nobody_asked_for_are_closed(self):
        fetch = self.start()
        with open(self.path("x"), "wb+") as file:
            for _ in range(50):
                fetch.send({"type": "grant", "id": 99, "limit": 1}, [file.fileno()] * 60)
            fetch.list(self.hub, "acme/tiny")
        folder = f"/proc/{fetch.process.pid}/fd"
        if os.access(folder, os.R_OK):
            self.assertLess(len(os.listdir(folder)), 30)

    def test_many_requests_are_bounded(self):
        self.hub.fault("stall", on="info", times=None, after=0)
        fetch = self.start()
        requests = [fetch.request("repository", {"endpoint": self.hub.url, "revision": "main",
                                                 "repository": "acme/tiny"}) for _ in range(65)]
        self.assert_fails("busy", lambda: list(fetch.events_of(requests[-1])))

    def test_the_command_line(self):
        def run(*arguments, **more):
            return subprocess.run([fetch_peer.FETCH, *arguments], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False,
                                  timeout=20 * harness.SLOWNESS, **more)
        self.assertIn(b"airllm-fetch 0", run("--version").stdout)
        self.assertIn(b"--socket-fd", run("--help").stdout)
        for arguments in ([], ["--socket-fd=0"], ["--socket-fd=99"], ["--unknown"],
                          ["--connections=0"]):
            self.assertEqual(run(*arguments).returncode, 64, arguments)

    def test_a_socket_of_the_service_manager(self):
        path = self.path("s")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            number = listener.fileno()
            process = subprocess.Popen(
                ["bash", "-c", f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" 3<&{number}', fetch_peer.FETCH],
                pass_fds=[number], stdin=subprocess.DEVNULL)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20 * harness.SLOWNESS)
            connection.connect(path)
            connection.sendall(frame_of(HELLO))
            self.assertIn(b"airllm-fetch", connection.recv(4096))
        self.assertEqual(process.wait(20 * harness.SLOWNESS), 0)


if __name__ == "__main__":
    harness.main()
