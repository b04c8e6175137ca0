"""Profiles: published values, a source beside every value, and one clear sentence for every bad override."""

from __future__ import annotations

import json
import shlex
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

import xalma
from xalma.cli import main, options
from xalma.data.mixing import parse_shares
from xalma.languages import GROUPS
from xalma.profiles import ALMA_TINY, FULL, PROFILES, TINY, Profile, load_profile, profile_from_parameters

# As printed or released (arXiv 2410.03115: X-ALMA's table of stages, §5.3, module configuration, evaluation).
PUBLISHED = {
    "base": "meta-llama/Llama-2-13b-hf",
    "stage1_tokens": 20_000_000_000,
    "stage2_tokens": 10_000_000_000,
    "stage3_tokens": 1_250_000_000,
    "lora_rank": 512,
    "lora_alpha": 1024,
    "lora_dropout": 0.05,
    "arpo_eta": 1.5,
    "arpo_eta_scale": 1.0,
    "arpo_beta": 0.1,
    "beams": 5,
    "max_new_tokens": 256,
    "test_pairs": 1012,
    "prompt_style": "xalma",
    "groups": "all",
    "comparison_groups": "6",
    "monolingual_id": "oscar-corpus/OSCAR-2301",
    "sft_id": "haoranxu/X-ALMA-Parallel-Data",
    "test_id": "haoranxu/FLORES-200",
}


@pytest.mark.parametrize(("key", "value"), PUBLISHED.items())
def test_full_is_the_papers(key, value):
    assert getattr(load_profile("full"), key) == value


@pytest.mark.parametrize("p", PROFILES.values(), ids=PROFILES)
def test_every_value_has_a_source(p):
    table = p.table()
    assert list(table.index) == [f.name for f in fields(Profile)]
    assert table["source"].str.match(r"(paper|released|our choice): \S").all()
    changed = [f.name for f in fields(Profile) if getattr(p, f.name) != f.default]
    assert table.loc[changed, "source"].str.startswith(f"our choice: profile {p.name}").all()
    assert table["value"].to_dict() == p.values()


def test_profiles_are_deltas_that_pass_their_own_checks():
    assert set(PROFILES) == {"tiny", "tiny-base", "real", "real-cpu", "full", "alma-tiny", "alma-7b"}
    for p in PROFILES.values():
        assert p.but(**p.values()) == p
        assert p.hidden_size % p.heads == 0
        for stage in range(1, 6):
            batch = p.values(f"stage{stage}_")[f"stage{stage}_batch_size"]
            assert batch % min(batch, p.micro_batch) == 0
    assert (FULL.corpus, TINY.corpus) == ("hub", "cldr")
    for name in ("tiny", "alma-tiny"):
        assert PROFILES[name].base in ("", "tiny-base"), "the default runs need no download"
        assert PROFILES[name].corpus == "cldr"


def test_the_default_run_starts_from_a_base_and_reads_in_the_papers_order():
    """Monolingual text far above bitext, bitext above SFT, at most 300 SFT pairs per language."""
    assert TINY.base == "tiny-base"
    assert TINY.stage1_tokens > 2 * TINY.stage3_tokens
    assert TINY.sft_pairs <= 300


def test_almas_profiles_read_five_languages_of_four_groups():
    """The small one reads five that the shipped base has hardly read, in ALMA's shares."""
    assert sorted(PROFILES["alma-7b"].languages) == ["cs", "de", "is", "ru", "zh"]
    small, shares = PROFILES["alma-tiny"], parse_shares(PROFILES["alma-tiny"].mixing_shares)
    read = json.loads((Path(xalma.__file__).parent / "tiny_base" / "card.json").read_text())[
        "tokens_by_language"
    ]
    assert (
        max(read[code] for code in small.languages)
        < min(read[code] for code in ("cs", "de", "ru", "zh")) / 10
    )
    assert sorted(shares.values()) == sorted(parse_shares(PROFILES["alma-7b"].mixing_shares).values())
    assert set(shares) == {"en", *small.languages}
    assert TINY.but(only_languages="ja,ko").languages == ("ja", "ko")
    with pytest.raises(ValueError, match="xx"):
        TINY.but(only_languages="ja,xx")


