"""HTTP/1.1 on sockets: replies as fast as the kernel takes them, or as wrong as was asked for.

A thread for each connection: os.sendfile and OpenSSL's writes let the others run meanwhile. What a
reply's Sending asks for beyond the protocol (cuts, stalls, lies) is done here.
"""

import os
import re
import select
import socket
import ssl
import struct
import threading
import time
import traceback
import urllib.parse
import zlib

from . import proxy

HEADER_LIMIT = 64 << 10
BLOCK = 1 << 20
TLS_BLOCK = 256 << 10  # read and encrypted while it is in the processor's cache
REASONS = {200: "OK", 206: "Partial Content", 301: "Moved Permanently", 302: "Found",
           304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect",
           400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
           405: "Method Not Allowed", 412: "Precondition Failed", 416: "Range Not Satisfiable",
           429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
           503: "Service Unavailable", 504: "Gateway Timeout"}


class Closed(Exception):
    """The connection is to end now: "reset", "close" (in order) or "drop" (without TLS's end)."""

    def __init__(self, how="close"):
        super().__init__()
        self.how = how


class Pace:
    """Holds senders to `rate` bytes a second in all. Safe for many threads."""

    def __init__(self, rate):
        self.rate = rate
        self.block = max(1, min(BLOCK, int(rate / 20)))
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def wait(self, count):
        with self._lock:
            # What was not used before is not made up for, but for a moment.
            self._free_at = max(self._free_at, time.monotonic() - 0.05) + count / self.rate
            free_at = self._free_at
        time.sleep(max(0, free_at - time.monotonic()))


class Request:
    def __init__(self, origin, connection, line, headers, body):
        self.origin = origin
        self.connection = connection
        self.method, self.target, self.version = line
        split = urllib.parse.urlsplit(self.target)
        self.raw_path = split.path
        self.path = urllib.parse.unquote(split.path, errors="surrogateescape")
        self.query = urllib.parse.parse_qs(split.query, keep_blank_values=True)
        self.headers = headers  # names in lower case
        self.body = body
        self.repo = self.file = None  # names, where the path has them

    @property
    def token(self):
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else None

    def keeps_alive(self):
        wish = self.headers.get("connection", "").lower()
        return wish != "close" if self.version == "HTTP/1.1" else wish == "keep-alive"


class Sending:
    """How a reply deviates from what is right."""

    def __init__(self):
        self.delay = 0.0
        self.cut_after = None  # body bytes; then the connection ends
        self.cut_how = "reset"
        self.stall_after = None  # body bytes; then nothing more comes
        self.stall_seconds = None  # ... until then, or never
        self.pace = None
        self.flip_at = None  # offset in the file of a byte that is sent with all bits turned
        self.declared_length = None  # None is the right one
        self.surplus = b""
        self.chunked = False
        self.http10 = False
        self.endless = None  # "lines" or "line" in place of the end of the header
        self.gzip = False


class Reply:
    """A status, headers and a body: bytes, a span of an open file, or an iterator of pieces, whose
    length need not be known."""

    def __init__(self, status, body=b"", headers=(), fd=None, start=0, length=None, pieces=None):
        self.status = status
        self.headers = dict(headers)
        self.body = body
        self.fd = fd
        self.start = start
        self.pieces = pieces
        self.length = length
        if length is None and pieces is None:
            self.length = len(body)
        self.sending = Sending()

    def blocks(self, size):
        """The body in pieces of at most `size` bytes."""
        if self.pieces is not None:
            for piece in self.pieces:
                yield from (piece[i:i + size] for i in range(0, len(piece), size))
        elif self.fd is None:
            part = memoryview(self.body)[:self.length]
            yield from (part[i:i + size] for i in range(0, len(part), size))
        else:
            buffer = memoryview(bytearray(min(size, max(1, self.length))))
            done = 0
            while done < self.length:
                room = buffer[:min(size, self.length - done)]
                count = os.preadv(self.fd, [room], self.start + done)
                if count == 0:
                    raise Closed("reset")
                yield buffer[:count]
                done += count

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def _compressed(blocks):
    packer = zlib.compressobj(6, wbits=31)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


