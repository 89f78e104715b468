"""Bits don't depend on the kernels of the linear algebra, nor on how many threads it takes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_features__ as FEATURES

from tests.support.paths import ROOT

pytestmark = pytest.mark.kernels

PACKAGE = ROOT / "fedfuse_ray"
DEFAULT = ""
# Nehalem's kernels know SSE alone, Haswell's and Zen's AVX2; OpenBLAS takes SkylakeX's on a
# processor that lacks AVX-512, too, and dies of the first instruction.
KERNELS = (DEFAULT, "Nehalem", "Haswell", "Zen", "SkylakeX")
NEEDS = {"Nehalem": "X86_V2", "Haswell": "AVX2", "Zen": "AVX2", "SkylakeX": "AVX512_SKX"}
# All that computes what is promised to the bit. What torch trains is not; nor is what only draws
# or tells (report, sweeping), and the accounting of epsilon is SciPy's.
PROMISED = (
    *("rng.py", "blocks.py", "packing.py", "compression", "data", "federation", "privacy"),
    *("audit", "network"),
)
OF_TORCH = {
    "federation/institution/contrastive.py",
    "federation/institution/private_gradients.py",
    "audit/attacks/inversion.py",
    "privacy/mechanisms/clipping.py",
}
BY_BLAS = {"dot", "vdot", "matmul", "inner", "tensordot", "linalg", "matvec", "vecmat", "vecdot"}
BY_BLAS |= {"multi_dot", "lstsq", "cov", "corrcoef", "polyfit", "multivariate_normal", "convolve"}
BY_BLAS |= {"correlate"}


@lru_cache
def printed(kernel: str, threads: int, *words: str, without: str = "") -> tuple[str, list[str]]:
    """Return the line of BLAS itself, and the digests."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    settings = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": str(ROOT)}
    settings.pop("OPENBLAS_CORETYPE", None)
    settings |= {"OPENBLAS_CORETYPE": kernel} if kernel else {}
    settings |= {"NPY_DISABLE_CPU_FEATURES": without} if without else {}
    command = [sys.executable, "-m", "tests.support.kernel_digests", *words]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    blas, *digests = done.stdout.splitlines()
    return blas, digests


def runs_here(kernel: str) -> bool:
    return kernel == DEFAULT or bool(FEATURES.get(NEEDS[kernel]))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_gives_the_same_bits(kernel, threads):
    if not runs_here(kernel):
        pytest.skip(f"this processor lacks {NEEDS[kernel]}, which {kernel}'s kernels take")
    wanted = printed(DEFAULT, 1)[1]
    assert len(wanted) == len(set(wanted)) > 60
    assert printed(kernel, threads)[1] == wanted


def test_blas_itself_differs_between_them():
    if not (runs_here("Haswell") and printed("Haswell", 1)[0].split()[1] == "Haswell"):
        pytest.skip("numpy's linear algebra is not OpenBLAS, or the processor lacks AVX2")
    assert printed("Haswell", 1)[0] != printed("Nehalem", 1)[0]


@pytest.mark.skipif(not FEATURES.get("X86_V3"), reason="numpy has no vectors to be told to leave")
def test_all_but_generated_data_is_the_same_without_numpys_own_vectors():
    wanted = printed(DEFAULT, 1, "without data")[1]
    assert printed(DEFAULT, 1, "without data", without="X86_V3")[1] == wanted


def products(path: Path) -> list[str]:
    """Return the places of a file where numpy would call BLAS or LAPACK."""
    found = []

    def walk(node: ast.AST, where: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            where = f"{path.relative_to(PACKAGE).as_posix()}:{node.name}"
        name = node.attr if isinstance(node, ast.Attribute) else ""
        optimized = isinstance(node, ast.keyword) and node.arg == "optimize"
        product = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult)
        if (product or optimized or name in BY_BLAS) and where not in OF_TORCH:
            found.append(f"{where}, line {getattr(node, 'lineno', '?')}")
        for child in ast.iter_child_nodes(node):
            walk(child, where)

    walk(ast.parse(path.read_text()), str(path))
    return found


def test_nothing_that_is_promised_multiplies_by_blas():
    files = [f for part in PROMISED for f in sorted(PACKAGE.glob(f"{part}/**/*.py"))]
    files += [PACKAGE / part for part in PROMISED if part.endswith(".py")]
    files = [f for f in files if f.relative_to(PACKAGE).as_posix() not in OF_TORCH]
    assert len(files) > 100
    assert [place for file in files for place in products(file)] == []


PRODUCTS = """
a @ b; a @= b; np.dot(a, b); a.dot(b); np.linalg.norm(a); np.linalg.qr(a); np.matmul(a, b);
np.inner(a, b); np.tensordot(a, b); np.einsum("ij,jk", a, b, optimize=True)
""".replace("\n", " ").split(";")


@pytest.mark.parametrize("text", [text.strip() for text in PRODUCTS])
def test_that_check_finds_a_product(text, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    file = tmp_path / "some.py"
    file.write_text(f"def f(a, b):\n    {text}\n")
    assert products(file)
    file.write_text("def f(a, b):\n    return np.einsum('ij,jk', a, b) + (a * b).sum()\n")
    assert not products(file)
