"""What the hub answers: its API, resolve, and the store of large files ("CDN") behind it.

docs/hub-protocol.md describes it, and where each statement comes from.
"""

import base64
import datetime
import hashlib
import hmac
import itertools
import json
import re
import time
import urllib.parse

from . import repos
from .wire import Reply

PAGE = 1000
EXPANDED_PAGE = 50
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="Authentication required", charset="UTF-8"'}
# Requests in five minutes: of the API, and of files. Only told: a fault refuses.
QUOTAS = {"api": 500, "resolvers": 3000}

_RESOLVE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.*)", re.S)
_CACHED = re.compile(r"/api/resolve-cache/models/(?P<repo>[^/]+(?:/[^/]+)?)/"
                     r"(?P<revision>[0-9a-f]{40})/(?P<file>.*)", re.S)
_API = re.compile(r"/api/models/(?P<repo>[^/]+(?:/[^/]+)??)"
                  r"(?:/(?P<call>revision|tree|refs)"
                  r"(?:/(?P<revision>[^/]+)(?:/(?P<folder>.*))?)?)?", re.S)


def _decoded(text):
    return None if text is None else urllib.parse.unquote(text, errors="surrogateescape")


def identify(request, hub):
    """Finds out what `request` is for: sets its purpose, its route, and the names that it has."""
    request.purpose, request.route, request.expired = "other", None, False
    if request.origin == "cdn" or request.raw_path.startswith("/store/"):
        request.purpose, request.route = "data", ("store",)
        request.repo, request.file = hub.stored.get(request.path.rsplit("/", 1)[-1], (None, None))
    elif request.path == "/api/whoami-v2":
        request.purpose, request.route = "whoami", ("whoami",)
    elif match := _CACHED.fullmatch(request.raw_path):
        request.purpose, request.route = "data", ("cached", _decoded(match["revision"]))
        request.repo, request.file = _decoded(match["repo"]), _decoded(match["file"])
    elif request.raw_path.startswith("/api/"):
        if match := _API.fullmatch(request.raw_path):
            call = match["call"] or "revision"
            request.purpose = {"revision": "info", "tree": "tree", "refs": "other"}[call]
            request.route = call, _decoded(match["revision"]), _decoded(match["folder"]) or ""
            request.repo = _decoded(match["repo"])
    elif match := _RESOLVE.fullmatch(request.raw_path):
        request.purpose, request.route = "resolve", ("resolve", _decoded(match["revision"]))
        request.repo, request.file = _decoded(match["repo"]), _decoded(match["file"])
        if request.method == "GET" and not hub.resolve_cache and _is_small(request, hub):
            request.purpose = "data"


def _is_small(request, hub):
    repo = hub.repos.get(request.repo)
    commit = repo and repo.at(request.route[1])
    entry = commit and commit.listing.get(request.file)
    return entry is not None and not entry.lfs


def rate_limit(request, used):
    """The headers that every answer of the hub itself has."""
    kind = "api" if request.purpose in ("info", "tree", "whoami", "other") else "resolvers"
    quota = QUOTAS[kind]
    return {"RateLimit": f'"{kind}";r={max(1, quota - used)};t=300',
            "RateLimit-Policy": f'"fixed window";"{kind}";q={quota};w=300'}


def answer(request, hub):
    if request.method not in ("GET", "HEAD"):
        return error(405, "Method not allowed")
    if request.route is None:
        return error(404, "Sorry, we can't find the page you are looking for.")
    handler = {"store": _store, "whoami": _whoami, "cached": _resolve, "resolve": _resolve,
               "revision": _info, "tree": _tree, "refs": _refs}[request.route[0]]
    reply = handler(request, hub)
    if request.route[0] in ("resolve", "cached") and "X-Error-Message" in reply.headers:
        reply.body = reply.headers["X-Error-Message"].encode()
        reply.length = len(reply.body)
        reply.headers["Content-Type"] = "text/plain; charset=utf-8"
    return reply


# Replies

def error(status, message, code=None, headers=()):
    about = {"X-Error-Message": message, **dict(headers)}
    if code:
        about["X-Error-Code"] = code
    return as_json({"error": message}, status, about)


def as_json(value, status=200, headers=()):
    return Reply(status, json.dumps(value).encode(),
                 {"Content-Type": "application/json; charset=utf-8", **dict(headers)})


