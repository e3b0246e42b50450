"""Frames that are wrong in every way: the peer is told or cut off, and the daemon lives."""

import os
import socket
import struct
import time

import msgpack

import harness
from harness import Wire

HELLO = {"type": "hello", "version": 1, "program": "test", "features": []}
LIST = {"type": "request", "id": 1, "method": "list", "params": {}}


class Frames(harness.SharedDaemonTest):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.assert_lives, self.shared)

    def wire(self, **options):
        wire = Wire(self.shared.socket, **options)
        self.addCleanup(wire.close)
        return wire

    def assert_refused(self, *raw, hello=True):
        """The daemon answers `raw` with an error or closes; it does not wait for more."""
        wire = self.wire(hello=hello, timeout=10)
        try:
            for data in raw:
                wire.send_raw(data)
            event = wire.receive()
        except ConnectionError:
            return None
        self.assertEqual(event["event"], "error", event)
        self.assertNotEqual(event["body"]["message"], "")
        return event

    def test_hello_comes_first_and_tells_the_version(self):
        wire = self.wire()
        self.assertEqual(wire.hello["type"], "hello")
        self.assertEqual(wire.hello["version"], 1)
        self.assertEqual(wire.hello["pid"], self.shared.pid)

    def test_several_requests_on_one_connection(self):
        wire = self.wire()
        wire.send(*({**LIST, "id": n} for n in (1, 2, 3)))
        self.assertEqual(set(wire.until_ended((1, 2, 3))), {1, 2, 3})

    def test_frames_may_arrive_byte_by_byte(self):
        wire = self.wire(hello=False)
        for byte in Wire.frame(HELLO) + Wire.frame(LIST):
            wire.send_raw(bytes([byte]))
        wire.receive()
        self.assertEqual(wire.until_ended((1,))[1]["event"], "done")

    def test_too_long(self):
        for length in (2**32 - 1, (16 << 20) + 1, 2**31):
            self.assert_refused(struct.pack("<I", length))
        self.assert_refused(struct.pack("<I", 2**32 - 1), hello=False)

    def test_of_length_zero(self):
        self.assert_refused(struct.pack("<I", 0))

    def test_too_deep(self):
        for depth in (200, 100000):
            payload = b"\x81\xa1a" * depth + b"\x01"
            self.assert_refused(struct.pack("<I", len(payload)) + payload)
            payload = b"\x91" * depth + b"\xc0"
            self.assert_refused(struct.pack("<I", len(payload)) + payload)

    def test_half_a_frame(self):
        for cut in (1, 3, 4, 5, 20):
            wire = self.wire()
            wire.send_raw(Wire.frame(LIST)[:cut])
            wire.close()
            wire = self.wire(hello=False)
            wire.send_raw(Wire.frame(HELLO)[:cut])
            wire.close()

    def test_not_msgpack(self):
        for payload in (b"\xc1", b"{}", b"GET / HTTP/1.1\r\n\r\n", b"\x00", bytes(range(256)),
                        b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
                        b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01"):
            self.assert_refused(struct.pack("<I", len(payload)) + payload)
            self.assert_refused(struct.pack("<I", len(payload)) + payload, hello=False)
        self.assert_refused(b"GET / HTTP/1.1\r\n\r\n", hello=False)

    def test_trailing_bytes_after_the_map(self):
        payload = msgpack.packb(LIST) + b"\x00"
        self.assert_refused(struct.pack("<I", len(payload)) + payload)

    def test_not_a_message(self):
        for message in ([], {}, "hello", 7, None, {"type": 7}, {"type": "nonsense"},
                        {"type": "request"}, {"type": "request", "id": "x", "method": "list"},
                        {"type": "request", "id": 1, "method": "nonsense", "params": {}},
                        {"type": "request", "id": 1, "method": "list", "params": []},
                        {"type": "request", "id": 1, "method": "generate", "params": {
                            "model": 7}},
                        {"type": "request", "id": -1, "method": "list", "params": {}},
                        {"type": "event", "id": 1, "event": "done", "body": {}}):
            with self.subTest(message=str(message)):
                self.assert_refused(Wire.frame(message))

    def test_a_request_before_hello(self):
        self.assert_refused(Wire.frame(LIST), hello=False)

    def test_hello_of_another_version(self):
        for version in (0, 2, 999):
            event = self.assert_refused(Wire.frame({**HELLO, "version": version}), hello=False)
            if event is not None:
                self.assertIn("version", event["body"]["message"])

    def test_the_same_id_twice(self):
        wire = self.wire()
        request = wire.generate(1, model="demo", prompt_ids=[1, 5], ignore_eos=True, max_tokens=500,
                                sampling={})
        wire.send(request, request)
        kinds = []
        try:
            while "error" not in kinds:
                kinds.append(wire.receive()["event"])
        except ConnectionError:
            pass

    def test_cancel_of_what_does_not_run(self):
        wire = self.wire()
        wire.send({"type": "cancel", "id": 77}, LIST)
        self.assertEqual(wire.until_ended((1,))[1]["event"], "done")

    def test_files_that_nobody_asked_for(self):
        wire = self.wire()
        wire.send({"type": "files", "id": 5, "names": ["config.json"], "status": ["ok"]})
        with open("/dev/null", "rb") as file:
            frame = Wire.frame({"type": "files", "id": 5, "names": ["x"], "status": ["ok"]})
            socket.send_fds(wire.socket, [frame], [file.fileno()] * 8)
        other = self.wire()
        other.send(LIST)
        self.assertEqual(other.until_ended((1,))[1]["event"], "done")

    def test_descriptors_do_not_pile_up(self):
        def count():
            return len(os.listdir(f"/proc/{self.shared.pid}/fd"))
        before = count()
        for _ in range(10):
            wire = self.wire()
            with open("/dev/null", "rb") as file:
                socket.send_fds(wire.socket, [Wire.frame(LIST)], [file.fileno()] * 60)
            try:
                wire.until_ended((1,))
            except (ConnectionError, KeyError):
                pass
            wire.close()
        harness.wait_until(lambda: count() <= before + 3, what="descriptors to be closed")

    def test_params_out_of_range(self):
        for params in ({"prompt_ids": [1], "raw_text": "x"}, {}, {"prompt_ids": []},
                       {"prompt_ids": [2**40]}, {"prompt_ids": [-5]}, {"raw_text": "\udc80"},
                       {"prompt_ids": [1], "sampling": {"temperature": float("nan")}},
                       {"prompt_ids": [1], "sampling": {"top_k": -3}},
                       {"prompt_ids": [1], "sampling": {"repetition_penalty": 0.0}},
                       {"prompt_ids": [1], "logprobs": 2**63, "max_tokens": 1}):
            with self.subTest(params=str(params)):
                wire = self.wire()
                message = wire.generate(1, **{"model": "demo", "max_tokens": 1, **params})
                payload = msgpack.packb(message, unicode_errors="surrogateescape")
                wire.send_raw(struct.pack("<I", len(payload)) + payload)
                try:
                    ended = wire.until_ended((1,))[1]["event"]
                except (ConnectionError, KeyError):
                    continue
                # Only more logprobs than there are tokens is no mistake: all are given.
                self.assertEqual(ended, "generated" if "logprobs" in params else "error")

    def test_many_connections_at_once(self):
        wires = []
        try:
            for _ in range(200):
                wires.append(Wire(self.shared.socket, timeout=10))
        except (ConnectionError, OSError):
            pass  # a limit is fine
        self.assertGreater(len(wires), 20)
        for wire in wires:
            wire.close()
        harness.wait_until(lambda: self.shared.client("status").status == 0)


class SlowPeers(harness.EndlessDaemonTest):
    """A peer that stops reading or hangs up costs the daemon little, and its job ends."""

    def begin(self, wire, **params):
        wire.send(wire.generate(1, model="endless", prompt_ids=[1, 5], ignore_eos=True,
                                sampling={}, **params))
        while wire.receive()["event"] != "token":
            pass

    def assert_job_ends(self):
        harness.wait_until(lambda: self.shared.jobs() == [], what="the job to end")
        self.assert_lives(self.shared)

    def test_a_peer_that_stops_reading_is_cancelled(self):
        with Wire(self.shared.socket) as wire:
            before = self.shared.status_field("VmRSS")
            self.begin(wire, logprobs=3072)
            self.assert_job_ends()
            if not harness.SANITIZED:
                # The send buffer may hold 64 MiB.
                self.assertLess(self.shared.status_field("VmRSS") - before, 112 << 20)

    def test_a_peer_that_hangs_up(self):
        with Wire(self.shared.socket) as wire:
            self.begin(wire)
        self.assert_job_ends()

    def test_a_peer_that_cancels(self):
        with Wire(self.shared.socket) as wire:
            self.begin(wire)
            wire.send({"type": "cancel", "id": 1})
            start = time.monotonic()
            end = wire.until_ended((1,))[1]
            self.assertLess(time.monotonic() - start, 2 * harness.SLOWNESS)
            self.assertEqual(end["body"]["finish_reason"], "cancelled")
        self.assert_job_ends()

    def test_a_slow_reader_does_not_slow_others(self):
        with Wire(self.shared.socket) as wire:
            self.begin(wire)
            self.ok(self.shared.client("ask", "-m", "endless", "--prompt-ids", "1,2",
                                       "--max-tokens", 5, timeout=10))
        self.assert_job_ends()


if __name__ == "__main__":
    harness.main()
