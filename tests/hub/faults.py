"""What can go wrong on demand. A fault is chosen by what a request is for, and spoils its reply.

Kinds, with their options and defaults:

  cut           after=0 bytes of the body, the connection ends; how="reset" (RST: what is under way
                is lost), "close" (in order, also that of TLS) or "drop" (FIN without TLS's end)
  stall         after=0, nothing more is sent; seconds=None is for ever
  delay         seconds=1 before the answer; None is for ever
  drip          rate=1000 bytes a second
  flip          at=None (the middle): the byte at this offset of the file has all its bits turned
  length        by=1: Content-Length says so much more (or less) than there is; the body is as it
                was, or with surplus=True has `by` bytes more than told
  chunked       no Content-Length, but Transfer-Encoding: chunked
  http10        HTTP/1.0: neither, the end of the connection ends the body
  gzip          Content-Encoding: gzip, asked for or not; bomb=0: so many zero bytes in place of the
                body
  no-range      the whole file with 200 where a range was asked for
  range         Content-Range says a place shift=1 further on; or value="bytes 0-1/2"; total=None
  status        status=503, retry_after=None (seconds), http_date=False (Retry-After as a date),
                rate_limit=None (seconds that RateLimit tells to wait), headers={}, body=None
  headers       set={}, remove=[]
  body          body="": in place of the right one, with 200
  redirect      to="other" (origin), "plain" (http), "loop", or a URL; status=302
  endless       what="lines" or "line": a header without end
  expire        the address that a resolve redirects to has expired already
  commit        source: put on the branch="main" of the repository before the answer
  certificate   name: one of certificates.WRONG at the next handshakes
  refuse        the connection is closed when it is made
  silent        nothing is ever said on it

All of these take, to choose requests: on="data" (bytes of a file), "resolve" (metadata or the
redirect of one), "info", "tree", "whoami" or None (any); path=None, a pattern of the file's name;
target=None, a pattern of the URL's path; repo, origin ("hub", "cdn", "other", "plain") and method;
skip=0, so many that match are let through first; times=1, then so many are spoilt (None: all).
"""

import email.utils
import fnmatch
import math
import threading
import time

from . import wire

# What is done to the bytes of a file, so that only a GET that is answered with them is meant.
OF_BODIES = ("chunked", "cut", "drip", "flip", "gzip", "http10", "length", "no-range", "range",
             "stall")
OF_CONNECTIONS = ("certificate", "refuse", "silent")
OPTIONS = {
    "cut": {"after": 0, "how": "reset"},
    "stall": {"after": 0, "seconds": None},
    "delay": {"seconds": 1},
    "drip": {"rate": 1000},
    "flip": {"at": None},
    "length": {"by": 1, "surplus": False},
    "chunked": {},
    "http10": {},
    "gzip": {"bomb": 0},
    "no-range": {},
    "range": {"shift": 1, "total": None, "value": None},
    "status": {"status": 503, "retry_after": None, "http_date": False,
               "rate_limit": None, "headers": {}, "body": None},
    "headers": {"set": {}, "remove": []},
    "body": {"body": ""},
    "redirect": {"to": "other", "status": 302},
    "endless": {"what": "lines"},
    "expire": {},
    "commit": {"source": None, "branch": "main"},
    "certificate": {"name": "other-ca"},
    "refuse": {},
    "silent": {},
}


class Fault:
    def __init__(self, kind, on=None, path=None, target=None, repo=None, origin=None, method=None,
                 skip=0, times=1, **options):
        if kind not in OPTIONS:
            raise ValueError(f"no fault is called {kind!r}; there are {', '.join(OPTIONS)}")
        if unknown := set(options) - set(OPTIONS[kind]):
            raise ValueError(f"{kind} has no option {', '.join(sorted(unknown))}")
        self.kind = kind
        if kind in OF_BODIES:
            on, method = on or "data", method or "GET"
        elif kind == "expire":
            on = on or "resolve"
        self.on, self.path, self.target, self.repo = on, path, target, repo
        self.origin, self.method, self.skip, self.times = origin, method, skip, times
        self.options = {**OPTIONS[kind], **options}
        self.hits = 0  # requests spoilt so far

    def __getattr__(self, name):
        try:
            return self.__dict__["options"][name]
        except KeyError:
            raise AttributeError(name) from None

    def is_meant(self, request):
        if self.kind in ("no-range", "range") and "range" not in request.headers:
            return False
        return ((self.on is None or self.on == request.purpose)
                and (self.method is None or self.method == request.method)
                and (self.origin is None or self.origin == request.origin)
                and (self.repo is None or self.repo == request.repo)
                and (self.path is None or (request.file is not None
                                           and fnmatch.fnmatchcase(request.file, self.path)))
                and (self.target is None or fnmatch.fnmatchcase(request.path, self.target)))

    def takes(self):
        """Whether one that matches is spoilt; counts it."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


class Faults:
    """Those that are set. Safe for many threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._faults = []

    def add(self, fault):
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self):
        with self._lock:
            self._faults.clear()

    def of_request(self, request):
        with self._lock:
            return [f for f in self._faults if f.kind not in OF_CONNECTIONS
                    and f.is_meant(request) and f.takes()]

    def of_connection(self, kind, origin):
        if origin == "control":
            return []
        with self._lock:
            return [f for f in self._faults if f.kind == kind and f.origin in (None, origin)
                    and f.takes()]