def _moved(location, status=307, headers=()):
    text = f"Temporary Redirect. Redirecting to {location}".encode()
    return Reply(status, text, {"Content-Type": "text/plain; charset=utf-8", "Location": location,
                                **dict(headers)})


# Who may see what

def _user(request, hub):
    """(user or None, None), or (None, the refusal) where the token is none of ours."""
    if request.token is None:
        return None, None
    user = hub.tokens.get(request.token)
    if user is None:
        return None, error(401, "Invalid credentials in Authorization header")
    return user, None


def _find(request, hub, revision, for_files):
    """(repository, commit, None), or (None, None, the refusal)."""
    user, refusal = _user(request, hub)
    if refusal:
        return None, None, refusal
    repo = hub.find_repo(request.repo)
    if repo is None or (repo.private and not (user and user.may_read(repo.name))):
        # To a stranger, a private repository is none. Without a token, none could be a private one.
        if user is None:
            return None, None, error(401, "Invalid username or password.", headers=CHALLENGE)
        return None, None, error(404, "Repository not found", "RepoNotFound")
    if name := repo.renamed_to or (repo.name != request.repo and repo.name):
        here, there = urllib.parse.quote(request.repo), urllib.parse.quote(name)
        return None, None, _moved(request.target.replace(here, there, 1))
    if repo.gated and for_files and (refusal := _gate(repo, user, hub)):
        return None, None, refusal
    commit = repo.at(revision or "main")
    if commit is None:
        return None, None, error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return repo, commit, None


def _gate(repo, user, hub):
    start = f"Access to model {repo.name} is restricted"
    if user is None:
        return error(401, f"{start}. You must have access to it and be authenticated to access it. "
                     "Please log in.", "GatedRepo")
    if user.role == "fine-grained":
        return error(403, "Please enable access to public gated repositories in your fine-grained "
                     "token settings to view this repository.")
    if repo.name in user.awaiting:
        return error(403, f"Your request to access model {repo.name} is awaiting a review from the "
                     "repo authors.", "GatedRepo")
    if not user.may_read(repo.name):
        return error(403, f"{start} and you are not in the authorized list. Visit "
                     f"{hub.url}/{repo.name} to ask for access.", "GatedRepo")
    return None


def _whoami(request, hub):
    user, refusal = _user(request, hub)
    if refusal:
        return refusal
    if user is None:
        return error(401, "Invalid username or password.", headers=CHALLENGE)
    return as_json({"type": "user", "id": hashlib.sha1(user.name.encode()).hexdigest()[:24],
                    "name": user.name, "fullname": user.name, "isPro": False, "orgs": [],
                    "auth": {"type": "access_token",
                             "accessToken": {"displayName": "test", "role": user.role,
                                             "createdAt": "2024-01-01T00:00:00.000Z"}}})


# Listings

