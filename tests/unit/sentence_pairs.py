"""Pairs of sentences that the tests of metrics share."""

from collections.abc import Sequence

import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tokenise import tokenise_pairs

TWO_SENTENCES = ["continuation", "sentence"]
PAIRS = [
    MinimalPair("the", " cat sees the xyz", " dogs sees the xyz"),
    MinimalPair("the", " boys see", " boy see", condition="plural"),
    MinimalPair("the", " xyz walks", " cats walks"),
    MinimalPair("a boy near the", " cats see the cat", " cat see the cat", condition="plural"),
    MinimalPair("the", " cat sees the xyz", " xyz sees the xyz"),
]
"""Sentences of several lengths, and pairs of unequal ones; answers of several tokens; a right sentence that recurs."""


def task_of(tokenizer: PreTrainedTokenizerFast, metric_name: str, pairs: Sequence[MinimalPair] = PAIRS) -> xr.Dataset:
    return tokenise_pairs(pairs, tokenizer, 0, "made", metric_name).assign_attrs(task="made", suite="tiny")


@torch.no_grad()
def slow_differences(model: PreTrainedModel, task: xr.Dataset) -> list[float]:
    """Return right minus wrong of each example, one forward pass a text."""

    def logits_of(of_text: xr.Dataset) -> tuple[torch.Tensor, list[int]]:
        ids = of_text["token_id"].values[: int(of_text["length"])].tolist()
        return model(input_ids=torch.tensor([ids])).logits[0].double(), ids

    def score(of_text: xr.Dataset) -> float:
        logits, ids = logits_of(of_text)
        places = range(int(of_text["scored_from"]), len(ids))
        return sum(float(logits.log_softmax(1)[place - 1, ids[place]]) for place in places)

    found = []
    for number in range(task.sizes["example"]):
        own = task.isel(example=number)
        if "member" in task.dims:
            found.append(score(own.isel(member=0)) - score(own.isel(member=1)))
        else:
            last = logits_of(own)[0][-1]
            found.append(float(last[int(own["right_id"])] - last[int(own["wrong_id"])]))
    return found
