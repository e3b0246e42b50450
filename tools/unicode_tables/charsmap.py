"""A map of characters as SentencePiece compiles it (engine/tokenizer/charsmap.h), from rules."""

from __future__ import annotations

import itertools

BLOCK = 256


def tree_of(rules: dict[str, str]) -> tuple[list[dict[int, int]], list[int | None], bytes]:
    """For each node its children by byte and its value; the texts to which values lead."""
    children: list[dict[int, int]] = [{}]
    values: list[int | None] = [None]
    texts = b""
    for key, text in sorted(rules.items()):
        node = 0
        for byte in key.encode():
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
                values.append(None)
            node = children[node][byte]
        values[node] = len(texts)
        texts += text.encode() + b"\0"
    return children, values, texts


def charsmap(rules: dict[str, str]) -> bytes:
    """Nodes lie in the order of the tree, each at the first base where its children find room.

    No two nodes have a base in common, and neither has any node the first one of a block: so a unit's
    label tells whose child it is, and the label of a free unit can be one that is never asked there.
    """
    children, values, texts = tree_of(rules)
    units: dict[int, int] = {0: 0}
    bases: set[int] = set()
    places = {0: 0}
    for node, below in enumerate(children):
        needed = ([0] if values[node] is not None else []) + list(below)
        base = next(b for b in itertools.count(1)
                    if b % BLOCK and b not in bases and not any(b ^ byte in units for byte in needed))
        bases.add(base)
        offset = places[node] ^ base
        assert offset < 1 << 21
        units[places[node]] |= offset << 10
        if values[node] is not None:
            units[places[node]] |= 1 << 8
            units[base] = 1 << 31 | values[node]
        for byte, child in below.items():
            places[child] = base ^ byte
            units[base ^ byte] = byte
    blocks = max([*units, *bases]) // BLOCK + 1
    # Free units: the label of a child of the block's first base, which no node has.
    tree = b"".join(units.get(i, i % BLOCK).to_bytes(4, "little") for i in range(blocks * BLOCK))
    return len(tree).to_bytes(4, "little") + tree + texts