class Connection:
    """One accepted socket, served by the thread that calls serve()."""

    def __init__(self, hub, origin, sock, number):
        self.hub = hub
        self.origin = origin
        self.sock = sock
        self.number = number
        self.buffer = b""
        self.own_pace = None
        self.head = b""  # of the reply, until the body's first bytes go with it

    # Requests

    def serve(self):
        how = "close"
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.hub.connected(self)
            if self.origin.tls:
                self._handshake()
            while not self.hub.closing:
                request = self._read_request()
                if request is None or not self._answer(request):
                    break
        except Closed as closed:
            how = closed.how
        except (OSError, ValueError):
            pass  # the peer went away, or did not speak HTTP or TLS
        finally:
            self._close(how)

    def _handshake(self):
        context = self.hub.tls_context(self.origin)
        self.sock.settimeout(30)
        self.sock = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self.sock.do_handshake()
        self.sock.settimeout(None)

    def _close(self, how):
        try:
            if how == "reset":
                # An empty linger time makes the kernel drop what is not sent and send RST.
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how == "close" and isinstance(self.sock, ssl.SSLSocket):
                self.sock.settimeout(1)
                self.sock = self.sock.unwrap()
        except (OSError, ValueError):
            pass
        self.sock.close()

    def abort(self):
        """Ends the connection from another thread."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            return False
        self.buffer += data
        return True

    def _read_request(self):
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > HEADER_LIMIT or not self._more():
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            if not self._more():
                return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Request(self.origin.name, self.number, first.split(" ", 2), headers, body)

    # Replies

    def _answer(self, request):
        """Answers; whether the connection goes on."""
        record = self.hub.begin(request)
        try:
            if request.method == "CONNECT" and self.origin.name == "proxy":
                record["status"] = proxy.connect(self, request)
                record["complete"] = True
                return False
            reply = self._reply(request)
            record["status"] = reply.status
            try:
                return self._send(request, reply, record)
            finally:
                reply.close()
        finally:
            self.hub.end(record)

    def _reply(self, request):
        try:
            return self.hub.answer(request)
        except Exception:  # pylint: disable=broad-exception-caught
            problem = traceback.format_exc()
            self.hub.problems.append(f"{request.method} {request.target}\n{problem}")
            return Reply(500, problem.encode(), {"Content-Type": "text/plain"})

    def _send(self, request, reply, record):
        sending = reply.sending
        if sending.delay:
            self.rest(sending.delay)
        paces = [pace for pace in (sending.pace, *self._paces()) if pace]
        body, length = self._framing(request, reply, paces)
        keep = request.keeps_alive() and not sending.http10 and (
            length is not None or reply.headers.get("Transfer-Encoding") == "chunked")
        reply.headers["Connection"] = "keep-alive" if keep else "close"
        version = "HTTP/1.0" if sending.http10 else "HTTP/1.1"
        head = f"{version} {reply.status} {REASONS.get(reply.status, 'Status')}\r\n"
        for name, value in reply.headers.items():
            value = re.sub(r"[\r\n]", " ", str(value))  # what was asked for may be in it
            head += f"{name}: {value}\r\n"
        self.head = head.encode("latin-1", "replace")
        if sending.endless:
            self._endless_header(sending.endless)
        self.head += b"\r\n"
        if request.method != "HEAD":
            self._send_body(reply, body, paces, record)
        self._out()
        record["complete"] = True
        if request.method == "HEAD":
            return keep
        if sending.declared_length is not None:
            return False
        return keep

    @staticmethod
    def _framing(request, reply, paces):
        """The pieces to send, or None for a span of a file as it is; the length if it is told."""
        sending = reply.sending
        pieces = None
        size = min([TLS_BLOCK, *(pace.block for pace in paces)])
        length = reply.length
        if sending.gzip:
            pieces, length = _compressed(reply.blocks(size)), None
            reply.headers["Content-Encoding"] = "gzip"
        elif reply.fd is None or sending.flip_at is not None or paces or sending.chunked:
            pieces = reply.blocks(size)
        chunked = sending.chunked or (length is None and not sending.http10)
        if chunked and request.version == "HTTP/1.1" and not sending.http10:
            reply.headers["Transfer-Encoding"] = "chunked"
            reply.headers.pop("Content-Length", None)
            return pieces, None
        if length is not None and not sending.http10 and reply.status != 304:
            told = length if sending.declared_length is None else sending.declared_length
            reply.headers["Content-Length"] = told
        return pieces, length

    def _paces(self):
        if self.hub.rate_each and self.own_pace is None:
            self.own_pace = Pace(self.hub.rate_each)
        return self.hub.pace, self.own_pace if self.hub.rate_each else None

    def _send_body(self, reply, pieces, paces, record):
        sending = reply.sending
        stops = sorted({n for n in (sending.cut_after, sending.stall_after) if n is not None})
        chunked = reply.headers.get("Transfer-Encoding") == "chunked"
        if pieces is None and not stops and not isinstance(self.sock, ssl.SSLSocket):
            self._send_file(reply, record)
        else:
            position = reply.start
            for block in pieces if pieces is not None else reply.blocks(TLS_BLOCK):
                if sending.flip_at is not None:
                    block = _flipped(block, sending.flip_at - position)
                position += len(block)
                while stops and record["sent"] + len(block) >= stops[0]:
                    part = stops.pop(0) - record["sent"]
                    self._send_block(block[:part], chunked, paces, record)
                    block = block[part:]
                    self._stop(sending, record["sent"])
                self._send_block(block, chunked, paces, record)
        if sending.surplus:
            self._send_block(sending.surplus, chunked, (), record)
        if chunked:
            self._out(b"0\r\n\r\n")

    def _send_file(self, reply, record):
        end = reply.start + reply.length
        at = reply.start
        out = self.sock.fileno()
        self.sock.sendall(self.head, socket.MSG_MORE)
        self.head = b""
        while at < end:
            count = os.sendfile(out, reply.fd, at, min(4 * BLOCK, end - at))
            if count == 0:
                raise Closed("reset")
            at += count
            record["sent"] += count

    def _send_block(self, block, chunked, paces, record):
        if not block:
            return
        self._out(*((b"%x\r\n" % len(block), block, b"\r\n") if chunked else (block,)))
        record["sent"] += len(block)
        for pace in paces:
            pace.wait(len(block))

    def _out(self, *parts):
        """Sends the head, if it is not yet sent, and `parts`: what is small, at once."""
        parts, self.head = [part for part in (self.head, *parts) if part], b""
        if sum(map(len, parts)) < 65536:
            parts = [b"".join(parts)]
        for part in parts:
            self.sock.sendall(part)

    def _stop(self, sending, sent):
        """What happens after `sent` bytes of the body."""
        self._out()
        if sent == sending.stall_after:
            self.rest(sending.stall_seconds)
        if sent == sending.cut_after:
            raise Closed(sending.cut_how)

    def rest(self, seconds):
        """Waits, for ever if `seconds` is None; ends the connection if the peer does or the hub."""
        end = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLRDHUP)
        while end is None or time.monotonic() < end:
            left = 0.1 if end is None else min(0.1, max(0, end - time.monotonic()))
            if self.hub.closing or poll.poll(left * 1000):
                raise Closed()

    def _endless_header(self, kind):
        line = b"X-Padding: " + b"a" * 1000 + b"\r\n" if kind == "lines" else b"a" * 1000
        self._out(b"X-Padding: " if kind == "line" else b"")
        while not self.hub.closing:
            self.sock.sendall(line)
        raise Closed()


def _flipped(block, at):
    if not 0 <= at < len(block):
        return block
    changed = bytearray(block)
    changed[at] ^= 0xFF
    return changed


class Origin:
    """A listening socket, the name under which the log has it, and its address as a URL."""

    def __init__(self, name, host, tls, public_host=None, port=0):
        self.name = name
        self.tls = tls
        self.listener = socket.create_server((host, port), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.authority = f"{public_host or host}:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.authority}"

    def stop(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            pass
        self.listener.close()
