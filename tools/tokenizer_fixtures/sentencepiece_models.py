"""Writes the fixtures of tests/engine/tokenizer/fixtures/sentencepiece.

Trains small models with the sentencepiece library, varies them, and records what
the library makes of the texts of corpus.json.  A variant is a model with bytes
behind it: in the wire format of protocol buffers a message that comes twice is
merged, so that a later setting replaces an earlier one.

Usage:  python sentencepiece_models.py [--out DIR] [--folders DIR]
"""

from __future__ import annotations

import argparse
import io
import random
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto

from corpus import HAND, strings
from generate import check_of, dump

Piece = proto.ModelProto.SentencePiece
RULES = "\n".join(["61 301\tE1", "41\t61", "2460\t31", "FB01\t66 69", "C9\t65", "3000\t20", "200B\t",
                   "2025\t2E 2E", "22\t20 22 20", "78 79 7A\t78"]) + "\n"
MARKERS = ["<|im_start|>", "<mask>", "[gMASK]", "sop"]
SPACES = ["\u2581" * n for n in range(2, 9)] + ["\n\n", "\t", "0", "\u4e2d"]


def train(name: str, **settings: Any) -> proto.ModelProto:
    texts = [line for text in HAND for line in text.split("\n") if line.strip()] * 3
    out = io.BytesIO()
    defaults = {"vocab_size": 420, "character_coverage": 0.98, "num_threads": 1, "hard_vocab_limit": False,
                "minloglevel": 2, "normalization_rule_name": "identity"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, **(defaults | settings))
    model = proto.ModelProto.FromString(out.getvalue())
    model.ClearField("denormalizer_spec")
    return model


def rules_file(folder: Path) -> str:
    path = folder / "rules.tsv"
    path.write_text(RULES, encoding="utf-8")
    return str(path)


def with_unused(model: proto.ModelProto, every: int) -> proto.ModelProto:
    out = proto.ModelProto()
    out.CopyFrom(model)
    normal = [p for p in out.pieces if p.type == Piece.NORMAL and len(p.piece) > 1]
    for piece in normal[::every]:
        piece.type = Piece.UNUSED
    return out


def equal_scores(model: proto.ModelProto) -> proto.ModelProto:
    """Scores that repeat, are zero of both signs, or are above zero: ties and their order."""
    out = proto.ModelProto()
    out.CopyFrom(model)
    for i, piece in enumerate(p for p in out.pieces if p.type == Piece.NORMAL):
        piece.score = [-3.0, -2.0, -0.0, 0.0, 1.5, -1e-40][i % 6] if i % 2 else -2.0
    return out


def models(folder: Path) -> dict[str, proto.ModelProto]:
    bytes_bpe = train("bpe_bytes", model_type="bpe", byte_fallback=True, vocab_size=560,
                      remove_extra_whitespaces=False)
    bpe = train("bpe", model_type="bpe", unk_surface="<?>", control_symbols=["<sep>"],
                user_defined_symbols=MARKERS + SPACES, split_by_whitespace=False)
    unigram = train("unigram", model_type="unigram", vocab_size=400, pad_id=3,
                    user_defined_symbols=MARKERS + SPACES)
    bytes_unigram = train("unigram_bytes", model_type="unigram", byte_fallback=True, vocab_size=560,
                          normalization_rule_tsv=rules_file(folder))
    return {
        "bpe_bytes": bytes_bpe, "bpe": bpe, "unigram": unigram, "unigram_bytes": bytes_unigram,
        "bpe_suffix": train("bpe_suffix", model_type="bpe", treat_whitespace_as_suffix=True),
        "bpe_unused": with_unused(bpe, 2), "bpe_ties": equal_scores(bytes_bpe),
        "unigram_unused": with_unused(unigram, 3), "unigram_ties": equal_scores(bytes_unigram),
    }


def nmt_nfkc() -> bytes:
    model = train("nmt_nfkc", model_type="bpe", vocab_size=300, normalization_rule_name="nmt_nfkc")
    return model.normalizer_spec.precompiled_charsmap


def settings(normalizer: dict[str, Any] | None = None, **trainer: Any) -> proto.ModelProto:
    out = proto.ModelProto()
    for key, value in (normalizer or {}).items():
        setattr(out.normalizer_spec, key, value)
    for key, value in trainer.items():
        setattr(out.trainer_spec, key, value)
    return out


def variants(rules: bytes) -> dict[str, tuple[str, bool, proto.ModelProto]]:
    """name -> (model, whether nmt_nfkc.charsmap goes behind it, settings behind that)."""
    out: dict[str, tuple[str, bool, proto.ModelProto]] = {}
    for base in ("bpe_bytes", "bpe", "unigram", "unigram_bytes", "bpe_suffix", "bpe_unused", "bpe_ties",
                 "unigram_unused", "unigram_ties"):
        out[base] = (base, False, settings())
    for base in ("bpe", "bpe_bytes", "unigram", "unigram_bytes"):
        out[base + "_nmt_nfkc"] = (base, True, settings())
        for prefix in (False, True):
            for extra in (False, True):
                out[f"{base}_{prefix}_{extra}"] = (base, base == "bpe", settings(
                    {"add_dummy_prefix": prefix, "remove_extra_whitespaces": extra}))
    out["bpe_rules"] = ("bpe", False, settings({"precompiled_charsmap": rules}))
    out["unigram_rules"] = ("unigram", False, settings({"precompiled_charsmap": rules}))
    out["unigram_suffix"] = ("unigram", True, settings(treat_whitespace_as_suffix=True))
    out["bpe_suffix_bare"] = ("bpe_suffix", False, settings({"add_dummy_prefix": False}))
    out["bpe_spaces"] = ("bpe_bytes", False, settings({"escape_whitespaces": False}))
    out["unigram_spaces"] = ("unigram", True, settings({"escape_whitespaces": False}))
    out["no_surface"] = ("unigram", False, settings(unk_surface=""))
    return out


