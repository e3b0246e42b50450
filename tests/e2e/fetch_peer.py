"""Drives the real airllm-fetch as the daemon does: a socketpair, frames, descriptors."""

import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys

import msgpack

from harness import BIN, SLOWNESS, SOURCE

sys.path.insert(0, os.path.join(SOURCE, "tests"))  # for `import hub`

FETCH = os.path.join(BIN, "airllm-fetch")
MIB = 1 << 20
BLOCK = 64 << 10


class Failed(Exception):
    """An error event."""

    def __init__(self, body):
        super().__init__(f"{body['reason']}: {body['message']}")
        self.reason = body["reason"]
        self.code = body["code"]
        self.message = body["message"]
        self.remedy = body["remedy"]
        self.resumable = body["resumable"]


def frame_of(message):
    payload = msgpack.packb(message)
    return struct.pack("<I", len(payload)) + payload


class Fetch:
    """One airllm-fetch and its connection."""

    def __init__(self, hub=None, *options, hello=True, timeout=30, env=None, prefix=()):
        ours, theirs = socket.socketpair()
        environment = {k: v for k, v in os.environ.items()
                       if not k.upper().endswith("_PROXY") and not k.startswith(("HF_", "SSL_CERT"))}
        environment.update(env or {})
        options = list(options)
        if hub is not None and hub.ca:
            options += ["--ca-file", hub.ca]
        if not any(o.startswith("--retry-wait") for o in options):
            options.append("--retry-wait=20ms")
        self.process = subprocess.Popen(
            [*prefix, FETCH, "--socket-fd", str(theirs.fileno()), *options],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env=environment)
        theirs.close()
        self.socket = ours
        self.socket.settimeout(timeout * SLOWNESS)
        self.buffer = b""
        self.ids = 0
        self.events = []  # those that came while another request's were waited for
        self.hello = None
        if hello:
            self.send({"type": "hello", "version": 1, "program": "test", "features": []})
            self.hello = self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self, seconds=10):
        """Hangs up, and waits for the end of the process. What it logged."""
        self.socket.close()
        try:
            _, log = self.process.communicate(timeout=seconds * SLOWNESS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError("airllm-fetch did not end with its connection") from None
        return log.decode("utf-8", "replace")

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        self.socket.close()

    def send(self, message, descriptors=()):
        frame = frame_of(message)
        if descriptors:
            sent = socket.send_fds(self.socket, [frame], list(descriptors))
            frame = frame[sent:]
        self.socket.sendall(frame)

    def receive(self):
        """The next message; ConnectionError at the end."""
        while True:
            if len(self.buffer) >= 4:
                length = struct.unpack("<I", self.buffer[:4])[0]
                if len(self.buffer) >= 4 + length:
                    payload = self.buffer[4:4 + length]
                    self.buffer = self.buffer[4 + length:]
                    return msgpack.unpackb(payload)
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("airllm-fetch hung up")
            self.buffer += data

    def request(self, method, params, descriptors=()):
        self.ids += 1
        self.send({"type": "request", "id": self.ids, "method": method, "params": params},
                  descriptors)
        return self.ids

    def next_event(self, request):
        for index, event in enumerate(self.events):
            if event["id"] == request:
                return self.events.pop(index)
        while True:
            event = self.receive()
            if event["id"] == 0:
                raise Failed(event["body"])
            if event["id"] == request:
                return event
            self.events.append(event)

    def events_of(self, request):
        """The events of a request to its end, an error raised."""
        while True:
            event = self.next_event(request)
            if event["event"] == "error":
                raise Failed(event["body"])
            yield event
            if event["event"] == "done":
                return

    def list(self, hub, repository, revision="main", token="", **more):
        """(done, files by name)."""
        files = {}
        request = self.request("repository", {
            "endpoint": hub if isinstance(hub, str) else hub.url, "repository": repository,
            "revision": revision, "token": token, **more})
        for event in self.events_of(request):
            if event["event"] == "files":
                files.update({f["name"]: f for f in event["body"]["files"]})
        return event["body"], files

    def read(self, hub, repository, commit, name, offset, length, token="", **more):
        data = b""
        request = self.request("read", {
            "endpoint": hub.url, "repository": repository, "revision": commit, "token": token,
            "name": name, "offset": offset, "length": length, **more})
        for event in self.events_of(request):
            if event["event"] == "data":
                assert event["body"]["offset"] == offset + len(data), event
                data += event["body"]["data"]
        return data


class Target:
    """The two files that a download goes to, and what is asked for."""

    def __init__(self, folder, hub, repository, commit, file, token="", window=64 * MIB, **more):
        stem = os.path.join(folder, hashlib.sha1(file["name"].encode()).hexdigest()[:12])
        self.data_path, self.journal_path = stem + ".data", stem + ".journal"
        self.params = {
            "endpoint": hub if isinstance(hub, str) else hub.url, "repository": repository,
            "revision": commit, "token": token, "name": file["name"], "size": file["size"],
            "sha256": file["sha256"], "git_sha1": "" if file["sha256"] else file["git_sha1"],
            "window": window, **more}
        self.prefixes = []
        self.received = 0

    def start(self, fetch):
        descriptors = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                       for path in (self.data_path, self.journal_path)]
        try:
            return fetch.request("file", self.params, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def finish(self, fetch, request):
        for event in fetch.events_of(request):
            self.note(event)
        return event["body"]

    def note(self, event):
        if event["event"] == "progress":
            self.prefixes.append(event["body"]["prefix"])
            self.received = event["body"]["received"]

    def fetch(self, fetch):
        return self.finish(fetch, self.start(fetch))

    @property
    def data(self):
        with open(self.data_path, "rb") as file:
            return file.read()