def test_a_profile_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TINY.seed = 1
    assert TINY.but(seed=5).seed == 5
    assert TINY.seed == 0


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("sft_pair", "sft_pairs"),
        ("learning_rate", "stage4_learning_rate"),
        ("lora", "lora_"),
        ("zzzz", "name"),
    ],
)
def test_unknown_key_names_near_ones(key, near):
    with pytest.raises(ValueError, match=f"unknown profile key '{key}': near keys are .*{near}"):
        load_profile("tiny", **{key: 1})


@pytest.mark.parametrize(
    ("name", "near"), [("Tiny", "near: tiny"), ("medium", "real, real-cpu, full"), (3, "tiny")]
)
def test_unknown_profile_names_near_ones(name, near):
    with pytest.raises(ValueError, match="unknown profile") as caught:
        load_profile(name)
    assert near in str(caught.value)


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("seed", "7", 7),  # --set gives text
        ("stage1_tokens", "400_000", 400_000),
        ("stage1_tokens", 4e5, 400_000),  # YAML reads 4e5 as a float
        ("stage1_learning_rate", "1e-3", 1e-3),
        ("stage1_learning_rate", 1, 1.0),
        ("arpo_detach_penalty", "true", True),
        ("arpo_detach_penalty", "False", False),
        ("groups", 6, "6"),  # papermill reads groups: 6 as a number
        ("groups", [3, 6], "3,6"),
        ("groups", (3, 6), "3,6"),
        ("methods", ["arpo", "dpo"], "arpo,dpo"),
        ("base", "", ""),
        ("bitext_noise", 0, 0.0),
    ],
)
def test_values_are_read_into_the_fields_type(key, given, value):
    found = getattr(load_profile("tiny", **{key: given}), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("seed", "seven", "takes int"),
        ("seed", -1, "0 or more"),
        ("seed", 1.5, "takes int"),
        ("seed", True, "takes int"),
        ("layers", 0, "above 0"),
        ("sft_pairs", "1e999", "takes int"),
        ("stage4_learning_rate", 0.0, "above 0"),
        ("stage4_learning_rate", float("nan"), "above 0"),
        ("stage4_learning_rate", "fast", "takes float"),
        ("arpo_detach_penalty", 1, "takes bool"),
        ("beams", None, "takes int"),
        ("beams", [5], "takes int"),
        ("run_dir", None, "takes str"),
        ("corpus", "clder", "choose one of hub, cldr, cldr_web, real"),
        ("prompt_style", "talk", "choose xalma, alma, chat"),
        ("dtype", "float16", "choose one of float32, bfloat16"),
        ("mixing", "random", "choose one of uniform, temperature"),
        ("groups", "9", "bad groups '9'"),
        ("comparison_groups", "six", "bad groups 'six'"),
        ("module_languages", "6", "bad module_languages '6': write group and languages"),
        ("module_languages", "6:et,6:fi", "bad module_languages '6:fi'"),
        ("module_languages", "99:et", "bad module_languages '99:et'"),
    ],
)
def test_bad_value_is_one_sentence(key, value, why):
    with pytest.raises(ValueError, match="bad") as caught:
        load_profile("tiny", **{key: value})
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_groups_and_languages():
    p = load_profile("tiny", groups="6,3")
    assert p.group_numbers == (6, 3)
    assert p.languages == GROUPS[6] + GROUPS[3]
    assert len(load_profile("tiny", groups="all").languages) == 49
    assert load_profile("tiny").comparison_group_numbers == (6,)


