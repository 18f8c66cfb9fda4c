"""SlowFormer's recipes at smoke size: what is trained, what is shared, what a test image never reaches."""

import dataclasses
import json
import math

import pytest
import torch
from torch.utils.data import TensorDataset

from effbook import experiments
from effbook.errors import EffbookError
from effbook.exhibits import recipe_of, register
from effbook.experiments.shared.splits import split
from effbook.experiments.slowformer import judging, patches, victims
from effbook.experiments.slowformer.defence import DefenceRecipe
from effbook.experiments.slowformer.settings import TOKEN_PX
from effbook.runs.execute import execute
from effbook.runs.profiles import PROFILES, scale
from effbook.runs.recipe import make, recipe_names
from effbook.slowformer import Patch, Perturbation, judge, load_patch

experiments.load()
KINDS = ("avit", "ats", "adavit")
OURS = [one for one in register().values() if one.chapter == "slowformer"]


def paper(name, **fields):
    """A recipe at the dissertation's scale; of AdaViT no official weights are read."""
    trained = {"weights": "trained"} if fields.get("victim") == "adavit" else {}
    return make(f"slowformer-{name}", **trained | fields)


def smoke(name, **fields):
    return scale(paper(name, **fields), "smoke")


def exhibit_recipes():
    """The recipe of each cell of the chapter, by exhibit, row and column."""
    found = {}
    for one in OURS:
        for row in one.rows:
            for column in one.columns:
                if (recipe := recipe_of(one, row, column)) is not None:
                    found[one.id, row.id, column.id] = recipe
    return found


# ------------------------------------------------------------------------------------------------ what is registered


def test_every_row_of_the_chapter_has_a_recipe_and_none_waits():
    measured = {(exhibit, row) for exhibit, row, _ in exhibit_recipes()}
    assert {(one.id, row.id) for one in OURS for row in one.rows} == measured
    assert [one.id for one in OURS if one.waits_for or any(row.waits_for for row in one.rows)] == []


def test_every_row_runs_under_every_profile_and_its_probe_is_a_recipe():
    for cell, recipe in exhibit_recipes().items():
        for profile in PROFILES:
            scaled = scale(recipe, profile)
            probe = dataclasses.replace(scaled, **scaled.probe())
            assert probe.key, cell
            assert probe.cost().seconds <= max(scaled.cost().seconds, 30), (cell, profile)


def test_rows_of_architectures_that_coincide_are_one_run_below_paper():
    made = exhibit_recipes()
    tiny, small = (made["tab-4.1", f"avit-{size}-slowformer", "success"] for size in ("ti", "s"))
    assert tiny.key != small.key
    for profile in ("smoke", "mini", "lab"):
        assert scale(tiny, profile).key == scale(small, profile).key
    assert made["tab-4.1", "avit-ti-slowformer", "success"] == made["tab-4.3", "agnostic", "success"]
    ats = [made["tab-4.1", f"ats-{size}-slowformer", "success"] for size in ("ti", "s", "b")]
    assert len({scale(one, "mini").key for one in ats}) == 1
    assert len({one.key for one in ats}) == 3


def test_the_main_attack_is_one_of_the_compared_losses_where_the_profile_chose_it():
    made = exhibit_recipes()
    compared = {row: made["prose-4.1.3.2", row, "success"] for row in ("avit-text", "avit-released", "avit-surrogate")}
    main = made["tab-4.1", "avit-ti-slowformer", "success"]
    for profile in ("mini", "paper"):
        keys = {row: scale(one, profile).key for row, one in compared.items()}
        assert len(set(keys.values())) == 3
        assert scale(main, profile).key in keys.values()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_patch_has_the_dissertations_share_of_the_image(profile):
    recipe = scale(paper("attack"), profile)
    assert recipe.patch_px == round(recipe.image_px * 64 / 224)
    assert recipe.image_px % TOKEN_PX[recipe.architecture] == 0


def test_the_table_of_cifar_10_has_a_victim_of_its_own():
    made = exhibit_recipes()
    usual, extreme = (made[table, "avit-ti-none", "gflops"] for table in ("tab-4.1", "tab-4.2"))
    for profile in ("smoke", "mini", "lab"):
        depths = [scale(one, profile).target_depth for one in (usual, extreme)]
        assert depths[1] < (depths[0] or 13)


def test_equal_fields_are_equal_keys_and_what_only_judges_changes_no_kept_part():
    first, second = (smoke("attack", patch_px=32) for _ in range(2))
    assert first.key == second.key
    fewer = dataclasses.replace(first, test_images=10)
    assert fewer.key != first.key
    assert fewer.patch_parts() == first.patch_parts()
    assert fewer.parts() == first.parts() == smoke("clean").parts()
    other = dataclasses.replace(first, learning_rate=0.3)
    assert other.patch_parts() != first.patch_parts()
    assert other.parts() == first.parts()


