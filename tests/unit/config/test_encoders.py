"""Which settings of encoders go together: what is refused, and how."""

from __future__ import annotations

import pytest

from fedfuse_ray.config import load
from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan.feasibility import check_sources

LITE = "tf_efficientnet_lite0"
HEADS = ("model.embedding_dim=null", "model.fusion=product")


def encoder(**settings):
    """Return settings of the default encoder of `tiny`."""
    text = ", ".join(f"{k}: {v}" for k, v in settings.items())
    return f"model.encoder={{{text}}}"


FROZEN = encoder(kind="cnn", trainable="false", projection=16)


@pytest.mark.parametrize(
    ("settings", "field", "remedy"),
    [
        ([encoder(kind="timm")], "name", f"name an architecture, such as {LITE}"),
        ([encoder(kind="cnn", name="resnet18")], "name", "set it to null"),
        ([encoder(kind="cnn", input_size=64)], "input_size", "set data.image_size"),
        ([encoder(kind="cnn", weights="packaged")], "weights", "use random, public"),
        ([encoder(kind="timm", name=LITE, weights="public")], "weights", "packaged, hub or a"),
        ([encoder(kind="timm", name="resnet18", weights="packaged")], "weights", f"{LITE} only"),
        ([encoder(kind="minirocket")], "kind", "set trainable to false"),
        ([encoder(kind="cnn", projection=16)], "projection", "set trainable to false"),
        (["model.embedding_dim=null"], "embedding_dim", "product, late, none"),
        ([*HEADS], "projection", "set both"),
        (
            [*HEADS, FROZEN, "model.encoders.ct={kind: cnn, trainable: false, projection: 8}"],
            "encoders.ct.projection",
            "project to one length",
        ),
        (
            [*HEADS, FROZEN, "training.contrastive={rounds: 1}"],
            "training.contrastive",
            "no encoder to train",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(settings, field, remedy):
    with pytest.raises(InputError) as caught:
        load("tiny", settings, paradigm="fedfuse_nonprivate")
    assert field in str(caught.value)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


def test_heads_on_frozen_features_are_allowed():
    assert load("tiny", [*HEADS, FROZEN]).model.embedding_dim is None


def test_a_modality_may_have_another_encoder():
    own = "model.encoders.ct={kind: timm, name: resnet18, trainable: false}"
    model = load("tiny", [own]).model
    assert model.encoder_for("ct").name == "resnet18"
    assert model.encoder_for("mri").kind == "cnn"


def test_what_is_not_set_is_not_in_a_configurations_text():
    # Private randomness depends on that text: configurations from before keep theirs.
    plain = EncoderConfig().model_dump()
    assert plain == {"kind": "cnn", "weights": "random", "trainable": True, "width": 16}
    chosen = EncoderConfig(kind="timm", name="resnet18", projection=8)
    assert EncoderConfig.model_validate(chosen.model_dump()) == chosen


def test_weights_that_are_not_there_are_told_before_anything_starts(tmp_path):
    experiment = load("tiny", [encoder(kind="cnn", weights=tmp_path / "w.pt")])
    with pytest.raises(InputError, match=r"model\.encoder\.weights.*w\.pt.*no such file"):
        check_sources(experiment)
    (tmp_path / "w.pt").touch()
    check_sources(experiment)


def test_a_manifest_is_read_with_frozen_public_encoders(tmp_path):
    model = load("manifest", paradigm="fedfuse", manifest=tmp_path / "m.csv").model
    assert (model.encoder.kind, model.encoder.weights) == ("timm", "packaged")
    assert not model.encoder.trainable
