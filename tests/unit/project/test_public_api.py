from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import fedfuse_ray


def test_the_public_names_are_exactly_these():
    assert fedfuse_ray.__all__ == [
        "Experiment",
        "compare",
        "load_experiment",
        "load_result",
        "run",
    ]


def test_every_public_name_is_there_and_explains_itself():
    for name in fedfuse_ray.__all__:
        assert inspect.getdoc(getattr(fedfuse_ray, name)), name


def test_the_names_promised_to_type_checkers_are_the_public_ones():
    from fedfuse_ray import _HOMES

    assert sorted(_HOMES) == sorted(fedfuse_ray.__all__)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fedfuse_ray.nonsense


@pytest.mark.parametrize(
    "module",
    [
        "fedfuse_ray",
        "fedfuse_ray.config",
        "fedfuse_ray.cli",
        "fedfuse_ray.federation.server.server",
        "fedfuse_ray.federation.modes.sides",
        "fedfuse_ray.federation.rounds.driver",
        "actors.parameter_server",
    ],
)
def test_importing_it_imports_neither_torch_nor_ray(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_library_never_imports_ray_to_run_in_this_process():
    code = (
        "import sys, fedfuse_ray; fedfuse_ray.run; fedfuse_ray.compare; print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