# ----------------------------------------------------------------------------------------------------------- it runs


@pytest.mark.parametrize("victim", KINDS)
@pytest.mark.parametrize("attack", ["random", "tap", "ntap", "desparsify", "slowformer", "perturbation"])
def test_every_attack_runs_on_every_victim(kept, victim, attack):
    recipe = smoke("attack", victim=victim, attack=attack, epsilon=16 if attack == "perturbation" else 0)
    found = recipe.run(kept)
    assert found.metrics["gflops"] > 0
    assert 0 <= found.metrics["top1"] <= 100
    assert all(found.metrics[name] is not None or name in found.notes for name in found.metrics)
    trained = attack != "random"
    assert ("loss" in found.series) == trained
    assert len(patches.kept_patches(recipe, kept)) == (2 if attack == "tap" else 1)


@pytest.mark.parametrize("victim", KINDS)
def test_a_judgement_is_that_of_the_library(kept, victim):
    recipe = smoke("attack", victim=victim)
    metrics = recipe.run(kept).metrics
    test = split("toy-shapes", "test", size_px=28, wanted=recipe.test_images, seed=0)
    model, patch = victims.kept_victim(recipe, kept), patches.kept_patch(recipe, kept)
    data = TensorDataset(test.images, test.labels)
    if metrics["success_of_bound"] is None:  # ATS drops just the lowest token of each of these images
        with pytest.raises(EffbookError, match="saves nothing"):
            judge(model, data, patch)
        return
    found = judge(model, data, patch)
    assert metrics["gflops"] == pytest.approx(found.attacked_macs / 1e9)
    assert metrics["clean_gflops"] == pytest.approx(found.clean_macs / 1e9)
    assert metrics["top1"] == pytest.approx(100 * found.attacked_accuracy)
    assert metrics["success_of_bound"] == pytest.approx(found.success_percent)
    most, low = victims.dense_macs(model), found.clean_macs
    assert metrics["success"] == pytest.approx(100 * (found.attacked_macs - low) / (most - low))


def test_the_dense_vit_costs_what_the_victims_have_as_their_most(kept):
    dense, clean = smoke("dense", victim="dense").run(kept), smoke("clean").run(kept)
    assert dense.metrics["gflops"] == pytest.approx(clean.metrics["dense_gflops"])
    assert clean.metrics["gflops"] < dense.metrics["gflops"]
    saved = 100 * (1 - clean.metrics["gflops"] / dense.metrics["gflops"])
    assert clean.metrics["saved_percent"] == pytest.approx(saved)
    assert clean.metrics["depth"] == pytest.approx(sum(clean.series["tokens"]) / 16)  # patches
    assert clean.metrics["gflops_released"] >= clean.metrics["gflops"] * 0.99


def test_a_clock_gives_medians_and_says_why_joules_are_missing(kept):
    found = smoke("clock").run(kept)
    assert all(found.metrics[f"ms_{name}{one}"] > 0 for name in ("dense", "clean", "attacked") for one in ("", "_one"))
    assert found.metrics["ms_ratio"] == pytest.approx(found.metrics["ms_clean"] / found.metrics["ms_dense"])
    assert found.metrics["joules_clean"] is None
    assert "not measured" in found.notes["joules_clean"]
    assert found.metrics["gflops_clean"] < found.metrics["gflops_dense"]


def test_a_suffix_is_searched_on_some_prompts_and_judged_on_others(kept, monkeypatch):
    import effbook.slowformer as library

    seen = {}
    find, measure = library.find_suffix, library.measure_suffix

    def finding(model, prompts, **given):
        seen["train"] = prompts
        return find(model, prompts, **given)

    def measuring(model, prompts, suffix, **given):
        seen["test"] = prompts
        return measure(model, prompts, suffix, **given)

    monkeypatch.setattr(library, "find_suffix", finding, raising=False)
    monkeypatch.setattr(library, "measure_suffix", measuring, raising=False)
    found = smoke("suffix").run(kept)
    texts = [{tuple(prompt.before.tolist()) for prompt in seen[part]} for part in ("train", "test")]
    assert len(texts[0]) == len(texts[1]) == 2
    assert not texts[0] & texts[1]
    assert {f"tokens_{name}" for name in ("none", "random", "found")} <= set(found.metrics)
    ids = json.loads(found.artifacts["suffix.json"].read_text(encoding="utf-8"))["ids"]
    assert len(ids) == smoke("suffix").suffix_tokens


# ---------------------------------------------------------------------------------------------------- what is shared


