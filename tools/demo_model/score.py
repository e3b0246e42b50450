"""Measures the held-out questions in PyTorch, without the airllm programs.

Greedy decoding gives the expected answer exactly when every token of that
answer, the end token included, is the most likely one after the tokens before
it; so one pass over question plus expected answer decides each question.

Usage:  python score.py --model DIR [--limit N] [--checkpoint FILE]
"""

from __future__ import annotations

import argparse
import collections
import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import corpus as corpus_module
import heldout
from model import Config, Llama
from train import Encoder, Row, make_batch


def load_model(directory: Path, checkpoint: Path | None) -> Llama:
    """Weights as exported, or a checkpoint's rounded the same way to bf16."""
    if checkpoint:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights, config = saved["average"], Config(**saved["config"])
    else:
        weights = load_file(str(directory / "model.safetensors"))
        raw = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        config = Config(raw["vocab_size"], raw["hidden_size"], raw["num_hidden_layers"],
                        raw["num_attention_heads"], raw["num_key_value_heads"],
                        raw["head_dim"], raw["intermediate_size"],
                        raw["max_position_embeddings"], raw["rope_theta"], raw["rms_norm_eps"])
    model = Llama(config)
    model.load_state_dict({n: w.to(torch.bfloat16).float() for n, w in weights.items()})
    return model.eval()


def with_system(items: list[dict[str, str]], rng: random.Random) -> list[dict[str, str]]:
    """The same capitals again with a system message, as category of its own."""
    systems = corpus_module.WORDINGS["system"]
    return [dict(item, category="capital+system", system=rng.choice(systems))
            for item in items if item["category"] == "capital"]


def with_document(items: list[dict[str, str]], rng: random.Random) -> list[dict[str, str]]:
    """Capitals with 20 to 120 words of text and a blank line before the question."""
    corpus = corpus_module.Corpus(rng)
    chosen = [item for item in items if item["category"] == "capital"]
    return [dict(item, category="capital+text",
                 question=corpus.document(rng.randint(20, 120)) + "\n\n" + item["question"])
            for item in rng.sample(chosen, min(400, len(chosen)))]


def with_case(items: list[dict[str, str]]) -> list[dict[str, str]]:
    """Capitals in lower case and without the closing mark."""
    return [dict(item, category="capital+lower", question=item["question"].lower().rstrip("?."))
            for item in items if item["category"] == "capital"]


def row_of(encoder: Encoder, item: dict[str, str]) -> Row:
    messages = [corpus_module.Message("system", item["system"])] if "system" in item else []
    messages += [corpus_module.Message("user", item["question"]),
                 corpus_module.Message("assistant", item["answer"])]
    never = random.Random(0)
    never.random = lambda: 1.0  # type: ignore[method-assign]  # no random text
    return encoder.conversation(messages, never)


@torch.no_grad()
def judge(model: Llama, rows: list[Row]) -> list[bool]:
    batch = make_batch(rows)
    states = model.hidden(batch.inputs).flatten(0, 1)[batch.positions]
    right = model.logits(states).argmax(-1) == batch.targets
    verdicts, at = [], 0
    for row in rows:
        count = sum(row.trained)
        verdicts.append(bool(right[at:at + count].all()))
        at += count
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="questions per category")
    parser.add_argument("--wrong", type=int, default=0,
                        help="print this many wrong ones per category")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model, args.checkpoint)
    encoder = Encoder(Tokenizer.from_file(str(args.model / "tokenizer.json")), model.c.positions)
    items = list(heldout.held_out())
    rng = random.Random(5)
    items += with_system(items, rng) + with_document(items, rng) + with_case(items)
    rng.shuffle(items)
    groups: dict[str, list[dict[str, str]]] = collections.defaultdict(list)
    for item in items:
        if not args.limit or len(groups[item["category"]]) < args.limit:
            groups[item["category"]].append(item)
    for category, group in sorted(groups.items()):
        group.sort(key=lambda item: len(item["question"]))
        verdicts: list[bool] = []
        for start in range(0, len(group), 64):
            verdicts += judge(model, [row_of(encoder, item) for item in group[start:start + 64]])
        right, asked = sum(verdicts), len(verdicts)
        print(f"{category:16} {right:5}/{asked:5} {100 * right / asked:6.2f} %", flush=True)
        for item in [i for i, good in zip(group, verdicts) if not good][:args.wrong]:
            print("    ", item["question"][-90:].replace("\n", " "), "->", item["answer"])


if __name__ == "__main__":
    main()
