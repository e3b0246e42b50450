#!/usr/bin/env python3
"""Writes engine/text/inert_in_unicode9.cc: characters that normalisation must leave alone.

  tools/unicode_tables/inert_in_unicode9.py > engine/text/inert_in_unicode9.cc

The reference normalises as Unicode 9 says, so characters that later versions added neither
decompose, compose nor move there. `unicodedata2` of PyPI proposes every character that does one of
these today; the reference (`tokenizers` of PyPI) decides.
"""

from __future__ import annotations

import unicodedata2 as today
from tokenizers import normalizers

NFD, NFKD = normalizers.NFD(), normalizers.NFKD()
HEAD = """// Written by tools/unicode_tables/inert_in_unicode9.py with Unicode {version}.
#include "engine/text/inert_in_unicode9.h"

#include <algorithm>
#include <iterator>

namespace airllm::text {{
namespace {{

struct Range {{
  char32_t first, last;
}};

constexpr Range kRanges[] = {{
"""
TAIL = """};

}  // namespace

bool is_inert_in_unicode9(char32_t c) {
  if (c < kRanges[0].first) return false;
  const Range* range = std::lower_bound(std::begin(kRanges), std::end(kRanges), c,
                                        [](const Range& r, char32_t x) { return r.last < x; });
  return range != std::end(kRanges) && range->first <= c;
}

}  // namespace airllm::text
"""


def is_inert(character: str) -> bool:
    """Whether a character that today's Unicode moves or decomposes is left alone."""
    if today.combining(character):
        other = "a" + character + "\u0334" if today.combining(character) != 1 else "a\u0301" + character
        return NFD.normalize_str(other) == other
    return NFKD.normalize_str(character) == character


def main() -> None:
    inert = set()
    for code in (c for c in range(0x110000) if not 0xD800 <= c < 0xE000):
        character = chr(code)
        decomposed = today.normalize("NFKD", character)
        if (today.combining(character) or decomposed != character) and is_inert(character):
            inert.add(code)
            if not today.decomposition(character).startswith("<") and decomposed != character:
                # Without its first part nothing composes to it.
                inert.add(ord(chr(int(today.decomposition(character).split()[0], 16))))
    ranges: list[list[int]] = []
    for code in sorted(inert):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    print(HEAD.format(version=today.unidata_version), end="")
    cells = [f"{{{first:#x}, {last:#x}}}," for first, last in ranges]
    for at in range(0, len(cells), 4):
        print("    " + " ".join(cells[at:at + 4]))
    print(TAIL, end="")


if __name__ == "__main__":
    main()