def _time(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%S.000Z")


def _info(request, hub):
    _, revision, _ = request.route
    repo, commit, refusal = _find(request, hub, revision, for_files=False)
    if refusal:
        return refusal
    blobs = request.query.get("blobs", [""])[0].lower() in ("true", "1")
    about = {"_id": hashlib.sha1(repo.name.encode()).hexdigest()[:24], "id": repo.name,
             "modelId": repo.name, "author": repo.name.split("/")[0], "sha": commit.sha,
             "lastModified": _time(commit.seconds), "createdAt": _time(1_700_000_000),
             "private": repo.private, "gated": repo.gated, "disabled": False, "downloads": 0,
             "likes": 0, "tags": ["transformers", "safetensors"], "library_name": "transformers",
             "siblings": []}
    head, tail = json.dumps(about).split("[]}")
    # In pieces, since a listing of a million files would take a gigabyte as a whole.
    siblings = _joined(commit.listing.siblings(blobs))
    pieces = itertools.chain([head.encode() + b"["], siblings, [f"]{tail}}}".encode()])
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if len(commit.listing) <= 10_000:
        return Reply(200, b"".join(pieces), headers)
    return Reply(200, headers=headers, pieces=pieces)


def _joined(items, at_once=1000):
    separator = ""
    while batch := list(itertools.islice(items, at_once)):
        yield (separator + ", ".join(batch)).encode()
        separator = ", "


def _tree(request, hub):
    _, revision, folder = request.route
    _, commit, refusal = _find(request, hub, revision, for_files=False)
    if refusal:
        return refusal
    wish = {name: values[0].lower() for name, values in request.query.items()}
    recursive, expand = wish.get("recursive") == "true", wish.get("expand") == "true"
    limit = min(int(wish.get("limit", PAGE)), EXPANDED_PAGE if expand else hub.page)
    start = 0
    if cursor := request.query.get("cursor"):
        start = int(base64.urlsafe_b64decode(cursor[0]).partition(b":")[2])
    shown = commit.listing.tree(folder.rstrip("/"), recursive)
    if folder and not len(shown):
        return error(404, f"{folder} does not exist on \"{revision}\"", "EntryNotFound")
    page = shown[start:start + limit]
    if expand:
        for item in page:
            item["lastCommit"] = {"id": commit.sha, "title": commit.title,
                                  "date": _time(commit.seconds)}
            if item["type"] == "file":
                item["securityFileStatus"] = {"status": "safe", "avScan": None,
                                              "pickleImportScan": None}
    headers = {"X-Repo-Commit": commit.sha}
    if start + limit < len(shown):
        cursor = base64.urlsafe_b64encode(f"{commit.sha}:{start + limit}".encode()).decode()
        query = urllib.parse.urlencode({"expand": str(expand).lower(), "limit": limit,
                                        "recursive": str(recursive).lower(), "cursor": cursor})
        url = f"{hub.origins[request.origin].url}{request.raw_path}?{query}"
        headers["Link"] = f'<{url}>; rel="next"'
    return as_json(page, headers=headers)


def _refs(request, hub):
    repo, _, refusal = _find(request, hub, None, for_files=False)
    if refusal:
        return refusal
    def of(kind, refs):
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit.sha}
                for name, commit in refs.items()]
    return as_json({"branches": of("heads", repo.branches), "tags": of("tags", repo.tags),
                    "converts": []})


# Files

def _resolve(request, hub):
    kind, revision = request.route
    repo, commit, refusal = _find(request, hub, revision, for_files=True)
    if refusal:
        return refusal
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes", "Cache-Control": "no-store",
               "Vary": "Origin", "X-Powered-By": "huggingface-moon",
               "Access-Control-Expose-Headers": "X-Repo-Commit,X-Request-Id,X-Error-Code,"
               "X-Error-Message,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag"}
    entry = commit.listing.get(request.file)
    if entry is None:
        return error(404, "Entry not found", "EntryNotFound", headers)
    if hub.xet and entry.lfs:
        headers["X-Xet-Hash"] = hashlib.sha256(b"xet" + entry.sha256.encode()).hexdigest()
        headers["Link"] = (f'<{hub.url}/api/models/{repo.name}/xet-read-token/{commit.sha}>; '
                           'rel="xet-auth"')
    disposition = _disposition(entry.name)
    if entry.lfs:
        headers.update({"X-Linked-Size": entry.size, "X-Linked-ETag": f'"{entry.etag}"'})
        return _moved(signed(hub, repo, entry, disposition, request.expired), 302, headers)
    if kind == "resolve" and hub.resolve_cache:
        headers.update({"X-Linked-Size": entry.size, "X-Linked-ETag": f'"{entry.etag}"'})
        query = urllib.parse.urlencode({request.raw_path: "", "etag": f'"{entry.etag}"'})
        return _moved(f"/api/resolve-cache/models/{repo.name}/{commit.sha}/"
                      f"{urllib.parse.quote(entry.name, errors='surrogateescape')}?{query}",
                      headers=headers)
    headers.update({"ETag": f'"{entry.etag}"', "Content-Disposition": disposition,
                    "Content-Type": "text/plain; charset=utf-8"})
    reply = content(request, hub, entry, headers)
    accepted = request.headers.get("accept-encoding", "")
    if reply.status == 200 and hub.compress and "gzip" in accepted:
        reply.sending.gzip = True
    return reply


def _disposition(name):
    base = name.rsplit("/", 1)[-1].encode("ascii", "replace").decode()
    base = re.sub(r'[\x00-\x1f\x7f"\\]', "_", base)
    return f'inline; filename*=UTF-8\'\'{urllib.parse.quote(base)}; filename="{base}";'


def signed(hub, repo, entry, disposition, expired):
    """A URL of the store that is good for hub.url_lifetime seconds."""
    name = hub.store(repo, entry)
    expires = int(time.time()) + (-60 if expired else int(hub.url_lifetime))
    path = f"/store/{hashlib.sha256(repo.name.encode()).hexdigest()}/{name}"
    query = urllib.parse.urlencode({
        "response-content-disposition": disposition, "Expires": expires,
        "Signature": _signature(hub, path, expires), "Key-Pair-Id": "KSTANDIN"})
    return f"{hub.origins['cdn'].url}{path}?{query}"


