"""`streampush init` and `issue`: what they write, with which permissions, and what they refuse."""

from __future__ import annotations

import hashlib
import re
import stat
import sysconfig
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from streampush.cli.directory import DevelopmentDirectory
from streampush.cli.main import main
from streampush.cli.toml_text import render
from streampush.config import ApnsAppConfig, Config, KeyConfig, PublisherConfig, StoreConfig, TlsConfig
from streampush.loading import load_config, problems

SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def made(tmp_path: Path) -> DevelopmentDirectory:
    result = run("init", tmp_path / "dev")
    assert result.exit_code == 0, result.output
    return DevelopmentDirectory(tmp_path / "dev")


def uncommented(text: str) -> str:
    """The file with every default set that stands there as a comment."""
    return re.sub(r"(?m)^# (?=[a-z_]+ = )", "", text)


def alternatives(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


# ----------------------------------------------------------------------------------------------------------------------- init


def test_what_init_writes_has_no_problem(made: DevelopmentDirectory) -> None:
    assert problems(str(made.toml), {}) == []


def test_the_configuration_is_the_defaults_but_for_what_matters(made: DevelopmentDirectory) -> None:
    config = load_config(str(made.toml), {})
    assert config.tls == TlsConfig(str(made.server.certificate), str(made.server.key), str(made.ca.certificate))
    assert config.publishers == {"backend": PublisherConfig(("*",))}
    assert config.delivery.subscribe == ("news/*", "public/*")
    plain = replace(
        config,
        file="(defaults)",
        tls=TlsConfig(),
        publishers={},
        delivery=replace(config.delivery, subscribe=()),
        rest=replace(config.rest, keys=()),
        store=StoreConfig(),
    )
    assert plain == Config()
    assert config.store.path == str(made.toml.with_name("streampush.db"))


def test_every_commented_default_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(uncommented(render({})))
    document = tomllib.loads(path.read_text())
    assert document["session"]["max_frame"] == Config().session.max_frame
    overrides = [f"tls.{name}=x" for name in ("certificate", "key", "client_ca")]
    config = load_config(str(path), {}, overrides)
    store = replace(config.store, path=StoreConfig().path)  # files are named from the folder of the configuration
    assert replace(config, file="(defaults)", tls=TlsConfig(), store=store) == Config()


def test_the_file_names_every_setting_with_unit_range_and_reason(made: DevelopmentDirectory) -> None:
    text = made.toml.read_text()
    expected = "# how far to look for the next frame behind damage (bytes, 0 to 1048576)\n# max_resync_bytes = 65536\n"
    assert expected in text
    assert "# 1.3 hides client certificates from the network (1.2, 1.3)\n" in text


def test_the_file_shows_every_setting_of_an_app_of_apples(made: DevelopmentDirectory) -> None:
    block = made.toml.read_text().partition("#   [[apns.apps]]\n")[2].partition("\n\n")[0]
    table = tomllib.loads(re.sub(r"(?m)^# {0,3}", "", block))
    assert table == {
        field.name: list(field.default) if field.name == "topics" else field.default for field in fields(ApnsAppConfig)
    }


def test_odd_text_survives_the_file(tmp_path: Path) -> None:
    odd = 'a"b\\c\t\x7f\u2028é'
    path = tmp_path / "odd.toml"
    path.write_text(render({"node": {"name": odd}, "tls": {"certificate": "a", "key": "b", "client_ca": "c"}}), encoding="utf-8")
    assert load_config(str(path), {}).node.name == odd


def test_private_keys_are_for_their_owner_only(made: DevelopmentDirectory) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.secrets.iterdir() if path.suffix == ".key"}
    assert set(modes.values()) == {0o600}
    assert {"ca.key", "server.key", "rest.key", "device-phone-1.key", "publisher-backend.key"} <= modes.keys()


def test_the_directory_of_secrets_is_closed(made: DevelopmentDirectory) -> None:
    assert stat.S_IMODE(made.secrets.stat().st_mode) == 0o700


def test_the_rest_key_is_shown_once_and_only_its_hash_is_configured(tmp_path: Path) -> None:
    result = run("init", tmp_path)
    files = DevelopmentDirectory(tmp_path)
    key = files.rest_key.read_text().strip()
    assert result.output.count(key) == 1
    assert key not in files.toml.read_text()
    (configured,) = load_config(str(files.toml), {}).rest.keys
    scopes = ("publish", "push", "read", "devices", "disconnect", "nodes", "metrics")
    assert configured == KeyConfig("development", hashlib.sha256(key.encode()).hexdigest(), ("*",), scopes)


def test_scripts_on_the_path_are_called_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(SCRIPTS))
    output = run("init", tmp_path / "dev").output
    assert "\n  twistd -n --pidfile= streampush --config" in output
    assert output.count("\n  streampush ") == 3


@pytest.mark.parametrize("other", [False, True], ids=["none on PATH", "another one on PATH"])
def test_scripts_that_a_shell_does_not_find_are_called_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    for name in ("twistd", "streampush") if other else ():
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    output = run("init", tmp_path / "dev").output
    assert f"\n  {SCRIPTS}/twistd -n --pidfile= streampush --config" in output
    assert output.count(f"\n  {SCRIPTS}/streampush ") == 3


