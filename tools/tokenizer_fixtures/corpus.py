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


# A sentence or a few words in many scripts.
SCRIPT_SAMPLES = [
    "Der schnelle braune Fuchs springt über den faulen Hund.", "Voix ambiguë d’un cœur qui préfère",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig", "Tiếng Việt có dấu thanh", "İstanbul'da ılık ışık",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία", "ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ", "Съешь же ещё этих мягких булок",
    "Ђорђе и Љубица", "Հայերեն լեզու", "ქართული ენა ႱႲ ᲛᲓ", "שָׁלוֹם עֲלֵיכֶם", "السَّلَامُ عَلَيْكُمْ",
    "ܫܠܡܐ ܥܠܡܐ", "ދިވެހި ބަސް", "ߒߞߏ ߞߊ߲ߓߋ߲", "ࠔࠌࠓࠉࠌ", "ࡌࡀࡍࡃࡀࡉࡀ", "हिन्दी क्षत्रिय ज़रूर", "বাংলা ভাষা ক্ষ",
    "ਪੰਜਾਬੀ ਭਾਸ਼ਾ", "ગુજરાતી ભાષા", "ଓଡ଼ିଆ ଭାଷା", "தமிழ் மொழி", "తెలుగు భాష", "ಕನ್ನಡ ಭಾಷೆ",
    "മലയാളം ഭാഷ", "සිංහල භාෂාව", "ภาษาไทยกำลังดี", "ພາສາລາວ", "བོད་སྐད་ཡིག", "မြန်မာဘာသာ", "ភាសាខ្មែរ",
    "አማርኛ ፊደል", "ᏣᎳᎩ ꭰꮳ", "ᐃᓄᒃᑎᑐᑦ", "᚛ᚑᚌᚆᚐᚋ᚜", "ᚠᚢᚦᚨᚱᚲ", "ᜊᜌ᜔ᜊᜌᜒᜈ᜔", "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ", "ᤕᤰᤌᤢᤱ", "ᥖᥭᥰᥖᥬᥲ",
    "ᨅᨔ ᨕᨘᨁᨗ", "ᩅᩢᨯᩮᩃᩣ", "ᬅᬓ᭄ᬱᬭᬩᬮᬶ", "ᮞᮥᮔ᮪ᮓ", "ᯅᯖᯂ᯲", "ᰛᰩᰵᰛᰧᰵ", "ᱥᱟᱱᱛᱟᱲᱤ", "ⰳⰾⰰⰳⱁⰾⰹⱌⰰ", "ⲙⲉⲧⲣⲉⲙⲛ̀ⲭⲏⲙⲓ",
    "ⵜⴰⵎⴰⵣⵉⵖⵜ", "日本語の文章です。ｶﾀｶﾅ ﾊﾟ", "ㄅㄆㄇㄈ", "ꆈꌠꁱꂷ", "ꓡꓲ‐ꓢꓴ", "ꔀꕌꔰ", "ꚠꚡꚢ", "ꠍꠤꠟꠐꠤ", "ꡛꡞꡏ", "ꢱꣃꢬꢵꢰ꣄ꢜ꣄ꢬ",
    "ꤊꤢꤛꤢ꤭ ꤜꤟꤤ꤬", "ꦧꦱꦗꦮ", "ꨌꩌ", "ꪼꪕ", "ꯃꯤꯇꯩꯂꯣꯟ", "한국어 문장입니다", "𐀀𐀁 𐊀𐊠", "𐌲𐌿𐍄𐌹𐍃𐌺", "𐎀𐎁𐎂", "𐐔𐐯𐑅𐐨𐑉𐐯𐐻",
    "𐑖𐑱𐑝𐑾𐑯", "𐒀𐒁 𐒰𐓘", "𐤀𐤁𐤂", "𐬀𐬬𐬆𐬯", "𑀩𑁆𑀭𑀸𑀳𑁆𑀫𑀻", "𑄌𑄋𑄴𑄟𑄳𑄦", "𑆯𑆳𑆫𑆢𑆳", "𑒧𑒻𑒟𑒱𑒪𑒲", "𑘦𑘻𑘚𑘲", "𒀀𒁀 𓀀𓂀", "𖬖𖬰𖬝𖬵",
    "𞤆𞤵𞤤𞤢𞤪", "𞄀𞄁𞄂", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚", "人口が𠮷野家𠀋で", "𪜀𫝀𫠠𬺰𰀀𱍐", "漢字﨑神塚",
]
CODE = [
    "#include <stdio.h>\nint main(void) {\n\tprintf(\"%d\\n\", 0x1F);\n\treturn 0;\n}\n",
    "fn main() -> Result<(), Box<dyn Error>> {\n    let v: Vec<_> = (0..10).map(|x| x * 2).collect();\n}",
    "SELECT a.*, COUNT(*) FROM t AS a WHERE a.x >= 10 AND b LIKE '%_x%' GROUP BY 1;",
    "const f = async ({a, b = 1}) => { await fetch(`/api/${a}?b=${b}`); };",
    "if [[ -n \"$1\" ]]; then\n  echo \"${1%%.*}\" | sed -e 's/^[ \t]*//' >&2\nfi",
    "<?xml version=\"1.0\"?>\n<a b='c'>&lt;d&gt;<!-- e --></a>", "main = mapM_ (print . (`div` 2)) [1..]",
    "package main\n\nfunc (s *S) F() error {\n\tif err := g(); err != nil {\n\t\treturn err\n\t}\n}",
    "\\begin{align*} \\int_0^\\infty e^{-x^2}\\,dx &= \\frac{\\sqrt{\\pi}}{2} \\end{align*}",
    "key: [a, 'b', \"c\"]\nlist:\n  - x: 1\n    y: ~\n", "a = {'x': [1, 2.0e-5, None], \"y\": lambda z: z[::-1]}",
    "\t\t\tmov eax, [ebx+4*ecx-0x10]\r\n\t\tjnz .L1\r\n", "| a | b |\n|---|:-:|\n| 1 | `c` |\n\n## d\n\n* e\n",
    "diff --git a/x b/x\n@@ -1,2 +1,2 @@\n-old\n+new\n", "FROM x:1\nRUN apt-get update && rm -rf /var/lib/*\n",
]
TRAPS = [
    "ſ", "K'ſ I'ſ x'ſt", "'LL 'Ve 'RE", "\u212a\u212b", "ΑΣ ΑΣΑ Σ", "ΌΣΟΣ.", "İI ıi İSTANBUL", "ß ẞ ﬀ ﬃ ŉ ǰ ΐ",
    "ǅ ǈ ǋ ǆ", "ͅᾼ", "ᾳ ᾼ ῼ", "Ꭰ ꭰ Ᏸ ᏸ", "\u1c89\u1c8a", "\ua7dc\u019b", "Ꞌꞌ ꟼ", "㎒ ㍿ ﷺ ﷽", "½ ⅐ ↉ ² ₂ ① ㊿ ፩ ༳ 𒐀 𐄇",
    "\u0344 \u0958 \u2126 \u0340\u0341", "\u1100\u1161\u11a8 \u1100\u1161 \u1161\u11a8 \uac00\u11a8 \uac00\u11c3",
    "\ua960\ud7b0 \u115f\u1160 \u3164 \uffa0", "ガ が カ\u3099 ｶﾞ", "\u0f71\u0f72 \u0f73 \u0f76 \u0f77",
    "\u05d0\u05b8\u05bc\u05c1 \ufb2c", "\u0627\u0653 \u0622 \u0651\u064e \ufe77", "\u09c7\u09be \u09cb \u0bc6\u0bd7",
    "\U000110ba \U00011099\U000110ba \U0001d15e \U0001d1bb\U0001d16e", "\u0300\u0316\u0334 a\u0300\u0316\u0334",
    "\u00ad so\u00adft \u2060\u2061 \u034f \u061c \u202a\u202e\u2066\u2069", "\ufe00 ⛄\ufe0e⛄\ufe0f \U000e0100",
    "👩🏿‍🚀 🏳️‍🌈 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 👨🏻‍❤️‍💋‍👨🏾 1️⃣ #️⃣ 🇦🇧🇨", "🫠🫨🪿🫩🐦‍🔥 🙂‍↔️",
    "<|e<|end|>nd|>", "<|end|", "<|end|>|>", "<|END|>", "< |end| >", "[T[T]]", "[T\u0301]", "wordword", "word's", "wo rd", "nor\u006d",
    "no\u0301rm", "NORM norm\u0301", "\u200bword\u200b", "x\u0301word", "word\u0301", "<|strip|>\u3000\u2028x", "\u00a0<|strip|>\u00a0",
    "<0x41><0xC3><0xA9>", "<0xE4><0xB8>", "<0xGG>", "▁<s>▁", "Ġ<|end|>Ġ", "\ufffd\ufffda\ufffd", "a" * 300, "ab" * 300, "🙂\u200d" * 60,
    "é" * 200, "\u0301" * 80, "a" + "\u0316\u0301\u0334" * 30, "中" * 200, " a" * 200, "\r\n" * 60, " \n" * 60, "한" * 100, "0" * 300,
    "?!" * 100, "ſ" * 40, "\u3000" * 50, "\ufeff" * 20, "\ufffd" * 50,
]
SPACES = ("\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
          "\u2028\u2029\u202f\u205f\u3000\u200b\ufeff\u180e\u2060\x1c\x1d\x1e\x1f")
