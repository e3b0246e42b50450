"""Writes fixtures/precompiled.json: the normalizer Precompiled against Hugging Face tokenizers.

Two maps of characters: sentencepiece/nmt_nfkc.charsmap, and one of rules that
begin with each other and whose first characters stand in clusters of all kinds.

Usage:  python precompiled.py [--out tests/engine/tokenizer/fixtures]
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
from pathlib import Path

from tokenizers import normalizers

from corpus import strings
from generate import check_of, dump

sys.path.append(str(Path(__file__).parent.parent / "unicode_tables"))
from charsmap import charsmap  # noqa: E402

SEED, TEXTS = 3, 400
RULES = {"a": "A", "a\u0301": "X", "ab": "Y", "e\u0301": "\u00e9", "\u0301": "", "\u0308": "M", "\r": "R", "\n": " ",
         "\u00a9": "(c)", "\ufb01": "fi", "\u0915": "K", "\u094d": "v", "\u1100": "G", "\u1161": "V", "\uac00": "GV",
         "\u0600": "P", "\u200d": "j", "\U0001f642": ":)", "\U000110bd": "p", "\u2764\ufe0f": "<3", "\u2764": "h"}
CHARACTERS = list("aaab e\u00a9\ufb01\u0301\u0301\u0308\u200d\u200d\r\n\0\u0915\u0915\u094d\u093c\u0903\u1100\u1161\u11a8\uac00"
                  "\uac01\u0600\u2764\ufe0f\U0001f642\U0001f3fd\U0001f1e6\U0001f1e7\U000110bd\u3000\uff21\u00bd\u200b\u0e33")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/engine/tokenizer/fixtures"))
    args = parser.parse_args()
    rng = random.Random(SEED)
    texts = ["".join(rng.choices(CHARACTERS, k=rng.randrange(1, 9))) for _ in range(TEXTS)]
    maps = {"rules": charsmap(RULES), "nmt_nfkc": (args.out / "sentencepiece/nmt_nfkc.charsmap").read_bytes()}
    result = {"texts": texts, "maps": {}}
    for name, data in maps.items():
        normalize = normalizers.Precompiled(data).normalize_str
        result["maps"][name] = {
            # Only the small one: the other lies beside it.
            "charsmap": base64.b64encode(data).decode() if name == "rules" else "",
            "normalized": [normalize(text) for text in texts],
            "checks": "".join(check_of([list(normalize(text).encode())])[:2] for text in strings())}
    dump(args.out / "precompiled.json", result)


if __name__ == "__main__":
    main()