def test_init_says_what_to_type_next(tmp_path: Path) -> None:
    output = run("init", tmp_path / "my dev").output
    assert f"twistd -n --pidfile= streampush --config '{tmp_path}/my dev/streampush.toml'" in output
    assert f"streampush listen --dir '{tmp_path}/my dev' --device phone-1 --subscribe news/today" in output


def test_default_devices_are_bound_to_their_users(made: DevelopmentDirectory) -> None:
    assert alternatives(made.device("tablet-1").certificate) == ["urn:streampush:device:tablet-1", "urn:streampush:user:alice"]
    assert alternatives(made.device("sensor-1").certificate) == ["urn:streampush:device:sensor-1"]


def test_named_devices_publishers_and_hosts_are_used(tmp_path: Path) -> None:
    run("init", tmp_path, "--device", "a:u", "--publisher", "p", "--host", "push.example.org", "--host", "10.0.0.7")
    files = DevelopmentDirectory(tmp_path)
    assert sorted(path.stem for path in files.secrets.glob("*-*.crt")) == ["device-a", "publisher-p"]
    assert {"localhost", "127.0.0.1", "::1", "push.example.org", "10.0.0.7"} <= set(alternatives(files.server.certificate))


def test_ports_go_into_the_configuration(tmp_path: Path) -> None:
    run("init", tmp_path, "--port", "1001", "--rest-port", "1002")
    config = load_config(str(tmp_path / "streampush.toml"), {})
    assert (config.listen.port, config.rest.port) == (1001, 1002)


def test_init_leaves_a_directory_with_something_in_it_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    result = run("init", tmp_path)
    assert result.exit_code == 1
    assert "is not empty; --force replaces" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_force_replaces_the_ca_and_removes_what_it_signed(made: DevelopmentDirectory) -> None:
    before = made.ca.certificate.read_bytes()
    other = made.root / "thesis.txt"
    other.write_text("x")
    result = run("init", made.root, "--force", "--device", "new")
    assert result.exit_code == 0
    assert made.ca.certificate.read_bytes() != before
    assert [path.name for path in made.secrets.glob("device-*.crt")] == ["device-new.crt"]
    assert other.exists()


@pytest.mark.parametrize("device", ["", "a b", "a/../b", "a:", "a:b:c", "x" * 129])
def test_an_id_that_no_certificate_may_carry_is_refused(tmp_path: Path, device: str) -> None:
    result = run("init", tmp_path / "dev", "--device", device)
    assert result.exit_code == 2
    assert "1 to 128 characters" in result.output
    assert not (tmp_path / "dev").exists()


@pytest.mark.parametrize("option", ["--publisher", "--host"])
def test_other_odd_names_are_refused(tmp_path: Path, option: str) -> None:
    assert run("init", tmp_path / "dev", option, "a b/c").exit_code == 2


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    result = run("init", tmp_path / "file" / "dev")
    assert result.exit_code == 1
    assert result.output == f"Error: {tmp_path}/file/dev: Not a directory\n"


# ---------------------------------------------------------------------------------------------------------------------- issue


def test_issue_signs_with_the_ca_of_the_directory(made: DevelopmentDirectory) -> None:
    result = run("issue", made.root, "--device", "car-9:bob", "--publisher", "billing")
    assert result.exit_code == 0
    assert alternatives(made.device("car-9").certificate) == ["urn:streampush:device:car-9", "urn:streampush:user:bob"]
    certificate = x509.load_pem_x509_certificate(made.publisher("billing").certificate.read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(made.ca.certificate.read_bytes()))


def test_the_rights_of_new_publishers_can_be_pasted(made: DevelopmentDirectory) -> None:
    output = run("issue", made.root, "--publisher", "shop", "--publisher", "a.b").output
    assert "then restart the server: SIGHUP does not read them" in output
    pasted = output[output.index("[publishers.") : output.index("then restart")]
    made.toml.write_text(made.toml.read_text() + pasted)
    publishers = load_config(str(made.toml), {}).publishers
    assert (publishers["shop"], publishers["a.b"]) == (PublisherConfig(("*",)), PublisherConfig(("*",)))


def test_issue_of_devices_alone_says_nothing_of_rights(made: DevelopmentDirectory) -> None:
    assert "publishers" not in run("issue", made.root, "--device", "car-9").output


def test_issue_keeps_a_certificate_that_is_there(made: DevelopmentDirectory) -> None:
    before = made.device("phone-1").certificate.read_bytes()
    result = run("issue", made.root, "--device", "phone-1")
    assert result.exit_code == 1
    assert "--force replaces it" in result.output
    assert made.device("phone-1").certificate.read_bytes() == before


def test_issue_replaces_with_force(made: DevelopmentDirectory) -> None:
    before = made.device("phone-1").certificate.read_bytes()
    assert run("issue", made.root, "--device", "phone-1:eve", "--force").exit_code == 0
    assert made.device("phone-1").certificate.read_bytes() != before


def test_issue_needs_a_ca(tmp_path: Path) -> None:
    result = run("issue", tmp_path, "--device", "x")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: no usable CA in {tmp_path}")


def test_issue_needs_a_ca_that_can_be_read(made: DevelopmentDirectory) -> None:
    made.ca.key.write_text("no key")
    result = run("issue", made.root, "--device", "x")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: no usable CA in {made.root}")


def test_issue_needs_a_name(made: DevelopmentDirectory) -> None:
    assert run("issue", made.root).exit_code == 2


def test_version_is_the_packages(tmp_path: Path) -> None:
    assert run("--version").output.startswith("streampush, version ")
