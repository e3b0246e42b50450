"""Checkpoints whose weights follow from their names, so that only the names need to be kept.

The bytes of a tensor are SHAKE-128 of its name. Each gives one number, base + k * 2^-exponent with
k a whole number of `bits` bits, which F32, F16 and BF16 hold exactly.
"""
import hashlib
import json
import math
import os
import struct
from typing import NamedTuple

from safetensors_header import header_of


class Tensor(NamedTuple):
    name: str
    dtype: str  # F32, F16 or BF16
    shape: list
    base: float
    bits: int
    exponent: int


def f8_e4m3(value):
    """The code of a number that is exact in it: sign, exponent with a bias of 7, 3 bits."""
    sign = 0x80 if value < 0 else 0
    if value == 0:
        return sign
    fraction, exponent = math.frexp(abs(value))  # value = fraction * 2^exponent, from 0.5 to 1
    eighths = fraction * 16 - 8
    if eighths != int(eighths) or not -6 <= exponent - 1 <= 8:
        raise ValueError(f"{value} is no normal number of e4m3")
    return sign | exponent + 6 << 3 | int(eighths)


def number_bytes(value, dtype):
    if dtype == "F32":
        return struct.pack("<f", value)
    if dtype == "F16":
        return struct.pack("<e", value)
    if dtype == "F8_E4M3":
        return bytes([f8_e4m3(value)])
    packed = struct.pack("<f", value)
    if packed[:2] != b"\0\0":
        raise ValueError(f"{value} is no bf16")
    return packed[2:]


def values(tensor):
    """The 256 numbers that a byte can stand for."""
    half = 1 << (tensor.bits - 1)
    return [tensor.base + ((byte >> (8 - tensor.bits)) - half) * 2.0 ** -tensor.exponent
            for byte in range(256)]


def tensor_bytes(tensor):
    count = math.prod(tensor.shape)
    table = [number_bytes(value, tensor.dtype) for value in values(tensor)]
    digest = hashlib.shake_128(tensor.name.encode()).digest(count)
    return b"".join(map(table.__getitem__, digest))


def write_config(folder, config):
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)


def checkpoint_bytes(tensors, kept=()):
    """A safetensors file of these and of those that come with their bytes."""
    header, _ = header_of([(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]
                          + [entry[:3] for entry in kept])
    return b"".join([header, *map(tensor_bytes, tensors), *(entry[3] for entry in kept)])


def write_weights(folder, tensors, kept=()):
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(checkpoint_bytes(tensors, kept))
