"""Clients that mean ill: the daemon serves the others meanwhile, and is then as it was before.

Every test prints its figures: how long a well-behaved client waits, and what the daemon holds.
"""

import contextlib
import os
import resource
import socket
import struct
import threading
import time

import msgpack

import harness
from harness import MIB, SLOWNESS, Wire

HELLO = Wire.frame({"type": "hello", "version": 1, "program": "abuse", "features": []})
LIST = {"type": "request", "id": 1, "method": "list", "params": {}}
# How long a well-behaved client may have to wait, and what may stay behind of memory.
SECONDS = 10 * SLOWNESS
SLACK_BYTES = 24 * MIB


class AbuseTest(harness.SharedDaemonTest):
    """One daemon for all tests of a class; each must leave it as it was."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        # What is allocated at the first use only.
        for _ in range(3):
            cls.serve()

    def setUp(self):
        super().setUp()
        self.sockets = []
        self.addCleanup(self.hang_up)
        self.before = self.held()

    def hang_up(self):
        for peer in self.sockets:
            peer.close()
        self.sockets.clear()

    def raw(self, greet=False):
        peer = socket.socket(socket.AF_UNIX)
        # Waits where the daemon has not accepted the ones before; with a timeout it would fail.
        peer.connect(self.shared.socket)
        peer.settimeout(20 * SLOWNESS)
        if greet:
            peer.sendall(HELLO)
        self.sockets.append(peer)
        return peer

    @classmethod
    def serve(cls):
        """What a well-behaved client waits: for `list`, and for `ask`."""
        listed = cls.shared.client("list", timeout=60)
        assert listed.status == 0, listed
        asked = cls.shared.client("ask", "-m", "demo", "--max-tokens", "8", harness.QUESTION,
                                  timeout=60)
        assert asked.status == 0 and "Paris" in asked.out, asked
        return listed.seconds, asked.seconds

    def held(self):
        """Descriptors and resident bytes of the daemon."""
        return (len(os.listdir(f"/proc/{self.shared.pid}/fd")),
                self.shared.status_field("VmRSS"))

    def served_meanwhile(self, what):
        """Measures a well-behaved client under abuse, beside one before it."""
        descriptors, resident = self.held()
        list_s, ask_s = self.serve()
        print(f"  {what}: list {list_s * 1000:.0f} ms, ask {ask_s * 1000:.0f} ms; the daemon holds "
              f"{descriptors} descriptors, {resident / MIB:.0f} MiB "
              f"(before: {self.before[0]}, {self.before[1] / MIB:.0f} MiB)", flush=True)
        self.assertLess(list_s, SECONDS)
        self.assertLess(ask_s, SECONDS)

    def assert_as_before(self):
        """Descriptors and memory return to where they were, and all jobs have ended."""
        harness.wait_until(lambda: self.held()[0] <= self.before[0], 30, "descriptors to be closed")
        harness.wait_until(lambda: self.shared.jobs() == [], 30, "the jobs to end")
        if not harness.SANITIZED:
            harness.wait_until(lambda: self.held()[1] < self.before[1] + SLACK_BYTES, 30,
                               f"memory to return from {self.held()[1] / MIB:.0f} MiB")
        descriptors, resident = self.held()
        print(f"  afterwards: {descriptors} descriptors, {resident / MIB:.0f} MiB", flush=True)
        self.assert_lives(self.shared)


class ManyConnections(AbuseTest):
    def test_a_thousand_connections_that_say_nothing(self):
        start = time.monotonic()
        for _ in range(1000):
            self.raw()
        self.served_meanwhile(f"1,000 silent connections, made in {time.monotonic() - start:.2f} s")
        # All are dropped, though their clients hold on to them.
        self.assert_as_before()
        self.assertEqual(len(self.sockets), 1000)

    def test_a_flood_of_connections_that_come_and_go(self):
        stop = threading.Event()
        count = [0]

        def flood():
            while not stop.is_set():
                with contextlib.suppress(OSError), \
                        contextlib.closing(socket.socket(socket.AF_UNIX)) as peer:
                    peer.connect(self.shared.socket)
                    count[0] += 1
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            self.served_meanwhile("connections that come and go")
        finally:
            stop.set()
            thread.join()
        print(f"  {count[0]} connections")
        self.assertGreater(count[0], 100)
        self.assert_as_before()

    def test_a_flood_of_hello(self):
        refused = 0
        for _ in range(200):
            peer = self.raw(greet=True)
            with contextlib.suppress(OSError):
                peer.sendall(HELLO * 500)
        self.served_meanwhile("200 connections with 501 hellos each")
        for peer in self.sockets:
            data = b""
            with contextlib.suppress(ConnectionError):
                while piece := peer.recv(65536):
                    data += piece
            refused += b"a second hello came" in data
        print(f"  {refused} were told what was wrong")
        self.assertGreater(refused, 190)
        self.assert_as_before()


class AbusedFrames(AbuseTest):
    options = {"max_prompts_per_user": "56M"}

    def test_half_frames(self):
        told = 0
        for i in range(200):
            peer = self.raw(greet=True)
            with contextlib.suppress(OSError):
                if i % 2 == 0:
                    peer.sendall(struct.pack("<I", 1000) + b"\x81")
                else:
                    # Half of the longest one; together they would take 800 MiB.
                    peer.sendall(struct.pack("<I", 16 * MIB) + bytes(8 * MIB))
        self.served_meanwhile("200 half frames, 800 MiB in all")
        if not harness.SANITIZED:
            self.assertLess(self.held()[1], self.before[1] + 100 * MIB)
        for peer in self.sockets[1::2]:
            peer.setblocking(False)
            with contextlib.suppress(OSError):
                told += b"max-prompts-per-user" in peer.recv(65536)
        print(f"  {told} were refused by max-prompts-per-user")
        self.assertGreater(told, 80)
        self.hang_up()
        self.assert_as_before()

    def test_sizes_of_64_bits(self):
        big = (2**63 - 1, 2**63, 2**64 - 1)
        payloads = [msgpack.packb({**LIST, "id": n}) for n in big]
        payloads += [msgpack.packb({"type": "cancel", "id": n}) for n in big]
        payloads += [msgpack.packb({"type": "files", "id": n, "names": [], "status": []})
                     for n in big]
        payloads += [msgpack.packb({**LIST, "method": "cancel_job", "params": {"job": n}})
                     for n in big]
        for key in ("max_tokens", "logprobs", "prompt_logprobs"):
            payloads += [msgpack.packb(self.generate_with({key: n})) for n in big]
        for key in ("seed", "top_k"):
            payloads += [msgpack.packb(self.generate_with({"sampling": {key: n}})) for n in big]
        # Arrays, maps, strings, binaries and extensions of 2^32 - 1 and 2^31.
        for size in (b"\xff\xff\xff\xff", b"\x80\x00\x00\x00"):
            for kind in b"\xdd\xdf\xdb\xc6\xc9":
                head = bytes([kind]) + size
                payloads += [head, b"\x81\xa1x" + head, b"\x82\xa4type\xa7request\xa6params" + head]
        ended = 0
        for payload in payloads:
            peer = self.raw(greet=True)
            peer.sendall(struct.pack("<I", len(payload)) + payload + Wire.frame({**LIST, "id": 99}))
            ended += self.ends(peer)
            peer.close()
        for length in (0, 16 * MIB + 1, 2**31, 2**32 - 1):
            peer = self.raw(greet=True)
            peer.sendall(struct.pack("<I", length) + bytes(64))
            ended += self.ends(peer)
        self.served_meanwhile(f"{len(payloads) + 4} messages with sizes of 64 bits")
        self.assertEqual(ended, len(payloads) + 4)
        self.assert_as_before()

    @staticmethod
    def generate_with(params):
        return {"type": "request", "id": 1, "method": "generate",
                "params": {"model": "demo", "prompt_ids": [1, 5], "sampling": {}, "max_tokens": 2,
                           **params}}

    @staticmethod
    def ends(peer):
        """Whether the daemon answers the request 99 behind, or ends the connection with an error."""
        data = b""
        try:
            while piece := peer.recv(65536):
                data += piece
                if b"\xa2id\x63" in data and b"done" in data:
                    return True
        except ConnectionError:
            return True
        except socket.timeout:
            return False
        return b"error" in data

    def test_a_million_tiny_cancels(self):
        count = 1_000_000
        cancels = Wire.frame({"type": "cancel", "id": 77}) * 1000
        peer = self.raw(greet=True)
        start = time.monotonic()

        def flood():
            for _ in range(count // 1000):
                peer.sendall(cancels)
        peer.settimeout(600)
        thread = threading.Thread(target=flood)
        thread.start()
        self.served_meanwhile("a million cancels, on their way")
        thread.join()
        # The answer comes when all before it are done.
        peer.sendall(Wire.frame({**LIST, "id": 99}))
        self.assertTrue(self.ends(peer))
        seconds = time.monotonic() - start
        print(f"  {count} cancels in {seconds:.1f} s, {count / seconds:.0f} a second")
        self.hang_up()
        self.assert_as_before()


class PassedDescriptors(AbuseTest):
    def test_descriptors_of_every_kind(self):
        ends = os.pipe()
        folder = os.open("/", os.O_RDONLY)
        device = os.open("/dev/zero", os.O_RDONLY)
        terminal = os.open("/dev/ptmx", os.O_RDWR)
        pair = socket.socketpair()
        kinds = {"pipe": ends[0], "folder": folder, "device": device, "terminal": terminal,
                 "socket": pair[0].fileno()}
        try:
            for name, descriptor in kinds.items():
                self.assert_split_fails(name, descriptor)
            self.served_meanwhile(f"descriptors of {', '.join(kinds)}")
        finally:
            for descriptor in (*ends, folder, device, terminal):
                os.close(descriptor)
            for end in pair:
                end.close()
        self.assert_as_before()

    def assert_split_fails(self, name, descriptor):
        """A split whose files are all `descriptor` ends with an error, and soon."""
        with Wire(self.shared.socket) as wire:
            wire.send({"type": "request", "id": 1, "method": "split",
                       "params": {"name": f"bad-{name}", "source_label": "x"}})
            start = time.monotonic()
            while True:
                event = wire.receive()
                if event["event"] == "error":
                    break
                self.assertIn(event["event"], ("accepted", "progress", "open_files"), event)
                if event["event"] == "open_files":
                    names = event["body"]["names"]
                    frame = Wire.frame({"type": "files", "id": 1, "names": names,
                                        "status": ["ok"] * len(names)})
                    socket.send_fds(wire.socket, [frame], [descriptor] * len(names))
            self.assertLess(time.monotonic() - start, SECONDS, name)
            print(f"  {name}: {event['body']['message']}")

    def test_253_descriptors_at_a_time(self):
        with open("/dev/null", "rb") as file:
            for _ in range(100):
                peer = self.raw(greet=True)
                with contextlib.suppress(OSError):
                    for _ in range(20):
                        socket.send_fds(peer, [Wire.frame(LIST)], [file.fileno()] * 253)
        self.served_meanwhile("100 connections that pass 253 descriptors 20 times")
        self.assertLess(self.held()[0], self.before[0] + 300)
        self.hang_up()
        self.assert_as_before()


class SlowReaders(AbuseTest):
    options = {"max_jobs": 400, "kv": "512M"}

    def test_200_clients_that_read_a_byte_a_second(self):
        for _ in range(200):
            peer = self.raw(greet=True)
            peer.sendall(Wire.frame({
                "type": "request", "id": 1, "method": "generate",
                "params": {"model": "demo", "prompt_ids": [1, 5], "ignore_eos": True,
                           "sampling": {}, "max_tokens": 100, "logprobs": 20}}))
        stop = threading.Event()
        count = [0]

        def read():
            while not stop.wait(1):
                for peer in self.sockets:
                    with contextlib.suppress(OSError):
                        count[0] += len(peer.recv(1, socket.MSG_DONTWAIT))
        thread = threading.Thread(target=read)
        thread.start()
        try:
            for _ in range(3):
                self.served_meanwhile("200 clients that read a byte a second")
                time.sleep(1)
        finally:
            stop.set()
            thread.join()
        print(f"  they have read {count[0]} bytes")
        self.assertGreater(count[0], 200)
        self.hang_up()
        self.assert_as_before()


class DeafClients(AbuseTest):
    options = {"send_buffers": "64M"}

    def test_clients_that_ask_and_never_read(self):
        # With sanitizers a request takes milliseconds, and they all come before the one that waits.
        count = 250 if harness.SANITIZED else 1000
        requests = b"".join(Wire.frame({**LIST, "id": 1 + n}) for n in range(count))
        sent = 0
        clients = 20 if harness.SANITIZED else 200
        for _ in range(clients):
            peer = self.raw(greet=True)
            peer.settimeout(0.1)
            with contextlib.suppress(OSError):
                for _ in range(1 if harness.SANITIZED else 4):
                    peer.sendall(requests)
                    sent += count
        self.served_meanwhile(f"{clients} deaf clients with {sent} requests")
        if not harness.SANITIZED:
            self.assertLess(self.held()[1], self.before[1] + 128 * MIB)
        self.hang_up()
        self.assert_as_before()


class LaggingReader(AbuseTest):
    options = {"send_buffer": "4M"}

    def test_a_reader_that_is_hundreds_of_positions_late(self):
        """More than the send buffer holds, read only after another client was served."""
        with Wire(self.shared.socket, timeout=60) as wire:
            wire.send(wire.generate(1, model="demo", prompt_ids=[1 + i % 900 for i in range(400)],
                                    sampling={}, max_tokens=1, prompt_logprobs=3072))
            self.served_meanwhile("a reader who lags behind")
            self.assertLess(self.held()[1], self.before[1] + 24 * MIB)
            positions = size = 0
            while (event := wire.receive())["event"] != "generated":
                self.assertIn(event["event"], ("accepted", "progress", "token", "prompt_logprobs"),
                              event)
                if event["event"] == "prompt_logprobs":
                    self.assertEqual(event["body"]["position"], positions)
                    positions += 1
                    size += len(event["body"]["logprobs"]) * 11
            print(f"  {positions} positions, about {size / MIB:.0f} MiB through a buffer of 4 MiB")
            self.assertEqual(positions, 400)
            self.assertGreater(size, 8 * MIB)
        self.assert_as_before()


class LimitRefusals(harness.E2eTest):
    """Whoever is refused learns by which limit, and by which setting."""

    def daemon_with_demo(self, **options):
        daemon = self.daemon(**options)
        self.split(daemon, harness.DEMO, "demo")
        return daemon

    def assert_refused(self, result, status, *parts):
        self.assertEqual(result.status, status, result)
        for part in parts:
            self.assertIn(part, result.err + result.out)

    def test_connections(self):
        daemon = self.daemon(max_connections=2, max_connections_per_user=1)
        with Wire(daemon.socket):
            self.assert_refused(daemon.client("list"), 75, "1 connections",
                                "max-connections-per-user")

    def test_jobs(self):
        daemon = self.daemon_with_demo(max_jobs=3, max_jobs_per_user=1)
        with Wire(daemon.socket) as wire:
            wire.send(wire.generate(1, model="demo", prompt_ids=[1], ignore_eos=True,
                                    sampling={}, max_tokens=1000))
            while wire.receive()["event"] != "accepted":
                pass
            self.assert_refused(daemon.client("ask", "-m", "demo", "x"), 75, "1 jobs",
                                "max-jobs-per-user")

    def test_prompts(self):
        daemon = self.daemon_with_demo(max_prompt="1K")
        self.assert_refused(daemon.client("ask", "-m", "demo", "word " * 300), 64, "1.5",
                            "max-prompt is 1")

    def test_logprobs(self):
        daemon = self.daemon_with_demo(max_logprobs=100)
        self.assert_refused(
            daemon.client("ask", "-m", "demo", "--json", "--prompt-ids", "1,2,3",
                          "--prompt-logprobs", "50"),
            64, "3 prompt tokens, 50 each", "max-logprobs allows: 100")


@harness.needs_root
class OtherUsers(AbuseTest):
    """One user takes all that they may; another is served."""

    NOBODY = 65534
    # The socket is opened to others only later.
    options = {"max_connections_per_user": 224}

    def test_a_user_who_takes_every_connection(self):
        os.chmod(self.home, 0o755)
        os.chmod(self.shared.socket, 0o666)
        ready, go = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go[1])
            self.take_all(ready[1], go[0])
        try:
            greeted, refused = map(int, os.read(ready[0], 100).split())
            self.served_meanwhile(f"another user with {greeted} connections, {refused} refused")
        finally:
            os.close(go[1])
            os.waitpid(child, 0)
            for end in (*ready, go[0]):
                os.close(end)
        self.assertEqual(greeted, 224)
        self.assertEqual(refused, 300 - 224)
        self.assert_as_before()

    def take_all(self, ready, go):
        """In a process of its own: 300 connections that say hello, as nobody."""
        try:
            os.setgroups([])
            os.setresgid(self.NOBODY, self.NOBODY, self.NOBODY)
            os.setresuid(self.NOBODY, self.NOBODY, self.NOBODY)
            answers = []
            for _ in range(300):
                peer = self.raw(greet=True)
                answers.append(peer.recv(4096))
            refused = sum(b"max-connections-per-user" in answer for answer in answers)
            os.write(ready, f"{len(answers) - refused} {refused}".encode())
            os.close(ready)
            while os.read(go, 1):
                pass  # until the test lets go
        finally:
            os._exit(0)


if __name__ == "__main__":
    harness.main()
