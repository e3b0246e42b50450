"""Writes templates.json: chat templates and what Jinja, set up as transformers does, makes of them.

Usage:  python templates.py --out DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATML = (
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n")
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}")
WHITE_SPACE = [
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a  {% if true %}  b  {% endif %}  c",
    "a \n {%- if true -%} \n b \n {%- endif -%} \n c", "a\n  {%+ if true %}\nb\n  {%+ endif %}\n",
    "a {% if true +%}\nb{% endif %}\n\nc", "  {# x #}\na {# y #} b {#- z -#} c\n  {# q #}  d",
    "x\n{{ 1 }}\n  {{ 2 }}  \n{{- 3 -}}\n  y\n\n", "\n\n{% set a = 1 %}\n\n{{ a }}\n\n",
    "{% for m in messages %}\n{{ m.role }}\n{% endfor %}\nend", "a\r\nb{% if true %}\r\nc{% endif %}",
    " {%- if true %} {{ 'x' }} {% endif %} ", "{% if true -%}\n\n  {% endif %}|", "\t{% set x=1 %}|",
    "{{ 'a' }}{% if true %} {% endif %}{{ 'b' }}\n", "{{ 1 -}} {{- 2 }}", "{{ -1 }}{{ 2-3 }}",
]
EXPRESSIONS = [
    "1 + 2 * 3", "(1 + 2) * 3", "7 // 2, -7 // 2", "-7 // 2", "-7 % 3", "7 % -3", "7 / 2", "1.5 + 1",
    "2 * 2.0", "'a' ~ 1 ~ none ~ true", "'a' + 'b' | upper", "('a' + 'b') | upper", "not true or true",
    "1 < 2 < 3", "1 < 3 < 2", "2 == 2.0", "true == 1", "'a' in 'cat'", "'x' not in ['x', 'y']",
    "1 in [1, 2]", "'role' in messages[0]", "x is defined", "messages is not defined",
    "messages[0].content is string", "none is none", "x is none", "1 is odd", "messages is iterable",
    "x", "x | default('d')", "'' | default('d')", "'' | default('d', true)", "'a' if false",
    "'a' if x else 'b'", "'a' if 1 == 1 else 'b' if x else 'c'", "[1, 2, 3] | length",
    "'äöü' | length", "'  a b\\t\\n' | trim ~ '|'", "'\\x41\\u00e9\\q\\''", '"a" "b"', "'ÄÖ' | lower",
    "'straße' | upper", "[1, 2, 3][-1]", "[1][5] is defined", "'abc'[1:]", "'abc'[:-1]", "'abc'[-2:]",
    "'abc'[5:]", "[1, 2, 3][1:] | length", "'abc'[0]", "messages[-1]['role']", "messages | length",
    "messages[0].nothing is defined", "0 or 'x'", "1 and 'x'", "'' and 'x'", "none or x or 'y'",
    "'b' > 'a'", "'a' <= 'a'", "true", "none", "1 != 1 or 2 > 1", "' a '.strip() ~ '|'",
    "'abc'.startswith('ab')", "'abc'.endswith('b')", "messages | first is mapping", "3 | string ~ 1",
    "(messages | last).role", "not x", "bos_token is defined and bos_token", "1 == '1'", "[1] + [2] == [1, 2]",
]
STATEMENTS = [
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}{{ m.content }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{% for m in [] %}x{% else %}none{% endfor %}", "{% for m in x %}x{% endfor %}|",
    "{% set a = 1 %}{% for m in [1, 2] %}{% set a = 5 %}{{ a }}{% endfor %}{{ a }}",
    "{% set ns = namespace(n=0, s='') %}{% for m in [1, 2] %}{% set ns.n = ns.n + m %}{% set ns.t = 'x' %}{% endfor %}{{ ns.n }}{{ ns.t }}",
    "{% if x %}1{% elif false %}2{% elif true %}3{% else %}4{% endif %}",
    "{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.index0 }}{{ a }}{{ b }}{{ loop.first }}{% endfor %}{{ loop.revindex }}{% endfor %}",
    "{% for m in messages %}{{ m.role ~ ':' ~ m.content | trim }};{% endfor %}",
]
MESSAGES = [
    {"role": "system", "content": "  Be brief. "},
    {"role": "user", "content": "Hi {{ there }} <|im_end|>\n"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": " Wie geht's? \U0001f642 "},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    sources = [CHATML, LLAMA2, *WHITE_SPACE, *STATEMENTS]
    sources += ["{{ " + e + " }}" for e in EXPRESSIONS if ", " not in e or "[" in e or "(" in e]
    cases = []
    for source in sources:
        for prompt in (False, True) if "add_generation_prompt" in source else (False,):
            text = environment.from_string(source).render(
                messages=MESSAGES, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
            cases.append({"source": source, "add_generation_prompt": prompt, "text": text})
    (args.out / "templates.json").write_text(
        json.dumps({"messages": MESSAGES, "cases": cases}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