def before(fault, request, hub):
    """What is done before the answer is made; a reply if that is the answer."""
    kind = fault.kind
    if kind == "no-range":
        del request.headers["range"]
    elif kind == "commit":
        hub.commit(request.repo, fault.source, fault.branch)
    elif kind == "expire":
        request.expired = True
    elif kind == "status":
        headers = dict(fault.headers)
        if fault.retry_after is not None:
            moment = time.time() + fault.retry_after
            headers["Retry-After"] = (email.utils.formatdate(moment, usegmt=True)
                                      if fault.http_date else fault.retry_after)
        if fault.rate_limit is not None:
            headers["RateLimit"] = f'"resolvers";r=0;t={fault.rate_limit}'
        body = f"{wire.REASONS.get(fault.status, '')}\n" if fault.body is None else fault.body
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
        return wire.Reply(fault.status, _bytes(body), headers)
    elif kind == "body":
        return wire.Reply(200, _bytes(fault.body), {"Content-Type": "application/json"})
    elif kind == "redirect":
        return wire.Reply(fault.status, b"Moved\n", {"Location": _location(fault.to, request, hub)})
    return None


def _location(to, request, hub):
    if to == "loop":
        return request.target
    if to in hub.origins:
        return hub.origins[to].url + request.target
    return to


def after(fault, reply):
    """What is done to the right answer."""
    sending, kind = reply.sending, fault.kind
    if kind in OF_BODIES and sending.gzip != "fault":
        sending.gzip = False  # offsets and lengths are those of the file
    if kind == "cut":
        sending.cut_after, sending.cut_how = fault.after, fault.how
    elif kind == "stall":
        sending.stall_after, sending.stall_seconds = fault.after, fault.seconds
    elif kind == "delay":
        sending.delay += math.inf if fault.seconds is None else fault.seconds
    elif kind == "drip":
        sending.pace = wire.Pace(fault.rate)
    elif kind == "flip":
        sending.flip_at = reply.start + reply.length // 2 if fault.at is None else fault.at
    elif kind == "length":
        sending.declared_length = max(0, reply.length + fault.by)
        if fault.surplus:
            sending.declared_length = reply.length
            sending.surplus = b"\0" * fault.by
    elif kind == "chunked":
        sending.chunked = True
    elif kind == "http10":
        sending.http10 = True
    elif kind == "gzip":
        sending.gzip = "fault"
        if fault.bomb:
            reply.close()
            reply.body, reply.start, reply.length = b"", 0, None
            reply.pieces = _zeros(fault.bomb)
    elif kind == "range" and "Content-Range" in reply.headers:
        reply.headers["Content-Range"] = fault.value or _wrong_range(
            reply.headers["Content-Range"], fault.shift, fault.total)
    elif kind == "headers":
        for name in fault.remove:
            reply.headers.pop(name, None)
        reply.headers.update(fault.set)
    elif kind == "endless":
        sending.endless = fault.what


def _wrong_range(value, shift, total):
    span, _, size = value.removeprefix("bytes ").partition("/")
    start, _, end = span.partition("-")
    return f"bytes {int(start) + shift}-{int(end) + shift}/{size if total is None else total}"


def _zeros(count):
    block = bytes(wire.BLOCK)
    while count > 0:
        yield block[:count]
        count -= len(block)


def _bytes(text):
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


# Names of files that must not reach a disk, each by itself.
HOSTILE_NAMES = ("../outside.txt", "a/../../outside.txt", "/absolute.txt", "a//b.txt", "./c.txt",
                 "", ".", "..", "a/", "back\\..\\..\\slash.txt", "C:\\drive.txt", "line\nfeed.txt",
                 "nul\0byte.txt", "escape\x1b[2J.txt", "delete\x7f.txt", "bad\udcff.txt",
                 "right\u202eleft.txt", "n" * 256, "/".join(["d" * 100] * 60),
                 "config.json/below.txt")


def hostile_listing(kind, good):
    """A body in place of the listing `good` (bytes of JSON), of one of the kinds below."""
    text = good.decode()
    if kind == "nan":
        return text.replace('"size": ', '"size": NaN, "was": ')
    if kind == "huge":
        return text.replace('"size": ', '"size": 1e400, "was": ')
    if kind == "large":  # 2^64, which fits no integer that a size is kept in
        return text.replace('"size": ', '"size": 18446744073709551616, "was": ')
    if kind == "negative":
        return text.replace('"size": ', '"size": -')
    if kind == "types":
        text = text.replace('"size": ', '"size": "7", "was": ')
        return text.replace('"siblings": [', '"siblings": [7, ')
    if kind == "deep":
        return "[" * 1_000_000 + "]" * 1_000_000
    if kind == "cut":
        return text[:len(text) // 2]
    if kind == "text":
        return "<html><body>Sign in to the network</body></html>"
    if kind == "null":
        return "null"
    if kind == "wide":
        sibling = '{"rfilename": "a", "size": 1}'
        return '{"siblings": [' + f"{sibling}," * 1_000_000 + sibling + "]}"
    raise ValueError(f"no listing is called {kind!r}")


HOSTILE_LISTINGS = ("nan", "huge", "large", "negative", "types", "deep", "cut", "text", "null",
                    "wide")
