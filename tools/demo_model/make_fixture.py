"""Writes reference logits of the demo model, computed with transformers.

The engine's tests compare against them.  Computation is in float32 with the
plain ("eager") attention and the bf16 weights widened to float32.  For every
prompt the file has: the token ids; the raw logits at up to three positions as
base64 of little-endian float32; at every position the five most likely next
tokens with their log probabilities; and twelve greedily chosen next tokens
(these go on after an end token).

Usage:  python make_fixture.py --model DIR --out FILE
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

GREEDY_TOKENS = 12
LISTED = 5


def prompts(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, list[int]]:
    chat = [{"role": "system", "content": "You are a helpful assistant. Answer briefly."},
            {"role": "user", "content": "What is the symbol for iron?"},
            {"role": "assistant", "content": "The symbol for iron is Fe."},
            {"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return {
        "begin": [tokenizer.bos_token_id],
        "seven": tokenizer("The capital of New Zealand is")["input_ids"][:7],
        "chat": tokenizer(text, add_special_tokens=False)["input_ids"],
    }


@torch.no_grad()
def describe(model: torch.nn.Module, ids: list[int]) -> dict[str, object]:
    logits = model(torch.tensor([ids])).logits[0].float()
    chosen = sorted({0, len(ids) // 2, len(ids) - 1})
    top = logits.log_softmax(-1).topk(LISTED)
    greedy = list(ids)
    for _ in range(GREEDY_TOKENS):
        greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    return {
        "ids": ids,
        "logits_f32le_base64": {
            str(at): base64.b64encode(logits[at].numpy().astype("<f4").tobytes()).decode("ascii")
            for at in chosen},
        "top": [[[int(i), round(float(p), 5)] for i, p in zip(row_i, row_p)]
                for row_i, row_p in zip(top.indices, top.values)],
        "greedy": greedy[len(ids):],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation="eager").eval()
    weights = (args.model / "model.safetensors").read_bytes()
    fixture = {
        "torch": torch.__version__, "transformers": transformers.__version__,
        "model_sha256": hashlib.sha256(weights).hexdigest(),
        "vocab_size": model.config.vocab_size,
        "prompts": {name: describe(model, ids) for name, ids in prompts(tokenizer).items()},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(fixture, separators=(",", ":")) + "\n", encoding="utf-8")
    for name, entry in fixture["prompts"].items():
        print(f"{name}: {len(entry['ids'])} ids, then {tokenizer.decode(entry['greedy'])!r}")


if __name__ == "__main__":
    main()
