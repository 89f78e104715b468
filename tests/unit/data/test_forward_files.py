"""Forward models from files: found, checked, tied to their content, and refused in one line."""

from __future__ import annotations

import textwrap

import pytest

from fedfuse_ray import cli
from fedfuse_ray.config import load
from fedfuse_ray.config.settings.model import EncoderConfig
from fedfuse_ray.data import dataset
from fedfuse_ray.data.phantoms import FORWARD_MODELS, known_models
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan import public_encoders
from fedfuse_ray.federation.plan.plan import make_plan
from fedfuse_ray.models.encoders import public_weights_path

MODEL = """
    import numpy as np
    from fedfuse_ray.data.phantoms import Family, PhysicalModel

    FAMILY = Family("odd", ("a", "b", "c"), (("x", "y"),) * 3)

    def flat(factors, shape, rng):
        return np.full((len(factors), *shape), 0.5) * (1 + 0.1 * factors[:, :1, None])

    FORWARD_MODELS = (PhysicalModel("NAME", FAMILY, 0, 1, flat, signal=True),)
"""
CONFIG = """
    data:
      kind: phantoms
      forward_models: [models/own.py]
      signal_length: 64
      domains: {odd: {modalities: [hum], classes: 2, specimens: 40}}
    institutions:
      - {name: one, domain: odd, modalities: [hum]}
    model: {embedding_dim: 4, encoder: {kind: cnn, width: 4}}
    training: {rounds: 1}
    execution: {executor: serial}
"""


def written(folder, text=MODEL, name="hum"):
    path = folder / "models" / "own.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text).replace("NAME", name))
    (folder / "own.yaml").write_text(textwrap.dedent(CONFIG))
    return str(path)


def test_a_file_is_found_beside_the_configuration_and_used(tmp_path):
    file = written(tmp_path)
    experiment = load(tmp_path / "own.yaml")
    assert experiment.data.forward_models == (file,)
    prepared = dataset.prepare(experiment.data, experiment.institutions, seed=0)
    assert prepared.index.shapes == {"hum": (1, 64)}
    assert prepared.index.domains["odd"].classes == ("y-y-y", "x-x-x")


def test_what_a_file_says_decides_the_dataset_and_where_it_lies_does_not(tmp_path):
    folders = {}
    for name, text in (("a", MODEL), ("b", MODEL), ("c", MODEL.replace("0.5", "0.4"))):
        (tmp_path / name).mkdir()
        written(tmp_path / name, text)
        experiment = load(tmp_path / name / "own.yaml")
        folders[name] = dataset.prepare(experiment.data, experiment.institutions, seed=0).folder
    assert folders["a"] == folders["b"] != folders["c"]


def test_public_weights_belong_to_the_files_content(tmp_path):
    encoder = EncoderConfig(kind="cnn", width=4)
    library = public_weights_path(encoder, "hum", (1, 256))
    paths = {public_weights_path(encoder, "hum", (1, 256), origin) for origin in ("a", "b")}
    assert len(paths | {library}) == 3


def test_public_encoders_are_trained_on_a_files_phantoms(tmp_path, monkeypatch):
    file = written(tmp_path)
    monkeypatch.setattr(public_encoders, "EFFORT", public_encoders.Effort(1, 64))
    frozen = "model.encoder={kind: cnn, width: 4, weights: public, trainable: false}"
    experiment = load(tmp_path / "own.yaml", [frozen])
    index = dataset.prepare(experiment.data, experiment.institutions, seed=0).index
    spec = make_plan(experiment, index).spec
    assert spec.origins["hum"][0] == file
    said = []
    public_encoders.ensure(spec, said.append)
    assert said == ["Pre-training the hum encoder on public phantoms"]
    public_encoders.ensure(spec, said.append)
    assert len(said) == 1
    written(tmp_path, MODEL.replace("0.5", "0.3"))
    changed = make_plan(experiment, index).spec
    assert changed.origin("hum") != spec.origin("hum")
    assert changed.signature() != spec.signature()
    with pytest.raises(InputError, match="changed after the run began"):
        public_encoders._models(spec, "hum")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "must define FORWARD_MODELS"),
        ("FORWARD_MODELS = ()", "must define FORWARD_MODELS"),
        ("FORWARD_MODELS = (3,)", "has no 'modality'"),
        ("import nothing_like_it", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        (MODEL.replace("FAMILY, 0, 1", "None, 0, 1"), "has no Family"),
        (MODEL.replace("FAMILY, 0, 1", "FAMILY, 1, 1"), "two different factors"),
        (MODEL.replace("NAME", "a/b"), "no name for a modality"),
        (MODEL.replace("NAME", "ct"), "'ct', which exists"),
        (MODEL.replace("factors[:, :1, None]", "factors[:, 7]"), "IndexError"),
        (MODEL.replace(", *shape)", ", 3, 3)"), "renders (2, 3, 3)"),
        (MODEL.replace("0.5)", "np.nan)"), "outside [0, 1]"),
    ],
)
def test_what_a_file_lacks_is_said_in_one_line(tmp_path, capsys, text, named):
    written(tmp_path, text)
    assert cli.main(["run", str(tmp_path / "own.yaml"), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data.forward_models: ")
    assert named in line


def test_a_file_that_is_not_there_is_bad_input(tmp_path):
    file = written(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        known_models([str(tmp_path / "gone.py")])
    with pytest.raises(InputError, match="exists"):
        known_models([file, file])
    assert known_models([]) == FORWARD_MODELS


def test_an_unknown_modality_is_compared_with_the_files_ones(tmp_path):
    written(tmp_path, name="humm")
    experiment = load(tmp_path / "own.yaml")
    with pytest.raises(InputError, match="did you mean 'humm'"):
        dataset.prepare(experiment.data, experiment.institutions, seed=0)
