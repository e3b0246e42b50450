"""A text in many languages for measuring tokenizers, the same for the same size.

Documents of a few kilobytes, each in one script or a mixture: words are drawn by Zipf's law from the
pieces of tests/engine/tokenizer/fixtures/corpus.json and from words that a chain of their letters
makes up; Chinese, Japanese and Korean from the characters that national standards list as common;
besides code, numbers and emoji.
"""

from __future__ import annotations

import bisect
import json
import random
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = ROOT / "tests/engine/tokenizer/fixtures/corpus.json"
DOCUMENT_BYTES = 4000
WORDS_PER_SCRIPT = 6000  # a lexicon, of which Zipf's law uses few words often
# What share of the documents is of which script, in hundredths.
SHARES = {"LATIN": 40, "CODE": 12, "CYRILLIC": 10, "CJK": 10, "KANA": 5, "HANGUL": 5, "ARABIC": 4,
          "DEVANAGARI": 3, "GREEK": 3, "HEBREW": 2, "THAI": 2, "GEORGIAN": 1, "EMOJI": 1, "ALL": 2}
COMMON = """the of and to in a is that for it as was with be by on not he his but at are this have from
or had an they which one you were all her she there would their we him been has when who will no more
if out so what up said about other into than its time only could new them man some these then two
first may any like my now over such our even most me made after also did many must before see through
der die und den von zu das mit sich des auf für ist im dem nicht ein eine als auch es werden aus hat
de la le et les des en un du une que est pour qui dans par plus pas au sur ne se ce il sont
que el en los se del las por con una su para es al lo como más pero sus""".split()
EMOJI = ["🙂", "👍🏽", "👨‍👩‍👧‍👦", "❤️", "🇫🇷", "🎉", "🚀", "😂", "🤔", "✅", "⚠️", "👩‍💻"]


def standard_characters(codec: str, rows: range) -> list[str]:
    """The characters of some rows of a national standard (94 by 94), in its order."""
    both = (bytes([row + 0xA0, cell + 0xA0]) for row in rows for cell in range(1, 95))
    return [c for c in (pair.decode(codec, errors="ignore") for pair in both) if c]


def script_of(piece: str) -> str:
    letters = [c for c in piece if unicodedata.category(c).startswith("L")]
    names = {unicodedata.name(c, "NONE").split(" ")[0] for c in letters}
    return names.pop() if len(names) == 1 else ""


class Zipf:
    """Draws from a list, the n-th with a weight of 1 / (n + 1)."""

    def __init__(self, rng: random.Random, items: list[str]) -> None:
        self.rng, self.items = rng, items
        total = 0.0
        self.sums = [total := total + 1 / (n + 1) for n in range(len(items))]

    def draw(self) -> str:
        return self.items[bisect.bisect(self.sums, self.rng.random() * self.sums[-1]) % len(self.items)]


def lexicon(rng: random.Random, known: list[str]) -> list[str]:
    """`known` words, and more with their letters in the order in which those follow each other."""
    followers: dict[str, list[str]] = {}
    for word in known:
        for a, b in zip(f"^{word}", f"{word}$"):
            followers.setdefault(a, []).append(b)
    words = dict.fromkeys(known)
    for _ in range(2 * WORDS_PER_SCRIPT):  # a chain of few words makes few
        if len(words) >= WORDS_PER_SCRIPT:
            break
        word = ""
        while len(word) < 24:
            letter = rng.choice(followers[word[-1] if word else "^"])
            if letter == "$":
                break
            word += letter
        words[word] = None
    return list(words)


class Writer:
    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        texts = json.loads(CORPUS.read_text(encoding="utf-8"))
        pieces: dict[str, list[str]] = {"LATIN": COMMON}
        for piece in (piece for text in texts for piece in text.split()):
            word = piece.strip("".join(c for c in piece if not c.isalpha()))
            if len(word) > 1 and not set("<>|[]▁ĠĊ") & set(word) and "aaa" not in word:
                pieces.setdefault(script_of(word), []).append(word)
        self.words = {script: Zipf(rng, lexicon(rng, pieces[script])) for script in SHARES
                      if script in pieces and script not in ("CJK", "HANGUL")}
        self.code = [text for text in texts if "\n" in text and set("{};=") & set(text) and not "<s" in text]
        self.han, self.kana, self.kanji, self.hangul = (
            Zipf(rng, rng.sample(characters, len(characters)))  # the standards go by sound
            for characters in (standard_characters("gb2312", range(16, 56)),
                               standard_characters("euc_jp", range(4, 6)),
                               standard_characters("euc_jp", range(16, 48)),
                               standard_characters("euc_kr", range(16, 41))))

    def sentence(self, script: str) -> str:
        rng = self.rng
        count = rng.randint(4, 24)
        if script == "CJK":
            return "".join(self.han.draw() for _ in range(count)) + rng.choice("。。，！？")
        if script == "KANA":
            return "".join((self.kanji if rng.random() < 0.3 else self.kana).draw()
                           for _ in range(count)) + rng.choice("。。、")
        if script == "HANGUL":
            return " ".join("".join(self.hangul.draw() for _ in range(rng.randint(1, 5)))
                            for _ in range(count)) + ". "
        if script == "EMOJI":
            return self.sentence("LATIN") + "".join(rng.choice(EMOJI) for _ in range(count // 4)) + " "
        if script == "CODE":
            name = self.words["LATIN"].draw()
            return rng.choice(["", "    ", "        "]) + rng.choice([
                f"{name} = {self.words['LATIN'].draw()}({rng.randint(0, 9999)})\n",
                f"if ({name}.size() > {rng.random():.3f}) {{\n", f"// {self.sentence('LATIN')}\n",
                "}\n\n", rng.choice(self.code)])
        words = [self.words[script].draw() for _ in range(count)]
        if rng.random() < 0.2:
            words[rng.randrange(count)] = str(rng.randint(1, 10 ** rng.randint(1, 7)))
        words[0] = words[0].capitalize()
        words[count // 2] += rng.choice([",", "", "", ";", " –"])
        return " ".join(words) + rng.choice([". ", ". ", "? ", "! ", ".\n", ".\n\n"])

    def document(self) -> str:
        script = self.rng.choices(list(SHARES), list(SHARES.values()))[0]
        others = [s for s in SHARES if s != "ALL"]
        text, size = [], 0
        while size < DOCUMENT_BYTES:
            sentence = self.sentence(self.rng.choice(others) if script == "ALL" else script)
            text.append(sentence)
            size += len(sentence.encode())
        return "".join(text) + "\n\n"


def mixed_text(size_bytes: int, seed: int = 1) -> str:
    """At least `size_bytes` of UTF-8, and less than a character more."""
    writer = Writer(seed)
    documents, size = [], 0
    while size < size_bytes:
        documents.append(writer.document())
        size += len(documents[-1].encode())
    text = "".join(documents).encode()[:size_bytes]
    return text.decode(errors="ignore")
