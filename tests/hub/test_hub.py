"""The stand-in hub itself: what it says when all is well, and that faults are those asked for."""

import contextlib
import datetime
import email.utils
import gzip
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))
from hub import (HOSTILE_LISTINGS, HOSTILE_NAMES,  # pylint: disable=wrong-import-position
                 Hub, ManyFiles, Zeros, hostile_listing, protocol, repos)

WEIGHTS = bytes(range(256)) * 1000
SMALL = b'{"model_type": "llama"}\n'
MODEL = "/acme/tiny/resolve/main/model.safetensors"
INFO = "/api/models/acme/tiny"


def blob_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def bearer(token):
    return {"authorization": f"Bearer {token}"}


class Response:
    """An answer that came to its end, or the part of one that did not (then with `broken`)."""

    def __init__(self, status, headers, body, broken=None):
        self.status, self.headers, self.body, self.broken = status, headers, body, broken

    @property
    def json(self):
        return json.loads(self.body)


class HubTest(unittest.TestCase):
    """One stand-in for the tests of a class."""

    options = {"tls": False}

    @classmethod
    def setUpClass(cls):
        cls.hub = cls.enterClassContext(Hub(**cls.options))
        cls.sha = cls.hub.add_repo("acme/tiny", {
            "config.json": SMALL, "model.safetensors": WEIGHTS, "sub/notes.txt": b"notes\n",
            "empty.txt": b""})

    def setUp(self):
        self.hub.clear_faults()
        self.hub.forget_requests()

    def connect(self, url, timeout=30):
        split = urllib.parse.urlsplit(url)
        if split.scheme == "https":
            context = ssl.create_default_context(cafile=self.hub.ca)
            return http.client.HTTPSConnection(split.hostname, split.port, timeout=timeout,
                                               context=context)
        return http.client.HTTPConnection(split.hostname, split.port, timeout=timeout)

    def ask(self, url, method="GET", timeout=30, **headers):
        """One request on a connection of its own; redirects are not followed."""
        if url.startswith("/"):
            url = self.hub.url + url
        split = urllib.parse.urlsplit(url)
        target = split.path + ("?" + split.query if split.query else "")
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(self.connect(url, timeout)) as connection:
            connection.request(method, target, headers=names)
            answer = connection.getresponse()
            pieces, broken = [], None
            try:
                while piece := answer.read1(1 << 20):
                    pieces.append(piece)
                if answer.length:
                    broken = http.client.IncompleteRead(b"", answer.length)
            except (OSError, http.client.HTTPException) as problem:
                broken = problem
            return Response(answer.status, answer.headers, b"".join(pieces), broken)

    def follow(self, url, method="GET", **headers):
        """The answer behind the redirects."""
        for _ in range(10):
            answer = self.ask(url, method, **headers)
            if answer.status not in (302, 307):
                return answer
            url = urllib.parse.urljoin(self.hub.url, answer.headers["Location"])
        raise AssertionError("redirects without end")

    def file(self, name="model.safetensors", **options):
        return self.follow(f"/acme/tiny/resolve/main/{name}", **options)

    def assert_error(self, answer, status, code, message):
        self.assertEqual((answer.status, answer.headers["X-Error-Code"]), (status, code))
        self.assertIn(message, answer.headers["X-Error-Message"])
        self.assertIn(message, answer.body.decode())


