#!/usr/bin/env python3
"""One step of tests/bench/quality, in a Python that has what it takes; prints a JSON object.

    quality_worker.py prepare SOURCE OUT EXPANDED COUNT FACTOR   torch: outlier dimensions, f32 weights
    quality_worker.py texts MODEL OUT.json POSITIONS QUESTIONS   tokenizers, torch: what is asked of every engine
    quality_worker.py reference EXPANDED TEXTS REFERENCE.npy      transformers in f32
    quality_worker.py nf4 EXPANDED TEXTS REFERENCE.npy            bitsandbytes, dequantised, in f32
    quality_worker.py gguf_of MODEL.gguf TARGET.gguf TYPE         llama-cpp-python, gguf
    quality_worker.py llama_cpp MODEL.gguf TEXTS REFERENCE.npy    llama-cpp-python
    quality_worker.py airllm CLIENT SOCKET NAME TEXTS REFERENCE.npy

TEXTS has `sequences`, of which every engine gives all log-probabilities at each position, and
`questions`, of which only the likeliest token counts, at the positions before the answer's tokens.
REFERENCE.npy holds the reference's log-probabilities, [positions, vocabulary].
"""
import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAX_TOKENS = 1024
ALL_TOKENS = "1000000000"  # of a vocabulary
AT_ONCE = 8  # asked of airllm
BLOCK = 64  # of bitsandbytes' NF4


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def read_texts(path: str) -> dict:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def right(questions: list[dict], likeliest: Callable) -> int:
    """How many are answered exactly: greedy decoding gives an answer just when each of its tokens is the
    likeliest after those before it."""
    count = 0
    for question, tokens in zip(questions, likeliest([q["ids"][:-1] for q in questions]), strict=True):
        first = question["answer"]
        count += list(tokens[first - 1:]) == question["ids"][first:]
    return count


def measure(texts_path: str, reference_path: str, logits_of: Callable, likeliest: Callable,
            **more) -> None:
    """Prints how far the distributions are from the reference's: Kullback-Leibler, in nats. Of rows of
    ids, logits_of() gives the logits at each position, likeliest() the likeliest token."""
    texts = read_texts(texts_path)
    reference = np.load(reference_path, mmap_mode="r")
    at, divergences, agreeing = 0, [], []
    for logits in logits_of([sequence["ids"][:-1] for sequence in texts["sequences"]]):
        ours = log_softmax(logits)
        theirs = log_softmax(reference[at:at + len(ours)])
        divergences.append((np.exp(theirs) * (theirs - ours)).sum(axis=-1))
        agreeing.append(theirs.argmax(axis=-1) == ours.argmax(axis=-1))
        at += len(ours)
    kl = np.concatenate(divergences)
    learned = np.concatenate([np.array(s["learned"][1:]) for s in texts["sequences"]])
    print(json.dumps(more | {
        "positions": len(kl), "kl": kl.mean(), "kl_error": kl.std() / len(kl) ** 0.5,
        "kl_p99": np.quantile(kl, 0.99), "kl_answers": kl[learned].mean(),
        "same_first": np.concatenate(agreeing).mean(),
        "questions": len(texts["questions"]), "exact": right(texts["questions"], likeliest)}))


# What is measured


def prepare(source: str, out: str, expanded: str, count: str, factor: str) -> None:
    """Two folders of the model: OUT as it is stored, EXPANDED in f32. COUNT input dimensions of what
    follows each norm are multiplied by FACTOR, a power of two, and the norm's weights divided by it, so
    that the function stays what it was."""
    import torch
    from safetensors.torch import load_file, save_file
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(os.listdir(source)):
        if name.endswith(".safetensors"):
            weights |= load_file(os.path.join(source, name))
    rng = random.Random("outliers")
    after = {"input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
             "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj")}
    for name in sorted(weights):
        layer, _, norm = name.removesuffix(".weight").rpartition(".")
        if norm in after:
            columns = rng.sample(range(weights[name].numel()), int(count))
            weights[name][columns] /= float(factor)
            for matrix in after[norm]:
                weights[f"{layer}.{matrix}.weight"][:, columns] *= float(factor)
    for folder, dtype in ((out, None), (expanded, torch.float32)):
        os.makedirs(folder)
        save_file({name: w.to(dtype or w.dtype) for name, w in weights.items()},
                  os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        for name in os.listdir(source):
            if name.endswith(".json") and not name.endswith(".index.json"):
                shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))
    matrices = {name: w.numel() for name, w in weights.items() if w.dim() == 2}
    print(json.dumps({
        "weights": sum(w.numel() for w in weights.values()),
        "layers": sum(n for name, n in matrices.items() if ".layers." in name),
        "ends": sum(n for name, n in matrices.items() if ".layers." not in name),
        "widths": sorted({w.shape[1] for w in weights.values() if w.dim() == 2})}))