def test_a_module_may_serve_other_languages_than_its_groups():
    p = load_profile("tiny", module_languages="6:fi+ru, 3:uk")
    assert [p.languages_of(group) for group in (6, 3, 1)] == [("fi", "ru"), ("uk",), GROUPS[1]]
    assert p.languages_of(0) == p.languages == GROUPS[3] + GROUPS[6]  # the base's stay
    for wrong in ("6:en", "6:", "6:xx"):
        with pytest.raises(ValueError, match=r"English belongs to every group|unknown language code"):
            load_profile("tiny", module_languages=wrong)


def test_values_by_prefix():
    assert set(TINY.values("arpo_")) == {
        "arpo_eta",
        "arpo_eta_scale",
        "arpo_beta",
        "arpo_detach_penalty",
        "arpo_nll_weight",
    }
    assert set(TINY.values("seed", "mixing", "arpo_eta", "test")) == {
        "seed",
        "mixing",
        "mixing_temperature",
        "mixing_shares",
        "mixing_cap",
        "mixing_exhausted",
        "mixing_blocks",
        "arpo_eta",
        "arpo_eta_scale",
        "test_id",
        "test_pairs",
    }
    assert TINY.values() == {f.name: getattr(TINY, f.name) for f in fields(Profile)}


def test_profile_from_parameters():
    """What stands in a notebook's namespace after its parameters cell, papermill's cell included."""
    import pandas

    namespace = {
        "__name__": "__main__", "_i": "x", "In": [""], "Out": {}, "pd": pandas, "display": print, "load": load_profile,
        "profile": "alma-tiny", "groups": 6, "seed": 3, "stage4_learning_rate": 1,
    }  # fmt: skip
    assert profile_from_parameters(namespace) == replace(
        ALMA_TINY, groups="6", seed=3, stage4_learning_rate=1.0
    )
    assert profile_from_parameters({}) == TINY


@pytest.mark.parametrize(("name", "near"), [("sed", "seed"), ("learning_rates", "learning_rate")])
def test_a_parameter_no_profile_knows_is_an_error(name, near):
    with pytest.raises(ValueError, match=f"unknown profile key '{name}'.*{near}"):
        profile_from_parameters({"profile": "tiny", name: 1})


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "values", [{}, {"seed": 5, "groups": "6"}, {"base": "a model's name"}, {"run_dir": "there"}]
)
def test_the_command_gives_the_same_profile(profile, values):
    """Split as a shell does and read as the command line reads it, whatever the values; folders are left out."""
    p = load_profile(profile, **values)
    _, verb, *words = shlex.split(p.command("03-07"))
    arguments = main._parser().parse_args([verb, *words])
    given = options.overrides(arguments.set)
    assert arguments.only == "03-07" and load_profile(arguments.profile, **given) == p.but(
        run_dir=FULL.run_dir
    )
    assert given.keys() == values.keys() - {"run_dir"}


def test_a_profile_keeps_its_name():
    assert load_profile("tiny", name="tiny").name == "tiny"
    with pytest.raises(ValueError, match=r"a profile keeps its name, .* set results_dir"):
        load_profile("tiny", name="mine")


@pytest.mark.parametrize("number", range(1, 6))
def test_a_stages_settings_are_its_own_fields_and_the_shared_ones(number):
    """Each field of `stage<number>_…` reaches exactly the setting of its name, and no other stage's does."""
    fields = {
        "tokens": 7,
        "epochs": 0.25,
        "updates": 3,
        "batch_size": 5,
        "learning_rate": 0.125,
        "schedule": "linear",
    }
    own = {name: value for name, value in fields.items() if f"stage{number}_{name}" in FULL.values()}
    p = FULL.but(**{f"stage{number}_{name}": value for name, value in own.items()})
    settings = p.but(adam_beta2=0.5).stage(number)
    assert settings.number == number and settings.adam_beta2 == 0.5
    assert {name: getattr(settings, name) for name in own} == own
    for other in {1, 2, 3, 4, 5} - {number}:
        assert p.stage(other) == FULL.stage(other)
    with pytest.raises(KeyError):
        FULL.stage(0)