def _signature(hub, path, expires):
    return hmac.new(hub.key, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()


def _refused_by_store(status, code, message):
    body = (f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
            f"<Message>{message}</Message></Error>")
    return Reply(status, body.encode(), {"Content-Type": "application/xml"})


def _store(request, hub):
    if "authorization" in request.headers and hub.store_refuses_tokens:
        return _refused_by_store(400, "InvalidArgument", "Only one auth mechanism allowed")
    expires = request.query.get("Expires", ["0"])[0]
    signature = request.query.get("Signature", [""])[0]
    if not hmac.compare_digest(signature, _signature(hub, request.raw_path, expires)):
        return _refused_by_store(403, "AccessDenied", "Access denied")
    if float(expires) < time.time():
        return _refused_by_store(403, "AccessDenied", "Request has expired")
    entry = hub.entries.get(request.path.rsplit("/", 1)[-1])
    if entry is None:
        return _refused_by_store(404, "NoSuchKey", "The specified key does not exist.")
    # Amazon's S3 has the md5 of parts here, which says nothing about the file.
    etag = hashlib.md5(entry.sha256.encode(), usedforsecurity=False).hexdigest()
    headers = {"ETag": f'"{etag}-1"', "Accept-Ranges": "bytes",
               "Content-Type": "binary/octet-stream",
               "Content-Disposition": request.query.get("response-content-disposition", [""])[0],
               "Last-Modified": "Wed, 15 Nov 2023 00:00:00 GMT"}
    return content(request, hub, entry, headers)


def content(request, hub, entry, headers):
    """The bytes of a file, or the part that Range asks for."""
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Reply(304, headers=headers)
    if request.headers.get("if-match", headers["ETag"]) not in ("*", headers["ETag"]):
        return Reply(412, headers=headers)
    spans = None
    if request.headers.get("if-range", headers["ETag"]) in (headers["ETag"],
                                                            headers.get("Last-Modified")):
        spans = ranges(request.headers.get("range"), entry.size)
    if spans == []:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{entry.size}"})
    if spans is None:
        return _span(entry, 200, 0, entry.size, headers)
    if len(spans) == 1:
        start, end = spans[0]
        return _span(entry, 206, start, end - start,
                     {**headers, "Content-Range": f"bytes {start}-{end - 1}/{entry.size}"})
    return _multipart(entry, spans, headers) if hub.multiple_ranges else _span(
        entry, 200, 0, entry.size, headers)


def ranges(value, size):
    """(start, end) of each part that there is; None where Range is not there or not understood."""
    if value is None or not (match := re.fullmatch(r"bytes=([\d\s,-]+)", value)):
        return None
    spans = []
    for part in match[1].split(","):
        first, dash, last = part.strip().partition("-")
        if not dash or not (first or last) or "-" in last:
            return None
        if not first:
            start, end = max(0, size - int(last)), size
        else:
            start, end = int(first), min(size, int(last) + 1 if last else size)
            if last and int(last) < start:
                return None
        if start < end:
            spans.append((start, end))
    return spans


def _span(entry, status, start, length, headers):
    source = entry.content
    if isinstance(source, repos.Blob):
        return Reply(status, memoryview(source.data)[start:start + length], headers, start=start)
    if isinstance(source, repos.Zeros):
        return Reply(status, headers=headers, pieces=source.pieces(length), start=start,
                     length=length)
    return Reply(status, headers=headers, fd=source.open(), start=start, length=length)


def _multipart(entry, spans, headers):
    """All parts in one body. For small ones: they are in memory."""
    boundary = hashlib.sha1(repr(spans).encode()).hexdigest()
    body = b""
    for start, end in spans:
        part = _span(entry, 206, start, end - start, {})
        try:
            data = b"".join(bytes(block) for block in part.blocks(1 << 20))
        finally:
            part.close()
        body += (f"\r\n--{boundary}\r\nContent-Type: {headers['Content-Type']}\r\n"
                 f"Content-Range: bytes {start}-{end - 1}/{entry.size}\r\n\r\n").encode() + data
    body += f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/byteranges; boundary={boundary}"
    return Reply(206, body, {**headers, "Content-Type": kind})
