"""Which compression, privacy and network settings go together: what is refused, and how."""

from __future__ import annotations

import pytest

from fedfuse_ray.config import load, validate
from fedfuse_ray.config.settings.compression import ADAPTIVE_CODECS, FEEDBACK_CODECS, LINEAR_CODECS
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan import paradigms

OPEN, SECURE, LOCAL = "fedfuse_nonprivate", "fedfuse", "federated_dp"
CODECS = ("fp32", "fp16", "modint", "subspace", "countsketch", "rot1bit", "topk", "powersgd")
ASYNC = "network.aggregation.kind=buffered-async"
DEADLINE = "network.aggregation.deadline_seconds"
INSTITUTION_MODES = ("client", "local-update")


def loaded(paradigm, *settings):
    return load("tiny", settings, paradigm=paradigm)


def refused(paradigm, *settings):
    with pytest.raises(InputError) as caught:
        loaded(paradigm, *settings)
    return caught.value


def check_message(error, field, value, remedy):
    """Check that an error's one line holds the field, what was found there, and what to do.

    Where a group checks itself, the field is the group, and the text goes on with the rest.
    """
    assert error.field == field or field.startswith(f"{error.field}.")
    if rest := field.removeprefix(error.field).lstrip("."):
        assert error.remedy.startswith(f"{rest}: ")
    assert value in str(error)
    assert remedy in error.remedy
    assert "\n" not in str(error)


def link(settings):
    return f"network.links={{med-01: {{up_mbps: 1, down_mbps: 1, {settings}}}}}"


@pytest.mark.parametrize("codec", CODECS)
def test_only_linear_codecs_go_under_masks(codec):
    setting = f"compression.codec={codec}"
    for paradigm in (OPEN, LOCAL):
        assert loaded(paradigm, setting).compression.codec == codec
    if codec in LINEAR_CODECS:
        assert loaded(SECURE, setting).compression.codec == codec
    else:
        error = refused(SECURE, setting)
        check_message(error, "compression.codec", codec, "is not linear")
        for allowed in LINEAR_CODECS:
            assert allowed in error.remedy


@pytest.mark.parametrize("codec", CODECS)
def test_the_adaptive_policy_needs_a_codec_with_something_to_choose(codec):
    settings = (f"compression.codec={codec}", "compression.policy.kind=adaptive")
    if codec in ADAPTIVE_CODECS - {"countsketch"}:
        assert loaded(OPEN, *settings).compression.policy.kind == "adaptive"
        return
    if codec == "countsketch":
        assert loaded(SECURE, *settings).compression.policy.kind == "adaptive"
        check_message(
            refused(OPEN, *settings), "compression.policy.kind", "'adaptive'", "mean update"
        )
        return
    error = refused(OPEN, *settings)
    check_message(error, "compression.policy.kind", "'adaptive'", "nothing to choose")
    assert "set it to auto" in error.remedy


@pytest.mark.parametrize("codec", sorted(ADAPTIVE_CODECS & LINEAR_CODECS))
@pytest.mark.parametrize("aim", ["error_target=0.1", "byte_budget=9000"])
def test_the_adaptive_policy_goes_with_secure_sums(codec, aim):
    settings = (f"compression.codec={codec}", "compression.policy.kind=adaptive")
    assert loaded(SECURE, *settings, f"compression.policy.{aim}").privacy.mode.endswith("ed")


@pytest.mark.parametrize("feedback", ["ef14", "ef21"])
@pytest.mark.parametrize("codec", CODECS)
def test_feedback_needs_a_codec_that_owes_something(codec, feedback):
    settings = (f"compression.codec={codec}", f"compression.feedback={feedback}")
    if codec in FEEDBACK_CODECS:
        assert loaded(OPEN, *settings).compression.feedback == feedback
    else:
        check_message(
            refused(OPEN, *settings), "compression.feedback", f"'{feedback}'", "set it to none"
        )


@pytest.mark.parametrize("feedback", ["ef14", "ef21"])
@pytest.mark.parametrize("mode", ["record-local", *INSTITUTION_MODES])
def test_feedback_under_privacy_is_refused(mode, feedback):
    error = refused(
        LOCAL,
        f"privacy.mode={mode}",
        "compression.codec=topk",
        f"compression.feedback={feedback}",
    )
    check_message(error, "compression.feedback", f"'{feedback}'", "set it to none")
    assert mode in error.remedy


@pytest.mark.parametrize("mode", ["record-local", *INSTITUTION_MODES])
def test_the_adaptive_policy_needs_a_secure_sum_under_privacy(mode):
    settings = (f"privacy.mode={mode}", "compression.codec=topk")
    error = refused(LOCAL, *settings, "compression.policy.kind=adaptive")
    check_message(error, "compression.policy.kind", "'adaptive'", "set it to fixed")
    assert mode in error.remedy
    for kind in ("auto", "fixed"):
        assert loaded(LOCAL, *settings, f"compression.policy.kind={kind}").privacy.mode == mode


