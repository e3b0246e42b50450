"""Trains the demo model on CPU from generated conversations.

Conversations are drawn in numbered pools, each from its own seed, so that a
run continued from a checkpoint sees the same data as an uninterrupted one.
Within a pool they are sorted by length and cut into batches of about equal
token count; every conversation starts at position 0, as in use.  The loss is
taken on the assistant's tokens and on bare statements; with --learn-all on
every token, as models of language are trained.

The work is shared by processes of one thread each, which average their
gradients: on a machine with other work to do this is much quicker than one
process with several threads, which would wait for each other at every
operation.

The schedule follows the share of the budget that is used up, of the tokens or
of the minutes, whichever is larger.  A
checkpoint is written every few minutes and holds the weights, an exponential
average of them (which is what gets exported), the optimiser and the position
in the data; starting the script again continues from it.

Usage:  nice -n 10 python train.py --tokenizer DIR --work DIR --tokens 12e6
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Iterator

import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F
from torch import Tensor
from tokenizers import Tokenizer

import corpus as corpus_module
from model import Config, Llama
from tokenizer import ASSISTANT, BEGIN, END, ROLE_TOKEN, SPECIAL

POOL = 6000
RANDOM_TEXT_SHARE = 0.012
STATEMENT_SHARE = 0.03


@dataclasses.dataclass
class Row:
    ids: list[int]
    trained: list[bool]


@dataclasses.dataclass
class Batch:
    inputs: Tensor
    positions: Tensor  # flat indices of the inputs whose next token is trained
    targets: Tensor


class Encoder:
    """Turns conversations into token ids, marking the tokens to be learnt."""

    def __init__(self, tokenizer: Tokenizer, limit: int, learn_all: bool = False) -> None:
        self.tokenizer = tokenizer
        self.limit = limit
        self.learn_all = learn_all
        self.role = {r: tokenizer.token_to_id(t) for r, t in ROLE_TOKEN.items()}
        self.begin, self.end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
        self.vocab = tokenizer.get_vocab_size()

    def text(self, text: str) -> list[int]:
        return self.tokenizer.encode(text.strip(), add_special_tokens=False).ids

    def conversation(self, messages: list[corpus_module.Message], rng: random.Random) -> Row:
        ids, trained = [self.begin], [False]
        for message in messages:
            body = self.text(message.content)
            if message.role == "user" and rng.random() < RANDOM_TEXT_SHARE:
                noise = [rng.randrange(len(SPECIAL), self.vocab)
                         for _ in range(rng.randint(3, 150))]
                body = noise + self.tokenizer.encode("\n\n", add_special_tokens=False).ids + body
            learn = self.learn_all or message.role == "assistant"
            ids += [self.role[message.role], *body, self.end]
            trained += [self.learn_all] + [learn] * (len(body) + 1)
        return Row(ids, trained)

    def statement(self, text: str) -> Row:
        body = self.text(text)
        return Row([self.begin, *body, self.end], [False] + [True] * (len(body) + 1))


def rows_of_pool(encoder: Encoder, seed: int, pool: int) -> list[Row]:
    rng = random.Random(f"train-{seed}-{pool}")
    corpus = corpus_module.Corpus(rng)
    rows = []
    for _ in range(POOL):
        if rng.random() < STATEMENT_SHARE:
            rows.append(encoder.statement(corpus.statement()))
        else:
            rows.append(encoder.conversation(corpus.conversation(), rng))
    return [row for row in rows if len(row.ids) <= encoder.limit]


def padded(length: int) -> int:
    return (length + 7) // 8 * 8


def make_batch(rows: list[Row]) -> Batch:
    length = padded(max(len(row.ids) for row in rows) - 1)
    inputs = torch.zeros(len(rows), length, dtype=torch.long)
    positions, targets = [], []
    for i, row in enumerate(rows):
        inputs[i, :len(row.ids) - 1] = torch.tensor(row.ids[:-1])
        for at in range(1, len(row.ids)):
            if row.trained[at]:
                positions.append(i * length + at - 1)
                targets.append(row.ids[at])
    return Batch(inputs, torch.tensor(positions), torch.tensor(targets))


def batches_of_pool(encoder: Encoder, seed: int, pool: int, size: int,
                    workers: int = 1) -> Iterator[list[list[Row]]]:
    """Groups of rows, one for every worker, each of about `size` tokens."""
    rows = sorted(rows_of_pool(encoder, seed, pool), key=lambda row: len(row.ids))
    groups: list[list[Row]] = [[]]
    for row in rows:
        if groups[-1] and (len(groups[-1]) + 1) * padded(len(row.ids) - 1) > size:
            groups.append([])
        groups[-1].append(row)
    random.Random(f"order-{seed}-{pool}").shuffle(groups)
    for start in range(0, len(groups) - workers + 1, workers):
        yield groups[start:start + workers]


class Trainer:
    def __init__(self, args: argparse.Namespace, rank: int) -> None:
        self.args = args
        self.rank = rank
        torch.manual_seed(args.seed)
        torch.set_num_threads(1)
        tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
        self.config = Config(vocab=tokenizer.get_vocab_size(), hidden=args.hidden,
                             layers=args.layers, heads=args.heads, kv_heads=args.kv_heads,
                             head_dim=args.hidden // args.heads,
                             intermediate=args.intermediate)
        self.encoder = Encoder(tokenizer, self.config.positions, args.learn_all)
        self.model = Llama(self.config)
        matrices = [p for p in self.model.parameters() if p.dim() == 2]
        gains = [p for p in self.model.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.02}, {"params": gains, "weight_decay": 0.0}],
            lr=args.lr, betas=(0.9, 0.98), fused=True)
        if args.compile:
            for layer in self.model.model.layers:
                layer.compile(dynamic=True)
        self.average = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.progress = {"tokens": 0, "steps": 0, "pool": 0, "seconds": 0.0}
        self.path = args.work / "checkpoint.pt"
        if self.path.exists():
            self.load()
        self.started = time.time()
        self.seconds_before = self.progress["seconds"]
        # Equal in all workers, unlike the time since the start.
        self.used = max(self.progress["tokens"] / args.tokens,
                        self.seconds_before / (60 * args.minutes))

    def load(self) -> None:
        saved = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(saved["weights"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average, self.progress = saved["average"], saved["progress"]

    def save(self) -> None:
        fresh = self.path.with_suffix(".new")
        torch.save({"weights": self.model.state_dict(), "average": self.average,
                    "optimizer": self.optimizer.state_dict(), "progress": self.progress,
                    "config": dataclasses.asdict(self.config)}, fresh)
        os.replace(fresh, self.path)

    def rate(self) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        warm = min(1.0, (self.progress["steps"] + 1) / self.args.warmup)
        return self.args.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self.used)))

    def seconds(self) -> float:
        """Time spent training, that of earlier runs included."""
        return self.seconds_before + time.time() - self.started

    def used_here(self) -> float:
        return max(self.progress["tokens"] / self.args.tokens,
                   self.seconds() / (60 * self.args.minutes))

    def step(self, groups: list[list[Row]]) -> float:
        """One update from the gradients of all workers, each with its group."""
        batch = make_batch(groups[self.rank])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            states = self.model.hidden(batch.inputs).flatten(0, 1)
            logits = self.model.logits(states[batch.positions])
        loss = F.cross_entropy(logits.float(), batch.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.share_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.progress["tokens"] += sum(len(row.ids) for group in groups for row in group)
        self.progress["steps"] += 1
        self.update_average()
        return loss.item()

    @torch.no_grad()
    def share_gradients(self) -> None:
        """Averages the gradients, and the used share of the budget with them."""
        self.used = self.used_here()
        if self.args.workers == 1:
            return
        values = [p.grad for p in self.model.parameters()] + [torch.tensor([self.used])]
        flat = torch.cat([value.flatten() for value in values])
        dist.all_reduce(flat)
        flat /= self.args.workers
        for value, mean in zip(values, flat.split([v.numel() for v in values])):
            value.copy_(mean.view_as(value))
        self.used = values[-1].item()

    @torch.no_grad()
    def update_average(self) -> None:
        keep = min(0.995, self.progress["steps"] / (self.progress["steps"] + 20))
        names = list(self.average)
        current = dict(self.model.named_parameters())
        torch._foreach_lerp_([self.average[n] for n in names],
                             [current[n] for n in names], 1 - keep)

    def run(self) -> None:
        saved = time.time()
        losses: list[float] = []
        while self.used < 1.0:
            for groups in batches_of_pool(self.encoder, self.args.seed, self.progress["pool"],
                                          self.args.batch // self.args.workers,
                                          self.args.workers):
                losses.append(self.step(groups))
                if self.progress["steps"] % 50 == 0 and self.rank == 0:
                    self.progress["seconds"] = self.seconds()
                    self.report(losses)
                    losses = []
                if self.used >= 1.0:
                    break
            # Saving only between pools keeps the position in the data simple.
            self.progress["pool"] += 1
            self.progress["seconds"] = self.seconds()
            if self.rank == 0 and time.time() - saved > self.args.save_every:
                self.save()
                saved = time.time()
        if self.rank == 0:
            self.save()

    def report(self, losses: list[float]) -> None:
        p = self.progress
        print(json.dumps({"step": p["steps"], "tokens": p["tokens"],
                          "loss": round(sum(losses) / max(1, len(losses)), 4),
                          "lr": round(self.rate(), 6),
                          "tokens_per_s": round(p["tokens"] / p["seconds"]),
                          "minutes": round(p["seconds"] / 60, 1)}), flush=True)


def work(rank: int, args: argparse.Namespace) -> None:
    if args.workers > 1:
        meeting = (args.work / "workers").absolute()
        dist.init_process_group("gloo", init_method=f"file://{meeting}",
                                rank=rank, world_size=args.workers)
    Trainer(args, rank).run()
    if args.workers > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints go")
    parser.add_argument("--tokens", type=float, default=6e6)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--batch", type=int, default=4096, help="tokens per step")
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--intermediate", type=int, default=384)
    parser.add_argument("--learn-all", action="store_true",
                        help="the loss is of questions and system messages, too")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=90.0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "workers").unlink(missing_ok=True)
    if args.workers > 1:
        torch.multiprocessing.spawn(work, (args,), args.workers)
    else:
        work(0, args)


if __name__ == "__main__":
    main()
