"""Qwen-1's tokenizer by the tiktoken library, as its tokenization_qwen.py has it, under the names of
Hugging Face tokenizers; and *.tiktoken files for it.

Usage:  python qwen1.py [--folder DIR [--vocabulary tokenizer.json]] [--out FIXTURES]

Writes DIR/qwen.tiktoken and DIR/tokenizer_config.json: from the vocabulary of a byte-level
tokenizer.json, or else a small one that is trained here. --out writes the small one and what the
library answers, as tests/engine/tokenizer/fixtures holds them. Needs tokenizers and tiktoken.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
from tiktoken.load import load_tiktoken_bpe
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from corpus import HAND, strings

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]


def byte_characters() -> list[str]:
    """The character of byte-level BPE for each byte (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


CHARACTERS = byte_characters()
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}


@dataclass
class Encoding:
    ids: list[int]
    tokens: list[str]


@dataclass
class Special:
    content: str
    special: bool = True


class Qwen1:
    """What the fixtures and the fuzzer ask of a reference."""

    def __init__(self, path: Path) -> None:
        ranks = load_tiktoken_bpe(str(path))
        self.special = {name: len(ranks) + i for i, name in enumerate(SPECIAL)}
        self.encoding = tiktoken.Encoding("Qwen", pat_str=PATTERN, mergeable_ranks=ranks,
                                          special_tokens=self.special)

    def encode(self, text: str, add_special_tokens: bool = True) -> Encoding:
        del add_special_tokens  # Qwen-1 adds none
        ids = self.encoding.encode(unicodedata.normalize("NFC", text), allowed_special="all",
                                   disallowed_special=())
        return Encoding(ids, [self.id_to_token(i) for i in ids])

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool = True) -> list[Encoding]:
        return [self.encode(text, add_special_tokens) for text in texts]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        first_special = min(self.special.values())
        kept = [i for i in ids if i < first_special or not skip_special_tokens]
        return self.encoding.decode(kept, errors="replace")

    def decode_batch(self, lists: list[list[int]], skip_special_tokens: bool = True) -> list[str]:
        return [self.decode(ids, skip_special_tokens) for ids in lists]

    def token_to_id(self, token: str) -> int:
        return self.encoding.encode_single_token(token)

    def id_to_token(self, token: int) -> str:
        data = self.encoding.decode_single_token_bytes(token)
        return "".join(CHARACTERS[byte] for byte in data)

    def get_added_tokens_decoder(self) -> dict[int, Special]:
        return {i: Special(name) for name, i in self.special.items()}

    def get_vocab_size(self) -> int:
        return self.encoding.n_vocab

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        return {self.id_to_token(i): i for i in range(self.encoding.n_vocab)}

    def no_truncation(self) -> None: ...

    def no_padding(self) -> None: ...


def published(path: Path) -> list[bytes]:
    """The tokens of a byte-level tokenizer.json in the order of their ids."""
    vocabulary: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    return [bytes(BYTES[c] for c in token) for token in ordered]


def trained() -> list[bytes]:
    """Bytes, tokens trained on the corpus, and random ones that no merges lead to in one way only."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(HAND, trainers.BpeTrainer(
        vocab_size=520, show_progress=False, initial_alphabet=CHARACTERS))
    learned = tokenizer.get_vocab()
    tokens = [bytes(BYTES[c] for c in token) for token in sorted(learned, key=learned.__getitem__)]
    rng = random.Random(1)
    while len(tokens) < 700:
        token = "".join(rng.choice("ab aé") for _ in range(rng.randint(2, 5))).encode()
        if token not in tokens:
            tokens.insert(rng.randint(256, len(tokens)), token)
    return tokens


def write_ranks(path: Path, tokens: list[bytes]) -> None:
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    path.write_text("".join(lines), encoding="ascii")


def write(folder: Path, tokens: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_ranks(folder / "qwen.tiktoken", tokens)
    config: dict[str, Any] = {"auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
                              "model_max_length": 8192, "tokenizer_class": "QWenTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--vocabulary", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.folder:
        write(args.folder, published(args.vocabulary) if args.vocabulary else trained())
    if args.out:
        from generate import dump, record  # which the fuzzer does not need
        write_ranks(args.out / "qwen.tiktoken", trained())
        dump(args.out / "qwen_tiktoken_expected.json",
             record(Qwen1(args.out / "qwen.tiktoken"), strings()))


if __name__ == "__main__":
    main()