class Identities(unittest.TestCase):
    """What git has for the same files."""

    FILES = {"a.d/c": b"x", "a/b.txt": b"hello\n", "config.json": b"{}"}

    def test_blobs_and_trees(self):
        listing = repos.listing_of(self.FILES)
        self.assertEqual(listing.get("a/b.txt").blob_id, "ce013625030ba8dba906f756967f9e9ca394464a")
        self.assertEqual(listing.tree_id, "0862c12ad4df3bf7bedd0cd65dc2f9e015f5560d")

    def test_a_folder_is_as_its_files(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, data in self.FILES.items():
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(data)
            self.assertEqual(repos.listing_of(folder).tree_id, repos.listing_of(self.FILES).tree_id)

    def test_large_files_are_pointers(self):
        entry = repos.listing_of({"model.safetensors": WEIGHTS}).get("model.safetensors")
        pointer = (f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256}\n"
                   f"size {len(WEIGHTS)}\n").encode()
        self.assertEqual((entry.blob_id, entry.pointer_size), (blob_id(pointer), len(pointer)))
        self.assertEqual(entry.etag, hashlib.sha256(WEIGHTS).hexdigest())

    def test_what_lfs_keeps(self):
        for name, size, kept in (
                ("a.safetensors", 1, True), ("sub/a.bin", 1, True), ("config.json", 1, False),
                ("tokenizer.json", 10_000_001, True), ("tokenizer.model", 9, True)):
            self.assertEqual(repos.is_lfs_by_default(name, size), kept, name)

    def test_ranges(self):
        for value, spans in (
                (None, None), ("bytes=0-", [(0, 10)]), ("bytes=2-4", [(2, 5)]),
                ("bytes=2-99", [(2, 10)]), ("bytes=-3", [(7, 10)]), ("bytes=-99", [(0, 10)]),
                ("bytes=10-", []), ("bytes=-0", []), ("bytes=0-1,4-5", [(0, 2), (4, 6)]),
                ("bytes=0-1,20-", [(0, 2)]), ("bytes=5-4", None), ("bytes=", None),
                ("bytes=a-b", None), ("lines=1-2", None), ("bytes=1-2-3", None)):
            self.assertEqual(protocol.ranges(value, 10), spans, value)


class Listings(HubTest):
    def test_information(self):
        for path in (INFO, f"{INFO}/revision/main", f"{INFO}/revision/{self.sha}",
                     f"{INFO}/revision/{self.sha[:9]}"):
            about = self.ask(path).json
            self.assertEqual((about["id"], about["sha"], about["private"], about["gated"]),
                             ("acme/tiny", self.sha, False, False))
            self.assertEqual(about["siblings"][0], {"rfilename": "config.json"})
        about = self.ask("/api/models/acme/tiny?blobs=true").json
        large = next(s for s in about["siblings"] if s["rfilename"] == "model.safetensors")
        self.assertEqual(large["lfs"]["sha256"], hashlib.sha256(WEIGHTS).hexdigest())
        self.assertEqual((large["size"], large["lfs"]["size"]), (len(WEIGHTS), len(WEIGHTS)))

    def test_tree_in_pages(self):
        self.hub.add_repo("acme/many", {f"d{i}/f": b"" for i in range(25)})
        url, paths, pages = "/api/models/acme/many/tree/main?recursive=true&limit=20", [], 0
        while url:
            answer = self.ask(url)
            paths += [entry["path"] for entry in answer.json]
            link = answer.headers["Link"]
            url, pages = link and link.partition(">")[0].removeprefix("<"), pages + 1
        self.assertEqual((pages, len(set(paths)), len(paths)), (3, 50, 50))

    def test_tree_of_a_folder(self):
        top = self.ask("/api/models/acme/tiny/tree/main").json
        self.assertEqual([(e["type"], e["path"]) for e in top][-1], ("directory", "sub"))
        below = self.ask("/api/models/acme/tiny/tree/main/sub?expand=true").json
        self.assertEqual([(e["path"], e["lastCommit"]["id"]) for e in below],
                         [("sub/notes.txt", self.sha)])
        self.assertEqual(self.ask("/api/models/acme/tiny/tree/main/none").status, 404)

    def test_a_million_files(self):
        self.hub.add_repo("acme/huge", ManyFiles(1_000_000))
        page = self.ask("/api/models/acme/huge/tree/main?recursive=true")
        self.assertEqual((len(page.json), page.json[7]["path"]), (1000, "shard-0000007.txt"))
        self.assertIn('rel="next"', page.headers["Link"])
        answer = self.follow("/acme/huge/resolve/main/shard-0999999.txt")
        self.assertEqual(answer.body, b"shard-0999999.txt\n")
        self.assertEqual(self.ask("/acme/huge/resolve/main/shard-1000000.txt").status, 404)

    def test_a_long_listing_comes_in_chunks(self):
        self.hub.add_repo("acme/long", ManyFiles(20_000))
        answer = self.ask("/api/models/acme/long?blobs=true")
        self.assertEqual(answer.headers["Transfer-Encoding"], "chunked")
        self.assertEqual(len(answer.json["siblings"]), 20_000)

    def test_commits_move(self):
        before = self.hub.add_repo("acme/moving", {"config.json": b"1"})
        after = self.hub.commit("acme/moving", {"config.json": b"2"})
        self.hub.tag("acme/moving", "v1", before)
        self.assertEqual(self.ask("/api/models/acme/moving").json["sha"], after)
        for revision, body in ((before, b"1"), ("v1", b"1"), ("main", b"2")):
            self.assertEqual(self.follow(f"/acme/moving/resolve/{revision}/config.json").body, body)
        refs = self.ask("/api/models/acme/moving/refs").json
        self.assertEqual(refs["tags"][0]["targetCommit"], before)

    def test_hostile_names_are_served_as_they_are(self):
        names = [*HOSTILE_NAMES, "config.json", "CONFIG.json", "config.json"]
        self.hub.add_repo("evil/names", [(name, b"evil") for name in names])
        for path in ("/api/models/evil/names", "/api/models/evil/names/tree/main?recursive=true"):
            shown = self.ask(path).json
            found = ([s["rfilename"] for s in shown["siblings"]] if isinstance(shown, dict)
                     else [e["path"] for e in shown if e["type"] == "file"])
            self.assertEqual(sorted(found), sorted(names))
        self.hub.resolve_cache = False
        self.addCleanup(setattr, self.hub, "resolve_cache", True)
        for name in names:
            quoted = urllib.parse.quote(name, errors="surrogateescape")
            self.assertEqual(self.ask(f"/evil/names/resolve/main/{quoted}").body, b"evil", name)

    def test_hostile_listings(self):
        good = self.ask("/api/models/acme/tiny?blobs=true").body
        for kind in HOSTILE_LISTINGS:
            body = hostile_listing(kind, good)
            self.assertNotEqual(body.encode(), good)
            self.hub.fault("body", on="info", body=body)
            self.assertEqual(self.ask(INFO).body, body.encode(), kind)

    def test_whoami(self):
        self.hub.add_token("hf_a", "alice")
        self.assertEqual(self.ask("/api/whoami-v2", **bearer("hf_a")).json["name"], "alice")
        self.assertEqual(self.ask("/api/whoami-v2").status, 401)
        self.assert_error(self.ask("/api/whoami-v2", **bearer("hf_z")), 401, None,
                          "Invalid credentials in Authorization header")


