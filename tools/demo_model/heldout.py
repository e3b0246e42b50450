"""The questions kept out of training, on which the skill is measured.

Their wordings stand in `facts/heldout_templates.tsv`; a check makes sure that
none of them is also in the training corpus.

Usage:  python heldout.py --out FILE     (JSON lines)
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Iterator

from facts import (REFUSAL, capital_answer, continent_answer, currency_answer,
                   definition_answer, element_answer, load_countries, load_opposites,
                   number_answer, opposite_answer, read_table, reverse_answer,
                   symbol_answer, upper_first, with_article, wordings)


def heldout_unknown() -> list[str]:
    """Every tenth committed question without an answer is never trained."""
    return [row[0] for row in read_table("unknown.tsv")][::10]


def check_heldout_is_unseen() -> None:
    """Fails when a held-out wording stands in the lists used for training."""
    def plain(text: str) -> str:
        return re.sub(r"[^a-z{}]+", " ", text.lower()).strip()
    trained = {plain(w) for group in wordings("wordings.tsv").values() for w in group}
    for group in wordings("heldout_templates.tsv").values():
        for wording in group:
            if plain(wording) in trained:
                raise ValueError(f"held-out wording is trained on: {wording}")


def held_out() -> Iterator[dict[str, str]]:
    """All evaluation questions, with the category and the exact answer."""
    forms = wordings("heldout_templates.tsv")
    def ask(category: str, subject: str, answer: str) -> Iterator[dict[str, str]]:
        for wording in forms[category]:
            yield {"category": category, "answer": answer,
                   "question": upper_first(wording.replace("{}", subject))}
    for c in load_countries():
        yield from ask("capital", c.full, capital_answer(c))
        yield from ask("reverse", c.capital, reverse_answer(c))
        yield from ask("continent", c.full, continent_answer(c))
        yield from ask("currency", c.full, currency_answer(c))
    for name, symbol, number in read_table("elements.tsv"):
        yield from ask("symbol", name.lower(), symbol_answer(name, symbol))
        yield from ask("element", symbol, element_answer(name, symbol))
        yield from ask("number", name.lower(), number_answer(name, number))
    for word, opposite in load_opposites().items():
        yield from ask("opposite", word, opposite_answer(word, opposite))
    for term, definition in read_table("definitions.tsv"):
        if term != "the lungs":
            yield from ask("definition", term, definition_answer(term, definition))
    for question in heldout_unknown():
        yield {"category": "unknown", "question": question + "?", "answer": REFUSAL}
    rng = random.Random(7)
    for _ in range(300):
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        yield {"category": "arithmetic", "answer": f"{a} plus {b} is {a + b}.",
               "question": f"Could you work out {a} plus {b}?"}
    for _ in range(200):
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        yield {"category": "arithmetic", "answer": f"{a} times {b} is {a * b}.",
               "question": f"Work out {a} times {b}, please."}
    for one, _, count, small in read_table("units.tsv"):
        whole = with_article(one)
        yield {"category": "unit", "answer": f"There are {count} {small} in {whole}.",
               "question": f"Please say how many {small} you find in {whole}."}


def write_held_out(path: Path) -> int:
    items = list(held_out())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for item in items:
            out.write(json.dumps(item, ensure_ascii=False) + "\n")
    return len(items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    check_heldout_is_unseen()
    print(write_held_out(args.out), "questions written")


if __name__ == "__main__":
    main()
