#!/usr/bin/env python3
"""Writes what jinja2 prints, as transformers runs it, for templates of every kind: what the language's
rules make different from what one expects, and random ones of tools/jinja_fuzz.

  tools/jinja_fixtures/expressions.py --out tests/engine/jinja/fixtures

Needs jinja2 and transformers of the versions that docs/tokenizers.md names, on Python 3.11. Writes
expressions.json (the variables, then pairs of template and output, null where it is refused) and
strftime.json (pairs of format and result, for 2024-02-29 05:06:07.000089).
"""

import argparse
import datetime
import importlib.machinery
import importlib.util
import json
import random
import string
import warnings
from pathlib import Path

SEED = 2026
RANDOM_TEMPLATES = 1500


def load_fuzz():
    path = str(Path(__file__).resolve().parent.parent / "jinja_fuzz")
    loader = importlib.machinery.SourceFileLoader("jinja_fuzz", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("jinja_fuzz", loader))
    loader.exec_module(module)
    return module


TRAPS = [
    # operators
    "{{ 1 ~ 2 + 3 }}", "{{ 'a' ~ 1 + 2 }}", "{{ '1' + 2 ~ '3' }}", "{{ 2**3**2 }} {{ -2**2 }} {{ 2**-1 }}",
    "{{ (-2)**2 }} {{ 2 * 3**2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ 6 / 2 }}",
    "{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 == true }} {{ 1 < 3 > 2 != 4 }} {{ 1 in [1] == true }}",
    "{{ not 1 == 2 }} {{ not true and false }} {{ true or 1 / 0 }} {{ 1 and 0 or 2 }} {{ 'a' and '' }}",
    "{{ 1 if 0 }}|{{ 1 if 0 else 2 if 0 else 3 }} {{ (1 if 0) is defined }}", "{{ 1 + true }} {{ true * 3 }}",
    "{{ 'ab' * 2 }} {{ 2 * [1] }} {{ (1,) + (2,) }} {{ [1] + (2,) }}", "{{ 'a' 'b' \"c\" }} {{ 'a' ~ 'b' 'c' }}",
    "{{ -1 | abs }} {{ -1 ** 2 | abs }} {{ 2 is even and 3 is odd }} {{ 1 is not even }}",
    "{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5e-7 }}",
    # attributes and items
    "{{ d.items }}", "{{ d['items'] }}", "{{ d.items() | list }}", "{{ d.get('items') }}", "{{ d | attr('items') }}",
    "{{ nope.x | default('y') }}", "{{ (nope | default({})).x | default('y') }}", "{{ nope }}|{{ nope | default }}",
    "{{ d.nope }}|{{ d.nope.x }}", "{{ d.nope is defined }} {{ d.nope is none }} {{ d['nope'] | default('q') }}",
    "{{ nope is sequence }} {{ nope is iterable }} {{ nope is mapping }} {{ nope is string }} {{ nope | length }}",
    "{% for x in nope %}x{% else %}empty{% endfor %}", "{{ nope + 1 }}", "{{ nope == nope }} {{ nope == 1 }}",
    "{{ nope | list }} {{ nope | join('-') }} {{ nope | string }} {{ not nope }}", "{{ nope() }}", "{{ nope[0] }}",
    "{{ s[0] }}{{ s[-1] }}{{ s[99] }}{{ s['upper']() }}{{ s.nope is defined }}", "{{ l[1:] }} {{ l[::-1] }} {{ s[1::2] }}",
    "{{ l.0 }} {{ msgs.0.role }} {{ msgs[1]['n'] }}", "{{ s.__class__ }}|{{ s['__class__'] }}", "{{ {'__x': 1}.__x }}",
    "{{ l.append(1) }}", "{{ l.pop() }}", "{{ d.update({}) }}", "{{ d.setdefault('a', 2) }}", "{{ l.sort() }}",
    "{{ d.clear is defined }} {{ l.extend is defined }} {{ l.copy() }} {{ l.index(1) }} {{ l.count(3) }}",
    # unknown names
    "{% if false %}{{ 1 | unknown }}{% endif %}ok", "{% if true %}{{ 1 | unknown }}{% endif %}",
    "{% if false %}{{ 1 is unknown }}{% endif %}ok", "{{ 1 if 1 else (2 | unknown) }}", "{{ 1 | unknown }}",
    "{{ 1 is unknown }}", "{% if 0 %}{% for x in 1 | unknown %}{% endfor %}{% endif %}ok",
    # loops
    "{% for x in [1, 2] %}{% continue %}{% else %}none{% endfor %}", "{% for x in [1, 2] %}{% break %}{% else %}none{% endfor %}",
    "{% for x in [1, 2] %}{% if loop.first %}{% continue %}{% endif %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [] %}x{% else %}none{% endfor %}{{ x }}", "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}",
    "{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }},{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{{ loop.depth }}{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is sequence %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
    "{% for x in l %}{% set y = x %}{% endfor %}{{ y }}", "{% set y = 0 %}{% for x in l %}{% set y = y + x %}{{ y }}{% endfor %}{{ y }}",
    "{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% for c in 'aß' %}[{{ c }}]{% endfor %}", "{{ range(3) | list }} {{ range(5, 1, -2) | list }} {{ range(3) }} {{ range(1, 9, 2) }}",
    "{{ range(100000) | length }}", "{{ range(100001) | length }}", "{{ range(0) | list }} {{ range(3)[1] }}",
    # macros, blocks, scopes
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}|{{ m(1, 2, 3, k=4) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m() }}|{{ m(a=2) }}|{{ m.name }}{{ m.arguments }}", "{% macro m() %}{% endmacro %}{{ m(1) }}",
    "{% macro m() %}[{{ caller(1) }}]{% endmacro %}{% call(x) m() %}{{ x }}!{% endcall %}", "{% macro m() %}x{% endmacro %}{{ m() | upper }}",
    "{% set x %}a {{ 1 }}{% endset %}{{ x | upper }}", "{% set x | upper | trim %} a {% endset %}[{{ x }}]",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% set a, b = 1, 2 %}{{ b }}{{ a }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% generation %}a{{ s }}{% endgeneration %}", "{% raw %}{{ x }}{% endraw %}{# c #}", "{%- raw -%} {% a {%- endraw -%} b",
    # white space
    "  {% if true %}\n  a\n  {% endif %}\n  b", "a\n{% if true %}\nb\n{% endif %}\nc\n", "a \n {%- if true -%} \n b \n {%- endif -%} \n c",
    "\u2003\u00a0{% if true %}x{% endif %}", "a\u2003{% if true %}x{% endif %}", "a\n\u3000{# c #}\nb", "a\r\nb\rc\n", "{{ 'a\r\nb' }}",
    "{{ 1 }}\n", "{{ 1 }}\n\n", "\n{{ 1 }}", "{{- 1 -}}  {{- 2 }}", "a\n  {{- 1 }}", "{% set a = 1 -%}\n\n x", "  {%+ if true %}x{% endif %}",
    "{% if true +%}\nx{% endif %}", "a{#- c -#} b", "\t{% set a = 1 %}\n{{ a }}",
    # printing
    "{{ [1, 'a', \"it's\", 'q\"', '\\'\"', 1e16, 1e15, 0.1, -0.0, 1e-5, 1e22, none, (1,), (), {}, {'k': 2.5}] }}",
    "{{ ['a\\nb\\t\\\\', '\u00e9\u200b\u00ad\U0001f600', '\\x00\\x7f\\x85'] }}", "{{ true }} {{ none }} {{ 1.0 }} {{ 1e400 }} {{ -1e400 }}",
    "{{ d }} {{ d.keys() }} {{ d.values() }} {{ d.items() }}", "{{ 1.5e300 * 1e10 }} {{ 123456789.123456789 }} {{ 1e16 }} {{ 1e100 }}",
    "{{ namespace(a=1, b='x') }}", "{{ ('a' | safe, '<' | e) }}",
    # tojson
    "{{ {'a': '<\u00e9&\\'\">', 'b': [1, none, true, 1.0, 1e16]} | tojson }}", "{{ '\u00e9\U0001f600' | tojson(true) }} {{ '\u00e9' | tojson(ensure_ascii=true) }}",
    "{{ d | tojson(indent=2) }}", "{{ d | tojson(indent='--') }}", "{{ d | tojson(separators=(',', ':')) }}", "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
    "{{ nope | tojson }}", "{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}", "{{ [] | tojson(indent=1) }} {{ {} | tojson }} {{ [[]] | tojson(indent=1) }}",
    "{{ '\\u2028\\x00\\x1f/' | tojson }}", "{{ 1e400 | tojson }}", "{{ (1, 2) | tojson }}",
    # filters
    "{{ 2.5 | round }} {{ 3.5 | round }} {{ 0.5 | round }} {{ 2.675 | round(2) }} {{ 25 | round(-1) }} {{ 35 | round(-1) }} {{ 2.4 | round(0, 'ceil') }}",
    "{{ 'ΑΣ'.lower() }} {{ 'ΑΣ Σ ΣΑ' | lower }} {{ 'ß'.upper() }} {{ 'ǆ'.title() }} {{ 'İ'.lower() }} {{ 'ﬁ'.capitalize() }}",
    "{{ 'hello wORLD-foo' | title }} {{ 'hello wORLD'.title() }} {{ \"it's\" | title }} {{ \"it's\".title() }}",
    "{{ 'a' | default('b') }} {{ '' | default('b') }}|{{ '' | default('b', true) }} {{ none | default('b') }} {{ none | d('b', true) }}",
    "{{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ [3, 1] | sort(reverse=true) }} {{ msgs | sort(attribute='role') }}",
    "{{ [1, 'a'] | sort }}", "{{ {'b': 1, 'A': 2} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(by='value', reverse=true) }}",
    "{{ msgs | map(attribute='role') | list }} {{ msgs | map(attribute='n', default=0) | list }} {{ ls | map('upper') | join }}",
    "{{ msgs | selectattr('n') | list }} {{ msgs | rejectattr('n', 'defined') | list }} {{ l | select('gt', 1) | list }} {{ l | reject('odd') | list }}",
    "{{ msgs | groupby('role') }} {{ [1, 1.0, true, 2] | unique | list }} {{ ['a', 'A'] | unique | list }}",
    "{{ 'a b  c' | wordcount }} {{ s | truncate(8) }} {{ 'foo bar baz' | truncate(6, true, '…', 0) }} {{ 'ab\\ncd' | indent(2, true) }}",
    "{{ l | batch(2) | list }} {{ l | slice(2, 0) | list }} {{ l | first }} {{ l | last }} {{ [] | first }} {{ l | sum }} {{ l | max }}",
    "{{ '3' | int }} {{ '3.7' | int }} {{ 'x' | int(9) }} {{ '0x1f' | int(0, 16) }} {{ 'inf' | float }} {{ '1_0' | int }} {{ ' 7 ' | float }}",
    "{{ '<a href=\"x\">\\'&' | e }} {{ '<' | e | e }} {{ '<' | safe | forceescape }}", "{{ 'a/b c?é' | urlencode }} {{ {'a': 1, 'b': 'x y'} | urlencode }}",
    "{{ '%s-%03d|%-5s|%5.1f|%x|%r|%%' % ('x', 7, 'a', 2.25, 255, 'q') }} {{ '%(a)s' % {'a': 1} }} {{ '%s' % l }}", "{{ '%d' % 'a' }}",
    "{{ '{0}{a:>3}{1!r:^7}{2[0]}{3.role}'.format(1, 'x', l, msgs[0], a=2) }} {{ '{:,}|{:05.1f}|{:+d}|{:x}|{{}}'.format(1234567, 2.25, 3, 255) }}",
    "{{ ' a b '.split() }} {{ 'a,b,'.split(',') }} {{ 'a b c'.rsplit(' ', 1) }} {{ 'a\\nb\\r\\nc\\x1cd'.splitlines() }} {{ 'a-b'.partition('-') }}",
    "{{ 'aXbX'.replace('X', '', 1) }} {{ 'abc' | replace('', '-') }} {{ 'xxaxx'.strip('x') }} {{ '\\u2003a\\u00a0' | trim }}|{{ 'a'.center(4, '*') }}",
    "{{ big | pprint }}", "{{ msgs | pprint }}", "{{ p | pprint }}", "{{ 'x' * 90 | pprint }}", "{{ [p, p] | pprint }}", "{{ ('x' * 90) | pprint }}",
    "{{ {2: 1, 'a': 3, none: 4, (1, 2): 5, 'A' * 80: 1} | pprint }}", "{{ [('y' * 40, 'z' * 60), (('w ' * 50),)] | pprint }}",
    "{{ p | wordwrap(10) }}", "{{ p | wordwrap(10, false) }}", "{{ p | wordwrap(10, true, '|', false) }}", "{{ p | wordwrap(1) }}", "{{ p | wordwrap(0) }}",
    "{{ '' | wordwrap }}|{{ ' \\n ' | wordwrap(1) }}|{{ 'a\\n\\nb' | wordwrap }}", "{{ 3 | wordwrap }}", "{{ 'a--b c--d' | wordwrap(4) }}",
    "{{ {'a': '<\"', 'b': none, 'c': nope, 'd': 1, 'e': '<' | safe} | xmlattr }}", "{{ {'a b': 1} | xmlattr }}", "{{ {'a': 1} | xmlattr(false) }}{{ {} | xmlattr }}",
    "{{ {1: 2} | xmlattr }}", "{{ 'x' | xmlattr }}", "{{ raise_exception('no') }}", "{{ dict(a=1, **{'b': 2}) }} {{ dict([(1, 2)]) }}",
    "{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}", "{% set j = joiner('|') %}{{ j() }}{{ j() }}",
    "{{ 'é'.isalpha() }} {{ '²'.isdigit() }} {{ '½'.isnumeric() }} {{ '٣'.isdecimal() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ ''.isspace() }}",
    "{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 1 is number }} {{ true is number }} {{ true is integer }} {{ 1.0 is float }} {{ none is none }} {{ l is sameas l }}",
    "{{ 3 in l }} {{ 'ell' in s }} {{ 'a' in d }} {{ 1 is in [1] }} {{ [] is iterable }} {{ 5 is iterable }} {{ s is sequence }} {{ d is mapping }} {{ range is callable }}",
]


