"""Writes the tokenizer fixtures of tests/engine/tokenizer with Hugging Face tokenizers.

Trains tiny tokenizers of every kind of model and variants of them, and records
the ids and texts of the reference.  With --real DIR... records ids of published tokenizers, which are not committed
themselves.

Usage:  python generate.py [--out DIR [--real NAME=tokenizer.json ...]] [--folders DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

from corpus import HAND, ids_to_decode, strings

# One thread, so that training gives the same file again.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.append(str(Path(__file__).parent.parent / "unicode_tables"))
from charsmap import charsmap  # noqa: E402


O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m"
         r"|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re"
         r"|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
RULES = {"é": "e", "\uff01": "!", "\u00a0": " ", "\u3000": " ", "\ufb01": "fi", "e\u0301": "e", "\u0301": "",
         "\u200b": "", "½": "1\u20442", "Å": "A", "\t": " ", "\n": " ", "'": "\u2019", "\u2126": "\u03a9"}
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


def affixes() -> Tokenizer:
    """Words whose later pieces begin with "##" and whose last one ends with "</w>"."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##",
                                     end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    texts = [s for s in HAND if s.isascii() and "<" not in s]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
        continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    tokenizer.add_tokens(ADDED)
    return tokenizer


def unigram() -> Tokenizer:
    """As converters of tokenizer.model write them."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(charsmap(RULES)), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    # The trainer would learn a special token a second time.
    texts = [text for text in HAND if "<" not in text]
    tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(
        vocab_size=420, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>",
        show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.add_tokens(ADDED)
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=50))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(HAND, trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_tokens(ADDED)
    return tokenizer


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(HAND, trainers.WordLevelTrainer(
        vocab_size=400, special_tokens=["[UNK]", "[SEP]"], show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 1)])
    tokenizer.add_tokens(ADDED)
    return tokenizer


def split(pattern: Any, behavior: str, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def metaspace(scheme: str, cut: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """name -> (base tokenizer, members that differ; "model" members are merged)."""
    byte, fallback, affix = "byte_level", "byte_fallback", "affixes"
    result: dict[str, tuple[str, dict[str, Any]]] = {}
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            for kind, pattern in (("string", {"String": "a"}), ("regex", {"Regex": r"\s+|\d"})):
                result[f"split_{behavior}_{invert}_{kind}"] = (byte, {
                    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                        split(pattern, behavior, invert), BYTES]}})
    result["o200k"] = (byte, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        split({"Regex": O200K}, "Isolated"), BYTES]}})
    result["gpt2"] = (byte, {"pre_tokenizer": {**BYTES, "use_regex": True}, "normalizer": None})
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
    for fuse in (False, True):
        result[f"affixes_fused_{fuse}"] = (affix, {
            "model": {"fuse_unk": fuse}, "pre_tokenizer": None})
    result["affixes_dropped_unknown"] = (affix, {"model": {"unk_token": None}})
    result["no_decoder"] = (fallback, {"decoder": None})
    result["unigram_bytes"] = ("unigram", {"model": {"byte_fallback": True}})
    result["unigram_bare"] = ("unigram", {"normalizer": None, "pre_tokenizer": None, "decoder": None})
    for scheme in ("first", "never"):
        result[f"unigram_{scheme}"] = ("unigram", {
            "pre_tokenizer": metaspace(scheme, scheme == "first"),
            "decoder": metaspace(scheme, True)})
    result["word_piece_cased"] = ("word_piece", {
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": False},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False}})
    result["word_piece_short"] = ("word_piece", {"model": {"max_input_chars_per_word": 3}})
    result["word_level_split"] = ("word_level", {
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "normalizer": {"type": "Lowercase"}})
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


SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def check_of(fields: list[list[int]]) -> str:
    """FNV-1a over lengths and numbers, folded to 24 bits, as four characters."""
    value = 0xcbf29ce484222325
    for numbers in fields:
        for number in [len(numbers), *numbers]:
            value = ((value ^ number) * 0x100000001b3) & (2 ** 64 - 1)
    value ^= value >> 24 ^ value >> 48
    return "".join(SYMBOLS[value >> shift & 63] for shift in (0, 6, 12, 18))


def checks(tokenizer: Tokenizer, texts: list[str]) -> str:
    """Four characters per text: ids with and without what is added, pieces, decoded texts."""
    result = []
    for text in texts:
        whole = tokenizer.encode(text)
        bare = tokenizer.encode(text, add_special_tokens=False)
        decoded = [tokenizer.decode(whole.ids, skip_special_tokens=skip) for skip in (False, True)]
        # Not whole.tokens, which holds the white space that an added token with lstrip took.
        pieces = "".join(tokenizer.id_to_token(id) for id in whole.ids)
        result.append(check_of([whole.ids, bare.ids, list(pieces.encode()),
                                *(list(d.encode()) for d in decoded)]))
    return "".join(result)


def dump(path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def record(tokenizer: Tokenizer, texts: list[str]) -> dict[str, Any]:
    """All of the reference's answers for the texts written by hand, and checks for all texts."""
    encoded = [tokenizer.encode(text).ids for text in dict.fromkeys(HAND)]
    special = [tokenizer.token_to_id(t.content)
               for t in tokenizer.get_added_tokens_decoder().values() if t.special]
    lists = ids_to_decode(tokenizer.get_vocab_size(), special)
    return {
        "encoded": encoded,
        "ids": lists,
        "texts": [tokenizer.decode(ids, skip_special_tokens=False) for ids in lists],
        "texts_without_special": [tokenizer.decode(ids) for ids in lists],
        "checks": checks(tokenizer, texts),
    }


def write_folders(folder: Path, bases: dict[str, str]) -> None:
    everything = {name: Tokenizer.from_str(text) for name, text in bases.items()}
    everything |= {name: apply_variant(bases[base], changes)
                   for name, (base, changes) in variants().items()}
    for name, tokenizer in everything.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / name / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--real", nargs="*", default=[])
    parser.add_argument("--folders", type=Path,
                        help="write every tokenizer as a folder of its own, to fuzz")
    args = parser.parse_args()
    bases = {make.__name__: make().to_str() for make in (byte_level, byte_fallback, affixes, unigram, word_piece,
                                                        word_level)}
    if args.folders:
        write_folders(args.folders, bases)
    if args.out is None:
        return
    texts = strings()
    dump(args.out / "corpus.json", texts)
    for name, text in bases.items():
        dump(args.out / f"{name}.json", json.loads(text))
        dump(args.out / f"{name}_expected.json", record(Tokenizer.from_str(text), texts))
    dump(args.out / "variants.json", {
        name: {"base": base, "changes": changes,
               "checks": checks(apply_variant(bases[base], changes), texts)}
        for name, (base, changes) in variants().items()})
    if args.real:
        items = [item.partition("=") for item in args.real]
        dump(args.out / "real.json", {
            name: checks(Tokenizer.from_file(path), texts) for name, _, path in items})


if __name__ == "__main__":
    main()