@pytest.mark.parametrize("codec", ["subspace", "countsketch"])
def test_sketches_do_not_go_with_adaptive_clipping(codec):
    clipping = "privacy.adaptive_clipping.enabled=true"
    error = refused(SECURE, f"compression.codec={codec}", clipping)
    check_message(error, "compression.codec", f"'{codec}'", "a fixed clip_norm")
    for allowed in ("fp32", "modint"):
        assert loaded(SECURE, f"compression.codec={allowed}", clipping).compression.codec == allowed


def test_bits_of_floats_under_masks_are_refused():
    error = refused(SECURE, "compression.codec=fp32", "compression.bits=7")
    check_message(error, "compression.bits", "'fp32'", "use modint")
    for codec in ("modint", "subspace", "countsketch"):
        settings = (f"compression.codec={codec}", "compression.bits=7")
        assert loaded(SECURE, *settings).compression.bits == 7


def test_the_bits_that_were_found_are_said():
    error = refused(SECURE, "compression.codec=fp32", "compression.bits=7")
    assert str(error.value) == "7"


@pytest.mark.parametrize(
    ("policy", "name", "value", "remedy"),
    [
        ("{error_target: 0.1, byte_budget: 5}", "byte_budget", "5", "one aim"),
        ("{kind: fixed, byte_budget: 5}", "kind", "'fixed'", "set it to adaptive"),
        ("{kind: fixed, error_target: 0.1}", "kind", "'fixed'", "set it to adaptive"),
    ],
)
def test_a_policy_has_one_aim_and_only_if_it_may_choose(policy, name, value, remedy):
    error = refused(OPEN, f"compression.policy={policy}")
    check_message(error, f"compression.policy.{name}", value, remedy)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("compression.bits=1", "greater than or equal to 2"),
        ("compression.bits=33", "less than or equal to 32"),
        ("compression.fraction=0", "greater than 0"),
        ("compression.fraction=1.5", "less than or equal to 1"),
        ("compression.smallest=0", "greater than or equal to 1"),
        ("compression.rank=0", "greater than or equal to 1"),
        ("compression.rank=65", "less than or equal to 64"),
        ("compression.rounding_step=0", "greater than 0"),
        ("compression.rounding_step=1.01", "less than or equal to 1"),
        ("compression.codec=zip", "'countsketch'"),
        ("compression.feedback=ef15", "'ef21'"),
        ("compression.policy.kind=sometimes", "'adaptive'"),
        ("compression.policy.error_target=1", "less than 1"),
        ("compression.policy.error_target=0", "greater than 0"),
        ("compression.policy.byte_budget=0", "greater than or equal to 1"),
        ("compression.downlink.codec=zip", "'powersgd'"),
        ("compression.downlink.bits=17", "less than or equal to 16"),
        ("compression.downlink.fraction=0", "greater than 0"),
        ("network.preset=moon", "'rural'"),
        ("network.specimens_per_second=0", "greater than 0"),
        ("network.aggregation.kind=never", "'deadline'"),
        ("network.aggregation.buffer_size=0", "greater than or equal to 1"),
        ("network.aggregation.staleness_exponent=-1", "greater than or equal to 0"),
    ],
)
def test_numbers_and_names_out_of_bounds_are_refused(setting, remedy):
    field, _, value = setting.partition("=")
    check_message(refused(OPEN, setting), field, value, remedy)


@pytest.mark.parametrize(
    ("settings", "name", "value", "remedy"),
    [
        ("offline: [[3, 2]]", "offline", "[3.0, 2.0)", "0 <= from < to"),
        ("offline: [[-1, 2]]", "offline", "[-1.0, 2.0)", "0 <= from < to"),
        ("offline: [[2, 2]]", "offline", "[2.0, 2.0)", "0 <= from < to"),
        ("offline: [[0, 5]], offline_period: 4", "offline", "[0.0, 5.0)", "ends after"),
        ("loss: 1", "loss", "1", "less than 1"),
        ("availability: 0", "availability", "0", "greater than 0"),
        ("jitter_ms: -1", "jitter_ms", "-1", "greater than or equal to 0"),
    ],
)
def test_a_link_that_cannot_be_is_refused(settings, name, value, remedy):
    check_message(refused(OPEN, link(settings)), f"network.links.med-01.{name}", value, remedy)


def test_a_span_may_last_to_the_end_of_its_period():
    links = loaded(OPEN, link("offline: [[0, 5]], offline_period: 5")).network.links
    assert links["med-01"].offline == ((0.0, 5.0),)


@pytest.mark.parametrize(
    "settings",
    [
        ("network.aggregation.kind=deadline",),
        (f"{DEADLINE}=3",),
        (ASYNC, f"{DEADLINE}=3"),
    ],
)
def test_a_deadline_is_given_where_it_is_kept_and_only_there(settings):
    error = refused(OPEN, *settings)
    check_message(error, DEADLINE, settings[-1].partition("=")[2], "with kind 'deadline'")


@pytest.mark.parametrize("paradigm", [OPEN, SECURE, LOCAL])
def test_a_deadline_goes_with_every_privacy_mode(paradigm):
    network = loaded(paradigm, "network.aggregation.kind=deadline", f"{DEADLINE}=3").network
    assert network.aggregation.deadline_seconds == 3


