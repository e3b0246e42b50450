"""Writes the tokenizer fixtures of tests/engine/tokenizer with Hugging Face tokenizers.

Trains two tiny tokenizers (byte-level; SentencePiece-style with byte fallback)
and variants of them, and records the ids and texts of the reference.  With
--real DIR... records ids of published tokenizers, which are not committed
themselves.

Usage:  python generate.py --out DIR [--real NAME=tokenizer.json ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

from corpus import HAND, ids_to_decode, strings

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
ADDED = [
    AddedToken("<|strip|>", lstrip=True, rstrip=True, normalized=False),
    AddedToken("word", single_word=True, normalized=False),
    AddedToken("norm", normalized=True),
    AddedToken("[T]", normalized=False),
    AddedToken("[T2]", normalized=False, special=True),
]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(HAND, trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A",
                                      special_tokens=[("<|begin|>", 0)])])
    tokenizer.add_tokens(ADDED)
    return tokenizer


def byte_fallback() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    # Only ASCII in training, so that the rest falls back to bytes.
    texts = [s for s in HAND if s.isascii() and s.isprintable() and "<" not in s]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=470, special_tokens=specials, show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = None
    data["added_tokens"] = data["added_tokens"][:3]
    data["model"].update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    result = Tokenizer.from_str(json.dumps(data))
    result.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                        decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    result.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)])
    result.add_tokens(ADDED)
    return result


def split(pattern: Any, behavior: str, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def metaspace(scheme: str, cut: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """name -> (base tokenizer, members that differ; "model" members are merged)."""
    byte, fallback = "byte_level", "byte_fallback"
    result: dict[str, tuple[str, dict[str, Any]]] = {}
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            for kind, pattern in (("string", {"String": "a"}), ("regex", {"Regex": r"\s+|\d"})):
                result[f"split_{behavior}_{invert}_{kind}"] = (byte, {
                    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                        split(pattern, behavior, invert), BYTES]}})
    for individual in (False, True):
        result[f"digits_{individual}"] = (byte, {"pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": individual},
                {**BYTES, "use_regex": True}]}})
    result["gpt2_prefix"] = (byte, {"pre_tokenizer": {
        **BYTES, "add_prefix_space": True, "use_regex": True}, "normalizer": None,
        "post_processor": None, "model": {"ignore_merges": False}})
    for form in ("NFD", "NFKC", "NFKD"):
        result[f"form_{form}"] = (byte, {"normalizer": {"type": form}})
    result["replace_regex"] = (byte, {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": r" {2,}|\d"}, "content": "<|end|>"}]}})
    for scheme in ("always", "first", "never"):
        for cut in (False, True):
            result[f"metaspace_{scheme}_{cut}"] = (fallback, {
                "normalizer": None, "pre_tokenizer": metaspace(scheme, cut),
                "decoder": metaspace(scheme, cut)})
    result["gemma"] = (fallback, {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": split({"String": " "}, "MergedWithPrevious"),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]}})
    for fuse in (False, True):
        result[f"unknown_{fuse}"] = (fallback, {
            "model": {"byte_fallback": False, "fuse_unk": fuse}})
    result["dropped_unknown"] = (fallback, {
        "model": {"byte_fallback": False, "unk_token": None}})
    result["no_decoder"] = (fallback, {"decoder": None})
    # Without "stop": the reference panics where a token has fewer characters than that.
    result["strip"] = (byte, {"decoder": {"type": "Sequence", "decoders": [
        {"type": "Strip", "content": "a", "start": 2, "stop": 0}, {"type": "Fuse"},
        {"type": "Strip", "content": "Ġ", "start": 1, "stop": 0}]}})
    return result


def apply_variant(base: str, changes: dict[str, Any]) -> Tokenizer:
    data = json.loads(base)
    for key, value in changes.items():
        if key == "model":
            data["model"].update(value)
        else:
            data[key] = value
    return Tokenizer.from_str(json.dumps(data))


def digest(lists: list[list[int]]) -> str:
    """FNV-1a over lengths and ids, so that a variant's results stay small."""
    value = 0xcbf29ce484222325
    for ids in lists:
        for number in [len(ids), *ids]:
            value = ((value ^ number) * 0x100000001b3) & (2 ** 64 - 1)
    return f"{value:016x}"


def dump(path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def record(tokenizer: Tokenizer, texts: list[str]) -> dict[str, Any]:
    encoded = [tokenizer.encode(text).ids for text in texts]
    special = [tokenizer.token_to_id(t.content)
               for t in tokenizer.get_added_tokens_decoder().values() if t.special]
    lists = ids_to_decode(tokenizer.get_vocab_size(), special)
    return {
        "encoded": encoded,
        "bare": digest([tokenizer.encode(t, add_special_tokens=False).ids for t in texts]),
        "decoded": [tokenizer.decode(ids, skip_special_tokens=False) for ids in encoded],
        "ids": lists,
        "texts": [tokenizer.decode(ids, skip_special_tokens=False) for ids in lists],
        "texts_without_special": [tokenizer.decode(ids) for ids in lists],
    }


def record_variant(tokenizer: Tokenizer, texts: list[str]) -> dict[str, Any]:
    """One digest per eight texts; decoded texts count as their UTF-8 bytes."""
    encoded = [tokenizer.encode(text).ids for text in texts]
    decoded = [list(tokenizer.decode(ids).encode()) for ids in encoded]
    groups = range(0, len(texts), 8)
    return {"encoded": [digest(encoded[i:i + 8]) for i in groups],
            "decoded": [digest(decoded[i:i + 8]) for i in groups]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", nargs="*", default=[])
    args = parser.parse_args()
    texts = strings()
    dump(args.out / "corpus.json", texts)
    bases = {"byte_level": byte_level().to_str(), "byte_fallback": byte_fallback().to_str()}
    for name, text in bases.items():
        dump(args.out / f"{name}.json", json.loads(text))
        dump(args.out / f"{name}_expected.json", record(Tokenizer.from_str(text), texts))
    dump(args.out / "variants.json", {
        name: {"base": base, "changes": changes,
               **record_variant(apply_variant(bases[base], changes), texts)}
        for name, (base, changes) in variants().items()})
    if args.real:
        real = {}
        for item in args.real:
            name, _, path = item.partition("=")
            real[name] = record_variant(Tokenizer.from_file(path), texts)
        dump(args.out / "real.json", real)


if __name__ == "__main__":
    main()
