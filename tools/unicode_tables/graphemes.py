"""Writes engine/text/grapheme_tables.inc: where Hugging Face tokenizers breaks clusters.

Its Precompiled normalizer replaces a whole extended grapheme cluster of fewer
than six bytes by what its first character becomes, and each character of a
longer one by itself.  So behind a character that has a rule, a mark is lost
just where a cluster begins with that character; every code point is asked in
front of such pairs.

Usage:  python graphemes.py --out engine/text/grapheme_tables.inc
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tokenizers
from tokenizers import normalizers

from charsmap import charsmap
from reference_tables import flat, labelled, table

MARK, OTHER_MARK, JOINER = "\u0301", "\u0308", "\u200d"
PICTOGRAPH, CONSONANT, LINKER = "\u00a9", "\u0915", "\u094d"
LEADING, VOWEL, TRAILING = "\u1100", "\u1161", "\u11a8"
PROBES = {"a": "A", "\r": "R", PICTOGRAPH: "P", CONSONANT: "C", LEADING: "L", VOWEL: "V", TRAILING: "T"}
# The numbers of engine/text/graphemes.cc.
CLASSES = ["other", "control", "extend", "joiner", "prepend", "spacing", "leading", "vowel", "trailing",
           "pictograph", "consonant"]
INDIC_EXTEND, INDIC_LINKER = 16, 32
SYLLABLES = range(0xAC00, 0xD7A4)

probe = normalizers.Precompiled(charsmap(PROBES)).normalize_str
probe_mark = normalizers.Precompiled(charsmap({MARK: "M"})).normalize_str


def breaks(before: str, after: str) -> bool:
    return probe(before + after + MARK).endswith(PROBES[after])


def label(c: int) -> int:
    x = chr(c)
    if 0x1F1E6 <= c <= 0x1F1FF or c in SYLLABLES:
        return 0  # told by their number
    if x == JOINER:
        return CLASSES.index("joiner") | INDIC_EXTEND
    if probe_mark(x + MARK + OTHER_MARK).endswith("M"):
        return CLASSES.index("control")
    if probe("a" + x) == "A":
        extends = not breaks(PICTOGRAPH + x + JOINER, PICTOGRAPH)
        links = not breaks(CONSONANT + x, CONSONANT)
        passes = not links and not breaks(CONSONANT + x + LINKER, CONSONANT)
        return (CLASSES.index("extend" if extends else "spacing") | INDIC_EXTEND * passes
                | INDIC_LINKER * links)
    if x != "a" and not breaks(x, "a"):
        return CLASSES.index("prepend")
    hangul = tuple(not breaks(x, y) for y in (LEADING, VOWEL, TRAILING))
    if any(hangul):
        return {(True, True, False): CLASSES.index("leading"), (False, True, True): CLASSES.index("vowel"),
                (False, False, True): CLASSES.index("trailing")}[hangul]
    if not breaks(x + JOINER, PICTOGRAPH):
        return CLASSES.index("pictograph")
    if not breaks(x + LINKER, CONSONANT):
        return CLASSES.index("consonant")
    return 0


def check_what_is_told_by_number() -> None:
    assert probe("\r\n") == "R"
    for c in SYLLABLES:
        is_lv = (c - SYLLABLES.start) % 28 == 0
        assert [breaks(chr(c), y) for y in (LEADING, VOWEL, TRAILING)] == [True, not is_lv, False]
    for passes in (JOINER,):
        assert not breaks(CONSONANT + passes + LINKER, CONSONANT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    check_what_is_told_by_number()
    rows = labelled(label)
    args.out.write_text(
        "// How Hugging Face tokenizers " + tokenizers.__version__ + " breaks grapheme clusters: first,"
        " last, class;\n// written by tools/unicode_tables/graphemes.py, which tells how.\n"
        "// clang-format off\n\n" + table("kClusterRanges", "char32_t", flat(rows))
        + "\n// clang-format on\n", encoding="utf-8")


if __name__ == "__main__":
    main()
