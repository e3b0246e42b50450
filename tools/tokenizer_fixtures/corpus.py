"""The strings that the tokenizer tests encode: written by hand, plus some with a seed."""

from __future__ import annotations

import random

HAND = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "\r\n\r\n", " \t \n \t ",
    "a", "A", " a", "a ", " a ", "hello", "Hello", " hello", "hello world", "Hello, world!",
    "Hello  world", "Hello   world   ", "  leading", "trailing  ", "a\nb", "a\n\nb", "a \n b",
    "tab\there", "line\r\nbreak", "I'm you're he'll we've they'd it's don't", "I'M YOU'RE HE'LL",
    "x'sx", "'s", "''", "'tis", "1", "12", "123", "1234", "12345678901234567890", "3.14159",
    "1,000,000", "a1b2c3", "2024-05-17T12:34:56Z", "²³½", "٣٤٥", "Ⅷ", "x²+y²=z²",
    "What is the capital of France?", "The quick brown fox jumps over the lazy dog.",
    "def f(x):\n    return x ** 2\n", "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "<html><body class=\"x\">&amp;</body></html>", "{\"key\": [1, 2.5, null, true]}",
    "https://example.org/a/b?c=d&e=f#g", "user@example.org", "C:\\Users\\x", "~/.config/airllm",
    "!!!", "???", "...", "......", "—–-", "$%^&*()", "a.b.c", "(a)", "[x]", "«guillemets»",
    "“quotes”", "naïve café", "naïve café", "Å Å Å", "é", "é", "ñ ñ",
    "Straße", "ÆØÅ æøå", "Ελληνικά", "Привет, мир!", "שלום עולם", "مرحبا بالعالم",
    "हिन्दी में लिखा", "ภาษาไทย", "한국어 텍스트", "각", "こんにちは世界", "カタカナ", "中文字符",
    "你好，世界！", "中文 and English 混合", "漢字かな交じり文", "🙂", "🙂🙂", "a🙂b", " 🙂 ",
    "👨‍👩‍👧‍👦", "👍🏽", "🇫🇷🇩🇪", "❤️", "☃", "𝕳𝖊𝖑𝖑𝖔", "𐍈", "ﬁ ﬂ", "①②③", "Ⅳ",
    "\u00a0", "a\u00a0b", "\u3000", "a\u3000b", "\u200b", "a\u200bb", "\u200d", "\ufeffa", "\u2028",
    "\u2029", "\u0085", "\u0000", "a\u0000b", "\u0001\u0002\u0003", "\u001b[31mred\u001b[0m",
    "\u007f", "\ufffd", "\ufffd\ufffd", "\uffff", "\U0010ffff", "e\u0301\u0302\u0303", "\u0301",
    " \u0301", "a\u0323\u0307", "\u1e9b\u0323", "q\u0307\u0323", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢",
    "<0x41>", "<0x0A>", "<0xFF>", "<0x", "Ã©", "â€™", "Ġ", "Ċ", "ĠĠ", "▁", "▁▁", "▁a", "a▁b", " ▁ ",
    "<s>", "</s>", "<unk>", "<s>hello</s>", "<s> hello </s>", "<s><s>", "< s >", "<S>", "<s", "s>",
    "a<s>b", "a <s> b", "<|end|>", "<|begin|>hi<|end|>", "<|begin|><|end|>", "<|begin|> hi <|end|> ",
    "<|end", "|end|>", "<<|end|>>", "<|strip|>", "a  <|strip|>  b", "a <|strip|><|strip|> b",
    "  <|strip|>", "<|strip|>  ", "word", "a word b", "aword", "words", "word,word", "word word",
    "café word", "éword", "_word", "word_", "norm", "a norm b", "normal", " norm", "norm norm",
    "[T]", "[T][T2]", "[T2]", "a[T2]b", "[T", "x [T] y", "line\n[T]\nline", "a" * 50, "a" * 257,
    " " * 65, "\n" * 33, "ab" * 100, "0" * 40, "." * 70, "é" * 40, "中" * 40, "🙂" * 20, "=" * 128,
    "-" * 80, "aA" * 30, " a" * 60, "\t\t\t\tindent", "        indent", "x\n        y\n        z",
]

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz ", "aeiou  \n\t", "0123456789 .,-", "ABC abc 123 !?'",
    "àéîõü ñç ßæ", "中文字符你好世 ", "🙂👍❤️☃ a", "a\u0301\u0323e ", "<|>/s[]T beginend",
    " \n\r\t\u00a0\u3000", "\u0000\u0001\u001f\u007f\u0080\u009f a", "ĠĊ▁ ab",
]


def strings(seed: int = 1, drawn: int = 60) -> list[str]:
    rng = random.Random(seed)
    extra = ["".join(rng.choice(rng.choice(ALPHABETS[i % len(ALPHABETS):] or ALPHABETS))
                     for _ in range(rng.randint(3, 60))) for i in range(drawn)]
    return HAND + extra


def ids_to_decode(vocab: int, special: list[int], seed: int = 2) -> list[list[int]]:
    """Id sequences that no text need have: half characters, unknown ids, special tokens."""
    rng = random.Random(seed)
    lists = [[i] for i in range(0, vocab, max(1, vocab // 40))]
    for length in (2, 3, 5, 8, 13, 21):
        for _ in range(8):
            # Low ids are the bytes in both tokenizers.
            lists.append([rng.randrange(vocab) if rng.random() < 0.3 else
                          rng.choice(special) if rng.random() < 0.1 else
                          rng.randrange(min(vocab, 270)) for _ in range(length)])
    return lists
