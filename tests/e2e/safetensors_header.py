"""The header of a safetensors file."""

import json
import math
import struct

BYTES_PER_ELEMENT = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1}


def header_of(tensors):
    """The header of `tensors`, each (name, dtype, shape), and how many bytes of data follow it."""
    header, offset = {}, 0
    for name, dtype, shape in tensors:
        end = offset + math.prod(shape) * BYTES_PER_ELEMENT[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offset
