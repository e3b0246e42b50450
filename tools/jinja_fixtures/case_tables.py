#!/usr/bin/env python3
"""Writes engine/jinja/case_tables.inc: what Python's str knows of characters and utf8proc does not.

Run with a Python whose unicodedata is of the version that the reference interpreter uses
(Python 3.11: Unicode 14).
"""

import sys
import unicodedata

ALL = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(predicate):
    """The inclusive ranges of code points for which the predicate holds."""
    result = []
    for char in ALL:
        code = ord(char)
        if not predicate(char):
            continue
        if result and result[-1][1] == code - 1:
            result[-1][1] = code
        else:
            result.append([code, code])
    return result


def is_case_ignorable(char):
    """Whether a character between two letters leaves the rule of the final sigma alone."""
    return (char + "\u03a3").lower() == char + "\u03c3" and ("A" + char + "\u03a3").lower().endswith("\u03c2")


def is_cased(char):
    """Whether a capital sigma behind the character is final."""
    return (char + "\u03a3").lower().endswith("\u03c2")


def main():
    """Writes the tables to the file that the command line names."""
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        out.write(f"// Made by tools/jinja_fixtures/case_tables.py from Unicode {unicodedata.unidata_version}.\n")
        for name, method in (("Upper", str.upper), ("Lower", str.lower), ("Title", str.title), ("Fold", str.casefold)):
            out.write(f"constexpr Mapping k{name}[] = {{\n")
            for char in ALL:
                mapped = method(char)
                if mapped != char:
                    text = "".join(f"\\x{byte:02x}" for byte in mapped.encode())
                    out.write(f'    {{{ord(char):#x}, "{text}"}},\n')
            out.write("};\n")
        tables = (
            ("IsLower", str.islower),
            ("IsUpper", str.isupper),
            ("IsDigit", str.isdigit),
            ("IsNumeric", str.isnumeric),
            ("IsDecimal", str.isdecimal),
            ("IsAlpha", str.isalpha),
            ("IsPrintable", str.isprintable),
            ("IsSpace", str.isspace),
            ("IsCased", is_cased),
            ("IsCaseIgnorable", is_case_ignorable),
            ("IsTitle", lambda c: unicodedata.category(c) == "Lt"),
        )
        for name, predicate in tables:
            out.write(f"constexpr Range k{name}[] = {{\n")
            for first, last in ranges(predicate):
                out.write(f"    {{{first:#x}, {last:#x}}},\n")
            out.write("};\n")


if __name__ == "__main__":
    main()