def random_model(seed: int) -> bytes:
    """Pieces over a small alphabet with scores that repeat: many ways to cut a text, and ties."""
    rng = random.Random(seed)
    model = proto.ModelProto()
    model.trainer_spec.model_type = 1 + seed % 2
    model.trainer_spec.byte_fallback = rng.random() < 0.5
    model.trainer_spec.treat_whitespace_as_suffix = rng.random() < 0.2
    for key in ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        setattr(model.normalizer_spec, key, rng.random() < 0.8)
    model.pieces.add(piece="<unk>", type=Piece.UNKNOWN)
    model.pieces.add(piece="<s>", type=Piece.CONTROL)
    if model.trainer_spec.byte_fallback:
        for byte in range(256):
            model.pieces.add(piece=f"<0x{byte:02X}>", type=Piece.BYTE)
    alphabet = rng.choice(["ab", "abc\u2581", "a\u2581", "ab\u00e9\U0001f642\u2581"])
    scores = rng.choice([[-1.0], [-1.0, -2.0, -3.0], [0.0, -0.0, 1.0], [rng.uniform(-9, 0) for _ in range(40)]])
    texts = {"".join(rng.choices(alphabet, k=rng.randint(1, 6))) for _ in range(rng.randint(4, 90))}
    unused = rng.choice([0, 0, 0.3])
    defined = rng.choice([0, 0, 0.1])
    for text in sorted(texts):
        kind = (Piece.UNUSED if rng.random() < unused else
                Piece.USER_DEFINED if rng.random() < defined else Piece.NORMAL)
        model.pieces.add(piece=text, score=rng.choice(scores), type=kind)
    return model.SerializeToString()


def library(data: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=data)


def is_plain(piece: str) -> bool:
    """As engine/tokenizer/sentencepiece_tokenizer.cc: no piece that could be taken for control."""
    return len(piece) == 1 or all(c == "\u2581" or c.isspace() for c in piece)


def without_markers(data: bytes) -> bytes:
    """The model for a user's text: user-defined pieces that stand for control are never found."""
    model = proto.ModelProto.FromString(data)
    for piece in model.pieces:
        if piece.type == Piece.USER_DEFINED and not is_plain(piece.piece):
            piece.type = Piece.CONTROL
    return model.SerializeToString()


def checks(data: bytes, decode: sentencepiece.SentencePieceProcessor, texts: list[str]) -> str:
    """Two characters per text: ids, pieces, decoded text."""
    processor = library(data)
    result = []
    for text in texts:
        ids = processor.encode(text)
        pieces = "".join(processor.id_to_piece(ids))
        result.append(check_of([ids, list(pieces.encode()), list(decode.decode(ids).encode())])[:2])
    return "".join(result)


def variant_bytes(base: bytes, charsmap: bytes, nfkc: bool, behind: proto.ModelProto) -> bytes:
    first = settings({"precompiled_charsmap": charsmap}).SerializeToString() if nfkc else b""
    return base + first + behind.SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/engine/tokenizer/fixtures/sentencepiece"))
    parser.add_argument("--folders", type=Path, help="write every model as a folder of its own, to fuzz")
    parser.add_argument("--random", type=int, default=40, help="random models among the folders")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bases = {name: model.SerializeToString() for name, model in models(Path("/tmp")).items()}
    charsmap = nmt_nfkc()
    rules = proto.ModelProto.FromString(bases["unigram_bytes"]).normalizer_spec.precompiled_charsmap
    if args.folders:
        for name, (base, nfkc, behind) in variants(rules).items():
            (args.folders / name).mkdir(parents=True, exist_ok=True)
            (args.folders / name / "tokenizer.model").write_bytes(
                variant_bytes(bases[base], charsmap, nfkc, behind))
        for seed in range(args.random):
            (args.folders / f"random_{seed}").mkdir(parents=True, exist_ok=True)
            (args.folders / f"random_{seed}" / "tokenizer.model").write_bytes(random_model(seed))
        return
    texts = strings()
    for name, data in bases.items():
        (args.out / f"{name}.model").write_bytes(data)
    (args.out / "nmt_nfkc.charsmap").write_bytes(charsmap)
    expected = {}
    for name, (base, nfkc, behind) in variants(rules).items():
        data = variant_bytes(bases[base], charsmap, nfkc, behind)
        expected[name] = {"base": base, "nmt_nfkc": nfkc, "behind": list(behind.SerializeToString()),
                          "user": checks(without_markers(data), library(data), texts)}
        if without_markers(data) != data:
            expected[name]["template"] = checks(data, library(data), texts)
    dump(args.out / "expected.json", expected)


if __name__ == "__main__":
    main()
