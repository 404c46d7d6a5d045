"""Stand-ins of what the published experiments fetch: the same names, revisions and file formats, with tiny contents.

Models have the real architectures with random weights.
"""

import gzip
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
import yaml
from hub_server import HubServer
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from chronocoder.suites.nursery.tokenizer import train_tokenizer

VOCABULARY = 400
WIDTH, BLOCKS, HEADS = 32, 3, 2
NOUNS = {"en": ("cat", "dog", "boy", "guard"), "fr": ("chat", "chien", "gar\u00e7on", "garde")}
ADJECTIVES = ("", "old ", "small ", "happy ")
VERBS = {"en": (("sees", "see"), ("walks", "walk")), "fr": (("voit", "voient"), ("marche", "marchent"))}


def sentences(language: str, adjectives: Sequence[str] = ("",)) -> list[tuple[str, str]]:
    """Return right and wrong sentences of a language, their nouns behind each of the adjectives."""
    found = []
    for noun in [adjective + noun for noun in NOUNS[language] for adjective in adjectives]:
        for one, several in VERBS[language]:
            subjects = ("the {}", "the {}s") if language == "en" else ("le {}", "les {}s")
            found += [(f"{subjects[0].format(noun)} {one}", f"{subjects[0].format(noun)} {several}")]
            found += [(f"{subjects[1].format(noun)} {several}", f"{subjects[1].format(noun)} {one}")]
    return found


def documents(language: str, count: int) -> list[str]:
    """Return documents of a language, all different."""
    right = [sentence for sentence, _ in sentences(language)]
    return [f"{number} " + " . ".join(right[(number + k) % len(right)] for k in range(6)) for number in range(count)]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of both languages."""
    return train_tokenizer([*documents("en", 200), *documents("fr", 200)], VOCABULARY)


def pythia(seed: int) -> PreTrainedModel:
    """Return a tiny GPT-NeoX."""
    return _random(
        seed,
        lambda size: GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=size,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=BLOCKS,
                num_attention_heads=HEADS,
            )
        ),
    )


def olmo(seed: int) -> PreTrainedModel:
    """Return a tiny OLMo."""
    return _random(
        seed,
        lambda size: OlmoForCausalLM(
            OlmoConfig(
                vocab_size=size,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=BLOCKS,
                num_attention_heads=HEADS,
                clip_qkv=8.0,
            )
        ),
    )


def bloom(seed: int) -> PreTrainedModel:
    """Return a tiny BLOOM."""
    return _random(
        seed,
        lambda size: BloomForCausalLM(
            BloomConfig(vocab_size=size, hidden_size=WIDTH, n_layer=BLOCKS, n_head=HEADS, use_cache=False)
        ),
    )


def serve_models(
    hub: HubServer,
    repository: str,
    revisions: Sequence[str],
    make: Callable[[int], PreTrainedModel],
    pickled: bool = False,
) -> None:
    """Serve a model for each revision, with a tokenizer; or with pickled weights and without one."""
    for seed, revision in enumerate(revisions):
        with tempfile.TemporaryDirectory() as folder:
            model = make(seed)
            model.save_pretrained(folder)
            if pickled:
                (Path(folder) / "model.safetensors").unlink()
                torch.save(model.state_dict(), Path(folder) / "pytorch_model.bin")
            else:
                tokenizer().save_pretrained(folder)
            hub.model(repository).push_directory(revision, Path(folder))


def serve_text(hub: HubServer, dataset: str, name: str, languages: Sequence[str] = ("en",)) -> None:
    """Serve text in a file, whose ending is that of its format, for each language; several are configurations."""
    files = {name.format(language=language): _table(name, _rows(language)) for language in languages}
    if len(languages) > 1:
        files["README.md"] = _card({language: name.format(language=language) for language in languages})
    hub.dataset(dataset).push("main", files)


def serve_blimp(hub: HubServer, sets: Mapping[str, str]) -> None:
    """Serve sets of BLiMP, each with its phenomenon, as the hub has them."""
    files = {}
    for name, phenomenon in sets.items():
        methods = {"simple_LM_method": True, "one_prefix_method": True, "two_prefix_method": False}
        labels = {"field": "morphology", "linguistics_term": phenomenon, "UID": name, **methods}
        pairs = sentences("en", ADJECTIVES)
        rows = [{"sentence_good": f"{right}.", "sentence_bad": f"{wrong}.", **labels} for right, wrong in pairs]
        files[f"{name}/train-00000-of-00001.parquet"] = _table(".parquet", rows)
    files["README.md"] = _card({name: f"{name}/train-*" for name in sets})
    hub.dataset("nyu-mll/blimp").push("main", files)


def serve_multiblimp(hub: HubServer, languages: Mapping[str, str]) -> None:
    """Serve MultiBLiMP in languages given by its codes and by those of `sentences`."""
    files = {}
    for code, language in languages.items():
        rows = [{"sen": f"{a}.", "wrong_sen": f"{b}.", "phenomenon": "SV-#"} for a, b in sentences(language)]
        files[f"{code}/data.tsv"] = _table(".tsv", rows)
    files["README.md"] = _card({code: f"{code}/data.tsv" for code in languages}, sep="\t")
    hub.dataset("jumelet/multiblimp").push("main", files)


def write_clams(folder: Path, sets: Sequence[str], languages: Sequence[str]) -> None:
    """Write sets of CLAMS, to be served by any web server."""
    for language in languages:
        (folder / f"{language}_evalset").mkdir(parents=True)
        text = "".join(f"True\t{good}\nFalse\t{bad}\n" for good, bad in sentences(language))
        for name in sets:
            (folder / f"{language}_evalset" / f"{name}.txt").write_text(text, encoding="utf-8")


def _random(seed: int, make: Callable[[int], PreTrainedModel]) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = make(len(tokenizer()))
    for parameter in model.parameters():  # the usual initialisation is so small that effects drown in rounding
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    return model


def _rows(language: str) -> list[dict[str, str]]:
    return [{"text": text} for text in documents(language, 400)]


def _card(configurations: Mapping[str, str], **options: str) -> bytes:
    entries = [{"config_name": name, "data_files": files, **options} for name, files in configurations.items()]
    return f"---\n{yaml.safe_dump({'configs': entries})}---\n".encode()


def _table(name: str, rows: Sequence[Mapping[str, object]]) -> bytes:
    if name.endswith(".parquet"):
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
        return buffer.getvalue()
    if name.endswith(".tsv"):
        lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        return ("\n".join(lines) + "\n").encode()
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return gzip.compress(lines) if name.endswith(".gz") else pyarrow.Codec("zstd").compress(lines, asbytes=True)
