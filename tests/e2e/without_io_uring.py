"""Runs a program to which the kernel refuses io_uring: without_io_uring.py PROGRAM ARGUMENT..."""
import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
RET_ERRNO_EPERM, RET_ALLOW = 0x00050001, 0x7FFF0000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
IO_URING_SETUP = 425  # on every architecture


def instruction(code, yes, no, operand):
    return struct.pack("HBBI", code, yes, no, operand)


def refuse_io_uring():
    # The number of the call is the first word of what the filter sees.
    program = b"".join([instruction(LOAD_WORD, 0, 0, 0),
                        instruction(JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP),
                        instruction(RETURN, 0, 0, RET_ERRNO_EPERM),
                        instruction(RETURN, 0, 0, RET_ALLOW)])
    buffer = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HP", 4, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit("cannot set no_new_privs")
    if prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(filter_), 0, 0) != 0:
        sys.exit(f"cannot set a filter: {os.strerror(ctypes.get_errno())}")


refuse_io_uring()
os.execv(sys.argv[1], sys.argv[1:])
