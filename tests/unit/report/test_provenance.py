from __future__ import annotations

import json
import subprocess
import sys

from fedfuse_ray.report import environment, provenance


def test_the_environment_is_plain_json_with_what_a_reader_needs():
    collected = environment()
    assert json.loads(json.dumps(collected, allow_nan=False)) == collected
    assert {"python", "ray", "torch", "numpy", "opacus", "dp-accounting", "fedfuse-ray"} <= set(
        collected["versions"]
    )
    hardware = collected["hardware"]
    assert hardware["cores"] >= hardware["usable_cores"] >= 1
    assert hardware["memory_bytes"] > 2**28
    assert hardware["cpu"]


def test_collecting_imports_neither_torch_nor_ray():
    code = (
        "import sys; from fedfuse_ray.report import environment; environment();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'opacus')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_commit_of_somebody_elses_repository_is_not_ours(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert provenance._git(tmp_path) is None


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    git("init", "-q")
    file = tmp_path / "provenance.py"
    file.write_text("a")
    git("add", ".")
    git("commit", "-qm", "first")
    told = provenance._git(tmp_path)
    assert len(told["commit"]) == 40
    assert told["dirty"] is False
    file.write_text("b")
    assert provenance._git(tmp_path)["dirty"] is True