def test_the_patch_never_sees_test_images(kept, monkeypatch):
    asked = []
    original = patches.train_split

    def noted(recipe):
        found = original(recipe)
        asked.append(found.drawn[1])
        return found

    monkeypatch.setattr(patches, "train_split", noted)
    monkeypatch.setattr(judging, "test_split", None)  # asking for the test split would raise
    folder = patches.attacked(smoke("attack", restart=7), kept)
    assert asked == ["train"]
    assert load_patch(folder / "patch.png")[1]["seed"] == 7 << 32


def test_a_kept_patch_and_a_kept_victim_are_taken_again(kept, monkeypatch):
    recipe = smoke("attack", restart=3)
    first = recipe.run(kept)
    for module, name in ((patches, "learn"), (victims, "learn")):
        monkeypatch.setattr(module, name, None)  # training anew would raise
    again = dataclasses.replace(recipe, test_images=20).run(kept)
    assert again.series["loss"] == first.series["loss"]
    assert smoke("stages", restart=3, moment="tenth").run(kept).metrics["success"] is not None


def test_a_loaded_victim_answers_as_the_trained_one(kept):
    recipe = smoke("clean", victim="adavit", seed=2)
    images = split("toy-shapes", "test", size_px=28, wanted=8, seed=0).images / 255
    trained = victims.new_victim(recipe, classes=10)
    folder = victims.trained(recipe, kept)
    trained.load_state_dict(victims.load_file(folder / "victim.safetensors"))
    found = victims.kept_victim(recipe, kept).run(images, "dropped")
    torch.testing.assert_close(found.logits, trained.eval().run(images, "masked").logits, atol=1e-4, rtol=1e-4)


def test_stages_are_the_start_a_tenth_and_the_end(kept):
    recipe = smoke("attack")
    start, tenth, last = (patches.kept_patch(recipe, kept, moment=moment) for moment in patches.MOMENTS)
    assert torch.equal(start.levels, patches.kept_patch(smoke("attack", attack="random"), kept).levels)
    assert not torch.equal(tenth.levels, start.levels)
    assert not torch.equal(tenth.levels, last.levels)
    found = {moment: smoke("stages", moment=moment).run(kept).metrics for moment in patches.MOMENTS}
    assert found["last"]["likeness"] == pytest.approx(1.0)
    assert found["start"]["likeness"] < found["tenth"]["likeness"] < 1
    assert found["last"]["success"] == recipe.run(kept).metrics["success"]


def test_other_starts_are_other_patches_and_the_weakest_counts(kept):
    found = smoke("starts").run(kept)
    assert found.metrics["lowest"] == min(found.series["success"])
    assert found.series["success"][0] == smoke("attack").run(kept).metrics["success"]
    assert found.metrics["likeness"] < 1
    assert sorted(found.artifacts) == ["patch-0.png", "patch-1.png"]


def test_places_are_drawn_from_seed_and_number_and_lie_within_the_image():
    made = [smoke("attack", place=place, seed=seed) for place in range(1, 6) for seed in range(2)]
    corners = {one.corner() for one in made}
    assert len(corners) > 5
    assert all(0 <= edge <= 28 - 8 for corner in corners for edge in corner)
    assert smoke("attack").corner() == (0, 0)


def test_tokens_are_compared_image_by_image(kept):
    clean, attacked = (smoke("tokens", shown=shown).run(kept) for shown in ("clean", "attacked"))
    assert clean.metrics["relieved_percent"] is None
    assert 0 <= attacked.metrics["relieved_percent"] <= 100
    for found in (clean, attacked):
        assert found.metrics["pruned_percent"] == pytest.approx(100 * (1 - found.series["tokens"][1] / 16))
        assert found.metrics["last_percent"] == pytest.approx(100 * found.series["tokens"][-1] / 16)


def test_a_patch_of_the_whole_image_can_be_the_most(kept):
    recipe = smoke("within", victim="adavit")
    found, clean = recipe.run(kept).metrics, judging.clean(recipe, kept).gflops
    if found["success_within"] is not None:
        wanted = 100 * (found["gflops"] - clean) / (found["whole_gflops"] - clean)
        assert found["success_within"] == pytest.approx(wanted)
    assert recipe.whole().patch_px == recipe.image_px


