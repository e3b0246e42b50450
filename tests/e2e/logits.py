"""What models say of the next token, and how far two such answers lie apart."""
import array
import base64
import math
import sys


def logits_of(text, width):
    numbers = array.array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        numbers.byteswap()
    return [numbers[i:i + width] for i in range(0, len(numbers), width)]


def log_probabilities(logits):
    top = max(logits)
    total = top + math.log(math.fsum(math.exp(number - top) for number in logits))
    return [number - total for number in logits]


def relative_difference(actual, reference):
    difference = math.fsum((a - r) ** 2 for a, r in zip(actual, reference))
    return math.sqrt(difference / math.fsum(r * r for r in reference))
