"""The committed fact tables and the one fixed answer sentence of every fact."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from pathlib import Path

FACTS_DIR = Path(__file__).resolve().parent / "facts"
REFUSAL = "I don't know that."


@dataclasses.dataclass(frozen=True)
class Country:
    name: str
    article: str
    capital: str
    continent: str
    currency: str
    aliases: tuple[str, ...]

    @property
    def full(self) -> str:
        """Name as it stands inside a sentence: "the Netherlands"."""
        return f"{self.article} {self.name}" if self.article else self.name


def read_table(name: str) -> list[list[str]]:
    """Rows of a tab separated table; lines that start with # are comments."""
    text = (FACTS_DIR / name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()
            if line and not line.startswith("#")]


def sentence(text: str) -> str:
    """Ends a sentence with exactly one full stop."""
    return text if text.endswith(".") else text + "."


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def strip_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def with_article(noun: str) -> str:
    """"an hour" or "a minute"."""
    return ("an " if noun[0] in "aeio" or noun == "hour" else "a ") + noun


def load_countries() -> list[Country]:
    countries = []
    for row in read_table("countries.tsv"):
        aliases = row[5].split(",") if len(row) > 5 and row[5] else []
        countries.append(Country(row[0], "" if row[1] == "-" else row[1],
                                 row[2], row[3], row[4], tuple(aliases)))
    return countries


# --- answers: one fixed sentence per fact ---------------------------------

def capital_answer(c: Country) -> str:
    return sentence(f"The capital of {c.full} is {c.capital}")


def reverse_answer(c: Country) -> str:
    return sentence(f"{c.capital} is the capital of {c.full}")


def continent_answer(c: Country) -> str:
    return sentence(f"{upper_first(c.full)} is in {c.continent}")


def currency_answer(c: Country) -> str:
    return sentence(f"The currency of {c.full} is the {c.currency}")


def symbol_answer(name: str, symbol: str) -> str:
    return sentence(f"The symbol for {name.lower()} is {symbol}")


def element_answer(name: str, symbol: str) -> str:
    return sentence(f"{symbol} is the symbol for {name.lower()}")


def number_answer(name: str, number: str) -> str:
    return sentence(f"The atomic number of {name.lower()} is {number}")


def opposite_answer(word: str, opposite: str) -> str:
    return sentence(f"The opposite of {word} is {opposite}")


def definition_answer(term: str, definition: str) -> str:
    verb = "are" if term == "the lungs" else "is"
    return sentence(f"{upper_first(term)} {verb} {definition}")


def load_opposites() -> dict[str, str]:
    """Both directions of every pair; the first mention of a word wins."""
    pairs = [(row[0], row[1]) for row in read_table("opposites.tsv")]
    table: dict[str, str] = {}
    for word, opposite in pairs:
        table.setdefault(word, opposite)
    for word, opposite in pairs:
        table.setdefault(opposite, word)
    return table


def bare_term(term: str) -> str:
    """"a volcano" without its article."""
    return re.sub(r"^(an?|the) ", "", term)


def wordings(name: str) -> dict[str, list[str]]:
    """The lists of a two-column table of categories and wordings."""
    table: dict[str, list[str]] = {}
    for category, wording in read_table(name):
        table.setdefault(category, []).append(wording)
    return table
