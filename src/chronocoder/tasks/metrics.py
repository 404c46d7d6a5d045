"""What is asked of a minimal pair, and which question a set of pairs allows. Imports no torch.

`next_token`: logit(right) - logit(wrong) after the prefix that both sentences share.
`continuation`: log-probability of what both sentences end with, after the right beginning less after the wrong one (the
two-prefix method of Warstadt et al. 2020, TACL 8).
`sentence`: log-probability of the right sentence less that of the wrong one. A space goes before each sentence, and the
separator is the context of its first token: the decisions are those of lm-evaluation-harness's task `blimp`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from chronocoder.config import UNITS
from chronocoder.suites.tokenizers import words_known
from chronocoder.tasks.pairs import MinimalPair

METRICS = (NEXT_TOKEN, CONTINUATION, SENTENCE) = tuple(UNITS)
MOST_CONTRADICTIONS = 0.01
"""Fraction of pairs whose answer is the opposite of another pair's after the same prefix, from which on prefixes do not
decide what is right."""
LEAST_USABLE = 0.8
"""Fraction of pairs that a metric must be able to use to be chosen."""


class PairTokens(NamedTuple):
    """A pair in tokens, each sentence tokenised once and as a whole.

    Attributes:
        pair: its text.
        good: tokens of the grammatical sentence.
        bad: tokens of the ungrammatical one.
        spans: the characters, from the first to before the last, that each token of the grammatical one stands for;
            empty where the tokenizer does not tell.
        shared: tokens at the beginning that are the same in both.
        ending: tokens at the end that are the same in both, after those; none that is a piece of a word that differs.
        answer: tokens of the first word that differs, from the first that differs on, in each sentence; none where one
            sentence goes on after the end of the other, or where the tokenizer makes that word the same in both.
    """

    pair: MinimalPair
    good: list[int]
    bad: list[int]
    spans: list[tuple[int, int]]
    shared: int
    ending: int
    answer: tuple[int, int]

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens that both sentences begin with."""
        return tuple(self.good[: self.shared])

    def unusable(self, metric: str) -> str:
        """Return why a metric cannot use the pair, in a word; empty if it can."""
        if metric == SENTENCE:
            return ""
        if self.good == self.bad:
            return "identity"
        if metric == CONTINUATION:
            return "" if self.ending else "continuation"
        if not self.shared:
            return "prefix"
        return "" if self.answer[0] == self.answer[1] > 0 else "length"


class Choice(NamedTuple):
    """The metric of a task.

    Attributes:
        metric: its name.
        reason: why, in a clause.
        warnings: why it does not ask what the pairs are about; empty if nothing says so.
    """

    metric: str
    reason: str
    warnings: tuple[str, ...]


def encode_pair(pair: MinimalPair, tokenizer: PreTrainedTokenizerBase, before: str = "") -> PairTokens:
    """Tokenise both sentences of a pair, each as a whole with `before` in front of it."""
    sentences = [before + sentence for sentence in (pair.good, pair.bad)]
    good, bad = (_encode(sentence, tokenizer) for sentence in sentences)
    shared = _same(good.ids, bad.ids)
    same = _same(good.ids[shared:][::-1], bad.ids[shared:][::-1])
    ending = min(of.tokens_from(place, same) for of, place in zip((good, bad), _meeting(*sentences), strict=True))
    parting = _same(*sentences)
    answers = [
        of.tokens_before(_word_end(sentence, parting), ending) - shared
        for of, sentence in zip((good, bad), sentences, strict=True)
    ]
    return PairTokens(pair, good.ids, bad.ids, good.spans, shared, ending, (answers[0], answers[1]))


def choose_metric(pairs: Sequence[PairTokens], wanted: str) -> Choice:
    """Choose the metric of a set of pairs by what their tokens show, or take the one that is wanted.

    The right token after a shared prefix can be asked for where the prefix decides which one it is. It does not where
    the same prefix goes with opposite answers in different pairs: such sentences differ before the word that decides,
    and agree after it. Where the source of the pairs names the metrics that they are made for, no other is chosen
    unless those cannot be used. Tokens alone do not tell whether the point is where sentences part or what comes after
    it: without opposite answers, and unless the source names it, `continuation` is not chosen.

    Args:
        pairs: in tokens.
        wanted: a metric, or `auto`.
    """
    usable = {metric: _fraction([not pair.unusable(metric) for pair in pairs]) for metric in METRICS}
    opposed = contradictions(pairs)
    asks = {name for pair in pairs for name in pair.pair.asks}
    undecided = opposed > MOST_CONTRADICTIONS
    if wanted != "auto":
        metric, reason = wanted, "set in the configuration"
    else:
        possible = (CONTINUATION, SENTENCE) if undecided else METRICS if asks else (NEXT_TOKEN, SENTENCE)
        fitting = [name for name in possible if name in (asks & set(possible) or possible)]
        metric = next((name for name in fitting if usable[name] >= LEAST_USABLE), SENTENCE)
        opposite = f"after the same prefix {_percent(opposed)} of the pairs have the opposite answer of another pair"
        reason = opposite if undecided else _reason(metric, usable, asks)
    return Choice(metric, reason, tuple(_warnings(metric, opposed, asks)))