def texts(model: str, out: str, positions: str, most_questions: str) -> None:
    """Half of the positions are of held-out questions about capitals, half of conversations that were
    drawn with a seed of its own; `questions` are about capitals, too, a random choice of them."""
    sys.path.insert(0, os.path.join(ROOT, "tools", "demo_model"))
    sys.dont_write_bytecode = True
    import corpus
    import heldout
    from score import row_of
    from tokenizers import Tokenizer
    from train import Encoder
    encoder = Encoder(Tokenizer.from_file(os.path.join(model, "tokenizer.json")), MAX_TOKENS)
    if None in encoder.role.values():
        sys.exit(f"{model}: not the tokenizer of tools/demo_model")
    rows = [row_of(encoder, item) for item in heldout.held_out() if item["category"] == "capital"]
    rng = random.Random("quality")
    rng.shuffle(rows)
    questions = [{"ids": row.ids, "answer": row.trained.index(True)}
                 for row in rows[:int(most_questions)]]
    never = random.Random(0)
    never.random = lambda: 1.0  # type: ignore[method-assign]  # no random tokens
    drawn = corpus.Corpus(rng)
    wanted = int(positions)
    sequences: list[dict] = []
    found = 0
    while found < wanted:
        row = rows.pop() if found < wanted / 2 else encoder.conversation(drawn.conversation(), never)
        if len(row.ids) <= MAX_TOKENS:
            sequences.append({"ids": row.ids, "learned": row.trained})
            found += len(row.ids) - 1
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"sequences": sequences, "questions": questions}, file)
    print(json.dumps({"sequences": len(sequences), "positions": found, "questions": len(questions)}))


# PyTorch


def torch_model(source: str):
    import torch
    import transformers
    torch.set_num_threads(1)  # several wait for each other where there is other work
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    return model.eval()


def torch_logits(model, ids: list[int]) -> np.ndarray:
    import torch
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].numpy()


def by_torch(model, texts_path: str, reference_path: str, **more) -> None:
    def likeliest(rows: list[list[int]]):
        import torch
        for start in range(0, len(rows), 64):  # of different lengths: no token sees those behind it
            batch = rows[start:start + 64]
            longest = max(map(len, batch))
            padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in batch])
            with torch.inference_mode():
                found = model(padded).logits.argmax(-1).tolist()
            yield from (tokens[:len(ids)] for tokens, ids in zip(found, batch, strict=True))

    measure(texts_path, reference_path, lambda rows: (torch_logits(model, ids) for ids in rows),
            likeliest, **more)


def reference(source: str, texts_path: str, reference_path: str) -> None:
    model = torch_model(source)
    sequences = read_texts(texts_path)["sequences"]
    np.save(reference_path, np.concatenate(
        [log_softmax(torch_logits(model, s["ids"][:-1])).astype(np.float32) for s in sequences]))
    by_torch(model, texts_path, reference_path)


def nf4(source: str, texts_path: str, reference_path: str) -> None:
    """As transformers does it: all but the embedding and the head."""
    import torch
    from bitsandbytes import functional
    model = torch_model(source)
    bytes_packed = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            packed, state = functional.quantize_4bit(module.weight.data, blocksize=BLOCK,
                                                     quant_type="nf4")
            bytes_packed += packed.numel() + 4 * state.absmax.numel() + 4 * state.code.numel()
            module.weight.data = functional.dequantize_4bit(packed, state).to(torch.float32)
    by_torch(model, texts_path, reference_path, layers_bytes=bytes_packed)


