"""Writes a training checkpoint as a model directory in Hugging Face layout.

Weights are rounded to bf16.  Without a checkpoint a randomly initialised
model is written, which is enough to test loading.

Usage:  python export.py --tokenizer DIR --out DIR [--checkpoint FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model import Config, Llama
from tokenizer import BEGIN, END, PAD, write_json


def hub_config(c: Config, tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(BEGIN),
        "eos_token_id": tokenizer.token_to_id(END),
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "hidden_size": c.hidden,
        "initializer_range": 0.02,
        "intermediate_size": c.intermediate,
        "max_position_embeddings": c.positions,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv_heads,
        "pad_token_id": tokenizer.token_to_id(PAD),
        "rms_norm_eps": c.eps,
        "rope_scaling": None,
        "rope_theta": c.theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "airllm_bundled": True,  # does not count as "the only model" beside another
        "vocab_size": c.vocab,
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "bos_token_id": tokenizer.token_to_id(BEGIN),
        "do_sample": False,
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }


def export(weights: dict[str, torch.Tensor], config: Config,
           tokenizer_dir: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    rounded = {name: w.detach().to(torch.bfloat16).contiguous()
               for name, w in sorted(weights.items())}
    save_file(rounded, str(out / "model.safetensors"), metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    write_json(out / "config.json", hub_config(config, tokenizer))
    write_json(out / "generation_config.json", generation_config(tokenizer))
    if tokenizer_dir.resolve() != out.resolve():
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer_dir / name, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.checkpoint:
        saved = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
        weights, config = saved["average"], Config(**saved["config"])
    else:
        torch.manual_seed(args.seed)
        vocab = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")).get_vocab_size()
        config = Config(vocab=vocab)
        weights = Llama(config).state_dict()
    export(weights, config, args.tokenizer, args.out)
    print(json.dumps({"parameters": sum(w.numel() for w in weights.values()),
                      "bytes": (args.out / "model.safetensors").stat().st_size}))


if __name__ == "__main__":
    main()