SPACE_FORMS = ["{0}", "{0}{0}", "a{0}b", "a {0}b", "{0}a", "a{0}", "{0}\na", "a{0}{0}{0}1", "{0}<|strip|>{0}word"]
# First and last code points of blocks: of old scripts, and of those that Unicode 9 to 16 changed.
BLOCKS = [
    (0x00, 0x1F), (0x7F, 0xFF), (0x100, 0x24F), (0x250, 0x2AF), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x531, 0x58F), (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F), (0x750, 0x77F),
    (0x780, 0x7B1), (0x7C0, 0x7FF), (0x800, 0x86A), (0x870, 0x8FF), (0x900, 0x97F), (0x980, 0x9FE),
    (0xA01, 0xA76), (0xA81, 0xAFF), (0xB01, 0xB77), (0xB82, 0xBFA), (0xC00, 0xC7F), (0xC80, 0xCF3),
    (0xD00, 0xD7F), (0xD81, 0xDF4), (0xE01, 0xE5B), (0xE81, 0xEDF), (0xF00, 0xFDA), (0x1000, 0x109F),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x13FD), (0x1400, 0x167F),
    (0x1680, 0x169C), (0x16A0, 0x16F8), (0x1700, 0x1773), (0x1780, 0x17F9), (0x1800, 0x18AA),
    (0x1900, 0x194F), (0x1950, 0x19DF), (0x1A00, 0x1AAD), (0x1AB0, 0x1ACE), (0x1B00, 0x1B7E),
    (0x1B80, 0x1BFF), (0x1C00, 0x1C7F), (0x1C80, 0x1CFA), (0x1D00, 0x1DFF), (0x1E00, 0x1FFE),
    (0x2000, 0x206F), (0x2070, 0x20F0), (0x2100, 0x218B), (0x2190, 0x23FF), (0x2400, 0x27BF),
    (0x27C0, 0x2BFF), (0x2C00, 0x2CFF), (0x2D00, 0x2DFF), (0x2E00, 0x2E5D), (0x2E80, 0x2FFB),
    (0x3000, 0x303F), (0x3041, 0x30FF), (0x3105, 0x31E3), (0x31F0, 0x33FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xA000, 0xA4C6), (0xA4D0, 0xA62B), (0xA640, 0xA6F7), (0xA700, 0xA7FF),
    (0xA800, 0xA82C), (0xA840, 0xA8FF), (0xA900, 0xA97C), (0xA980, 0xA9FE), (0xAA00, 0xAAF6),
    (0xAB01, 0xABF9), (0xAC00, 0xD7FB), (0xE000, 0xF8FF), (0xF900, 0xFB4F), (0xFB50, 0xFDFF),
    (0xFE00, 0xFE6B), (0xFE70, 0xFFFD), (0x10000, 0x101FD), (0x10280, 0x105BC), (0x10600, 0x10855),
    (0x10860, 0x10A9F), (0x10AC0, 0x10CFF), (0x10D00, 0x10D8F), (0x10E60, 0x10F27), (0x10F30, 0x10FF6),
    (0x11000, 0x110CD), (0x110D0, 0x11247), (0x11280, 0x113E2), (0x11400, 0x114D9), (0x11580, 0x116E3),
    (0x11700, 0x118FF), (0x11900, 0x11AB0), (0x11AC0, 0x11DA9), (0x11EE0, 0x11F59), (0x12000, 0x12543),
    (0x13000, 0x143FA), (0x14400, 0x14646), (0x16100, 0x16139), (0x16800, 0x16B8F), (0x16D40, 0x16E9A),
    (0x16F00, 0x16FF1), (0x17000, 0x18CFF), (0x1AFF0, 0x1B2FB), (0x1BC00, 0x1BCA3), (0x1CC00, 0x1CFC3),
    (0x1D000, 0x1D245), (0x1D2C0, 0x1D378), (0x1D400, 0x1D7FF), (0x1D800, 0x1DAAF), (0x1DF00, 0x1E08F),
    (0x1E100, 0x1E2FF), (0x1E4D0, 0x1E5FF), (0x1E7E0, 0x1E8D6), (0x1E900, 0x1E95F), (0x1EC71, 0x1EEF1),
    (0x1F000, 0x1F2FF), (0x1F300, 0x1F64F), (0x1F650, 0x1F7FF), (0x1F800, 0x1F9FF), (0x1FA00, 0x1FBF9),
    (0x20000, 0x2A6DF), (0x2A700, 0x2EE5D), (0x2F800, 0x2FA1D), (0x30000, 0x323AF), (0xE0001, 0xE01EF),
]
PER_BLOCK = 9


def of_block(rng: random.Random, first: int, last: int) -> str:
    """Up to a dozen characters of a block, near each other, with spaces and letters between."""
    near = rng.randint(first, last)
    low, high = (first, last) if rng.random() < 0.5 else (max(first, near - 20), min(last, near + 20))
    return "".join(rng.choice(" aE1.\u0301\n") if rng.random() < 0.2 else chr(rng.randint(low, high))
                   for _ in range(rng.randint(2, 12)))


def strings(seed: int = 1, drawn: int = 200) -> list[str]:
    rng = random.Random(seed)
    extra = ["".join(rng.choice(rng.choice(ALPHABETS[i % len(ALPHABETS):] or ALPHABETS))
                     for _ in range(rng.randint(3, 60))) for i in range(drawn)]
    spaces = [form.format(space) for space in SPACES for form in SPACE_FORMS]
    blocks = [of_block(rng, first, last) for first, last in BLOCKS for _ in range(PER_BLOCK)]
    broken = [rng.randbytes(rng.randint(2, 20)).decode(errors="replace") for _ in range(40)]
    texts = HAND + SCRIPT_SAMPLES + CODE + TRAPS + extra + spaces + blocks + broken
    return list(dict.fromkeys(texts))


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
