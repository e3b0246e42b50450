"""Writes small Llama checkpoints in Hugging Face layout with random weights, for tests.

The weights are the same for the same shape and seed. Only what the tests need is configurable.
"""

import json
import os
import random
import shutil

import harness
from safetensors_header import BYTES_PER_ELEMENT, header_of

BLOCK = 1 << 20


class Shape:
    """A Llama's sizes; the defaults make a model of about 1 MB."""

    def __init__(self, **sizes):
        self.hidden = 64
        self.inter = 128
        self.layers = 4
        self.heads = 4
        self.kv_heads = 2
        self.vocab = 3072
        self.context = 512
        self.tied = True
        self.dtype = "BF16"
        for key, value in sizes.items():
            assert hasattr(self, key), key
            setattr(self, key, value)
        self.head_dim = self.hidden // self.heads

    def tensors(self):
        """(name, shape) of every tensor."""
        kv = self.kv_heads * self.head_dim
        yield "model.embed_tokens.weight", [self.vocab, self.hidden]
        for i in range(self.layers):
            layer = f"model.layers.{i}."
            yield layer + "input_layernorm.weight", [self.hidden]
            yield layer + "self_attn.q_proj.weight", [self.hidden, self.hidden]
            yield layer + "self_attn.k_proj.weight", [kv, self.hidden]
            yield layer + "self_attn.v_proj.weight", [kv, self.hidden]
            yield layer + "self_attn.o_proj.weight", [self.hidden, self.hidden]
            yield layer + "post_attention_layernorm.weight", [self.hidden]
            yield layer + "mlp.gate_proj.weight", [self.inter, self.hidden]
            yield layer + "mlp.up_proj.weight", [self.inter, self.hidden]
            yield layer + "mlp.down_proj.weight", [self.hidden, self.inter]
        yield "model.norm.weight", [self.hidden]
        if not self.tied:
            yield "lm_head.weight", [self.vocab, self.hidden]

    def config(self):
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": self.hidden, "intermediate_size": self.inter,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "vocab_size": self.vocab, "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": self.tied,
            "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": {
                "BF16": "bfloat16", "F32": "float32"}[self.dtype],
        }


def random_block(dtype, seed):
    """BLOCK bytes of numbers of both signs between about 0.002 and 0.06."""
    source = random.Random(seed)
    width = BYTES_PER_ELEMENT[dtype]
    block = bytearray(source.randbytes(BLOCK))
    high = bytes((0x3B, 0x3C, 0xBB, 0xBC)[i % 4] for i in range(256))
    block[width - 1::width] = source.randbytes(BLOCK // width).translate(high)
    return bytes(block)


def write_safetensors(path, tensors, dtype, seed=1):
    header, total = header_of([(name, dtype, shape) for name, shape in tensors])
    block = random_block(dtype, seed)
    with open(path, "wb") as file:
        file.write(header)
        for _ in range(total // BLOCK):
            file.write(block)
        file.write(block[:total % BLOCK])


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def write(folder, seed=1, tokenizer=True, files=1, **sizes):
    """A checkpoint in `folder` (made if needed), in `files` weight files; returns its Shape."""
    shape = Shape(**sizes)
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, "config.json"), shape.config())
    write_json(os.path.join(folder, "generation_config.json"),
               {"bos_token_id": 1, "eos_token_id": 2, "do_sample": False})
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(os.path.join(harness.DEMO, name), os.path.join(folder, name))
    tensors = list(shape.tensors())
    if files == 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), tensors, shape.dtype, seed)
        return shape
    weight_map = {}
    for i in range(files):
        name = f"model-{i + 1:05}-of-{files:05}.safetensors"
        part = tensors[i::files]
        write_safetensors(os.path.join(folder, name), part, shape.dtype, seed + i)
        weight_map.update({tensor: name for tensor, _ in part})
    write_json(os.path.join(folder, "model.safetensors.index.json"),
               {"metadata": {}, "weight_map": weight_map})
    return shape


def write_endless(folder):
    """A small model whose context takes many seconds to fill."""
    return write(folder, layers=2, context=131072)
