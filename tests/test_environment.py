"""pyproject.toml, environment.yml and requirements.lock say the same."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch"}
ONLY_CONDA = {"pip"}


def stated(lines):
    found = {}
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        found[CONDA_NAMES.get(name, name)] = requirement.specifier
    return found


def project_requirements():
    extras = PROJECT["optional-dependencies"].values()
    return stated([*PROJECT["dependencies"], *(line for extra in extras for line in extra)])


def conda_requirements():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    lines = [entry for entry in entries if isinstance(entry, str)]
    assert "--editable ." in pip
    return stated([*lines, *(line for line in pip if not line.startswith("--"))])


def locked(python):
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }
    requirements = map(Requirement, (ROOT / "requirements.lock").read_text().splitlines())
    return stated(str(r).split(";")[0] for r in requirements if not r.marker or r.marker.evaluate(environment))


def test_conda_states_the_same_packages_and_ranges():
    conda = conda_requirements()
    assert conda.pop("python") == Requirement("python" + PROJECT["requires-python"]).specifier
    assert {name: spec for name, spec in conda.items() if name not in ONLY_CONDA} == project_requirements()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_lock_pins_every_requirement_within_its_range(python):
    pins = locked(python)
    for name, allowed in project_requirements().items():
        assert name in pins, f"{name} is not locked for Python {python}"
        version = str(pins[name]).removeprefix("==")
        assert allowed.contains(version), f"{name}: {version} is locked, {allowed} is allowed"


def test_lock_holds_exact_pins_alone():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9.-]+(\[[a-z0-9,-]+\])?==[\w.+]+( ; .+)?", line), line


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("torch", ["2.10.0", "2.15.0"]),
        ("numpy", ["2.0.2", "2.4.0"]),
        ("pandas", ["2.2.2", "3.1.1"]),
        ("pillow", ["11.0.0", "13.0.0"]),
        ("ipywidgets", ["7.7.1", "8.1.9"]),
        ("nltk", ["3.9.1", "3.10.4"]),
    ],
)
def test_what_hosts_preinstall_is_within_range(name, versions):
    assert all(project_requirements()[name].contains(version) for version in versions)
