"""Repositories of the stand-in hub: files, their identities in git and git LFS, revisions.

A file is known by the sha1 of its git blob; one that git LFS keeps, by the sha256 of its bytes, and
its blob is then the pointer. Trees and commits have the ids that git itself would give them, so
equal folders have equal commits.
"""

import bisect
import fnmatch
import hashlib
import json
import os
import stat
import threading

# What the .gitattributes of a new repository at the hub lists, and gguf; the hub refuses larger
# files that LFS does not keep.
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack "
    "*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar.* "
    "*.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents* *.gguf").split()
LFS_SIZE = 10_000_000
BLOCK = 1 << 20

_sums = {}  # (kind, path, size, mtime) -> hash: a folder served twice is read once
_sums_lock = threading.Lock()


def git_id(kind, data):
    return hashlib.sha1(b"%s %d\0" % (kind, len(data)) + data).hexdigest()


def pointer_of(sha256, size):
    """The file that git keeps in place of one in LFS."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
        sha256.encode(), size)


def is_lfs_by_default(name, size):
    base = name.rsplit("/", 1)[-1]
    return size > LFS_SIZE or any(fnmatch.fnmatchcase(base, p) for p in LFS_PATTERNS)


class Blob:
    """Bytes in memory."""

    def __init__(self, data):
        self.data = bytes(data)
        self.size = len(self.data)

    def blob_id(self):
        return git_id(b"blob", self.data)

    def sha256(self):
        return hashlib.sha256(self.data).hexdigest()


class DiskFile:
    """A file on disk, which must not change while it is served."""

    def __init__(self, path):
        self.path = os.path.realpath(path)
        self.size = os.stat(self.path).st_size

    def blob_id(self):
        return self._sum("blob", hashlib.sha1(b"blob %d\0" % self.size))

    def sha256(self):
        return self._sum("sha256", hashlib.sha256())

    def _sum(self, kind, state):
        info = os.stat(self.path)
        key = (kind, self.path, info.st_size, info.st_mtime_ns)
        with _sums_lock:
            if key in _sums:
                return _sums[key]
        with open(self.path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                state.update(block)
        with _sums_lock:
            return _sums.setdefault(key, state.hexdigest())

    def open(self):
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)


class Zeros:
    """`size` zero bytes that take no room. The hashes are made up: a terabyte is not read."""

    def __init__(self, size):
        self.size = size

    def blob_id(self):
        return git_id(b"blob", b"%d zero bytes" % self.size)

    def sha256(self):
        return hashlib.sha256(b"%d zero bytes" % self.size).hexdigest()

    def pieces(self, length):
        """`length` of its bytes, from anywhere."""
        block = bytes(BLOCK)
        for _ in range(length // BLOCK):
            yield block
        yield block[:length % BLOCK]


class Entry:
    """A file at a revision."""

    def __init__(self, name, content, lfs):
        self.name = name
        self.content = content
        self.size = content.size
        self.lfs = lfs
        self.sha256, self.pointer_size = None, 0
        if lfs:
            self.sha256 = content.sha256()
            pointer = pointer_of(self.sha256, self.size)
            self.blob_id, self.pointer_size = git_id(b"blob", pointer), len(pointer)
        else:
            self.blob_id = content.blob_id()

    @property
    def etag(self):
        return self.sha256 if self.lfs else self.blob_id

    def sibling(self, blobs):
        """As `siblings` of a model's information has it."""
        if not blobs:
            return {"rfilename": self.name}
        about = {"rfilename": self.name, "blobId": self.blob_id, "size": self.size}
        if self.lfs:
            about["lfs"] = {"sha256": self.sha256, "size": self.size,
                            "pointerSize": self.pointer_size}
        return about

    def in_tree(self):
        """As a listing of the tree has it."""
        about = {"type": "file", "oid": self.blob_id, "size": self.size, "path": self.name}
        if self.lfs:
            about["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return about


class Listing:
    """The files of one revision, of (name, content) pairs; names may be hostile, or there twice."""

    def __init__(self, files, lfs=is_lfs_by_default):
        self.entries = [Entry(name, content, lfs(name, content.size)) for name, content in files]
        self.by_name = {entry.name: entry for entry in self.entries}
        self.folders = {}  # path -> tree id
        self.tree_id = self._hash_folder("", sorted(self.by_name))

    def _hash_folder(self, folder, names):
        """The id of the tree of `names`, which all begin with `folder`."""
        children = {}
        for name in names:
            first, slash, _ = name[len(folder):].partition("/")
            children.setdefault(first + slash, []).append(name)
        data = b""
        for child in sorted(children):  # a folder sorts as if its name ended with a slash
            if child.endswith("/"):
                # An absolute name, or an empty part of one, would be a folder without a name.
                sha1 = self._hash_folder(folder + child, children[child])
                self.folders[folder + child[:-1]] = sha1
                mode = b"40000"
            else:
                sha1, mode = self.by_name[folder + child].blob_id, b"100644"
            data += mode + b" " + child.rstrip("/").encode("utf-8", "surrogateescape") + b"\0"
            data += bytes.fromhex(sha1)
        return git_id(b"tree", data)

    def __len__(self):
        return len(self.entries)

    def __iter__(self):
        return iter(self.entries)

    def siblings(self, blobs):
        """The JSON of each file in a model's information."""
        return (json.dumps(entry.sibling(blobs)) for entry in self.entries)

    def get(self, name):
        return self.by_name.get(name)

    def tree(self, folder, recursive):
        """What a listing of `folder` shows, in order."""
        start = folder + "/" if folder else ""
        shown = [{"type": "directory", "oid": oid, "size": 0, "path": path}
                 for path, oid in self.folders.items()] + [e.in_tree() for e in self.entries]
        shown = [item for item in shown if item["path"].startswith(start)]
        if not recursive:
            shown = [item for item in shown if "/" not in item["path"][len(start):]]
        return sorted(shown, key=lambda item: item["path"])


class ManyFiles:
    """`count` small files that exist only while they are asked for."""

    def __init__(self, count, name="shard-{:07}.txt"):
        self.count = count
        self.name = name
        self.tree_id = git_id(b"tree", f"{count} files {name}".encode())

    def __len__(self):
        return self.count

    def entry(self, index):
        name = self.name.format(index)
        return Entry(name, Blob(name.encode() + b"\n"), False)

    def __iter__(self):
        return (self.entry(index) for index in range(self.count))

    def siblings(self, blobs):
        """As Listing.siblings; written out, since there are so many."""
        for index in range(self.count):
            name = self.name.format(index)
            if blobs:
                blob_id = git_id(b"blob", name.encode() + b"\n")
                yield f'{{"rfilename": "{name}", "blobId": "{blob_id}", "size": {len(name) + 1}}}'
            else:
                yield f'{{"rfilename": "{name}"}}'

    def get(self, name):
        index = bisect.bisect_left(range(self.count), name, key=self.name.format)
        return self.entry(index) if index < self.count and self.name.format(index) == name else None

    def tree(self, folder, recursive):
        del recursive
        return [] if folder else _LazyTree(self)


class _LazyTree:
    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, part):
        return [self.files.entry(i).in_tree() for i in range(*part.indices(len(self.files)))]