def contradictions(pairs: Sequence[PairTokens]) -> float:
    """Return the fraction of pairs whose right token is the wrong one of another pair after the same prefix."""
    used = [pair for pair in pairs if not pair.unusable(NEXT_TOKEN)]
    wrong = {(pair.prefix, pair.bad[pair.shared]) for pair in used}
    return _fraction([(pair.prefix, pair.good[pair.shared]) in wrong for pair in used])


def _reason(metric: str, usable: Mapping[str, float], asks: Collection[str]) -> str:
    if asks and metric in asks:
        reason = f"the source of the pairs names it, and {_percent(usable[metric])} of them can be used"
        passed = [f"{_percent(usable[name])} with {name}" for name in METRICS[: METRICS.index(metric)] if name in asks]
        return f"{reason} (only {' and '.join(passed)}, which it names too)" if passed else reason
    if metric == SENTENCE:
        others = " and ".join(f"{_percent(usable[name])} for {name}" for name in METRICS[:-1])
        return f"the other metrics leave out too many pairs, or ask something else (usable: {others})"
    return f"{_percent(usable[metric])} of the pairs can be used, and no prefix goes with opposite answers"


def _warnings(metric: str, opposed: float, asks: Collection[str]) -> Iterator[str]:
    if metric == NEXT_TOKEN and opposed > MOST_CONTRADICTIONS:
        yield (
            f"after the same prefix {_percent(opposed)} of the pairs have the opposite answer of another pair, so that"
            " the prefix does not decide what is right: this accuracy says nothing of what the pairs are about; set"
            f" metric to {CONTINUATION} or {SENTENCE}"
        )
    if asks and metric not in asks:
        yield f"the source of the pairs says that they are made for {', '.join(sorted(asks))}, not for {metric}"


def _fraction(holds: Sequence[bool]) -> float:
    return sum(holds) / max(len(holds), 1)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


class _Encoded(NamedTuple):
    """A sentence in tokens, and the characters that each stands for; empty where the tokenizer does not tell."""

    ids: list[int]
    spans: list[tuple[int, int]]

    def tokens_before(self, end: int, ending: int) -> int:
        """Return the tokens that start before a character, or all but the last ones that two sentences share."""
        return sum(start < end for start, _ in self.spans) if self.spans else len(self.ids) - ending

    def tokens_from(self, begin: int, ending: int) -> int:
        """Return how many of the last `ending` tokens start at or after a character; all if nothing tells."""
        return sum(start >= begin for start, _ in self.spans[len(self.ids) - ending :]) if self.spans else ending


def _encode(sentence: str, tokenizer: PreTrainedTokenizerBase) -> _Encoded:
    with words_known(tokenizer):
        if not tokenizer.is_fast:
            return _Encoded(tokenizer.encode(sentence, add_special_tokens=False), [])
        found = tokenizer(sentence, add_special_tokens=False, return_offsets_mapping=True)
    return _Encoded(found["input_ids"], found["offset_mapping"])


def _same(first: Sequence[object], second: Sequence[object]) -> int:
    """Return how many tokens or characters two sequences share at their beginning."""
    return len(list(takewhile(lambda ids: ids[0] == ids[1], zip(first, second, strict=False))))


def _meeting(good: str, bad: str) -> tuple[int, int]:
    """Return where the words that both sentences end with begin in each; where characters are alike without spaces."""
    shared = _same(good[::-1], bad[::-1])
    begins = len(good) - shared, len(bad) - shared
    if not any(map(str.isspace, good.strip() + bad.strip())):
        return begins
    starts = all(not text[:begin] or text[begin - 1].isspace() for text, begin in zip((good, bad), begins, strict=True))
    cut = 0 if starts else next((place for place in range(shared) if good[begins[0] + place].isspace()), shared)
    return begins[0] + cut, begins[1] + cut


def _word_end(sentence: str, place: int) -> int:
    """Return where the word at a place ends: at the next white space."""
    return next((end for end in range(place, len(sentence)) if sentence[end].isspace()), len(sentence))
