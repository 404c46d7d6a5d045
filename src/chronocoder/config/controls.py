"""What comparisons may refer to beyond their own suite and their own variants."""

from collections.abc import Mapping, Sequence

from chronocoder.config.sources import HubSource, NurserySource
from chronocoder.config.suites import Suite
from chronocoder.labels import control_of, is_foreign, place_of
from chronocoder.site_names import parse_site

SHARED = {
    "language": "language",
    "vocabulary_size": "vocabulary_size",
    "text_seed": "tokenizer_seed",
}
"""What two nurseries have to agree in so that both read one text: attribute, and key to set."""


def check_foreign_checkpoints(suites: Mapping[str, Suite]) -> None:
    """Check that the checkpoints that comparisons take from other suites exist and can be compared.

    Raises:
        ValueError: names the comparison, the checkpoint and what is possible.
    """
    for suite, settings in suites.items():
        for name, comparison in settings.comparisons.items():
            key = f"suites.{suite}.comparisons.{name}"
            for checkpoint in filter(is_foreign, comparison.checkpoints):
                _check_exists(key, checkpoint, suite, suites)
                _check_agrees(key, checkpoint, settings.site_of(name), suite, suites)
            if control_of(comparison.checkpoints) == "pretraining seed":
                _check_pretraining_seeds(key, comparison.checkpoints, suite, suites)


def check_every_suite_is_used(suites: Mapping[str, Suite]) -> None:
    """Check that every suite has comparisons, a scan or a task space, or supplies a checkpoint to another's comparison.

    Raises:
        ValueError: names the one that does not.
    """
    supplying = {
        place_of(checkpoint, suite).suite
        for suite, settings in suites.items()
        for comparison in settings.comparisons.values()
        for checkpoint in comparison.checkpoints
    }
    for suite, settings in suites.items():
        if not (settings.comparison_names or settings.scan or settings.taskspace or suite in supplying):
            raise ValueError(
                f"suites.{suite}.comparisons: empty, and no comparison of another suite names a checkpoint of it as"
                f" revision@{suite}; add one, or a taskspace, or remove the suite"
            )


def check_baseline_variants(suites: Mapping[str, Suite], variants: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Check that what a comparison's baseline is made of is trained with all variants of the comparison.

    Args:
        suites: the suites.
        variants: names of the variants, by suite and comparison.

    Raises:
        ValueError: names the baseline and the variant that it lacks.
    """
    for suite, settings in suites.items():
        for name, comparison in settings.comparisons.items():
            for single in comparison.baseline or []:
                if missing := [own for own in variants[suite, name] if own not in variants[suite, single]]:
                    raise ValueError(
                        f"suites.{suite}.comparisons.{name}: baseline '{single}' has no variant '{missing[0]}';"
                        f" add it to suites.{suite}.comparisons.{single}.variants"
                    )


def _check_exists(key: str, checkpoint: str, suite: str, suites: Mapping[str, Suite]) -> None:
    other, revision = place_of(checkpoint, suite)
    if other == suite:
        raise ValueError(f"{key}: checkpoint '{checkpoint}' is of the suite itself; write '{revision}'")
    if other not in suites:
        choices = ", ".join(name for name in suites if name != suite) or "none: define one"
        raise ValueError(f"{key}: checkpoint '{checkpoint}' is of no suite that is defined; the others are {choices}")
    if revision not in suites[other].tokens_seen:
        raise ValueError(
            f"{key}: checkpoint '{checkpoint}' does not exist in suite '{other}';"
            f" choose from {', '.join(suites[other].tokens_seen)}"
        )


def _check_agrees(key: str, checkpoint: str, site: str, suite: str, suites: Mapping[str, Suite]) -> None:
    other = place_of(checkpoint, suite).suite
    own, source = suites[suite].source, suites[other].source
    if not isinstance(own, NurserySource) or not isinstance(source, NurserySource):
        return
    for name, setting in SHARED.items():
        expected, found = getattr(own, name), getattr(source, name)
        if expected != found:
            raise ValueError(
                f"{key}: checkpoint '{checkpoint}' cannot be compared, since source.{setting} is {expected} in suite"
                f" '{suite}' and {found} in suite '{other}'; set suites.{other}.source.{setting} to {expected}"
            )
    if parse_site(site).block(source.blocks) >= source.blocks:
        raise ValueError(
            f"{key}: site '{site}' is outside the model of '{checkpoint}': it has blocks 0 to {source.blocks - 1};"
            " choose one of them"
        )


def _check_pretraining_seeds(key: str, checkpoints: Sequence[str], suite: str, suites: Mapping[str, Suite]) -> None:
    """Check that checkpoints differ in the seed of their pretraining alone."""
    if all(map(is_foreign, checkpoints)):
        raise ValueError(f"{key}: checkpoints {checkpoints} are all of other suites; add one of suite '{suite}'")
    if repeated := [checkpoint for checkpoint in checkpoints if checkpoints.count(checkpoint) > 1]:
        raise ValueError(f"{key}: checkpoints {checkpoints} repeat {repeated[0]}; list it once")
    places = [place_of(checkpoint, suite) for checkpoint in checkpoints]
    tokens = [suites[place.suite].tokens_seen[place.revision] for place in places]
    if len(set(tokens)) > 1:
        raise ValueError(
            f"{key}: checkpoints {checkpoints} with tokens_seen {tokens} differ in more than the pretraining seed;"
            " take checkpoints of equal tokens_seen"
        )
    _check_seeds_differ(key, [place.suite for place in places], suites)


def _check_seeds_differ(key: str, names: Sequence[str], suites: Mapping[str, Suite]) -> None:
    of_run: dict[tuple[str, int | str, int], str] = {}
    for name in names:
        source = suites[name].source
        if isinstance(source, NurserySource):
            run: tuple[str, int | str, int] = "seed", source.seed, source.hidden_size
        elif isinstance(source, HubSource) and source.run is not None:
            run = "pretraining_seed", source.run.repository, 0
        else:
            continue
        if run in of_run:
            setting, found, _ = run
            shown = "source.seed" if setting == "seed" else "source's run"
            raise ValueError(
                f"{key}: {shown} is {found} in suite '{of_run[run]}' and in suite '{name}', which makes them the same"
                f" run; set suites.{name}.source.{setting} to another"
            )
        of_run[run] = name