def test_the_defence_is_attacked_anew_and_its_victim_is_another(kept):
    recipe = smoke("defence")
    found = recipe.run(kept).metrics
    folder = kept.kept("slowformer-defended", recipe.defended_parts(), recipe)
    anew, about = load_patch(folder / "anew.png")
    assert about["seed"] not in (recipe.seed, recipe.config().seed)
    assert not torch.equal(anew.levels, patches.kept_patch(smoke("attack"), kept).levels)
    defended = victims.load_victim(recipe, folder / "victim.safetensors", kept)
    pairs = zip(defended.parameters(), victims.kept_victim(recipe, kept).parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    most = victims.dense_macs(defended) / 1e9
    wanted = 100 * (found["gflops"] - found["original_gflops"]) / (most - found["original_gflops"])
    assert found["success"] == pytest.approx(wanted)
    assert found["original_gflops"] == pytest.approx(smoke("clean").run(kept).metrics["gflops"])


def test_a_perturbation_keeps_its_bound(kept):
    found = patches.kept_patch(smoke("attack", attack="perturbation", epsilon=16), kept)
    assert isinstance(found, Perturbation)
    assert 0 < found.levels.abs().max() <= 16


def test_the_darkest_token_is_one_that_lies_wholly_within_the_patch():
    levels = torch.full((3, 20, 20), 200, dtype=torch.uint8)
    levels[:, 3:10, 9:16] = 10  # of the image the token from 7 to 14 and from 14 to 21
    patch = Patch(levels, (28, 28), top_px=4, left_px=5)
    assert patches.darkest_token(patch, "toy") == pytest.approx(10)
    assert patches.darkest_token(Patch(levels[:, :8, :8], (28, 28), top_px=3, left_px=3), "toy") is None


def test_likeness_is_one_of_a_patch_with_itself_and_minus_one_with_its_negative():
    levels = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    one, other = Patch(levels, (8, 8)), Patch(255 - levels, (8, 8))
    assert patches.likeness(one, one) == pytest.approx(1)
    assert patches.likeness(one, other) == pytest.approx(-1)


def test_a_record_holds_the_patch_that_another_program_can_use(folders):
    record = execute(smoke("attack"), profile="smoke", quiet=True)
    files = {name: record.artifact(f"patch.{name}") for name in ("png", "json")}
    about = json.loads(files["json"].read_text(encoding="utf-8"))
    assert (about["height_px"], about["top_px"], about["image_width_px"]) == (8, 0, 28)
    assert about["victim"].startswith("avit")
    assert math.isfinite(record.metrics["success"])


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("attack", {"patch_px": 300}, "a patch of 300 pixels is larger than images of 224"),
        ("attack", {"epsilon": 16}, "slowformer and epsilon = 16 do not go together"),
        ("attack", {"attack": "perturbation"}, "perturbation and epsilon = 0 do not go together"),
        ("attack", {"victim": "dense"}, "the dense ViT costs the same for any image"),
        ("attack", {"loss": "scores"}, "avit has no scores to sample by"),
        ("attack", {"noise": True}, "avit decides without noise"),
        ("attack", {"attack": "tap", "task": "destroy"}, "tap is told by its own loss alone"),
        ("clean", {"image_px": 100}, "images of 100 px are not whole tokens of 16 px"),
        ("clean", {"architecture": "deit-b"}, "the authors of A-ViT give no weights for deit-b"),
        ("clean", {"victim": "ats", "dataset": "cifar10"}, "no official weights of ats on cifar10"),
        ("dense", {}, "avit is no dense ViT"),
        ("stages", {"attack": "ntap"}, "the stages of ntap are not kept"),
        ("defence", {"attack": "tap"}, "the defence is judged by SlowFormer's attack"),
        ("suffix", {"train_prompts": 100}, "prompts to search on and 16 to judge on are asked for"),
    ],
)
def test_impossible_fields_are_refused_in_a_sentence(name, fields, words):
    with pytest.raises(EffbookError, match=words):
        make(f"slowformer-{name}", **fields)


def test_a_layer_that_is_not_there_and_a_training_of_official_weights_are_refused(kept):
    with pytest.raises(EffbookError, match="the layer 9 is none of 2"):
        dataclasses.replace(smoke("tokens"), layer=9).run(kept)
    with pytest.raises(EffbookError, match="official weights are not trained here"):
        paper("victim").run(kept)


def test_a_victim_that_saves_nothing_has_no_success():
    seen = judging.Observed(
        macs=torch.tensor([5.0]), right=torch.tensor([True]), tokens=torch.ones(1, 2), kept=torch.ones(1, 2)
    )
    assert judging.success(seen, seen, low=1, high=5) is None
    assert judging.success(seen, seen, low=1, high=6) == 0


def test_a_defence_is_kept_whatever_it_is_judged_on():
    first = smoke("defence")
    assert first.defended_parts() == dataclasses.replace(first, test_images=9).defended_parts()
    assert isinstance(first, DefenceRecipe)
    assert {f"slowformer-{name}" for name in ("defence", "clock", "suffix")} <= set(recipe_names())