class Files(HubTest):
    def test_a_large_file_is_in_the_store(self):
        answer = self.ask(MODEL, "HEAD")
        self.assertEqual((answer.status, answer.headers["X-Repo-Commit"]), (302, self.sha))
        sha256 = hashlib.sha256(WEIGHTS).hexdigest()
        self.assertEqual((answer.headers["X-Linked-ETag"], answer.headers["X-Linked-Size"]),
                         (f'"{sha256}"', str(len(WEIGHTS))))
        self.assertTrue(answer.headers["Location"].startswith(self.hub.origins["cdn"].url))
        data = self.ask(answer.headers["Location"])
        self.assertEqual((data.status, data.body), (200, WEIGHTS))
        self.assertNotIn(sha256, data.headers["ETag"])

    def test_a_small_file_is_at_the_hub(self):
        answer = self.ask("/acme/tiny/resolve/main/config.json", "HEAD")
        self.assertEqual(answer.status, 307)
        self.assertIn("/api/resolve-cache/models/acme/tiny/", answer.headers["Location"])
        data = self.file("config.json")
        self.assertEqual((data.body, data.headers["X-Repo-Commit"]), (SMALL, self.sha))
        self.assertEqual(data.headers["ETag"], f'"{blob_id(SMALL)}"')
        self.assertEqual(self.file("empty.txt").body, b"")
        self.assertEqual(self.file("sub/notes.txt").body, b"notes\n")
        packed = self.file("config.json", accept_encoding="gzip")
        self.assertEqual(gzip.decompress(packed.body), SMALL)

    def test_ranges(self):
        size = len(WEIGHTS)
        for value, status, told, body in (
                ("bytes=10-19", 206, f"bytes 10-19/{size}", WEIGHTS[10:20]),
                (f"bytes={size - 5}-", 206, f"bytes {size - 5}-{size - 1}/{size}", WEIGHTS[-5:]),
                ("bytes=-7", 206, f"bytes {size - 7}-{size - 1}/{size}", WEIGHTS[-7:]),
                (f"bytes={size}-", 416, f"bytes */{size}", b""),
                ("bytes=0-1,4-5", 200, None, WEIGHTS), ("nonsense", 200, None, WEIGHTS)):
            answer = self.file(range=value)
            self.assertEqual((answer.status, answer.headers["Content-Range"], answer.body),
                             (status, told, body), value)

    def test_parts_of_many_ranges(self):
        self.hub.multiple_ranges = True
        self.addCleanup(setattr, self.hub, "multiple_ranges", False)
        answer = self.file(range="bytes=0-1,4-5")
        self.assertIn("multipart/byteranges", answer.headers["Content-Type"])
        self.assertIn(WEIGHTS[4:6], answer.body)

    def test_conditions(self):
        etag = self.file("config.json").headers["ETag"]
        self.assertEqual(self.file("config.json", if_none_match=etag).status, 304)
        self.assertEqual(self.file("config.json", if_match='"other"').status, 412)
        for known, status in (('"other"', 200), (etag, 206)):
            answer = self.file("config.json", if_range=known, range="bytes=0-1")
            self.assertEqual(answer.status, status)

    def test_signed_addresses(self):
        good = self.ask(MODEL, "HEAD").headers["Location"]
        self.assertEqual(self.ask(good, authorization="Bearer hf_a").status, 400)
        self.assertEqual(self.ask(good.replace("Signature=", "Signature=0")).status, 403)
        self.assertEqual(self.ask(good.partition("?")[0]).status, 403)
        self.hub.expire_urls()
        self.assertEqual(self.ask(good).status, 403)
        self.assertEqual(self.file().body, WEIGHTS)

    def test_a_terabyte_takes_no_room(self):
        self.hub.add_repo("acme/sparse", {"model.safetensors": Zeros(1 << 40)})
        part = "1000000000000-1000000000009"
        answer = self.follow("/acme/sparse/resolve/main/model.safetensors", range=f"bytes={part}")
        self.assertEqual((answer.status, answer.body), (206, bytes(10)))
        self.assertEqual(answer.headers["Content-Range"], f"bytes {part}/{1 << 40}")

    def test_renamed_and_miswritten(self):
        self.hub.add_repo("acme/old", {"config.json": SMALL})
        self.hub.rename("acme/old", "acme/new")
        for path, target in (
                ("/acme/old/resolve/main/config.json", "/acme/new/resolve/main/config.json"),
                ("/api/models/acme/old?blobs=true", "/api/models/acme/new?blobs=true"),
                ("/api/models/ACME/New", "/api/models/acme/new")):
            answer = self.ask(path)
            self.assertEqual((answer.status, answer.headers["Location"]), (307, target))

    def test_what_is_missing(self):
        self.hub.add_token("hf_a")
        self.assert_error(self.ask("/api/models/acme/none"), 401, None, "Invalid username")
        self.assert_error(self.ask("/api/models/acme/none", **bearer("hf_a")), 404, "RepoNotFound",
                          "Repository not found")
        self.assert_error(self.ask("/acme/tiny/resolve/no%0d%0ane/config.json"), 404,
                          "RevisionNotFound", "Invalid rev id")
        answer = self.ask("/acme/tiny/resolve/main/none.json")
        self.assert_error(answer, 404, "EntryNotFound", "Entry not found")
        self.assertEqual(answer.headers["X-Repo-Commit"], self.sha)
        self.assertEqual(self.ask("/nonsense").status, 404)
        self.assertEqual(self.ask(INFO, "DELETE").status, 405)

    def test_private_and_gated(self):
        files = {"config.json": SMALL}
        self.hub.add_repo("acme/private", files, private=True)
        self.hub.add_repo("acme/gated", files, gated="auto")
        self.hub.add_token("hf_in", read=["acme/private", "acme/gated"])
        self.hub.add_token("hf_out", awaiting=["acme/asked"])
        self.hub.add_token("hf_fine", read=["*"], role="fine-grained")
        self.hub.add_repo("acme/asked", files, gated="manual")
        path = "/acme/gated/resolve/main/config.json"
        self.assert_error(self.ask(path), 401, "GatedRepo", "Please log in")
        self.assert_error(self.ask(path, **bearer("hf_out")), 403, "GatedRepo", "ask for access")
        self.assert_error(self.ask(path.replace("gated", "asked"), **bearer("hf_out")), 403,
                          "GatedRepo", "awaiting a review")
        self.assert_error(self.ask(path, **bearer("hf_fine")), 403, None, "fine-grained")
        self.assertEqual(self.follow(path, **bearer("hf_in")).body, SMALL)
        self.assertEqual(self.ask("/api/models/acme/gated").json["gated"], "auto")
        path = "/api/models/acme/private"
        self.assertEqual(self.ask(path).status, 401)
        self.assertEqual(self.ask(path, **bearer("hf_out")).status, 404)
        self.assertTrue(self.ask(path, **bearer("hf_in")).json["private"])

    def test_connections_are_kept(self):
        with contextlib.closing(self.connect(self.hub.url)) as connection:
            for _ in range(3):
                connection.request("GET", INFO)
                self.assertEqual(connection.getresponse().read()[:1], b"{")
        self.assertEqual(len({r["connection"] for r in self.hub.requests()}), 1)

    def test_the_log(self):
        self.file(range="bytes=5-9", **bearer("hf_none"))
        self.file(range="bytes=5-9")
        self.assertTrue(self.hub.settle())
        first, *_, last = self.hub.requests()
        self.assertEqual((first["origin"], first["token"], first["purpose"], first["status"]),
                         ("hub", "hf_none", "resolve", 401))
        self.assertEqual((last["origin"], last["file"], last["range"]),
                         ("cdn", "model.safetensors", "bytes=5-9"))
        self.assertEqual((last["sent"], last["complete"]), (5, True))
        self.assertEqual(self.hub.token_origins(), {"hub"})
        self.assertEqual(self.hub.bytes_sent(purpose="data"), 5)


