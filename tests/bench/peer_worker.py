#!/usr/bin/env python3
"""A peer that decodes when told to: a line of standard input is "decode N" or "prompt N" with a number of
tokens, one of standard output the seconds that each took to decode, or that all of the prompt took. Run by tests/bench/peers, with a Python that has the peer.

    peer_worker.py llama_cpp MODEL.gguf THREADS     llama-cpp-python
    peer_worker.py airllm SOURCE FOLDER             AirLLM, on the processor; FOLDER gets its layers
    peer_worker.py gguf SOURCE MODEL.gguf           no peer: makes a Llama checkpoint's GGUF (F16 or F32)
"""
import json
import os
import sys
import time

PROMPT = [1, 2, 3]
EMBEDDING = "model.embed_tokens.weight"


def serve(decode, prompt=None) -> None:
    """Both give the seconds of so many tokens, which `prompt` takes at once."""
    for line in sys.stdin:
        what, tokens = line.split()
        count = int(tokens)
        print(json.dumps(decode(count) / count if what == "decode" else prompt(count)), flush=True)


def llama_cpp(path: str, threads: str) -> None:
    from llama_cpp import Llama
    model = Llama(path, n_ctx=1024, n_batch=512, n_threads=int(threads),
                  n_threads_batch=int(threads), verbose=False)

    def decode(tokens: int) -> float:
        model.reset()
        model.eval(PROMPT)
        start = time.monotonic()
        for token in range(tokens):
            model.eval([token + 5])
        return time.monotonic() - start

    def prompt(tokens: int) -> float:
        model.reset()
        start = time.monotonic()
        model.eval([(i * 37 + 11) % 30000 for i in range(tokens)])
        return time.monotonic() - start

    serve(decode, prompt)


def airllm(source: str, folder: str) -> None:
    out = os.dup(1)  # it prints much
    os.dup2(2, 1)
    import airllm as peer
    import torch
    from airllm.airllm_base import AirLLMBaseModel
    AirLLMBaseModel.get_tokenizer = lambda *_args, **_kwargs: None  # the checkpoint has none
    model = peer.AutoModel.from_pretrained(source, device="cpu", dtype=torch.bfloat16,
                                           layer_shards_saving_path=folder)
    ids = torch.tensor([PROMPT])

    def generate(tokens: int) -> float:
        start = time.monotonic()
        with torch.inference_mode():
            model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                           use_cache=True)
        return time.monotonic() - start

    first = generate(1)
    os.dup2(out, 1)
    print("the first token:", first, file=sys.stderr)

    def decode(tokens: int) -> float:
        # All tokens but the first, which takes the prompt.
        return generate(tokens + 1) * tokens / (tokens + 1)

    serve(decode)


def gguf(source: str, target: str) -> None:
    import gguf as library
    from safetensors import safe_open
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = library.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
             "post_attention_layernorm": "ffn_norm"}
    files = {}
    for entry in sorted(os.listdir(source)):
        if entry.endswith(".safetensors"):
            file = safe_open(os.path.join(source, entry), "np")
            files.update({name: file for name in file.keys()})

    def add(theirs: str, ours: str, permuted_heads: int = 0) -> None:
        data = files[theirs].get_tensor(theirs)
        if permuted_heads:  # pairs of halves become neighbours, as llama.cpp rotates
            data = (data.reshape(permuted_heads, 2, head_dim // 2, -1).swapaxes(1, 2)
                    .reshape(data.shape))
        writer.add_tensor(ours, data.astype("float32") if data.ndim == 1 else data)

    add(EMBEDDING, "token_embd.weight")
    for layer in range(layers):
        for theirs, ours in names.items():
            permuted = {"attn_q": heads, "attn_k": kv_heads}.get(ours, 0)
            add(f"model.layers.{layer}.{theirs}.weight", f"blk.{layer}.{ours}.weight", permuted)
    add("model.norm.weight", "output_norm.weight")
    if not config.get("tie_word_embeddings"):
        add("lm_head.weight", "output.weight")
    types = {"F16": library.LlamaFileType.MOSTLY_F16, "F32": library.LlamaFileType.ALL_F32}
    writer.add_file_type(types[files[EMBEDDING].get_slice(EMBEDDING).get_dtype()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    {"llama_cpp": llama_cpp, "airllm": airllm, "gguf": gguf}[sys.argv[1]](*sys.argv[2:])
