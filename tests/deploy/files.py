"""The files of deploy/, as their programs read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


def all_files() -> list[Path]:
    return sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def units() -> list[Path]:
    return sorted((DEPLOY / "systemd").iterdir())


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit file, each with its values in order: "Section.Key". Continued lines are joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "systemd" / name).read_text())
    found: dict[str, list[str]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, (name, line)
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())
    return document


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "streampush.rules.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DEPLOY / "grafana" / "streampush.json").read_text())
    return document
