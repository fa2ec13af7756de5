"""The compose file fits the product, the container and the example of HAProxy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from streampush.cli.main import main
from streampush.loading import load_config, read_config
from tests.deploy.files import DEPLOY, compose

NODES = ("node-1", "node-2")


def initialised(folder: Path) -> str:
    """The configuration that the service "init" writes, with its command."""
    [_, _, script] = compose()["services"]["init"]["command"]
    program, *arguments = script.partition(" || ")[2].replace("/etc/streampush", str(folder)).split()
    assert program == "streampush"
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return str(folder / "streampush.toml")


def environment(node: str, folder: Path) -> dict[str, str]:
    given: dict[str, Any] = compose()["services"][node]["environment"]
    return {name: str(value).replace("/etc/streampush", str(folder)) for name, value in given.items()}


def test_nodes_of_the_compose_file_start_from_what_init_wrote(tmp_path: Path) -> None:
    toml = initialised(tmp_path)
    configs = [load_config(toml, environment(node, tmp_path)) for node in NODES]
    assert [config.node.name for config in configs] == list(NODES)
    assert {config.store.url for config in configs} == {"redis://redis:6379/0"}
    assert all(Path(config.rest.certificate).exists() and Path(config.rest.key).exists() for config in configs)


def test_proxy_of_the_compose_file_is_the_one_that_nodes_believe() -> None:
    services = compose()["services"]
    haproxy = services["haproxy"]["networks"]["nodes"]["ipv4_address"]
    balanced = re.findall(r"^    server (\S+) ([0-9.]+):7443$", (DEPLOY / "haproxy.cfg").read_text(), re.MULTILINE)
    assert balanced == [(node, services[node]["networks"]["nodes"]["ipv4_address"]) for node in NODES]
    assert all(services[node]["environment"]["STREAMPUSH_LISTEN__PROXY_FROM"] == haproxy for node in NODES)


def test_every_setting_in_a_container_names_one(tmp_path: Path) -> None:
    _, problems = read_config(initialised(tmp_path), environment("node-1", tmp_path))
    assert [str(problem) for problem in problems if problem.severity == "error"] == []
