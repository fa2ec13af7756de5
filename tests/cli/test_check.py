"""`streampush check`: every problem in one run, and what a good configuration comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streampush.cli.main import main
from tests.support import make_files


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)], env=env)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    make_files(tmp_path, devices=(), publishers=())
    path = tmp_path / "streampush.toml"
    path.write_text('[tls]\ncertificate = "server.crt"\nkey = "secrets/server.key"\nclient_ca = "ca.crt"\n')
    return path


def test_a_good_configuration_is_summed_up(toml: Path) -> None:
    result = run(toml)
    assert result.exit_code == 0
    assert "ok\n" in result.output
    assert "devices      0.0.0.0:7443, TLS 1.3 or later" in result.output
    assert "REST         http://127.0.0.1:7480" in result.output
    assert f"store        {toml.parent}/streampush.db" in result.output
    assert f"certificate  {toml.parent}/server.crt, valid until " in result.output


def test_warnings_do_not_fail(toml: Path) -> None:
    assert f"warning: {toml}: rest.keys: no key" in run(toml).output


def test_all_problems_are_shown_and_the_status_is_1(toml: Path) -> None:
    toml.write_text(toml.read_text() + "[session]\nmax_frme = 1\n[listen]\nport = 70000\n[log]\nformat = 'xml'\n")
    (toml.parent / "secrets" / "server.key").chmod(0o644)
    result = run(toml)
    assert result.exit_code == 1
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert lines == [
        f"error: {toml}: session.max_frme: unknown key, did you mean 'max_frame'?",
        f"error: {toml}: listen.port: port 70000, allowed are 0 to 65535",
        f"error: {toml}: log.format: 'xml', allowed are json, text",
        f"error: {toml}: tls.key: {toml.parent}/secrets/server.key can be used by others (mode 0644), "
        f"type: chmod 600 {toml.parent}/secrets/server.key",
    ]
    assert result.output.endswith("4 errors\n")


def test_options_and_environment_are_checked_too(toml: Path) -> None:
    result = run(toml, "--set", "listen.port=-1", env={"STREAMPUSH_NODE__NAMES": "x"})
    assert result.exit_code == 1
    assert "error: options: listen.port: port -1, allowed are 0 to 65535" in result.output
    assert "error: environment: STREAMPUSH_NODE__NAMES: unknown key, did you mean 'name'?" in result.output


def test_a_cap_above_the_file_descriptor_limit_is_a_warning(toml: Path) -> None:
    result = run(toml, "--set", "admission.max_connections=1000000")
    assert result.exit_code == 0
    assert "1000000 connections do not fit the file-descriptor limit" in result.output


def test_rest_over_tls_is_summed_up(toml: Path) -> None:
    overrides = ("rest.address=::", "rest.certificate=server.crt", "rest.key=secrets/server.key")
    result = run(toml, *(part for override in overrides for part in ("--set", override)))
    assert result.exit_code == 0
    assert "https://[::]:7480" in result.output
    assert f"REST's       {toml.parent}/server.crt" in result.output


def test_rest_switched_off_is_summed_up(toml: Path) -> None:
    assert "REST         off" in run(toml, "--set", "rest.enabled=false").output


def test_a_missing_configuration_is_one_error(tmp_path: Path) -> None:
    result = run(tmp_path / "none.toml", "--set", "listen.prt=1")
    assert result.exit_code == 1
    assert result.output == f"error: {tmp_path}/none.toml: cannot be read: No such file or directory\n1 error\n"


def test_a_configuration_that_is_not_toml_is_one_error(toml: Path) -> None:
    toml.write_text("[listen")
    result = run(toml)
    assert result.exit_code == 1
    problem, count = result.output.splitlines()
    assert problem.startswith(f"error: {toml}: is not TOML: ")
    assert count == "1 error"
