"""The files for `ray up`: valid by Ray's own schema, pinned, closed to strangers."""

from __future__ import annotations

import copy
import re
import tomllib

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.support.paths import ROOT

FILES = ("cluster.yaml", "docs/cluster/gcp.yaml", "docs/cluster/on-premise.yaml")
CLOUD = FILES[:2]
PINNED = ("ray", "torch", "torchvision", "numpy")


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def validate(config):
    validate_config(prepare_config(copy.deepcopy(config)))


def pins(config):
    """Return the versions that the setup commands pin, by package."""
    text = " ".join(config["setup_commands"])
    found = re.findall(r"'?([a-z0-9-]+)(?:\[[a-z,]+\])?==([0-9.]+)", text)
    return dict(found) | {"python": re.search(r"--python (3\.[0-9.]+)", text)[1]}


def starts(config):
    return config["head_start_ray_commands"] + config["worker_start_ray_commands"]


def problems(config):
    """Yield what must not be said of a file that users bring up."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    allowed["python"] = SpecifierSet(project["requires-python"])
    pinned = pins(config)
    for name in (*PINNED, "python"):
        if pinned.get(name) not in allowed[name]:
            yield f"{name} {pinned.get(name)} is outside pyproject.toml's {allowed[name]}"
    setup = " ".join(config["setup_commands"])
    installs = [c for c in config["setup_commands"] if "uv pip install" in c]
    if not any(c.endswith(" ~/fedfuse_ray") for c in installs):
        yield "the project is not installed"
    if config["file_mounts"].get("~/fedfuse_ray") != ".":
        yield "the project is not copied"
    if config["file_mounts"].get("~/.ray/auth_token") != "~/.ray/auth_token":
        yield "nodes have no token"
    if "RAY_AUTH_MODE=token" not in setup or "chmod 600 ~/.ray/auth_token" not in setup:
        yield "token authentication is off, or the token can be read by all"
    if "--dashboard-host=127.0.0.1" not in " ".join(config["head_start_ray_commands"]):
        yield "the dashboard is open to the network"
    if any("disabled" in command for command in [*config["setup_commands"], *starts(config)]):
        yield "token authentication is disabled"


@pytest.mark.parametrize("name", FILES)
def test_rays_own_schema_accepts(name):
    validate(read(name))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_pinned_and_closed(name):
    assert list(problems(read(name))) == []


def test_all_files_pin_the_same_and_set_nodes_up_alike():
    first, *others = [read(name) for name in FILES]
    for other in others:
        assert {n: pins(other)[n] for n in (*PINNED, "python")} == {
            n: pins(first)[n] for n in (*PINNED, "python")
        }
        assert other["file_mounts"] == first["file_mounts"]
        assert [c for c in other["setup_commands"] if "uv pip" not in c] == [
            c for c in first["setup_commands"] if "uv pip" not in c
        ]


@pytest.mark.parametrize("name", CLOUD)
def test_workers_are_spot_and_the_head_is_not(name):
    types = read(name)["available_node_types"]
    spot = {kind: "spot" in str(t["node_config"]).lower() for kind, t in types.items()}
    assert spot == {"head": False, "gpu_worker": True}
    assert types["head"]["resources"] == {"CPU": 0}
    worker = types["gpu_worker"]
    assert worker["resources"]["GPU"] >= 1
    assert 1 <= worker["min_workers"] < worker["max_workers"] <= read(name)["max_workers"]


@pytest.mark.parametrize("name", FILES)
def test_no_account_host_or_secret_is_in_a_file(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"ami-[0-9a-f]{8}|AKIA|PRIVATE KEY", text)
    placeholder = {"aws": "ami-REPLACE", "gcp": "project_id: REPLACE", "local": "10.0.0."}
    assert placeholder[read(name)["provider"]["type"]] in text


def wrong_type(config):
    config["max_workers"] = "many"


def unknown_key(config):
    config["setup_command"] = []


def unknown_head(config):
    config["head_node_type"] = "header"


def more_than_most(config):
    config["available_node_types"]["gpu_worker"]["min_workers"] = 99


@pytest.mark.parametrize("plant", [wrong_type, unknown_key, unknown_head, more_than_most])
def test_rays_own_schema_refuses_a_planted_error(plant):
    config = read("cluster.yaml")
    plant(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate(config)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("found", "planted", "said"),
    [
        ("ray[default,tune]==2.60.0", "ray[default,tune]==1.13.0", "ray 1.13.0 is outside"),
        ("ray[default,tune]==2.60.0", "ray[default,tune]", "ray None is outside"),
        ("--python 3.11", "--python 3.10", "python 3.10 is outside"),
        (" ~/fedfuse_ray\n", "\n", "the project is not installed"),
        ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", "token authentication is disabled"),
        ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "open to the network"),
        ("  ~/.ray/auth_token: ~/.ray/auth_token\n", "", "nodes have no token"),
    ],
)
def test_a_planted_error_is_noticed(name, found, planted, said):
    text = (ROOT / name).read_text()
    assert found in text
    wrong = list(problems(yaml.safe_load(text.replace(found, planted))))
    assert any(said in problem for problem in wrong), wrong


@pytest.mark.parametrize("path", FILES)
def test_no_room_of_the_product_stays_behind(path):
    """A name without a leading slash is left out at any depth."""
    anywhere = {name for name in read(path)["rsync_exclude"] if not name.startswith("/")}
    rooms = {
        p.parent.name for room in ("fedfuse_ray", "actors") for p in (ROOT / room).rglob("*.py")
    }
    assert rooms & anywhere == set()
    assert rooms & {"runs"}