def listing_of(source, lfs=None):
    """A folder, a dict or list of pairs of names and bytes (or contents as above), or a listing."""
    if hasattr(source, "tree_id"):
        return source
    if lfs is None:
        lfs = is_lfs_by_default
    elif not callable(lfs):
        lfs = _matches(tuple(lfs))
    if isinstance(source, (str, os.PathLike)):
        return Listing(_walk(os.fspath(source)), lfs)
    pairs = source.items() if isinstance(source, dict) else source
    return Listing([(name, Blob(content) if isinstance(content, (bytes, bytearray)) else
                     DiskFile(content) if isinstance(content, (str, os.PathLike)) else content)
                    for name, content in pairs], lfs)


def _matches(patterns):
    return lambda name, size: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _walk(folder):
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f != ".git")
        for name in sorted(names):
            path = os.path.join(parent, name)
            if stat.S_ISREG(os.stat(path).st_mode):
                yield os.path.relpath(path, folder), DiskFile(path)


class Commit:
    def __init__(self, listing, parent, number):
        self.listing = listing
        self.title = f"commit {number}"
        self.seconds = 1_700_000_000 + number
        text = f"tree {listing.tree_id}\n"
        if parent:
            text += f"parent {parent.sha}\n"
        who = f"stand-in <hub@localhost> {self.seconds} +0000"
        text += f"author {who}\ncommitter {who}\n\n{self.title}\n"
        self.sha = git_id(b"commit", text.encode())


class Repository:
    """One model: its commits, branches and tags, and who may read it."""

    def __init__(self, name, private=False, gated=False, lfs=None):
        self.name = name
        self.private = private
        self.gated = gated  # False, "auto" or "manual"
        self.lfs = lfs
        self.commits = {}
        self.branches = {}
        self.tags = {}
        self.renamed_to = None

    def commit(self, source, branch="main"):
        """Puts `source` on the branch; returns the commit's id."""
        commit = Commit(listing_of(source, self.lfs), self.branches.get(branch), len(self.commits))
        self.commits[commit.sha] = commit
        self.branches[branch] = commit
        return commit.sha

    def at(self, revision):
        """The commit that a branch, tag, id or unique beginning of an id names, or None."""
        if revision in self.branches:
            return self.branches[revision]
        if revision in self.tags:
            return self.tags[revision]
        if len(revision) >= 7:
            found = [c for sha, c in self.commits.items() if sha.startswith(revision)]
            return found[0] if len(found) == 1 else None
        return None
