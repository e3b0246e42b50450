"""The stand-in hub as an object: its origins, repositories, users, faults and log."""

import json
import os
import secrets
import shutil
import tempfile
import threading
import time

from . import control, faults, protocol, repos, wire
from .certificates import Certificates


class User:
    """Whom a token stands for; Hub.add_token says what its fields are."""

    def __init__(self, name, read=(), role="read", awaiting=()):
        self.name = name
        self.read = tuple(read)
        self.role = role
        self.awaiting = tuple(awaiting)

    def may_read(self, repo):
        return "*" in self.read or repo in self.read


class Hub:
    """Serves from start() to stop(), or inside of `with`. Any thread may call its methods.

    tls            https, with a certificate authority made for the occasion (hub.ca)
    log            a file that gets a line of JSON for each request; there is hub.requests() too
    rate           bytes a second of all bodies together; rate_each of each connection
    resolve_cache  small files are redirected to /api/resolve-cache, as the hub does today
    compress       small files are compressed for who asks for gzip, as the hub does
    xet            large files have X-Xet-Hash and its Link, as the hub's; there is no such store
    url_lifetime   seconds that a redirect to the store is good for
    port           of the hub itself; the others take what is free
    """

    def __init__(self, tls=True, log=None, rate=None, rate_each=None, resolve_cache=True,
                 compress=True, xet=False, url_lifetime=3600, multiple_ranges=False,
                 store_refuses_tokens=True, page=protocol.PAGE, port=0, folder=None):
        self.tls = tls
        self.resolve_cache, self.compress = resolve_cache, compress
        self.xet, self.url_lifetime = xet, url_lifetime
        self.multiple_ranges, self.store_refuses_tokens = multiple_ranges, store_refuses_tokens
        self.page = page
        self.repos, self.tokens = {}, {}
        self.entries, self.stored = {}, {}  # of the store, by the name that it has there
        self.closing = False
        self.problems = []  # of the stand-in itself
        self.key = secrets.token_bytes(16)
        self.faults = faults.Faults()
        self.pace = self.rate_each = None
        self.limit(rate, rate_each)
        self._own_folder = None if folder else tempfile.mkdtemp(prefix="hub-")
        self.folder = folder or self._own_folder
        os.chmod(self.folder, 0o755)  # clients that run as other users read the certificate
        self.certificates = Certificates(self.folder) if tls else None
        self.ca = self.certificates.ca if tls else None
        self._port = port
        self._lock = threading.Lock()
        self._log = open(log, "a", encoding="utf-8") if log else None
        self._records, self._connections, self._threads = [], {}, []
        self._numbers = 0
        self.origins = {}

    # Its life

    def start(self):
        self.origins = {
            "hub": wire.Origin("hub", "127.0.0.1", self.tls, "localhost", self._port),
            "cdn": wire.Origin("cdn", "127.0.0.2", self.tls),
            "other": wire.Origin("other", "127.0.0.3", self.tls),
            "plain": wire.Origin("plain", "127.0.0.1", False, "localhost"),
            "proxy": wire.Origin("proxy", "127.0.0.1", False, "localhost"),
            "control": wire.Origin("control", "127.0.0.1", False),
        }
        for origin in self.origins.values():
            thread = threading.Thread(target=self._accept, args=(origin,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self):
        self.closing = True
        for origin in self.origins.values():
            origin.stop()
        for thread in self._threads:
            thread.join()
        with self._lock:
            left = list(self._connections.items())
        for connection, _ in left:
            connection.abort()
        for _, thread in left:
            thread.join(5)
        if self._log:
            self._log.close()
        if self._own_folder:
            shutil.rmtree(self._own_folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        self.stop()
        if self.problems and kind is None:
            raise AssertionError("the stand-in hub is at fault:\n" + "\n".join(self.problems))

    def _accept(self, origin):
        while not self.closing:
            try:
                sock, _ = origin.listener.accept()
            except OSError:
                return
            if self.closing:
                sock.close()
                return
            with self._lock:
                self._numbers += 1
                connection = wire.Connection(self, origin, sock, self._numbers)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection):
        try:
            connection.serve()
        finally:
            with self._lock:
                del self._connections[connection]

    # Where it is

    @property
    def url(self):
        return self.origins["hub"].url

    @property
    def control_url(self):
        return self.origins["control"].url

    def env(self, token=None, home=None, proxy=False):
        """What a client's environment needs for it to find this hub, and to trust it."""
        env = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        if proxy:
            url = self.origins["proxy"].url
            env.update({name: url for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
                                               "http_proxy")})
        left_out = "" if proxy else "localhost,127.0.0.0/8"
        env.update(NO_PROXY=left_out, no_proxy=left_out)
        if self.ca:
            env.update(SSL_CERT_FILE=self.ca, REQUESTS_CA_BUNDLE=self.ca, CURL_CA_BUNDLE=self.ca)
        if token:
            env["HF_TOKEN"] = token
        if home:
            env["HF_HOME"] = os.path.join(home, "huggingface")
        return env

    # What it has

    def add_repo(self, name, source=None, private=False, gated=False, lfs=None):
        """A repository; with `source`, one commit on main, whose id is returned.

        source: a folder; or {name: bytes | path | Blob | Zeros}, or pairs of these; or ManyFiles.
        lfs: patterns of names, or a function of name and size; None for the hub's own rule.
        """
        repo = self.repos[name] = repos.Repository(name, private, gated, lfs)
        return None if source is None else repo.commit(source)

    def find_repo(self, name):
        """As the hub does, by a name whose case may be wrong."""
        if name in self.repos or name is None:
            return self.repos.get(name)
        return next((r for n, r in self.repos.items() if n.lower() == name.lower()), None)

    def commit(self, name, source, branch="main"):
        """Moves the branch to a new commit, whose id is returned."""
        return self.repos[name].commit(source, branch)

    def tag(self, name, tag, revision="main"):
        repo = self.repos[name]
        repo.tags[tag] = repo.at(revision)

    def rename(self, old, new):
        """What asks for the old name is redirected to the new one."""
        repo = self.repos[new] = self.repos[old]
        repo.name = new
        self.repos[old] = repos.Repository(old, repo.private)
        self.repos[old].renamed_to = new

    def add_token(self, token, name="alice", read=(), role="read", awaiting=()):
        """`read`: the private and gated repositories that may be read, or "*"; `awaiting`: gated
        ones whose authors have not answered; `role`: "read", or "fine-grained" without gated ones.
        """
        self.tokens[token] = User(name, read, role, awaiting)

    def store(self, repo, entry):
        """The name of a file in the store of large ones."""
        self.entries[entry.sha256] = entry
        self.stored[entry.sha256] = repo.name, entry.name
        return entry.sha256

    # What goes wrong

    def fault(self, kind, **options):
        """Sets a fault (faults.py lists them). Its `hits` tell how often it struck."""
        return self.faults.add(faults.Fault(kind, **options))

    def clear_faults(self):
        self.faults.clear()

    def expire_urls(self):
        """No redirect given so far is good any more."""
        self.key = secrets.token_bytes(16)

    def limit(self, rate=None, rate_each=None):
        self.pace = wire.Pace(rate) if rate else None
        self.rate_each = rate_each

    def connected(self, connection):
        """Before the first byte on a connection."""
        if self.faults.of_connection("refuse", connection.origin.name):
            raise wire.Closed("reset")
        if self.faults.of_connection("silent", connection.origin.name):
            connection.rest(None)

    def tls_context(self, origin):
        """For the next handshake."""
        wrong = self.faults.of_connection("certificate", origin.name)
        return self.certificates.context(wrong[-1].name if wrong else "good")

    # What was asked

    def answer(self, request):
        if request.origin == "control":
            return control.answer(request, self)
        struck = self.faults.of_request(request)
        reply = None
        for fault in struck:
            reply = faults.before(fault, request, self) or reply
        reply = reply or protocol.answer(request, self)
        if request.purpose != "data" or request.origin == "hub":
            for name, value in protocol.rate_limit(request, len(self._records)).items():
                reply.headers.setdefault(name, value)
        for fault in struck:
            faults.after(fault, reply)
        reply.headers.setdefault("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
        return reply

    def begin(self, request):
        """The request's record, which end() completes."""
        protocol.identify(request, self)
        headers = request.headers
        record = {"time": time.time(), "origin": request.origin, "host": headers.get("host"),
                  "connection": request.connection, "method": request.method,
                  "target": request.target, "path": request.path, "purpose": request.purpose,
                  "repo": request.repo, "file": request.file, "range": headers.get("range"),
                  "token": request.token, "authorization": "authorization" in headers,
                  "headers": headers.copy(), "status": None, "sent": 0, "complete": False}
        if request.origin != "control":
            with self._lock:
                self._records.append(record)
        return record

    def end(self, record):
        record["seconds"] = time.time() - record["time"]
        if self._log and record["origin"] != "control":
            line = json.dumps(record, ensure_ascii=True)
            with self._lock:
                self._log.write(line + "\n")
                self._log.flush()

    def settle(self, seconds=5):
        """Waits until every request is at its end here too; false if some is not."""
        end = time.monotonic() + seconds
        while True:
            with self._lock:
                if all("seconds" in record for record in self._records):
                    return True
            if time.monotonic() > end:
                return False
            time.sleep(0.001)

    def requests(self, **wanted):
        """Records of the requests so far, those under way too, whose fields are as `wanted`."""
        with self._lock:
            records = list(self._records)
        return [dict(r) for r in records if all(r[name] == value for name, value in wanted.items())]

    def forget_requests(self):
        with self._lock:
            self._records.clear()

    def bytes_sent(self, **wanted):
        return sum(record["sent"] for record in self.requests(**wanted))

    def token_origins(self):
        """The origins to which an Authorization header was sent."""
        return {record["origin"] for record in self.requests() if record["authorization"]}
