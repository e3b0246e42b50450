#!/usr/bin/env python3
"""Compares Split patterns with the reference, PyPI's `tokenizers`.

  tools/regex_fuzz/regex_fuzz.py build/release/bin/regex_probe [--seed N] [--count N]

Patterns of published tokenizers and random ones run over random Unicode texts in both. Prints the
first differences; exit status 1 when there are any.
"""

import argparse
import json
import random
import subprocess
import sys

from tokenizers import Regex, pre_tokenizers

GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PUBLISHED = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    GPT4 % "", GPT4 % "{1,3}",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    rf"{SUFFIX}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    " ?[^(\\s|[.,!?…。，、।۔،])]+", r"[0-9][0-9][0-9]", r"\p{Han}+|\p{Hiragana}+|\p{Cyrillic}",
]
ALPHABET = list("aAbBsStTkKlLdDmMrRvVeE019  \t\r\n\n'.,!/-_()[]{}^$|\\") + list(
    "\u00a0\u2028\u3000\u200d\u0085\u0301\u093e\u1c80éßſK²½٣३一二ぁゟァー가лЛΣσςÅ€“”«»…。，"
    "😀👩\ufe0f\U0001f3fd\U0001e030\U00010d50\U00010d4a\U0001ccf0\ua7da\u0897ǅʰא١\ufffd\x00\x1f")
ATOMS = [
    "a", "b", "s", "k", " ", ".", r"\s", r"\S", r"\w", r"\W", r"\d", r"\D", r"\h", r"\p{L}",
    r"\P{L}", r"\p{^N}", r"\p{Lu}", r"\p{Ll}", r"\p{M}", r"\p{Nd}", r"\p{P}", r"\p{S}", r"\p{Z}",
    r"\p{C}", r"\p{Han}", r"\p{Greek}", r"\n", r"\r", r"\.", r"\x{301}", "[a-z]", "[^a-z]",
    r"[^\s\p{L}]", r"[\r\n]", r"[a-z&&[^bs]]", r"[\w&&\P{N}]", "[[ab]1]", "[^ab&&a]", r"[\s\-.]",
    "(?i:s)", "(?i:k)", "(?i:'S)", "(?i:[a-z])", "(?i:σ)", "一",
]
ASSERTIONS = ["^", "$", r"\A", r"\z", r"\Z", r"\b", r"\B"]


def random_pattern(rng, depth=0):
    kind = rng.random()
    if depth > 3 or kind < 0.4:
        return rng.choice(ATOMS)
    if kind < 0.65:
        body = rng.choice(ATOMS) if rng.random() < 0.7 else f"(?:{random_pattern(rng, depth + 1)})"
        return body + rng.choice(["*", "+", "?", "*?", "+?", "??", "*+", "++", "?+", "{2}", "{1,3}",
                                  "{2,}", "{,2}", "{1,2}?"])
    if kind < 0.8:
        return "".join(random_pattern(rng, depth + 1) for _ in range(rng.randint(2, 3)))
    if kind < 0.9:
        return ("(?:" if rng.random() < 0.8 else "(") + "|".join(
            random_pattern(rng, depth + 1) for _ in range(rng.randint(2, 3))) + ")"
    if kind < 0.95:
        opening = rng.choice(["(?=", "(?!", "(?<=", "(?<!", "(?>"])
        body = rng.choice(ATOMS) if "<" in opening else random_pattern(rng, depth + 1)
        return f"{opening}{body})"
    return rng.choice(ASSERTIONS)


def random_text(rng):
    if rng.random() < 0.1:
        return "".join(chr(c) for c in (rng.randrange(0x110000) for _ in range(30))
                       if not 0xD800 <= c < 0xE000)
    letters = rng.sample(ALPHABET, rng.randint(1, 12))
    return "".join(rng.choice(letters) * rng.choice([1, 1, 1, 2, 4])
                   for _ in range(rng.randint(0, 30)))


def expected(split, text):
    """Byte ranges of the matches that are not empty; None where the reference gives up."""
    offsets = [0]
    for c in text:
        offsets.append(offsets[-1] + len(c.encode()))
    if not text:
        return []
    try:
        return [[offsets[b], offsets[e]] for _, (b, e) in split.pre_tokenize_str(text)]
    except BaseException as error:  # a panic of Rust's, which is no Exception
        if "retry-limit-in-match over" not in str(error):
            raise
        return None


def cases(rng, count):
    made = 0
    while made < count:
        pattern = rng.choice(PUBLISHED) if rng.random() < 0.4 else random_pattern(rng)
        try:
            split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
        except Exception:  # the library's error has no type
            continue
        for _ in range(20):
            yield pattern, random_text(rng), split
            made += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("probe")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100000)
    options = parser.parse_args()
    todo = list(cases(random.Random(options.seed), options.count))
    lines = "".join(json.dumps({"pattern": p, "text": t}) + "\n" for p, t, _ in todo)
    answers = subprocess.run([options.probe], input=lines, text=True, check=True,
                             stdout=subprocess.PIPE).stdout.splitlines()
    own = different = given_up = 0
    for (pattern, text, split), line in zip(todo, answers, strict=True):
        answer = json.loads(line)
        own += answer.get("own", False)
        if not answer.get("own", True):
            continue  # the system's Oniguruma, of another age
        got = [r for r in answer["ranges"] if r[0] < r[1]] if "ranges" in answer else answer
        want = expected(split, text)
        if want is None:
            given_up += 1
        elif got != want:
            different += 1
            if different <= 10:
                print(json.dumps(pattern), json.dumps(text), "got", got, "want", want)
    print(f"{len(todo)} pairs, {own} in our engine, {given_up} on which the reference gives up, "
          f"{different} differ (seed {options.seed})")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