@pytest.mark.parametrize(
    ("paradigm", "settings", "remedy"),
    [
        (SECURE, (), "use sync or deadline"),
        (LOCAL, (), "use sync or deadline"),
        *((LOCAL, (f"privacy.mode={mode}",), mode) for mode in INSTITUTION_MODES),
        (OPEN, ("strategy.kind=scaffold",), "use fedavg"),
        (
            OPEN,
            ("compression.codec=topk", "compression.feedback=ef21"),
            "compression.feedback=ef14",
        ),
        (
            OPEN,
            ("compression.codec=topk", "compression.policy.kind=adaptive"),
            "compression.policy.kind=fixed",
        ),
        (
            OPEN,
            ("compression.downlink.codec=modint",),
            "set compression.downlink.codec to fp32",
        ),
    ],
)
def test_what_asynchronous_steps_cannot_follow_is_refused(paradigm, settings, remedy):
    error = refused(paradigm, ASYNC, *settings)
    check_message(error, "network.aggregation.kind", "'buffered-async'", remedy)
    assert loaded(paradigm, *settings)  # the same without it


@pytest.mark.parametrize(
    "settings",
    [
        ("compression.codec=topk",),
        ("compression.codec=topk", "compression.feedback=ef14"),
        ("compression.codec=modint", "compression.policy.kind=fixed"),
        ("strategy.kind=fednova",),
    ],
)
def test_what_asynchronous_steps_can_follow_is_loaded(settings):
    assert loaded(OPEN, ASYNC, *settings).network.aggregation.kind == "buffered-async"


def test_control_variates_go_with_compression_but_not_with_privacy():
    settings = ("strategy.kind=scaffold", "compression.codec=modint")
    assert loaded(OPEN, *settings).strategy.kind == "scaffold"
    check_message(refused(SECURE, *settings), "strategy.kind", "'scaffold'", "use fedavg")


@pytest.mark.parametrize(
    "mode", ["record-distributed", "record-local", "client", "local-update", "none"]
)
def test_private_numbers_of_steps_go_with_no_privacy(mode):
    """The noised mean times the steps of those who were sampled: 0 shows that nobody was."""
    settings = (f"privacy.mode={mode}", "strategy.kind=fednova", "privacy.target_epsilon=1")
    if mode == "none":  # the control
        assert loaded(OPEN, *settings[1:2]).strategy.kind == "fednova"
        return
    for paradigm in (SECURE, LOCAL):
        error = refused(paradigm, *settings)
        check_message(error, "strategy.kind", "'fednova'", "use fedavg")
        assert "who took part" in str(error)


def test_a_broadcast_in_a_subspace_needs_a_model_that_stays_in_it():
    down = "compression.downlink.codec=subspace"
    check_message(refused(OPEN, down), "compression.downlink.codec", "'subspace'", "leaves")
    alike = ("compression.codec=subspace", "compression.fraction=0.2")
    check_message(refused(OPEN, down, *alike), "compression.downlink.codec", "'subspace'", "alike")
    both = (*alike, down, "compression.downlink.fraction=0.2")
    assert loaded(OPEN, *both).compression.downlink.codec == "subspace"


INTERMEDIATE = "model.fusion=intermediate"


@pytest.mark.parametrize(
    ("settings", "field", "value", "remedy"),
    [
        (("model.fusion_depth=1",), "model.fusion_depth", "1", "set the fusion to intermediate"),
        ((INTERMEDIATE,), "model.fusion_depth", "null", "0 to 3"),
        ((INTERMEDIATE, "model.fusion_depth=4"), "model.fusion_depth", "4", "less than or equal"),
        ((INTERMEDIATE, "model.fusion_depth=-1"), "model.fusion_depth", "-1", "greater than"),
        (
            (INTERMEDIATE, "model.fusion_depth=1", "model.encoder.kind=resnet50"),
            "model.encoder.kind",
            "resnet50",
            "use cnn",
        ),
        (
            (INTERMEDIATE, "model.fusion_depth=1", "model.encoder.trainable=false"),
            "model.encoder.trainable",
            "false",
            "set it to true",
        ),
        (
            (INTERMEDIATE, "model.fusion_depth=1", "model.encoders={ct: {width: 8}}"),
            "model.encoders.ct.width",
            "8",
            "need one width",
        ),
    ],
)
def test_a_fusion_depth_that_can_not_be_is_refused(settings, field, value, remedy):
    check_message(refused(OPEN, *settings), field, value, remedy)
    assert loaded(OPEN, INTERMEDIATE, "model.fusion_depth=2").model.fusion_depth == 2


def test_one_model_a_modality_has_no_fusion_depth():
    """What `federated` makes of the model must load again from the run's folder."""
    experiment = paradigms.resolve(loaded("federated", INTERMEDIATE, "model.fusion_depth=1"))
    assert (experiment.model.fusion, experiment.model.fusion_depth) == ("none", None)
    assert validate(experiment.model_dump(mode="json")) == experiment
