"""Tries what the daemon's unit allows and what it forbids; prints what happened as JSON.

  probe.py network HOST PORT   connects by socket(2), and by operations of io_uring
  probe.py needs               what the daemon cannot do without
  probe.py forbidden FILE      what it has no business with; FILE is a user's
"""

import ctypes
import errno
import json
import mmap
import os
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

IO_URING_SETUP, IO_URING_ENTER = 425, 426
OP_CONNECT, OP_SOCKET = 16, 45
ENTER_GETEVENTS = 1
OFF_SQ_RING, OFF_CQ_RING, OFF_SQES = 0, 0x8000000, 0x10000000
MEMFD_CREATE, MLOCK, KEYCTL, PERSONALITY, UNSHARE = 319, 149, 250, 135, 272


def syscall(number, *arguments):
    """The result; OSError when it is negative."""
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return result


class Ring:
    """An io_uring of one entry, driven by system calls only (io_uring(7))."""

    def __init__(self):
        parameters = ctypes.create_string_buffer(120)
        self.fd = syscall(IO_URING_SETUP, 1, parameters)
        sq = struct.unpack_from("8I", parameters.raw, 40)
        cq = struct.unpack_from("8I", parameters.raw, 80)
        self.sq_tail, self.sq_mask, self.sq_array = sq[1], sq[2], sq[6]
        self.cq_head, self.cq_mask, self.cqes = cq[0], cq[2], cq[5]
        self.sq = self.map(4096, OFF_SQ_RING)
        self.cq = self.map(4096, OFF_CQ_RING)
        self.sqes = self.map(4096, OFF_SQES)

    def map(self, size, offset):
        return mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE,
                         offset=offset)

    def submit(self, opcode, fd, off, addr, length):
        """Runs one operation; its result, or OSError."""
        tail = struct.unpack_from("I", self.sq, self.sq_tail)[0]
        self.sqes[0:64] = struct.pack("=BBHiQQI36x", opcode, 0, 0, fd, off, addr, length)
        index = tail & struct.unpack_from("I", self.sq, self.sq_mask)[0]
        struct.pack_into("I", self.sq, self.sq_array + 4 * index, 0)
        struct.pack_into("I", self.sq, self.sq_tail, tail + 1)
        syscall(IO_URING_ENTER, self.fd, 1, 1, ENTER_GETEVENTS, None, 0)
        head = struct.unpack_from("I", self.cq, self.cq_head)[0]
        at = self.cqes + 16 * (head & struct.unpack_from("I", self.cq, self.cq_mask)[0])
        result = struct.unpack_from("=Qi", self.cq, at)[1]
        struct.pack_into("I", self.cq, self.cq_head, head + 1)
        if result < 0:
            raise OSError(-result, "io_uring")
        return result


def ring_connect(host, port):
    ring = Ring()
    fd = ring.submit(OP_SOCKET, socket.AF_INET, socket.SOCK_STREAM, 0, 0)
    address = ctypes.create_string_buffer(
        struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) +
        bytes(8))
    ring.submit(OP_CONNECT, fd, 16, ctypes.addressof(address), 0)


def outcome(action, done="ok"):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return done


def network(host, port):
    address = (host, int(port))
    return {"plain": outcome(lambda: socket.create_connection(address).close(), "connected"),
            "ring": outcome(lambda: ring_connect(*address), "connected")}


def lock_memory():
    page = mmap.mmap(-1, 4096)
    syscall(MLOCK, ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page))),
            ctypes.c_size_t(4096))


def write_file(path):
    with open(path, "w", encoding="ascii") as file:
        file.write("x")
    if not path.startswith("/proc"):
        os.remove(path)


def read_file(path):
    with open(path, "rb") as file:
        file.read(1)


def needs():
    return {
        "io_uring": outcome(Ring),
        "memfd_create": outcome(lambda: syscall(MEMFD_CREATE, b"slab", 0)),
        "mlock": outcome(lock_memory),
        "store": outcome(lambda: write_file("/var/lib/airllm/probe")),
        "meminfo": outcome(lambda: read_file("/proc/meminfo")),
        "pressure": outcome(lambda: read_file("/proc/pressure/memory")),
        "cgroup": outcome(lambda: os.listdir("/sys/fs/cgroup")),
        "threads": outcome(lambda: os.sched_getaffinity(0)),
    }


def run_from_store():
    path = "/var/lib/airllm/program"
    with open(path, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\n")
    os.chmod(path, 0o700)
    status = os.spawnv(os.P_WAIT, path, [path])
    os.remove(path)
    if status != 0:
        raise OSError(errno.EACCES, path)


def writable_code():
    mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
              mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def forbidden(file):
    return {
        "home": outcome(lambda: read_file(file)),
        "/etc": outcome(lambda: write_file("/etc/airllm-probe")),
        "/run/airllm": outcome(lambda: write_file("/run/airllm/probe")),
        "kernel": outcome(lambda: write_file("/proc/sys/vm/swappiness")),
        "namespaces": outcome(lambda: syscall(UNSHARE, 0x10000000)),
        "keyring": outcome(lambda: syscall(KEYCTL, 0, -3, 0)),
        "writable code": outcome(writable_code),
        "a program of the store": outcome(run_from_store),
        "setuid files": outcome(lambda: os.chmod("/var/lib/airllm", 0o4750)),
        "raw disk": outcome(lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))),
        "kernel log": outcome(lambda: read_file("/dev/kmsg")),
    }


print(json.dumps({"network": network, "needs": needs, "forbidden": forbidden}[sys.argv[1]](
    *sys.argv[2:])))