def time_formats():
    letters = string.ascii_letters.replace("s", "")  # %s depends on the zone
    formats = ["%" + letter for letter in letters + "%+:-_ é"]
    known = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZ"
    formats += ["%" + flag + letter for flag in "-_0^#EO5" for letter in known]
    return formats + ["", "%", "a%", "%%z", "%é", "日%Y年", "%:z", "%99999d", "%20Y|", "%-d %B", "%f%f", "%^f",
                      "%#Z|", "%q", "%!", "\n%d\t", "%%%d", "%020d"]


def write(path, head, rows):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("[" + head + "\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    fuzz = load_fuzz()
    grammar = fuzz.Grammar(random.Random(SEED))
    sources = TRAPS + [grammar.template() for _ in range(RANDOM_TEMPLATES)]
    rows = [[source, fuzz.reference(source).get("text")] for source in dict.fromkeys(sources)]
    rows = [row for row in rows if row[1] is None or " at 0x" not in row[1]]
    write(args.out / "expressions.json", json.dumps(fuzz.VARIABLES, ensure_ascii=False) + ",", rows)
    moment = datetime.datetime(2024, 2, 29, 5, 6, 7, 89)
    write(args.out / "strftime.json", "", [[f, moment.strftime(f)] for f in time_formats()])


if __name__ == "__main__":
    main()
