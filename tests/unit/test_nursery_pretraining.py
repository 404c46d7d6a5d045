import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from chronocoder.config import NurserySource
from chronocoder.errors import NonFiniteError
from chronocoder.suites.nursery.grammar import Grammar
from chronocoder.suites.nursery.pretraining import _batches, pretrain
from chronocoder.suites.nursery.tokenizer import SEPARATOR, train_tokenizer
from chronocoder.suites.packing import encode_documents, pack_documents

TINY = {
    "hidden_size": 16,
    "blocks": 1,
    "heads": 2,
    "batch_size": 4,
    "sequence_length": 16,
    "vocabulary_size": 300,
}


@pytest.fixture(scope="module")
def source() -> NurserySource:
    return NurserySource(steps=[0, 1, 3], warmup_steps=2, **TINY)


@pytest.fixture(scope="module")
def tokenizer(source: NurserySource) -> PreTrainedTokenizerFast:
    sentences = Grammar.load(source.language).sentences("pretraining", source.seed)
    return train_tokenizer(islice(sentences, 20_000), source.vocabulary_size)


@pytest.fixture(scope="module")
def run(source: NurserySource, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    pretrain(source, tokenizer, output)
    return output


def test_the_separator_is_token_zero_and_text_comes_back(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(SEPARATOR) == 0
    for text in ["the boys walk.", "Ünknown ☃ words"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_sequences_pack_whole_sentences_and_begin_with_the_separator(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    sentences = list(islice(Grammar.load("english").sentences("train", 0), 3000))
    expected, sequence = [], []
    for sentence in sentences:
        sequence = [*sequence, 0, *tokenizer.encode(sentence)]
        if len(sequence) >= 16:
            expected.append(sequence[:16])
            sequence = []
    packed = list(pack_documents(encode_documents(sentences, tokenizer), 0, 16, cut=True))
    np.testing.assert_array_equal(packed, expected)
    assert all(sequence[0] == 0 for sequence in packed)


@pytest.mark.parametrize("language", ["english", "french"])
def test_most_pairs_of_each_task_survive_tokenisation(language: str) -> None:
    grammar = Grammar.load(language)
    tokenizer = train_tokenizer(islice(grammar.sentences("pretraining", 1), 20_000), 768)
    for task in grammar.task_names:
        ids = [
            (tokenizer.encode(pair.right), tokenizer.encode(pair.wrong)) for pair in grammar.minimal_pairs(task, 300, 0)
        ]
        assert sum(len(right) == len(wrong) and right != wrong for right, wrong in ids) >= 250, task


def test_plurals_are_often_split_into_stem_and_suffix() -> None:
    grammar = Grammar.load("english")
    tokenizer = train_tokenizer(islice(grammar.sentences("pretraining", 0), 20_000), 768)
    nouns = [word for name in ("common_noun", "thing") for word in grammar.lexicon[name]]
    plurals = [tokenizer.tokenize(f" {word.text}") for word in nouns if word.features["number"] == "plural"]
    assert 0.2 < np.mean([tokens[-1] in {"s", "es"} for tokens in plurals]) < 0.9


def test_checkpoints_are_hugging_face_directories(run: Path, source: NurserySource) -> None:
    assert sorted(path.name for path in run.iterdir()) == ["step0", "step1", "step3"]
    for step in source.steps:
        model = AutoModelForCausalLM.from_pretrained(run / f"step{step}")
        tokenizer = AutoTokenizer.from_pretrained(run / f"step{step}")
        assert model.config.model_type == "gpt_neox"
        assert model.config.use_parallel_residual
        logits = model(torch.tensor([[0, *tokenizer.encode("the boys")]])).logits
        assert logits.shape[-1] == len(tokenizer) == source.vocabulary_size


def test_a_saved_tokenizer_encodes_as_the_one_given(run: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    saved = AutoTokenizer.from_pretrained(run / "step3")
    text = f"{SEPARATOR}the girl that sees Mary walks.{SEPARATOR}"
    assert saved.encode(text) == tokenizer.encode(text)
    assert saved.bos_token_id == 0


def test_the_record_tells_tokens_and_falling_loss(run: Path, source: NurserySource) -> None:
    records = [json.loads((run / f"step{step}" / "training.json").read_text("utf-8")) for step in source.steps]
    assert [record["tokens_seen"] for record in records] == list(source.tokens_seen.values())
    assert records[0]["validation_loss"] == pytest.approx(np.log(source.vocabulary_size), abs=0.3)
    assert records[-1]["validation_loss"] < records[0]["validation_loss"]


def test_equal_seeds_give_equal_weights(
    run: Path, source: NurserySource, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    pretrain(source, tokenizer, tmp_path / "again")
    pretrain(source.model_copy(update={"seed": 1}), tokenizer, tmp_path / "other")
    weights = [
        load_file(path / "step3" / "model.safetensors") for path in (run, tmp_path / "again", tmp_path / "other")
    ]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=0)
    assert not torch.equal(weights[0]["embed_out.weight"], weights[2]["embed_out.weight"])


def test_several_languages_make_one_model_and_a_single_one_draws_nothing(
    source: NurserySource, tokenizer: PreTrainedTokenizerFast
) -> None:
    def batches(languages: str | list[str]) -> np.ndarray:
        settings = NurserySource(language=languages, steps=[0, 3], **TINY)
        made = _batches(settings, tokenizer, "pretraining", None, 4)
        return np.concatenate([next(made).cpu().numpy() for _ in range(10)])

    english, french, both = (batches(languages) for languages in ("english", "french", ["english", "french"]))
    sentences = Grammar.load("english").sentences("pretraining", 0)
    packed = list(islice(pack_documents(encode_documents(islice(sentences, 2000), tokenizer), 0, 16, cut=True), 40))
    np.testing.assert_array_equal(english, packed)
    is_english = (both[:, None] == english[None]).all(axis=2).any(axis=1)
    is_french = (both[:, None] == french[None]).all(axis=2).any(axis=1)
    assert (is_english ^ is_french).all() and 8 < is_english.sum() < 32


def test_the_global_random_state_is_left_alone(
    source: NurserySource, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    pretrain(source, tokenizer, tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_a_rerun_replaces_old_checkpoints(
    source: NurserySource, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "step1").mkdir()
    (tmp_path / "step1" / "stale").touch()
    pretrain(source, tokenizer, tmp_path)
    assert not (tmp_path / "step1" / "stale").exists()


def test_a_diverged_run_names_the_step_and_keeps_earlier_checkpoints(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    source = NurserySource(steps=[0, 1, 20], warmup_steps=1, learning_rate=1e30, **TINY)
    with pytest.raises(NonFiniteError, match=r"loss is (nan|inf) at step \d+; lower learning_rate"):
        pretrain(source, tokenizer, tmp_path)
    assert (tmp_path / "step0" / "model.safetensors").exists()
    assert not (tmp_path / "step20").exists()
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]
