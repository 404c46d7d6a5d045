"""Names and numbers as a reader wants them."""

import math
import re
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"[\w'’-]+")
MARK = "▲"
"""Goes with every task that has a warning."""
SMALLEST_P = 0.001
UNITS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"))


def in_words(name: str) -> str:
    """Return a task's name with spaces."""
    return name.replace("_", " ")


def quoted(task: str) -> str:
    """Return a task's name as a sentence names it."""
    return f"“{in_words(task)}”"


def short_count(count: float) -> str:
    """Return a count in three digits, with k, M, B or T for thousands, millions, and so on."""
    for size, unit in UNITS:
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def counted(count: int, noun: str) -> str:
    """Return a count with what it counts, in the plural where it is not one."""
    return f"{count} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return a noun or a unit in the plural."""
    return f"{noun}s"


def signed(effect: float) -> str:
    """Return an effect with its sign, in two decimals or more where it is small."""
    digits = 2 if abs(effect) >= 0.1 else 3
    return f"{round(effect, digits) + 0.0:+.{digits}f}".replace("-", "−")


def sentence(text: str) -> str:
    """Return text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def decimal(value: float) -> str:
    """Return a number in two decimals, a dash if it is not finite."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−") if math.isfinite(value) else "–"


def rough(value: float) -> str:
    """Return a number of any size with one significant digit, for instance 2e-07."""
    return f"{value:.1g}"


def percent(part: float) -> str:
    """Return a part as a percentage that no line break divides, a dash if it is not finite."""
    return f"{100 * part:.{0 if part >= 0.1 else 1}f}\u00a0%" if math.isfinite(part) else "–"


def p_words(p_value: float) -> str:
    """Return a p-value as a relation, such as `p = 0.03`."""
    if not math.isfinite(p_value):
        return "p –"
    return f"p < {SMALLEST_P}" if p_value < SMALLEST_P else f"p = {p_value:.2g}"


def p_number(p_value: float) -> str:
    """Return a p-value for a column that is headed by its name."""
    return p_words(p_value).removeprefix("p = ").removeprefix("p ")


def listed(items: Sequence[str]) -> str:
    """Return items joined by commas and a final 'and'."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def peak_words(examples: Sequence[tuple[Sequence[str], int]], count: int) -> list[str]:
    """Return the words that hold the most active token of each example, most frequent first.

    Args:
        examples: the tokens of each example, and the place of the most active one.
        count: how many words.
    """
    return [word for word, _ in Counter(_word_at(*example) for example in examples).most_common(count)]


def _word_at(tokens: Sequence[str], place: int) -> str:
    start = sum(len(token) for token in tokens[:place])
    stop = start + len(tokens[place])
    inside = [word for word in WORD.finditer("".join(tokens)) if word.start() < stop and word.end() > start]
    return inside[0].group() if inside else tokens[place].strip()
