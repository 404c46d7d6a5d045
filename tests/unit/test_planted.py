"""The benchmark of planted features: what it plants, and that its scoring says of a known crosscoder what is known."""

import json
import sys
from itertools import permutations
from pathlib import Path

import pytest
import torch
from benchmark_modules import load_benchmark

from chronocoder.activations.formats import empty_stored
from chronocoder.crosscoder.evaluation import measure_reconstruction
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.crosscoder.statistics import Statistics
from chronocoder.variants import VARIANTS

planted_module = load_benchmark("planted")
Difficulty, plant = planted_module.Difficulty, planted_module.plant
SMALL = Difficulty(width=32, features=40, weakest=0.5, noise=0.2, angle=(20.0, 40.0), scales=(1.0, 3.0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_kind(planted: planted_module.Planted, name: str) -> torch.Tensor:
    return (planted.kinds == list(planted_module.KINDS).index(name)).nonzero().flatten()


def oracle(planted: planted_module.Planted) -> Crosscoder:
    """Return the crosscoder whose latents are the features, which has to have fewer of them than inputs."""
    M, width = planted.difficulty.checkpoints, planted.difficulty.width
    count = len(planted.kinds)
    settings = VARIANTS["l1"](sparsity="l1", dictionary_size=count, steps=1, l1_coefficient=1.0)
    revisions = tuple(f"step{number}" for number in range(M))
    config = CrosscoderConfig(
        "planted", "all", "l1", revisions, "residual.0", width, settings, 0, ("",) * M, folded=True
    )
    crosscoder = Crosscoder(config).requires_grad_(False)
    crosscoder.decoder_rows.copy_(planted.rows)
    crosscoder.encoder_rows.copy_(torch.linalg.pinv(planted.rows.flatten(1)).T.unflatten(1, (M, width)))
    crosscoder.b_dec.copy_(planted.offset * planted.scale[:, None])
    crosscoder.b_enc.copy_(-crosscoder.encoder_rows.flatten(1) @ crosscoder.b_dec.flatten())
    crosscoder.scale.copy_(1 / planted.scale)
    crosscoder.threshold.copy_(0.3 * crosscoder.decoder_norms.sum(dim=0))
    return crosscoder


def statistics_of(planted: planted_module.Planted, crosscoder: Crosscoder) -> Statistics:
    return measure_reconstruction(crosscoder, planted_module.PlantedActivations(planted, 20_000, seed=1).blocks())


def test_a_seed_decides_everything() -> None:
    first, again, other = (plant(SMALL, seeded(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first[1:], again[1:], strict=True))
    assert not torch.equal(first.directions, other.directions)


def test_pieces_are_the_same_in_any_order_and_differ_from_each_other() -> None:
    planted = plant(SMALL, seeded())
    source = planted_module.PlantedActivations(planted, 10_000, seed=3)
    blocks = list(source.blocks())
    assert [len(block) for block in blocks] == [4096, 4096, 1808]
    room = empty_stored(1808, source.checkpoints, source.width, source.stored_format)
    source.read_piece(2, room)
    assert torch.equal(room.values, blocks[2])
    assert not torch.equal(blocks[0], blocks[1])
    assert not torch.equal(planted_module.PlantedActivations(planted, 10_000, seed=4).piece(0), blocks[0])


@pytest.mark.parametrize("checkpoints", [2, 3, 5])
def test_presence_is_that_of_the_kind(checkpoints: int) -> None:
    planted = plant(Difficulty(checkpoints=checkpoints), seeded())
    counts = torch.bincount(planted.kinds).tolist()
    expected = [part * len(planted.kinds) for part in planted_module.KINDS.values()]
    assert sum(counts) == 256 and max(abs(a - b) for a, b in zip(counts, expected, strict=True)) < 1
    present = planted.present
    for name in ("shared", "rotated", "strength"):
        assert present[of_kind(planted, name)].all()
    emerging, vanishing = (present[of_kind(planted, name)].int() for name in ("emerging", "vanishing"))
    assert (emerging.diff(dim=1) >= 0).all() and not emerging[:, 0].any() and emerging[:, -1].all()
    assert (vanishing.diff(dim=1) <= 0).all() and vanishing[:, 0].all() and not vanishing[:, -1].any()
    assert emerging[:, 1:].float().mean(dim=0).min() > 0
    assert planted_module.emerges(present).nonzero().flatten().tolist() == of_kind(planted, "emerging").tolist()


def test_strengths_are_steps_from_one_to_the_weakest() -> None:
    planted = plant(Difficulty(weakest=0.25), seeded())
    strengths = planted.strength[of_kind(planted, "strength")]
    torch.testing.assert_close(strengths.sort(dim=1).values, torch.tensor([0.25, 0.5, 1.0]).expand_as(strengths))
    assert len(strengths.argmax(dim=1).unique()) == 3
    assert (planted.strength[of_kind(planted, "rotated")] == 1).all()
    lengths = planted.rows.norm(dim=-1)
    torch.testing.assert_close(lengths, planted.strength * torch.tensor([1.0, 3.0, 0.5]))


def test_only_rotated_features_turn_and_by_the_stated_angles() -> None:
    planted = plant(Difficulty(angle=(30.0, 90.0)), seeded())
    cosines = (planted.directions[:, 1:] * planted.directions[:, :-1]).sum(dim=-1).clamp(-1, 1)
    rotated = torch.zeros(256, dtype=torch.bool)
    rotated[of_kind(planted, "rotated")] = True
    angles = cosines[rotated].acos().rad2deg()
    assert angles.min() > 29.9 and angles.max() < 90.1 and angles.max() - angles.min() > 30
    torch.testing.assert_close(cosines[~rotated], torch.ones_like(cosines[~rotated]))


def test_features_have_their_frequency_and_fire_in_groups() -> None:
    planted = plant(SMALL, seeded())
    activities = planted_module.draw_activities(planted, 100_000, seeded())
    active = (activities > 0).float()
    torch.testing.assert_close(active.mean(dim=0), planted.frequency, rtol=0.15, atol=0)
    assert planted.frequency.min() >= 0.005 and planted.frequency.max() <= 0.05
    assert activities[activities > 0].median() == pytest.approx(1, abs=0.02)
    together = active.T @ active / len(active)
    lift = together / (planted.frequency[:, None] * planted.frequency)
    same = planted.groups[:, None] == planted.groups
    assert (same.sum(dim=1) == SMALL.group_size).all()
    assert lift[same & ~torch.eye(len(same), dtype=torch.bool)].min() > 3
    assert lift[~same].mean() == pytest.approx(1, abs=0.05)


def test_noise_and_offset_have_their_lengths_at_checkpoints_of_unequal_norm() -> None:
    quiet, loud = (plant(Difficulty(noise=noise), seeded()) for noise in (0.0, 0.8))
    without, noisy = (planted_module.draw_activations(planted, 2000, seeded(1)) for planted in (quiet, loud))
    noise = (noisy - without).pow(2).sum(dim=-1).mean(dim=0).sqrt()
    torch.testing.assert_close(noise, 0.8 * loud.scale, rtol=0.02, atol=0)
    torch.testing.assert_close(loud.offset.norm(dim=-1), torch.full((3,), 1.5))
    inactive = planted_module.draw_activities(quiet, 2000, seeded(1)).sum(dim=1) == 0
    expected = (quiet.offset * quiet.scale[:, None]).expand(int(inactive.sum()), -1, -1)
    assert len(expected) and torch.allclose(without[inactive], expected, atol=1e-5)


def test_a_perfect_crosscoder_is_scored_perfect() -> None:
    planted = plant(SMALL, seeded())
    crosscoder = oracle(planted)
    score = planted_module.score(planted, crosscoder, statistics_of(planted, crosscoder))
    assert score.recovered.all() and score.dead == 0
    for name in planted_module.MEASURES:
        assert score.classified[name].all(), name
        assert score.latents[name] == (len(of_kind(planted, "emerging")), 0)
    assert score.l0 == pytest.approx(planted.l0, rel=0.05)
    assert score.explained_variance == pytest.approx(score.explainable, abs=0.05)


def test_the_order_and_number_of_latents_do_not_matter() -> None:
    planted = plant(SMALL, seeded())
    crosscoder = oracle(planted)
    order = torch.randperm(40, generator=seeded(2))
    for name in ("decoder_rows", "encoder_rows", "b_enc", "threshold"):
        crosscoder.state_dict()[name].copy_(crosscoder.state_dict()[name][order].clone())
    score = planted_module.score(planted, crosscoder, statistics_of(planted, crosscoder))
    assert score.recovered.all() and score.classified["refitted"].all()


def test_a_shrunk_decoder_row_deceives_reldec_and_not_latent_scaling() -> None:
    planted = plant(SMALL, seeded())
    crosscoder = oracle(planted)
    early, late = of_kind(planted, "shared")[:2]
    crosscoder.decoder_rows[early, 0] *= 0.1
    crosscoder.decoder_rows[late, 2] *= 0.1
    score = planted_module.score(planted, crosscoder, statistics_of(planted, crosscoder))
    assert score.recovered.all()
    for name in ("share", "ratio"):
        assert (~score.classified[name]).nonzero().flatten().tolist() == sorted([int(early), int(late)])
        assert score.emerging[name][early] and not score.emerging[name][late]
        assert score.latents[name] == (len(of_kind(planted, "emerging")) + 1, 1)
    for name in ("scaling", "refitted"):
        assert score.classified[name].all() and not score.emerging[name][early]


def test_a_feature_that_turns_by_a_right_angle_is_lost_to_latent_scaling_and_not_to_refitting() -> None:
    planted = plant(Difficulty(width=32, features=40, weakest=0.5, noise=0.2, angle=(90.0, 90.0)), seeded())
    crosscoder = oracle(planted)
    score = planted_module.score(planted, crosscoder, statistics_of(planted, crosscoder))
    rotated = of_kind(planted, "rotated")
    assert score.recovered.all() and score.classified["refitted"].all() and score.classified["share"].all()
    assert not score.classified["scaling"][rotated].any()


def test_a_turned_decoder_row_is_not_recovered_and_a_silent_latent_is_no_match() -> None:
    planted = plant(SMALL, seeded())
    crosscoder = oracle(planted)
    turned, silent = of_kind(planted, "shared")[:2]
    crosscoder.decoder_rows[turned, 1] = torch.randn(SMALL.width, generator=seeded(3))
    crosscoder.threshold[silent] = torch.inf
    score = planted_module.score(planted, crosscoder, statistics_of(planted, crosscoder))
    assert (~score.recovered).nonzero().flatten().tolist() == sorted([int(turned), int(silent)])
    assert not score.classified["ratio"][silent] and score.dead == pytest.approx(1 / 40)


def test_matching_is_the_best_assignment_where_directions_are_distinct() -> None:
    rows = torch.nn.functional.normalize(torch.randn(5, 1, 16, generator=seeded()), dim=-1)
    noisy = rows[[3, 0, 4, 1, 2]] + 0.05 * torch.randn(5, 1, 16, generator=seeded(1))
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], noisy, dim=-1)
    present, alive = torch.ones(5, 1, dtype=torch.bool), torch.ones(5, dtype=torch.bool)
    best = max(permutations(range(5)), key=lambda order: float(cosines[range(5), order].sum()))
    assert planted_module.match_latents(cosines, present, alive).tolist() == list(best)


def test_the_command_trains_with_the_projects_trainer_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planted_module, "EVALUATION_ROWS", 5000)
    path = tmp_path / "figures.json"
    options = ["--features", "40", "--width", "16", "--steps", "20", "--threads", "1", "--checkpoints", "2"]
    command = ["planted.py", "--variants", "l1", "batchtopk", "--seeds", "0", "1", *options, "--json", str(path)]
    monkeypatch.setattr(sys, "argv", command)
    planted_module.main()
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [summary["variant"] for summary in document["variants"]] == ["l1", "batchtopk"]
    assert document["difficulty"]["features"] == 40 and document["seeds"] == [0, 1]
    for summary in document["variants"]:
        assert set(summary["findings"]) == {"recovered", *planted_module.MEASURES}
        assert len(summary["explained_variance"]) == 2
    assert "false_emerged" in capsys.readouterr().out
