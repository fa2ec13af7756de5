"""The examples of deploy/ fit the product and one another."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from streampush.config import Config, StoreConfig
from streampush.config_rules import fd_budget
from streampush.loading import load_config, read_config
from streampush.tap import Options
from tests.deploy.files import DEPLOY, unit, units

ROOT = DEPLOY.parent
SERVICES = [path.name for path in units() if path.suffix == ".service"]


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.toml")), ids=lambda path: path.name)
def test_every_setting_of_an_example_is_one_of_the_product(path: Path) -> None:
    _, problems = read_config(str(path), {})
    assert [str(problem) for problem in problems if problem.severity == "error"] == []
    assert [problem.key for problem in problems] == ["rest.keys"]  # everybody makes his own


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.toml")), ids=lambda path: path.name)
def test_what_an_example_leaves_out_by_a_comment_is_right_too(path: Path, tmp_path: Path) -> None:
    text = re.sub(r"^# (\[|\w+ = )", r"\1", path.read_text(), flags=re.MULTILINE)
    assert text != path.read_text()
    whole = tmp_path / path.name
    whole.write_text(text.replace('sha256 = "..."', f'sha256 = "{"ab" * 32}"'))
    assert load_config(str(whole), {}).rest.keys


# -------------------------------------------------------------------------------------------------------------------- systemd


def node_options(service: str) -> list[str]:
    """What twistd gives to the plugin in a unit: instance 1 of a template, on a machine that is called host."""
    [start] = unit(service)["Service.ExecStart"]
    command, *options = start.replace("%i", "1").replace("%H", "host").split()
    assert command == "/opt/streampush/bin/twistd"
    assert options[:3] == ["--nodaemon", "--pidfile=", "streampush"]
    return options[3:]


def settings_of(service: str) -> Config:
    options = node_options(service)
    assert options[:2] == ["--config", "/etc/streampush/streampush.toml"]
    changed = [value for option, value in pairwise(options) if option == "--set"]
    return load_config(str(DEPLOY / "streampush.toml"), {}, changed)


@pytest.mark.parametrize("service", SERVICES)
def test_options_of_a_unit_are_those_of_the_plugin(service: str) -> None:
    known = {f"--{name.removesuffix('=')}" for name in Options().longOpt}
    assert {option for option in node_options(service) if option.startswith("-")} <= known


@pytest.mark.parametrize("service", SERVICES)
def test_file_descriptors_of_a_unit_are_enough_for_its_settings(service: str) -> None:
    [limit] = unit(service)["Service.LimitNOFILE"]
    assert fd_budget(settings_of(service), int(limit))[1] is None


@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_is_given_the_time_that_a_stop_takes(service: str) -> None:
    [seconds] = unit(service)["Service.TimeoutStopSec"]
    # a drain and its forced close, answers of Apple, the store: docs/operations.md
    assert int(seconds.removesuffix("s")) > settings_of(service).session.drain_timeout + 1 + 10 + 10


def test_instances_have_names_and_ports_of_their_own() -> None:
    config = settings_of("streampush@.service")
    assert (config.node.name, config.listen.port, config.rest.port) == ("host-1", 7441, 7481)


@pytest.mark.parametrize("service", ["streampush.service", "streampush@.service"])
def test_upgrades_are_asked_for_where_the_unit_may_write(service: str) -> None:
    [folder] = unit(service)["Service.RuntimeDirectory"]
    assert Path(settings_of(service).node.handover).parent == Path("/run") / folder.replace("%i", "1")
    assert unit(service)["Service.Type"] == ["notify"]  # or systemd would take the end of the old process for the service's


def test_sockets_have_the_names_and_ports_that_the_service_serves() -> None:
    config = load_config(str(DEPLOY / "streampush.toml"), {})
    for name, where in (("stream", config.listen), ("rest", config.rest)):
        [socket] = [path.name for path in units() if unit(path.name).get("Socket.FileDescriptorName") == [name]]
        assert unit(socket)["Socket.ListenStream"] == [f"{where.address}:{where.port}"]
        assert unit(socket)["Socket.Service"] == ["streampush.service"]
        assert socket in unit("streampush.service")["Service.Sockets"][0].split()


def test_store_of_the_example_is_where_the_unit_may_write() -> None:
    [state] = unit("streampush.service")["Service.StateDirectory"]
    store: StoreConfig = load_config(str(DEPLOY / "streampush.toml"), {}).store
    assert Path(store.path).parent == Path("/var/lib") / state


# ----------------------------------------------------------------------------------------------------------------- containers


def container_lines() -> list[list[str]]:
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "container" / "Dockerfile").read_text())
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def copied() -> list[str]:
    """What is copied into the image from the repository."""
    lines = [[word for word in line[1:] if not word.startswith("--chmod")] for line in container_lines() if line[0] == "COPY"]
    return [source for line in lines if not line[0].startswith("--from") for source in line[:-1]]


def test_what_goes_into_the_image_is_there_and_not_ignored() -> None:
    wanted = (DEPLOY / "container" / "Dockerfile.dockerignore").read_text().splitlines()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source.removeprefix('./')}" in wanted, source


def test_image_has_all_that_the_build_reads() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    parts = {name.partition("/")[0] for name in done.stdout.splitlines() if name.startswith(("streampush/", "twisted/", "proto/"))}
    assert parts | {"setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"} <= set(copied())


def test_container_does_not_run_as_root_and_starts_the_server() -> None:
    lines = container_lines()
    [user] = [line[1] for line in lines if line[0] == "USER"]
    assert int(user) > 1000
    command = " ".join(lines[-1])
    assert command.startswith("CMD")
    assert '"twistd", "--nodaemon", "--pidfile=", "streampush"' in command