# llama.cpp


def gguf_of(model: str, target: str, kind: str) -> None:
    """KIND is a file type such as Q4_K_M, TYPE,ENDS with one for the embedding and the head, or
    pure:TYPE, in which no tensor is better than the others. Prints what the file then has."""
    import ctypes

    import gguf
    import llama_cpp
    kind = kind.removeprefix("pure:") if (is_pure := kind.startswith("pure:")) else kind
    of_layers, _, of_ends = kind.partition(",")
    if of_layers != "F32":
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{of_layers}")
        params.pure = is_pure
        if of_ends:
            params.output_tensor_type = gguf.GGMLQuantizationType[of_ends].value
            params.token_embedding_type = params.output_tensor_type
        quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        if llama_cpp.llama_model_quantize(model.encode(), target.encode(), params):
            sys.exit(f"llama.cpp: no {kind} of {model}")
    else:
        shutil.copyfile(model, target)
    found = {"layers": 0, "ends": 0}
    types: dict[str, dict[str, int]] = {"layers": {}, "ends": {}}
    for tensor in gguf.GGUFReader(target).tensors:
        if len(tensor.shape) == 2:
            part = "layers" if tensor.name.startswith("blk.") else "ends"
            found[part] += int(tensor.n_bytes)
            types[part][tensor.tensor_type.name] = types[part].get(tensor.tensor_type.name, 0) + 1
    print(json.dumps({"layers_bytes": found["layers"], "ends_bytes": found["ends"], "types": types,
                      "file_bytes": os.path.getsize(target)}))


def llama_cpp(path: str, texts_path: str, reference_path: str) -> None:
    from llama_cpp import Llama
    model = Llama(path, n_ctx=MAX_TOKENS, n_batch=MAX_TOKENS, n_ubatch=MAX_TOKENS, logits_all=True,
                  n_threads=1, n_threads_batch=1, verbose=False)  # two would wait for each other

    def logits_of(rows: list[list[int]]):
        for ids in rows:
            model.reset()
            model.eval(ids)
            yield model.scores[:len(ids)]

    measure(texts_path, reference_path, logits_of,
            lambda rows: (logits.argmax(axis=-1) for logits in logits_of(rows)))


# airllm


def airllm(client: str, socket: str, name: str, texts_path: str, reference_path: str) -> None:
    def ask(ids: list[int], count: str) -> list:
        out = subprocess.run(
            [client, "--socket", socket, "ask", "-m", name, "--temperature", "0", "--max-tokens", "1",
             "--prompt-ids", ",".join(map(str, ids)), "--prompt-logprobs", count, "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        if out.returncode != 0:
            sys.exit(f"airllm ask: {out.stdout.decode()}")
        return json.loads(out.stdout)["prompt_logprobs"]

    def log_probs(ids: list[int]) -> np.ndarray:
        pairs = np.array(ask(ids, ALL_TOKENS))  # [positions, vocabulary, 2]
        found = np.empty(pairs.shape[:2])
        np.put_along_axis(found, pairs[:, :, 0].astype(np.int64), pairs[:, :, 1], axis=1)
        return found

    def at_once(one: Callable, rows: list[list[int]]):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for start in range(0, len(rows), AT_ONCE):  # not all at once: they are large
                yield from pool.map(one, rows[start:start + AT_ONCE])

    measure(texts_path, reference_path, lambda rows: at_once(log_probs, rows),
            lambda rows: at_once(lambda ids: [p[0][0] for p in ask(ids, "1")], rows))


if __name__ == "__main__":
    steps = {"prepare": prepare, "texts": texts, "reference": reference, "nf4": nf4,
             "gguf_of": gguf_of, "llama_cpp": llama_cpp, "airllm": airllm}
    printed = os.dup(1)
    os.dup2(2, 1)  # what libraries print
    with contextlib.redirect_stdout(os.fdopen(printed, "w", encoding="utf-8")) as out_stream:
        steps[sys.argv[1]](*sys.argv[2:])
        out_stream.flush()
