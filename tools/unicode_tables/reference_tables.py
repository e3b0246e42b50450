"""Writes engine/text/reference_tables.inc: what Hugging Face tokenizers knows of Unicode.

The components of tokenizer.json use tables of several ages.  Each is asked
here for every code point, so that the tables are the reference's own.

Usage:  python reference_tables.py --out engine/text/reference_tables.inc
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import normalizers, pre_tokenizers

CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
NFD = normalizers.NFD().normalize_str


def pieces(name: pre_tokenizers.PreTokenizer, text: str) -> list[str]:
    return [piece for piece, _ in name.pre_tokenize_str(text)]


def ranges(holds: Callable[[int], bool]) -> list[tuple[int, int]]:
    result: list[list[int]] = []
    for c in filter(holds, CODES):
        if result and result[-1][1] == c - 1:
            result[-1][1] = c
        else:
            result.append([c, c])
    return [(a, b) for a, b in result]


def labelled(label: Callable[[int], int]) -> list[tuple[int, int, int]]:
    """Ranges of equal labels; label 0 is left out."""
    result: list[list[int]] = []
    for c in CODES:
        value = label(c)
        if result and result[-1][1] == c - 1 and result[-1][2] == value:
            result[-1][1] = c
        elif value:
            result.append([c, c, value])
    return [(a, b, v) for a, b, v in result]


def lower_case() -> dict[int, str]:
    lower = normalizers.Lowercase().normalize_str
    return {c: lower(chr(c)) for c in CODES if lower(chr(c)) != chr(c)}


def scripts() -> list[tuple[int, int, int]]:
    """Classes of the scripts that UnicodeScripts tells apart; 0 is Any, which joins both sides."""
    component = pre_tokenizers.UnicodeScripts()
    examples: list[str] = []
    last = 0

    def joins(a: str, b: str) -> bool:
        return pieces(component, a + b) == [a + b]

    def label(c: int) -> int:
        nonlocal last
        x = chr(c)
        if not pieces(component, x):
            return 0
        if last and joins(examples[last - 1], x):
            return last
        for i, example in enumerate(examples):
            if joins(example, x):
                last = i + 1
                return last
        examples.append(x)
        last = len(examples)
        return last

    return labelled(label)


def hexes(values: Iterable[int]) -> Iterator[str]:
    line = ""
    for value in values:
        item = f"0x{value:X},"
        if len(line) + len(item) > 98:
            yield line
            line = ""
        line += item
    yield line


def table(name: str, kind: str, values: list[int]) -> str:
    return f"constexpr {kind} {name}[] = {{\n" + "\n".join(hexes(values)) + "\n};\n"


def flat(rows: Iterable[tuple[int, ...]]) -> list[int]:
    return [value for row in rows for value in row]


def mapping(values: dict[int, str]) -> list[int]:
    """Rows of three: the code point, and the one or two that it becomes."""
    assert max(map(len, values.values())) == 2
    return [n for c, text in values.items() for n in [c, *map(ord, text), 0][:3]]


def sets() -> dict[str, list[tuple[int, int]]]:
    bert, digits = pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits()
    clean = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False,
                                       strip_accents=False, lowercase=False).normalize_str
    accents = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False,
                                         strip_accents=True, lowercase=False).normalize_str
    chinese = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=True,
                                         strip_accents=False, lowercase=False).normalize_str
    strip, nmt = normalizers.StripAccents().normalize_str, normalizers.Nmt().normalize_str
    return {
        "Numeric": ranges(lambda c: pieces(digits, "a" + chr(c)) == ["a", chr(c)]),
        "Punctuation": ranges(lambda c: pieces(bert, "a" + chr(c)) == ["a", chr(c)]),
        "Mark": ranges(lambda c: strip(chr(c)) == ""),
        "BertControl": ranges(lambda c: clean(chr(c)) == ""),
        "BertSpace": ranges(lambda c: c != 0x20 and clean(chr(c)) == " "),
        "BertAccent": ranges(lambda c: NFD(chr(c)) == chr(c) and accents(chr(c)) == ""),
        "BertIdeograph": ranges(lambda c: chinese(chr(c)) != chr(c)),
        "NmtRemoved": ranges(lambda c: nmt(chr(c)) == ""),
        "NmtSpace": ranges(lambda c: c != 0x20 and nmt(chr(c)) == " "),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    parts = [
        "// What Hugging Face tokenizers " + tokenizers.__version__ + " answers for every code"
        " point; written by\n// tools/unicode_tables/reference_tables.py, which tells how.\n"
        "// clang-format off\n"]
    for name, rows in sets().items():
        parts.append(table(f"k{name}Ranges", "char32_t", flat(rows)))
    parts.append(table("kScriptRanges", "char32_t", flat(scripts())))
    parts.append(table("kLowercase", "char32_t", mapping(lower_case())))
    parts.append("// clang-format on\n")
    args.out.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
