"""`streampush check`: every problem in one run, and what a good configuration comes to."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streampush.cli.main import main
from streampush.tap import Options
from tests.apns.minting import BOTH, KEY, NOW, certificate, pem, write_private
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


# ----------------------------------------------------------------------------------------------------------------- Apple's apps

APP = """
[[apns.apps]]
name = "shop"
bundle_id = "com.example.app"
key = "AuthKey_KEY1234567.p8"
team_id = "TEAM123456"
key_id = "KEY1234567"
"""

BY_CERTIFICATE = """
[[apns.apps]]
name = "news"
bundle_id = "com.example.app"
environment = "sandbox"
certificate = "push.pem"
"""


def with_apps(toml: Path, text: str) -> Path:
    toml.write_text(toml.read_text() + text)
    write_private(toml.parent / "AuthKey_KEY1234567.p8", pem(KEY))
    return toml


def with_certificate(toml: Path, days: int) -> Path:
    """A certificate with so many whole days left."""
    today = (dt.datetime.now(dt.UTC) - NOW).days
    issued = certificate(BOTH, days=(today - 40, today + days + 1))
    write_private(toml.parent / "push.pem", issued + pem(KEY))
    return with_apps(toml, BY_CERTIFICATE)


def test_without_an_app_pushes_are_said_to_be_off(toml: Path) -> None:
    assert "Apple        off: there is no [[apns.apps]]\n" in run(toml).output


def test_apps_with_key_certificate_and_proxy_are_summed_up(toml: Path) -> None:
    with_certificate(with_apps(toml, "[apns]\nproxy = 'proxy.example:3128'\n" + APP), 100)
    result = run(toml)
    assert result.exit_code == 0
    assert "Apple        shop: com.example.app at api.push.apple.com:443, key KEY1234567 of team TEAM123456\n" in result.output
    assert "Apple        news: com.example.app at api.sandbox.push.apple.com:443, certificate valid until 20" in result.output
    assert "proxy        proxy.example:3128\n" in result.output


def test_a_certificate_that_ends_soon_is_a_warning(toml: Path) -> None:
    result = run(with_certificate(toml, 10))
    assert result.exit_code == 0
    assert f"warning: {toml}: apns.apps[0].certificate: {toml.parent}/push.pem expires in 10 days: renew it" in result.output


@pytest.mark.parametrize(("days", "said"), [(10, "push.pem expires in 10 days"), (-3, "push.pem: the certificate has expired")])
def test_a_certificate_that_ends_soon_or_has_ended_is_a_warning_at_the_start_too(toml: Path, days: int, said: str) -> None:
    options = Options()
    options.parseOptions(["--config", str(with_certificate(toml, days))])
    assert any(said in warning for warning in options.warnings), options.warnings


def test_an_expired_certificate_is_an_error(toml: Path) -> None:
    result = run(with_certificate(toml, -4))
    assert result.exit_code == 1
    line = f"error: {toml}: apns.apps[0].certificate: {toml.parent}/push.pem: the certificate has expired 3 days ago"
    assert line in result.output
    assert result.output.endswith("1 error\n")


def test_a_certificate_for_another_topic_is_an_error(toml: Path) -> None:
    with_certificate(toml, 100)
    result = run(toml, "--set", 'apns.apps=[{name = "x", bundle_id = "com.example.x", certificate = "push.pem"}]')
    assert result.exit_code == 1
    assert "the certificate is not for com.example.x but for com.example.app" in result.output


def test_every_app_is_looked_at_in_one_run(toml: Path) -> None:
    with_apps(toml, APP + BY_CERTIFICATE)
    (toml.parent / "AuthKey_KEY1234567.p8").write_text("nothing")
    lines = [line for line in run(toml).output.splitlines() if line.startswith("error: ")]
    assert lines == [
        f"error: {toml}: apns.apps[0].key: {toml.parent}/AuthKey_KEY1234567.p8 "
        "is no PEM file: a key begins with -----BEGIN PRIVATE KEY-----",
        f"error: {toml}: apns.apps[1].certificate: {toml.parent}/push.pem cannot be read: No such file or directory",
    ]


def test_a_missing_team_is_said_once(toml: Path) -> None:
    result = run(with_apps(toml, APP.replace('team_id = "TEAM123456"\n', "")))
    assert result.exit_code == 1
    assert result.output.count("team_id") == 1


def test_a_store_in_redis_is_shown_without_its_password(toml: Path) -> None:
    toml.write_text('store = "redis://user:hidden@r.example/1"\n' + toml.read_text())
    result = run(toml)
    assert result.exit_code == 0, result.output
    assert "redis://r.example:6379/1, keys begin with {streampush}:" in result.output
    assert "hidden" not in result.output
