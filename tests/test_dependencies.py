"""What is declared is imported, what is imported is declared, and the lock file holds both to account."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")

#: Imported behind a test of whether it is there, with a message of what to install; never by a plain install.
OPTIONAL = {"cleanlab"}


def _requirements(*extras: str) -> dict[str, Requirement]:
    """What some extras ask for, by name, the extras that they name included."""
    found: dict[str, Requirement] = {}
    for text in [*PROJECT["dependencies"], *(t for e in extras for t in PROJECT["optional-dependencies"][e])]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            found |= _requirements(*requirement.extras)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


@functools.cache
def _imported() -> dict[str, set[str]]:
    """Top-level modules that the package imports anywhere, with the files that do."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "ensembler").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(file.relative_to(ROOT)))
    return {k: v for k, v in found.items() if k not in sys.stdlib_module_names and k != PROJECT["name"]}


@functools.cache
def _installed() -> Mapping[str, list[str]]:
    """Top-level modules and the distributions that bring them, which takes seconds to find out."""
    return metadata.packages_distributions()


def _distributions(module: str) -> set[str]:
    return {canonicalize_name(name) for name in _installed().get(module, [])}


def test_every_dependency_is_imported_by_the_package() -> None:
    used = {name for module in _imported() for name in _distributions(module)}
    assert set(_requirements("all")) - used == set()


def test_everything_that_is_imported_is_declared() -> None:
    declared = set(_requirements("all"))
    undeclared = {
        module: sorted(files)
        for module, files in _imported().items()
        if module not in OPTIONAL and not _distributions(module) & declared
    }
    assert undeclared == {}


def test_every_dependency_has_a_lower_bound() -> None:
    """All but the stubs of the type checker, which follow what they describe."""
    loose = [
        name for name, r in _requirements("all").items() if not any(s.operator == ">=" for s in r.specifier)
    ]
    assert loose == []


# ---------------------------------------------------------------------- the lock


def _locked() -> dict[str, tuple[Version, bool, bool]]:
    """(version, has hashes, asked for by the project itself) of each package in the lock."""
    found = {}
    for block in re.split(r"(?m)^(?=[a-z0-9])", LOCK):
        match = re.match(r"([a-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", block)
        if match:
            own = re.search(rf"(?m)# .*\b{PROJECT['name']} \(pyproject.toml\)", block) is not None
            found[canonicalize_name(match[1])] = Version(match[2]), "--hash=sha256:" in block, own
    return found


def test_the_lock_agrees_with_pyproject() -> None:
    locked, wanted = _locked(), _requirements("all", "dev")
    way_out = "run `make lock`"
    assert {name for name, (_, _, own) in locked.items() if own} == set(wanted), way_out
    wrong = {
        name: (str(locked[name][0]), str(requirement.specifier))
        for name, requirement in wanted.items()
        if not requirement.specifier.contains(locked[name][0], prereleases=True)
    }
    assert wrong == {}, way_out


def test_everything_in_the_lock_has_a_hash_and_nothing_says_where_it_came_from() -> None:
    assert len(_locked()) > 50
    assert [name for name, (_, hashed, _) in _locked().items() if not hashed] == []
    assert "://" not in LOCK
    assert not re.search(r"(?m)^--(index|extra-index|find-links|trusted)", LOCK)
    assert not re.search(r"(?<!\w)/(work|opt|tmp|home|root)/", LOCK)


@pytest.mark.parametrize("name", ["torch", "ray", "onnxruntime", "streamlit", "pytest"])
def test_what_matters_is_in_the_lock(name: str) -> None:
    assert name in _locked()


# ---------------------------------------------------------------------- the audit


CLEAN = {"name": "a", "version": "1", "vulns": []}
HOLED = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"], "description": ""}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({"pypi": [CLEAN]}, 0, "audit: 1 packages, 0 known vulnerabilities (pypi)"),
        ({"pypi": [CLEAN, HOLED]}, 1, "b 2: CVE-1, mended in 3"),
        ({"pypi": [CLEAN, UNKNOWN], "osv": [CLEAN, CLEAN]}, 0, "audit: pypi told nothing of 1 of 2 packages"),
        ({"pypi": [UNKNOWN]}, 2, "audit: nothing is known"),
        ({"pypi": []}, 2, "audit: pypi told nothing of 0 of 0 packages"),
        ({}, 2, "audit: osv gave no answer: ConnectionError: no route"),
    ],
)
def test_an_audit_that_could_not_ask_says_so(
    answers: dict[str, list[object]], code: int, said: str, tmp_path: Path
) -> None:
    fake = tmp_path / "pip-audit"
    fake.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        f"answers = json.loads({json.dumps(json.dumps(answers))})\n"
        "service = sys.argv[sys.argv.index('--vulnerability-service') + 1]\n"
        "if service not in answers: sys.exit('trace\\nConnectionError: no route')\n"
        "print(json.dumps({'dependencies': answers[service], 'fixes': []}))\n"
    )
    fake.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "audit")],
        env={**os.environ, "PIP_AUDIT": str(fake)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert said in done.stdout + done.stderr
