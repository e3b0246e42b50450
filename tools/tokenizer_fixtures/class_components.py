"""Writes fixtures/class_components.json: components that work by classes of characters.

Each case is a component, a text, and what Hugging Face tokenizers makes of it.

Usage:  python class_components.py --out tests/engine/tokenizer/fixtures
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

SEED, TEXTS = 5, 60
CHARACTERS = list("  aZ19.,'-_\t\n\r\0éÀßİΣа中あー한🙂́ु\u200d\u00a0\u2028\u3000\ufffd$^`²½٣")
NORMALIZERS: list[dict[str, Any]] = [
    {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Nmt"}, {"type": "ByteLevel"},
    *({"type": "Strip", "strip_left": a, "strip_right": b} for a in (False, True)
      for b in (False, True)),
    *({"type": "BertNormalizer", "clean_text": a, "handle_chinese_chars": b, "strip_accents": c,
       "lowercase": d} for a in (False, True) for b in (False, True)
      for c in (None, False, True) for d in (False, True))]
PRE_TOKENIZERS: list[dict[str, Any]] = [
    {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
    {"type": "UnicodeScripts"}, {"type": "CharDelimiterSplit", "delimiter": "a"},
    {"type": "FixedLength", "length": 3},
    *({"type": "Punctuation", "behavior": b} for b in (
        "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"))]
DECODERS: list[dict[str, Any]] = [
    {"type": "WordPiece", "prefix": "##", "cleanup": False},
    {"type": "WordPiece", "prefix": "##", "cleanup": True},
    {"type": "BPEDecoder", "suffix": "</w>"}]
TOKENS = ["a", "##b", "c</w>", ".", "##", " ' ", "'s", " do not", "x ##", "</w></w>", "n't", "?"]


def load(key: str, component: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps({
        "version": "1.0", "added_tokens": [], key: component,
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = random.Random(SEED)
    texts = ["".join(rng.choices(CHARACTERS, k=rng.randrange(14))) for _ in range(TEXTS)]
    lists = [rng.choices(TOKENS, k=rng.randrange(7)) for _ in range(TEXTS)]
    result: dict[str, Any] = {"texts": texts, "lists": lists}
    result["normalizer"] = [
        [c, [load("normalizer", c).normalizer.normalize_str(t) for t in texts]]
        for c in NORMALIZERS]
    result["pre_tokenizer"] = [
        [c, [[p for p, _ in load("pre_tokenizer", c).pre_tokenizer.pre_tokenize_str(t)]
             for t in texts]] for c in PRE_TOKENIZERS]
    result["decoder"] = [
        [c, [load("decoder", c).decoder.decode(t) if t else "" for t in lists]]
        for c in DECODERS]
    text = json.dumps(result, separators=(",", ":"))
    (args.out / "class_components.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
