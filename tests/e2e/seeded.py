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


def number_bytes(value, dtype):
    if dtype == "F32":
        return struct.pack("<f", value)
    if dtype == "F16":
        return struct.pack("<e", value)
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


def write_weights(folder, tensors):
    header, _ = header_of([(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors])
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(header)
        file.writelines(map(tensor_bytes, tensors))