class Faults(HubTest):
    def test_cut(self):
        for how in ("reset", "close", "drop"):
            fault = self.hub.fault("cut", path="*.safetensors", after=1000, how=how, skip=1,
                                   times=2)
            self.assertEqual(self.file().body, WEIGHTS)
            for _ in range(2):
                answer = self.file()
                self.assertIsNotNone(answer.broken)
                if how != "reset":  # which may overtake what came before it
                    self.assertEqual(answer.body, WEIGHTS[:1000])
            self.assertEqual(self.file().body, WEIGHTS)
            self.assertEqual(fault.hits, 2)
        self.assertTrue(self.hub.settle())
        self.assertEqual([r["sent"] for r in self.hub.requests(complete=False)], [1000] * 6)

    def test_cut_of_a_part(self):
        self.hub.fault("cut", after=10, how="close")
        self.assertEqual(self.file(range="bytes=100-").body, WEIGHTS[100:110])

    def test_other_files_are_left_alone(self):
        self.hub.fault("cut", path="*.bin", times=None)
        self.hub.fault("status", repo="acme/other", times=None)
        self.hub.fault("status", origin="other", times=None)
        self.hub.fault("status", target="/api/datasets/*", times=None)
        self.hub.fault("status", method="PUT", times=None)
        self.assertEqual(self.file().body, WEIGHTS)

    def test_stall(self):
        self.hub.fault("stall", after=100)
        answer = self.file(timeout=1)
        self.assertIsInstance(answer.broken, TimeoutError)
        self.assertEqual(answer.body, WEIGHTS[:100])
        self.hub.fault("stall", after=100, seconds=0.2)
        start = time.monotonic()
        self.assertEqual(self.file().body, WEIGHTS)
        self.assertGreater(time.monotonic() - start, 0.2)

    def test_delay(self):
        self.hub.fault("delay", seconds=None, on="info")
        with self.assertRaises(TimeoutError):
            self.ask(INFO, timeout=0.2)

    def test_drip(self):
        self.hub.fault("drip", path="config.json", rate=100)
        start = time.monotonic()
        self.assertEqual(self.file("config.json").body, SMALL)
        self.assertGreater(time.monotonic() - start, len(SMALL) / 100 - 0.1)

    def test_flip(self):
        changed = bytearray(WEIGHTS)
        changed[5000] ^= 0xFF
        self.hub.fault("flip", at=5000)
        self.assertEqual(self.file().body, changed)
        self.hub.fault("flip", at=5000)
        self.assertEqual(self.file(range="bytes=4990-5009").body, changed[4990:5010])
        self.hub.fault("flip")
        self.assertEqual(len(self.file().body), len(WEIGHTS))

    def test_length(self):
        self.hub.fault("length", by=5)
        answer = self.file()
        self.assertEqual(answer.headers["Content-Length"], str(len(WEIGHTS) + 5))
        self.assertEqual(answer.body, WEIGHTS)
        self.assertIsNotNone(answer.broken)
        self.hub.fault("length", by=-5)
        self.assertEqual(self.file().body, WEIGHTS[:-5])
        self.hub.fault("length", by=5, surplus=True)
        self.assertEqual(self.file().body, WEIGHTS)

    def test_framing(self):
        self.hub.fault("chunked")
        answer = self.file()
        self.assertEqual((answer.headers["Content-Length"], answer.body), (None, WEIGHTS))
        self.hub.fault("chunked")
        self.hub.fault("cut", after=1000, how="close")
        self.assertIsNotNone(self.file().broken)
        self.hub.fault("http10")
        answer = self.file()
        self.assertEqual((answer.headers["Content-Length"], answer.body), (None, WEIGHTS))

    def test_gzip(self):
        self.hub.fault("gzip")
        answer = self.file()
        self.assertEqual(answer.headers["Content-Encoding"], "gzip")
        self.assertEqual(gzip.decompress(answer.body), WEIGHTS)
        self.hub.fault("gzip", path="config.json", bomb=10_000_000)
        answer = self.file("config.json")
        self.assertLess(len(answer.body), 20_000)
        self.assertEqual(len(gzip.decompress(answer.body)), 10_000_000)

    def test_no_range(self):
        self.hub.fault("no-range")
        self.assertEqual(self.file().status, 200)  # asks for none, and does not count
        answer = self.file(range="bytes=100-")
        self.assertEqual((answer.status, answer.body), (200, WEIGHTS))

    def test_wrong_range(self):
        self.hub.fault("range", shift=3)
        answer = self.file(range="bytes=10-19")
        self.assertEqual((answer.headers["Content-Range"], answer.body),
                         (f"bytes 13-22/{len(WEIGHTS)}", WEIGHTS[10:20]))
        self.hub.fault("range", value="bytes 0-1/2")
        self.assertEqual(self.file(range="bytes=10-19").headers["Content-Range"], "bytes 0-1/2")

    def test_status(self):
        self.hub.fault("status", status=429, retry_after=7, on="info")
        answer = self.ask(INFO)
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (429, "7"))
        self.hub.fault("status", status=503, retry_after=60, http_date=True)
        told = email.utils.parsedate_to_datetime(self.file().headers["Retry-After"])
        left = told - datetime.datetime.now(datetime.timezone.utc)
        self.assertTrue(50 < left.total_seconds() < 70, left)
        self.hub.fault("status", status=429, rate_limit=9)
        self.assertEqual(self.ask(INFO).headers["RateLimit"], '"resolvers";r=0;t=9')
        self.assertEqual(self.ask(INFO).status, 200)

    def test_headers(self):
        self.hub.fault("headers", on="resolve", set={"X-Linked-Size": "-1"},
                       remove=["X-Repo-Commit"])
        headers = self.ask(MODEL).headers
        self.assertEqual((headers["X-Linked-Size"], headers["X-Repo-Commit"]), ("-1", None))

    def test_redirects(self):
        for to, start in (("other", self.hub.origins["other"].url),
                          ("plain", self.hub.origins["plain"].url),
                          ("https://elsewhere.example/", "https://elsewhere.example/"),
                          ("loop", "/acme")):
            self.hub.fault("redirect", to=to, status=307)
            answer = self.ask(MODEL)
            self.assertEqual(answer.status, 307)
            self.assertEqual(answer.headers["Location"][:len(start)], start)
        self.hub.fault("redirect", on="data")  # of the store too
        self.assertEqual(self.file().body, WEIGHTS)
        self.assertEqual(len(self.hub.requests(origin="other", purpose="data")), 1)

    def test_endless_header(self):
        for what in ("lines", "line"):
            self.hub.fault("endless", what=what, on="info")
            port = self.hub.origins["hub"].port
            with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
                raw.sendall(b"GET /api/models/acme/tiny HTTP/1.1\r\nHost: x\r\n\r\n")
                got = 0
                while got < 1_000_000:
                    piece = raw.recv(65536)
                    self.assertNotIn(b"\r\n\r\n", piece)
                    got += len(piece)

    def test_expired_address(self):
        self.hub.fault("expire")
        self.assertEqual(self.file().status, 403)
        self.assertEqual(self.file().body, WEIGHTS)

    def test_a_commit_between_requests(self):
        self.hub.add_repo("acme/moving", {"a.txt": b"1", "b.txt": b"1"})
        self.hub.fault("commit", repo="acme/moving", path="b.txt",
                       source={"a.txt": b"2", "b.txt": b"2"})
        path = "/acme/moving/resolve/main/"
        commits = [self.ask(path + name, "HEAD").headers["X-Repo-Commit"]
                   for name in ("a.txt", "b.txt")]
        self.assertEqual(len(set(commits)), 2)
        self.assertEqual(self.follow("/acme/moving/resolve/main/a.txt").body, b"2")

    def test_refused_and_silent_connections(self):
        self.hub.fault("refuse", origin="hub")
        with self.assertRaises(OSError):
            self.ask(INFO)
        self.hub.fault("silent", origin="hub")
        with self.assertRaises(TimeoutError):
            self.ask(INFO, timeout=0.2)
        self.assertEqual(self.ask(INFO).status, 200)

    def test_what_is_no_fault(self):
        with self.assertRaises(ValueError):
            self.hub.fault("nonsense")
        with self.assertRaises(ValueError):
            self.hub.fault("cut", afterwards=3)


