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


def write_safetensors(path, tensors):
    header, pieces, offset = {}, [], 0
    for tensor in tensors:
        data = tensor_bytes(tensor)
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape),
                               "data_offsets": [offset, offset + len(data)]}
        pieces.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(pieces)


def write_checkpoint(folder, config, tensors):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
