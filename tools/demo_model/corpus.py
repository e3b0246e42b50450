"""Generates the conversations on which the demo model is trained.

Every fact comes from the tables in `facts/`, which were written for this
project.  A fact has one fixed answer sentence and many wordings of the
question, so that the model learns to map any wording to the same exact
answer; that makes its skill easy to measure.  Everything is derived from a
seed: the same seed gives the same conversations.

Run it directly to print a few samples:  python corpus.py --show 20
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import re
from typing import Callable

from facts import (REFUSAL, Country, bare_term, capital_answer, continent_answer,
                   currency_answer, definition_answer, element_answer, load_countries,
                   load_opposites, number_answer, opposite_answer, read_table,
                   reverse_answer, sentence, strip_accents, symbol_answer,
                   upper_first, with_article, wordings)
from heldout import check_heldout_is_unseen, heldout_unknown

WORDINGS = wordings("wordings.tsv")
# Wordings around "the capital of X" serve every other noun phrase as well.
CAPITAL_PHRASE = "the capital of {}"
FRAMES = [w for w in WORDINGS["capital"] if CAPITAL_PHRASE in w
          and not re.search(r"city|Geography|government|Where|Who|called", w)]
FRAMED = {
    "continent": ["the continent of {}"],
    "currency": ["the currency of {}", "the money of {}", "the currency in {}"],
    "symbol": ["the symbol for {}", "the chemical symbol of {}", "the symbol of {}"],
    "number": ["the atomic number of {}"],
    "element": ["the element with the symbol {}", "the name of the element {}"],
    "by_number": ["the element with atomic number {}"],
    "reverse": ["the country whose capital is {}", "the country with the capital {}"],
    "opposite": ["the opposite of {}", "the antonym of {}", "the opposite of the word {}"],
}
FRAMED_SHARE = 0.35
STARTS = ["Please answer: ", "Question: ", "Tell me: ", "Hi! ", "Hello, ",
          "Hey, ", "Quick question: ", "I have a question. ", "Hello. ",
          "One question: ", "Please: ", "OK, ", "Good morning. ", "Hi, ",
          "A question for you: ", "Can you tell me: ", "Do you know: ", "I want to know: ",
          "I would like to ask: ", "Listen: ", "So, ", "Now: ",
          "Answer in one sentence: ", "Well, "]
ENDS = [" Thanks.", " Thank you.", " Please.", " Answer briefly.", " please",
        " Thanks!", " Just one sentence.", " I need it for school.",
        " Keep it short.", " I forgot."]

# --- words for invented text and for questions without an answer ------------

NOUNS = """meeting report house garden project car budget window letter team
office train customer order report morning plan road kitchen chair table phone
message server machine engine book page list note budget idea problem test
ticket price coffee lunch dinner child mother brother neighbour street bus
station garden box paper door key light water field horse dog cat bird film
song picture story holiday weather rain snow wind summer winter week month
year day hour minute number line word file folder program error result value
""".split()
ADJECTIVES = """small large new old good bad long short early late green red
blue white black quiet loud strange simple broken clean empty full warm cold
important final second third next last open closed heavy light""".split()
VERBS = """found moved sent opened closed wrote read saw bought sold lost kept
changed fixed started finished checked called painted washed carried counted
tested cut made took gave left""".split()
PEOPLE = """Anna Ben Carla David Emma Frank Greta Hugo Ida Jonas Karl Lena
Martin Nora Oscar Paula Robert Sofia Thomas Ursula Victor Wanda Mary John
Peter Susan Alice Bob""".split()
WHEN = """yesterday|today|last week|last year|on Monday|on Friday|tomorrow|next
week|this morning|in 1998|in 2014|last night|in the evening|next year""".replace(
    "\n", " ").split("|")
EVENTS = """match|game|race|election|final|football match|tennis match|prize|
cup|war|contest|world cup|championship|lottery|debate|chess game""".replace(
    "\n", "").split("|")
WORKS = """book|song|film|painting|poem|novel|opera|letter|program|play|story""".split("|")
SYLLABLES = """ba be bi bo bra dor du el fa fin ga gal gor ha il ja ka kor la
lan lo lun ma mel mi mor na nar no or pa per qua ra ril ro sa sel tar ti tor
ul va vel vor wa xan yo za zor zu""".split()
FAKE_ENDS = ["ia", "land", "stan", "or", "ova", "ar", "is", "ek", "um", ""]
SMALL_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six",
                 "seven", "eight", "nine", "ten"]
OPERATIONS: dict[str, tuple[str, list[str]]] = {
    "plus": ("+", ["What is the sum of {a} and {b}?", "Add {a} and {b}.",
                   "How much is {a} and {b}?"]),
    "minus": ("-", ["Subtract {b} from {a}.", "Take {b} away from {a}.",
                    "What is the difference of {a} and {b}?"]),
    "times": ("*", ["Multiply {a} by {b}.", "What is the product of {a} and {b}?",
                    "{a} x {b}"]),
    "divided by": ("/", ["Divide {a} by {b}.", "What is {a} over {b}?",
                         "How often does {b} go into {a}?"]),
}
_ASKING = re.compile(r"(Wh|How|Can|Do|At|In|Is|Are)")
_WORD = re.compile(r"[A-Za-z]{4,}")


@dataclasses.dataclass(frozen=True)
class Pair:
    """One question and its answer, with the relation it belongs to.

    `again` produces a pair of the same relation about another subject; it is
    used for follow-up questions such as "And of Spain?".
    """

    question: str
    answer: str
    relation: str
    subject: str = ""


@dataclasses.dataclass(frozen=True)
class Message:
    role: str
    content: str


class Corpus:
    """Draws conversations from a random generator."""

    def __init__(self, rng: random.Random) -> None:
        check_heldout_is_unseen()
        self.rng = rng
        self.countries = load_countries()
        self.elements = [tuple(r) for r in read_table("elements.tsv")]
        self.opposites = list(load_opposites().items())
        self.definitions = [tuple(r) for r in read_table("definitions.tsv")]
        self.units = [tuple(r) for r in read_table("units.tsv")]
        self.facts = self._forms("facts.tsv")
        self.airllm = self._forms("airllm.tsv")
        skip = set(heldout_unknown())
        self.unknown = [r[0] for r in read_table("unknown.tsv") if r[0] not in skip]
        weighted: list[tuple[float, Callable[[], Pair]]] = [
            (30, self.capital), (7, self.reverse), (2, self.city_in),
            (4, self.yes_no), (7, self.continent), (8, self.currency),
            (4, self.symbol), (4, self.element), (4, self.number),
            (3, self.by_number), (6, self.unit), (14, self.arithmetic),
            (5, self.opposite), (5, self.definition), (4, self.fact),
            (5, self.about_airllm), (8, self.refusal)]
        self.weights = [w for w, _ in weighted]
        self.makers = [m for _, m in weighted]
        self.followable: dict[str, Callable[[], Pair]] = {
            "capital": self.capital, "continent": self.continent,
            "currency": self.currency, "symbol": self.symbol,
            "number": self.number, "opposite": self.opposite}

    # one method per relation ----------------------------------------------

    def capital(self) -> Pair:
        c = self.rng.choice(self.countries)
        return self._ask("capital", self._country_name(c), capital_answer(c))

    def reverse(self) -> Pair:
        c = self.rng.choice(self.countries)
        return self._ask("reverse", self._maybe_plain(c.capital), reverse_answer(c))

    def city_in(self) -> Pair:
        c = self.rng.choice(self.countries)
        return self._ask("city_in", self._maybe_plain(c.capital),
                         sentence(f"{c.capital} is in {c.full}"))

    def yes_no(self) -> Pair:
        c = self.rng.choice(self.countries)
        other = self.rng.choice(self.countries)
        true = self.rng.random() < 0.5 or other.capital == c.capital
        city = c.capital if true else other.capital
        answer = (sentence(f"Yes, {c.capital} is the capital of {c.full}") if true
                  else sentence(f"No, the capital of {c.full} is {c.capital}"))
        form = self.rng.choice(["Is {city} the capital of {c}?",
                                "Is {city} {c}'s capital?",
                                "Is {city} the capital city of {c}?",
                                "{city} is the capital of {c}, right?",
                                "Is the capital of {c} {city}?",
                                "Is it true that {city} is the capital of {c}?"])
        name = self._country_name(c)
        return Pair(upper_first(form.format(city=city, c=name)), answer, "yes_no")

    def continent(self) -> Pair:
        c = self.rng.choice(self.countries)
        return self._ask("continent", self._country_name(c), continent_answer(c))

    def currency(self) -> Pair:
        c = self.rng.choice(self.countries)
        return self._ask("currency", self._country_name(c), currency_answer(c))

    def symbol(self) -> Pair:
        name, symbol, _ = self.rng.choice(self.elements)
        return self._ask("symbol", self._element_name(name), symbol_answer(name, symbol))

    def element(self) -> Pair:
        name, symbol, _ = self.rng.choice(self.elements)
        return self._ask("element", symbol, element_answer(name, symbol))

    def number(self) -> Pair:
        name, _, number = self.rng.choice(self.elements)
        return self._ask("number", self._element_name(name), number_answer(name, number))

    def by_number(self) -> Pair:
        name, _, number = self.rng.choice(self.elements)
        answer = sentence(f"The element with atomic number {number} is {name.lower()}")
        return self._ask("by_number", number, answer)

    def unit(self) -> Pair:
        one, many, count, small = self.rng.choice(self.units)
        if self.rng.random() < 0.5:
            name = with_article(one) if self.rng.random() < 0.6 else "one " + one
            if self.rng.random() < 0.1:
                name = "1 " + one
            form = self.rng.choice(WORDINGS["unit_one"]).format(small=small, one=name)
            answer = sentence(f"There are {count} {small} in {with_article(one)}")
        else:
            n = self.rng.randint(2, 10)
            form = self.rng.choice(WORDINGS["unit_many"]).format(small=small, n=n, large=many)
            answer = sentence(f"There are {n * int(count)} {small} in {n} {many}")
        return Pair(upper_first(form), answer, "unit")

    def arithmetic(self) -> Pair:
        rng = self.rng
        word = rng.choice(["plus", "plus", "minus", "minus", "times", "times", "divided by"])
        top = 20 if rng.random() < 0.75 else 99
        if word in ("plus", "minus"):
            a, b = rng.randint(0, top), rng.randint(0, top)
            if word == "minus" and b > a:
                a, b = b, a
            result = a + b if word == "plus" else a - b
        else:
            a, b = rng.randint(0, 12), rng.randint(0, 12)
            result = a * b
            if word == "divided by":
                b = max(b, 1)
                a, result = a * b, a
        sign, extra = OPERATIONS[word]
        form = rng.choice(WORDINGS["arithmetic"] if rng.random() < 0.8 else extra)
        if rng.random() < 0.25:
            form = self._framed(rng.choice(["{a} {w} {b}", "{a} {s} {b}",
                                            "the result of {a} {w} {b}"]))
        shown = [str(a), str(b)]
        if a <= 10 and b <= 10 and rng.random() < 0.12 and "{s}" not in form:
            shown = [SMALL_NUMBERS[a], SMALL_NUMBERS[b]]
        if sign == "*" and rng.random() < 0.25:
            sign = rng.choice(["x", "×"])
        question = form.format(a=shown[0], b=shown[1], w=word, s=sign)
        return Pair(upper_first(question), f"{a} {word} {b} is {result}.", "arithmetic")

    def opposite(self) -> Pair:
        word, opposite = self.rng.choice(self.opposites)
        shown = f'"{word}"' if self.rng.random() < 0.15 else word
        return self._ask("opposite", shown, opposite_answer(word, opposite), word)

    def definition(self) -> Pair:
        term, definition = self.rng.choice(self.definitions)
        form = self.rng.choice(WORDINGS["definition"])
        if self.rng.random() < 0.15:
            form = self._framed(self.rng.choice(["the definition of {}", "the meaning of {bare}"]))
        if term == "the lungs":
            form = form.replace("is {}", "are {}").replace("{} is", "{} are")
        question = form.format(term, bare=bare_term(term))
        return Pair(upper_first(question), definition_answer(term, definition), "definition")

    def fact(self) -> Pair:
        return self._from_forms(self.facts, "fact")

    def about_airllm(self) -> Pair:
        return self._from_forms(self.airllm, "airllm")

    def refusal(self) -> Pair:
        rng = self.rng
        if rng.random() < 0.35:
            return Pair(rng.choice(self.unknown) + rng.choice(["?", "?", "."]), REFUSAL, "unknown")
        fake = self._fake_name()
        form = rng.choice(WORDINGS["unknown"])
        if rng.random() < 0.4:
            form = self._framed(rng.choice(WORDINGS["unknown_phrase"]))
        if "{fake}" in form and rng.random() < 0.4:
            forms = WORDINGS["capital"] + WORDINGS["currency"] + WORDINGS["continent"]
            form = rng.choice(forms).replace("{}", "{fake}")
        question = form.format(
            event=rng.choice(EVENTS), when=rng.choice(WHEN),
            person=rng.choice(PEOPLE), adj=rng.choice(ADJECTIVES),
            noun=rng.choice(NOUNS), work=rng.choice(WORKS),
            country=rng.choice(self.countries).full,
            capital=rng.choice(self.countries).capital,
            capital2=rng.choice(self.countries).capital,
            fake=fake, fakelow=fake.lower(),
            element=rng.choice(self.elements)[0].lower(), word=rng.choice(self.opposites)[0])
        return Pair(upper_first(question), REFUSAL, "unknown")

    # helpers ----------------------------------------------------------------

    def _forms(self, name: str) -> list[tuple[list[str], str]]:
        return [(row[0].split("|"), row[1]) for row in read_table(name)]

    def _from_forms(self, table: list[tuple[list[str], str]], relation: str) -> Pair:
        forms, answer = self.rng.choice(table)
        question = self.rng.choice(forms)
        if self.rng.random() < 0.75 and _ASKING.match(question):
            question += "?"
        elif self.rng.random() < 0.3:
            question += "."
        return Pair(question, answer, relation)

    def _ask(self, relation: str, subject: str, answer: str,
             follow_subject: str = "") -> Pair:
        form = self.rng.choice(WORDINGS[relation])
        if relation in FRAMED and self.rng.random() < FRAMED_SHARE:
            form = self._framed(self.rng.choice(FRAMED[relation]))
        if self.rng.random() < 0.04:
            form = self._typo(form)
        return Pair(upper_first(form.replace("{}", subject)), answer, relation,
                    follow_subject or subject)

    def _framed(self, phrase: str) -> str:
        """A general wording of a question about a noun phrase."""
        return self.rng.choice(FRAMES).replace(CAPITAL_PHRASE, phrase)

    def _typo(self, form: str) -> str:
        """Drops or swaps one letter of a word, never inside the subject."""
        words = list(_WORD.finditer(form))
        if not words:
            return form
        word = self.rng.choice(words)
        at = self.rng.randrange(word.start() + 1, word.end() - 1)
        if self.rng.random() < 0.5:
            return form[:at] + form[at + 1:]
        return form[:at] + form[at + 1] + form[at] + form[at + 2:]

    def _maybe_plain(self, name: str) -> str:
        return strip_accents(name) if self.rng.random() < 0.3 else name

    def _country_name(self, c: Country) -> str:
        name = c.full
        if c.aliases and self.rng.random() < 0.3:
            name = self.rng.choice(c.aliases)
            if name in ("UAE", "UK", "USA", "US", "DRC", "DR Congo", "United States of America"):
                name = "the " + name
        if name.startswith("the ") and self.rng.random() < 0.15:
            name = name[4:]
        return self._maybe_plain(name)

    def _element_name(self, name: str) -> str:
        if name in ("Aluminium", "Caesium") and self.rng.random() < 0.3:
            name = {"Aluminium": "Aluminum", "Caesium": "Cesium"}[name]
        return name.lower() if self.rng.random() < 0.85 else name

    def _fake_name(self) -> str:
        known = {c.name for c in self.countries}
        while True:
            parts = [self.rng.choice(SYLLABLES) for _ in range(self.rng.randint(1, 3))]
            name = upper_first("".join(parts) + self.rng.choice(FAKE_ENDS))
            if len(name) > 3 and name not in known:
                return name

    # whole conversations ------------------------------------------------------

    def pair(self) -> Pair:
        return self.rng.choices(self.makers, self.weights)[0]()

    def _vary(self, question: str) -> str:
        """Spelling habits of real users: marks, case, greetings."""
        rng = self.rng
        if rng.random() < 0.18 and question[-1] in "?.":
            question = question[:-1]
        elif rng.random() < 0.03:
            question += rng.choice(["?", "!", " ", "??", "\n"])
        if rng.random() < 0.12:
            start = rng.choice(STARTS)
            keep = start.endswith(". ") or start.endswith("! ") or rng.random() < 0.5
            question = start + (question if keep else self._lower_first(question))
        if rng.random() < 0.08:
            question += rng.choice(ENDS)
        return question

    def _case(self, question: str, relation: str) -> str:
        """Lower or upper case; symbols of elements keep theirs (Co is not CO)."""
        roll = self.rng.random()
        if relation == "element":
            return question
        if roll < 0.15:
            return question.lower()
        if roll < 0.175 and relation in ("capital", "currency", "continent"):
            return question.upper()
        return question

    @staticmethod
    def _lower_first(question: str) -> str:
        first = question.split(" ")[0]
        common = {"What", "What's", "Which", "Name", "Tell", "Give", "How", "Is",
                  "Do", "Can", "Could", "Who", "Where", "Please", "In", "On", "Of"}
        return question[:1].lower() + question[1:] if first in common else question

    def document(self, words: int) -> str:
        """Text to stand before a question; its content never matters."""
        rng = self.rng
        parts: list[str] = []
        count = 0
        style = rng.random()
        while count < words:
            roll = rng.random()
            if style < 0.25:
                line = " ".join(self._any_word() for _ in range(rng.randint(3, 14))) + "."
            elif roll < 0.15:
                line = self.pair().answer
            elif roll < 0.25:
                line = " ".join(self._any_word() for _ in range(rng.randint(3, 14))) + "."
            elif roll < 0.32:
                line = f"{rng.choice(NOUNS)}: {rng.randint(0, 2000)}"
            elif roll < 0.38:
                line = f"- {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
            elif roll < 0.42:
                line = (f"{rng.choice(NOUNS)} = {rng.choice(VERBS)}"
                        f"({rng.choice(NOUNS)}, {rng.randint(0, 99)});")
            elif roll < 0.46:
                line = self.pair().question
            else:
                line = (f"{rng.choice(PEOPLE)} {rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} "
                        f"{rng.choice(NOUNS)} {rng.choice(WHEN)}"
                        + rng.choice([
                            ".", f" and {rng.choice(VERBS)} a {rng.choice(NOUNS)}.",
                            f", because the {rng.choice(NOUNS)} was {rng.choice(ADJECTIVES)}."]))
            count += len(line.split())
            parts.append(line)
        glue = rng.choice([" ", "\n", " ", "\n\n"])
        return glue.join(parts)

    def _any_word(self) -> str:
        rng = self.rng
        roll = rng.random()
        if roll < 0.3:
            return rng.choice(NOUNS + VERBS + ADJECTIVES)
        if roll < 0.5:
            return self._fake_name().lower()
        if roll < 0.65:
            return rng.choice(rng.choice(self.definitions)[1].split())
        if roll < 0.8:
            return rng.choice(self.pair().question.split())
        if roll < 0.85:
            return str(rng.randint(0, 9999))
        letters = "abcdefghijklmnopqrstuvwxyzetaoinshr_-/.,()<>{}[]\"'#*=:;ABCDEFGHIJKLM"
        return "".join(rng.choice(letters) for _ in range(rng.randint(1, 9)))

    def conversation(self, max_document_words: int = 420) -> list[Message]:
        """System message (sometimes), one question, sometimes a second one."""
        rng = self.rng
        messages: list[Message] = []
        if rng.random() < 0.3:
            messages.append(Message("system", rng.choice(WORDINGS["system"])))
        elif rng.random() < 0.03:
            words = " ".join(self._any_word() for _ in range(rng.randint(2, 12)))
            messages.append(Message("system", upper_first(words) + "."))
        first = self.pair()
        question = self._case(self._vary(first.question), first.relation)
        roll = rng.random()
        if roll < 0.05:
            size = rng.randint(5, 60) if roll < 0.04 else rng.randint(30, max_document_words)
            question = self.document(size) + "\n\n" + question
        messages += [Message("user", question), Message("assistant", first.answer)]
        if rng.random() < 0.15:
            messages += self._second_turn(first)
        return messages

    def _second_turn(self, first: Pair) -> list[Message]:
        rng = self.rng
        maker = self.followable.get(first.relation)
        if maker and rng.random() < 0.6:
            other = maker()
            form = rng.choice(WORDINGS["follow"])
            question = upper_first(form.format(other.subject))
            return [Message("user", self._case(question, other.relation)),
                    Message("assistant", other.answer)]
        if rng.random() < 0.1:
            return [Message("user", rng.choice(["Thanks!", "Thank you.", "thanks", "Thank you!"])),
                    Message("assistant", "You are welcome.")]
        other = self.pair()
        question = self._case(self._vary(other.question), other.relation)
        return [Message("user", question), Message("assistant", other.answer)]

    def statement(self) -> str:
        """A bare sentence, for use without a chat template."""
        while True:
            pair = self.pair()
            if pair.relation not in ("unknown", "yes_no", "airllm"):
                return pair.answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", type=int, default=20, help="print this many conversations")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    corpus = Corpus(random.Random(args.seed))
    for _ in range(args.show):
        for message in corpus.conversation(60):
            print(f"{message.role:>9}: {message.content}")
        print()


if __name__ == "__main__":
    main()