class Rates(HubTest):
    def seconds(self):
        start = time.monotonic()
        self.assertEqual(self.file().body, WEIGHTS)
        return time.monotonic() - start

    def test_a_limit_holds(self):
        for limits in ({"rate": 1_000_000}, {"rate_each": 1_000_000}):
            self.hub.limit(**limits)
            self.addCleanup(self.hub.limit)
            seconds = self.seconds()
            self.assertGreater(seconds, 0.15)
            self.assertLess(seconds, 20)


class Tls(HubTest):
    options = {"tls": True}

    def test_files(self):
        self.assertEqual(self.file().body, WEIGHTS)
        self.assertEqual(self.file("config.json", range="bytes=3-5").body, SMALL[3:6])

    def test_large_files_from_disk(self):
        with tempfile.TemporaryDirectory() as folder:
            data = os.urandom(3_000_000)
            with open(os.path.join(folder, "a.bin"), "wb") as file:
                file.write(data)
            self.hub.add_repo("acme/disk", folder)
            path = "/acme/disk/resolve/main/a.bin"
            self.assertEqual(self.follow(path).body, data)
            self.assertEqual(self.follow(path, range="bytes=1000000-").body, data[1000000:])

    def test_through_a_proxy(self):
        split = urllib.parse.urlsplit(self.hub.url)
        for target, works in ((split, True), (urllib.parse.urlsplit("https://localhost:9"), False)):
            peer = http.client.HTTPSConnection(
                "localhost", self.hub.origins["proxy"].port, timeout=30,
                context=ssl.create_default_context(cafile=self.hub.ca))
            peer.set_tunnel(target.hostname, target.port)
            with contextlib.closing(peer):
                if not works:
                    self.assertRaises(OSError, peer.request, "GET", INFO)
                    continue
                peer.request("GET", INFO)
                self.assertEqual(json.loads(peer.getresponse().read())["sha"], self.sha)
        self.assertTrue(self.hub.settle())
        self.assertEqual([(r["origin"], r["status"]) for r in self.hub.requests()],
                         [("proxy", 200), ("hub", 200), ("proxy", 502)])

    def test_wrong_certificates(self):
        for name in ("other-ca", "self-signed", "wrong-host", "expired", "not-yet"):
            self.hub.fault("certificate", name=name)
            with self.assertRaises(ssl.SSLCertVerificationError, msg=name):
                self.ask(INFO)
        self.assertEqual(self.ask(INFO).status, 200)

    def test_down_to_http(self):
        self.hub.fault("redirect", to="plain", on="resolve")
        answer = self.ask("/acme/tiny/resolve/main/config.json")
        self.assertTrue(answer.headers["Location"].startswith("http://"))
        self.assertEqual(self.follow(answer.headers["Location"]).body, SMALL)

    def test_dropped_without_the_end_of_tls(self):
        self.hub.fault("http10")
        self.hub.fault("cut", after=1000, how="drop")
        split = urllib.parse.urlsplit(self.ask(MODEL).headers["Location"])
        context = ssl.create_default_context(cafile=self.hub.ca)
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        raw = socket.create_connection((split.hostname, split.port), timeout=30)
        with raw, context.wrap_socket(raw, server_hostname=split.hostname,
                                      suppress_ragged_eofs=False) as peer:
            peer.sendall(f"GET {split.path}?{split.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            with self.assertRaises(ssl.SSLError):
                while peer.recv(65536):
                    pass

    def test_the_environment(self):
        env = self.hub.env(token="hf_a", home="/home/alice")
        self.assertEqual((env["HF_ENDPOINT"], env["HF_TOKEN"], env["HF_HOME"]),
                         (self.hub.url, "hf_a", "/home/alice/huggingface"))
        self.assertTrue(os.path.exists(env["SSL_CERT_FILE"]))


class Program(unittest.TestCase):
    """tests/hub as a program, and its control port."""

    @staticmethod
    def connection(url):
        netloc = urllib.parse.urlsplit(url).netloc
        return contextlib.closing(http.client.HTTPConnection(netloc, timeout=30))

    def control(self, url, **call):
        with self.connection(url) as peer:
            peer.request("POST", "/_control", json.dumps(call))
            answer = peer.getresponse()
            return answer.status, json.loads(answer.read())

    def test_it_serves_and_obeys(self):
        with tempfile.TemporaryDirectory() as folder:
            model, log = os.path.join(folder, "model"), os.path.join(folder, "log")
            os.mkdir(model)
            with open(os.path.join(model, "config.json"), "wb") as file:
                file.write(SMALL)
            program = subprocess.Popen(
                [sys.executable, "-B", FOLDER, "--http", "--repo", f"acme/tiny={model}",
                 "--log", log, "--gated", "acme/tiny", "--token", "hf_a=*",
                 "--fault", '{"kind": "status", "on": "info"}'],
                stdout=subprocess.PIPE, text=True)
            self.addCleanup(program.stdout.close)
            self.addCleanup(program.wait)
            self.addCleanup(program.kill)
            env = {}
            while "HUB_CONTROL" not in env:
                line = program.stdout.readline().removeprefix("export ")
                name, _, env_value = line.strip().partition("=")
                env[name] = env_value
            with self.connection(env["HF_ENDPOINT"]) as peer:
                statuses = []
                for _ in range(2):
                    peer.request("GET", INFO)
                    answer = peer.getresponse()
                    answer.read()
                    statuses.append(answer.status)
            self.assertEqual(statuses, [503, 200])
            control = env["HUB_CONTROL"]
            self.assertEqual(self.control(control, call="fault", kind="cut", after=3)[0], 200)
            self.assertEqual(self.control(control, call="token_origins"), (200, {"result": []}))
            self.assertEqual(len(self.control(control, call="requests")[1]["result"]), 2)
            self.assertEqual(self.control(control, call="stop")[0], 400)
            program.terminate()
            self.assertEqual(program.wait(10), 0)
            with open(log, encoding="utf-8") as file:
                self.assertEqual([json.loads(line)["status"] for line in file], [503, 200])


if __name__ == "__main__":
    unittest.main(verbosity=2)
