"""The files that settings name: each fault, and that nothing secret is said about it."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from streampush.cli.directory import Credentials
from streampush.cli.pki import CertificateAuthority
from streampush.config import ApnsConfig, Config, Problem, RestConfig, StoreConfig, TlsConfig
from streampush.config_files import check_files, read_password
from tests.support import SERVER_NAMES, DevelopmentFiles, authority, make_files

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def files(tmp_path: Path) -> DevelopmentFiles:
    return make_files(tmp_path, devices=("phone-1",), publishers=())


def configured(files: DevelopmentFiles, **changes: Any) -> Config:
    tls = TlsConfig(str(files.server.certificate), str(files.server.key), str(files.ca))
    return Config(file="x.toml", tls=replace(tls, **changes))


def with_server(files: DevelopmentFiles, paths: Credentials) -> Config:
    return configured(files, certificate=str(paths.certificate), key=str(paths.key))


def only(config: Config, now: dt.datetime | None = None) -> Problem:
    (problem,) = check_files(config, now)
    return problem


def test_a_development_set_has_no_problem(files: DevelopmentFiles) -> None:
    assert check_files(configured(files)) == []


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca", "crl", "deny_list"])
def test_a_missing_file_is_named_with_its_key(files: DevelopmentFiles, name: str) -> None:
    problem = only(configured(files, **{name: "/nowhere/x.pem"}))
    assert str(problem) == f"x.toml: tls.{name}: /nowhere/x.pem cannot be read: No such file or directory"


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca", "crl", "deny_list"])
def test_a_directory_is_no_file(files: DevelopmentFiles, tmp_path: Path, name: str) -> None:
    assert only(configured(files, **{name: str(tmp_path)})).text.endswith("Is a directory")


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca", "crl"])
def test_a_device_file_is_not_read(files: DevelopmentFiles, name: str) -> None:
    assert only(configured(files, **{name: "/dev/zero"})).text == "/dev/zero is not a regular file"


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca", "crl", "deny_list"])
def test_a_pipe_is_not_waited_for(files: DevelopmentFiles, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert only(configured(files, **{name: str(tmp_path / "pipe")})).text == f"{tmp_path}/pipe is not a regular file"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("certificate", "no PEM certificate"),
        ("key", "no PEM private key"),
        ("client_ca", "no PEM certificate"),
        ("crl", "no PEM revocation list"),
    ],
)
def test_a_file_that_is_no_pem_is_refused_without_its_content(
    files: DevelopmentFiles, tmp_path: Path, name: str, part: str
) -> None:
    path = tmp_path / "wrong.pem"
    path.write_text("not a pem, but top secret")
    path.chmod(0o600)
    problem = only(configured(files, **{name: str(path)}))
    assert part in problem.text
    assert "top secret" not in problem.text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_use_is_refused_with_the_line_to_type(files: DevelopmentFiles, mode: int) -> None:
    files.server.key.chmod(mode)
    problem = only(configured(files))
    assert (problem.severity, problem.key) == ("error", "tls.key")
    assert problem.text.endswith(f"(mode {mode:04o}), type: chmod 600 {files.server.key}")


def test_an_unreadable_key_is_named(files: DevelopmentFiles, tmp_path: Path) -> None:
    link = tmp_path / "loop.key"
    os.symlink(link, link)
    assert "loop.key cannot be read" in only(configured(files, key=str(link))).text


def test_a_key_of_another_certificate_is_refused(files: DevelopmentFiles) -> None:
    other = files.device("phone-1").key
    problem = only(configured(files, key=str(other)))
    assert problem.text == f"{other} is not the private key of {files.server.certificate}"


def test_a_key_of_another_kind_than_the_certificate_is_refused(files: DevelopmentFiles, tmp_path: Path) -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "rsa.key"
    path.write_bytes(pem)
    path.chmod(0o600)
    assert "is not the private key" in only(configured(files, key=str(path))).text


def test_an_encrypted_key_is_refused(files: DevelopmentFiles) -> None:
    key = authority().issued.key
    encryption = serialization.BestAvailableEncryption(b"x")
    files.server.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    assert "is encrypted" in only(configured(files)).text


def test_an_expired_certificate_is_an_error(files: DevelopmentFiles) -> None:
    problem = only(configured(files), NOW + dt.timedelta(days=826))
    assert (problem.severity, problem.key) == ("error", "tls.certificate")
    assert "(CN=localhost) expired on " in problem.text


def test_a_certificate_that_expires_soon_is_a_warning(files: DevelopmentFiles) -> None:
    config = with_server(files, files.write("soon", authority().issue_server(SERVER_NAMES, days=29)))
    problem = only(config)
    assert (problem.severity, problem.key) == ("warning", "tls.certificate")
    assert "in 28 days" in problem.text


def test_a_certificate_of_tomorrow_is_an_error(files: DevelopmentFiles) -> None:
    found = check_files(configured(files), NOW - dt.timedelta(days=1))
    assert {(problem.severity, problem.key) for problem in found} == {("error", "tls.certificate"), ("error", "tls.client_ca")}
    assert "is not valid before" in found[0].text


def test_a_device_certificate_is_not_for_servers(files: DevelopmentFiles) -> None:
    assert "lacks serverAuth" in only(with_server(files, files.device("phone-1"))).text


def test_a_certificate_without_host_names_is_a_warning(files: DevelopmentFiles) -> None:
    problem = only(with_server(files, files.directory.ca))
    assert problem.severity == "warning"
    assert "no host as subject alternative name" in problem.text


def test_a_client_ca_must_be_a_ca(files: DevelopmentFiles) -> None:
    problem = only(configured(files, client_ca=str(files.server.certificate)))
    assert problem.text == f"{files.server.certificate} (CN=localhost) is not a CA certificate"


def test_an_expired_ca_beside_a_good_one_is_a_warning(files: DevelopmentFiles, tmp_path: Path) -> None:
    old = CertificateAuthority.create("old CA", days=1).issued
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority().issued.certificate_pem + old.certificate_pem)
    problem = only(configured(files, client_ca=str(bundle)), NOW + dt.timedelta(days=2))
    assert problem.severity == "warning"
    assert "(CN=old CA) expired" in problem.text


def test_expired_cas_alone_are_an_error(files: DevelopmentFiles) -> None:
    found = check_files(configured(files), NOW + dt.timedelta(days=4000))
    assert ("error", "tls.client_ca") in {(problem.severity, problem.key) for problem in found}


def test_a_revocation_list_of_the_ca_is_fine(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(authority().revoke([]))
    assert check_files(configured(files, crl=str(path))) == []


def test_a_revocation_list_of_somebody_else_is_refused(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(authority().revoke([]) + authority("another CA").revoke([]))
    problem = only(configured(files, crl=str(path)))
    assert (problem.severity, problem.key) == ("error", "tls.crl")
    assert "CN=another CA is not signed by a certificate in tls.client_ca" in problem.text


def test_a_forged_revocation_list_is_refused(files: DevelopmentFiles, tmp_path: Path) -> None:
    forger = CertificateAuthority.create("streampush test CA")  # the right name, another key
    path = tmp_path / "crl.pem"
    path.write_bytes(forger.revoke([]))
    assert "is not signed by" in only(configured(files, crl=str(path))).text


def test_a_damaged_revocation_list_is_refused(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    assert only(configured(files, crl=str(path))).text == f"{path} holds a revocation list that cannot be read"


def test_a_stale_revocation_list_is_a_warning(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(authority().revoke([], days=1))
    problem = only(configured(files, crl=str(path)), NOW + dt.timedelta(days=2))
    assert problem.severity == "warning"
    assert "stays in force" in problem.text


def test_a_deny_list_takes_ids_prefixes_fingerprints_and_comments(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "deny"
    pairs = ":".join(["ab"] * 32)
    path.write_text(f"# stolen\nphone-1  # by somebody\n\ndevice:phone-2\npublisher:backend\n{'AB' * 32}\n{pairs}\n")
    assert check_files(configured(files, deny_list=str(path))) == []


def test_a_wrong_line_of_a_deny_list_is_named_by_number(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "deny"
    path.write_text("phone-1\nphone 2\nuser:alice\n")
    found = check_files(configured(files, deny_list=str(path)))
    assert [problem.text.split(":")[0] for problem in found] == [f"{path} line 2", f"{path} line 3"]


def test_a_deny_list_must_be_text(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "deny"
    path.write_bytes(b"\xff\xff")
    assert "is not UTF-8 text" in only(configured(files, deny_list=str(path))).text


def test_the_pair_of_the_rest_api_is_checked_too(files: DevelopmentFiles) -> None:
    rest = RestConfig(certificate=str(files.server.certificate), key=str(files.device("phone-1").key))
    assert only(replace(configured(files), rest=rest)).key == "rest.key"


def test_files_of_a_switched_off_rest_api_are_not_looked_at(files: DevelopmentFiles) -> None:
    rest = RestConfig(enabled=False, certificate="/nowhere", key="/nowhere")
    assert check_files(replace(configured(files), rest=rest)) == []


def stored(files: DevelopmentFiles, path: Path, backend: str = "sqlite") -> Config:
    return replace(configured(files), store=StoreConfig(backend=backend, path=str(path)))


def test_a_private_store_in_a_private_folder_has_no_problem(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    assert check_files(stored(files, path)) == []
    path.touch(0o600)
    assert check_files(stored(files, path)) == []


def test_a_store_in_a_folder_that_is_not_there_is_refused(files: DevelopmentFiles, tmp_path: Path) -> None:
    problem = only(stored(files, tmp_path / "none" / "store.db"))
    assert (problem.severity, problem.key) == ("error", "store.path")
    assert problem.text == f"the folder {tmp_path}/none cannot be used: No such file or directory"


def test_a_store_below_a_file_is_refused(files: DevelopmentFiles, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert only(stored(files, tmp_path / "file" / "store.db")).text == f"{tmp_path}/file is not a folder"


def test_a_store_that_others_can_read_is_a_warning(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    path.chmod(0o640)
    problem = only(stored(files, path))
    assert (problem.severity, problem.key) == ("warning", "store.path")
    assert problem.text.endswith(f"chmod 600 {path}")


def test_a_folder_in_which_anybody_can_replace_the_store_is_a_warning(files: DevelopmentFiles, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    assert only(stored(files, folder / "store.db")).severity == "warning"
    folder.chmod(0o1777)  # as /tmp: nobody replaces what is somebody else's
    assert check_files(stored(files, folder / "store.db")) == []


def test_the_file_of_a_store_in_memory_is_not_looked_at(files: DevelopmentFiles, tmp_path: Path) -> None:
    assert check_files(stored(files, tmp_path / "none" / "store.db", "memory")) == []


def with_password(files: DevelopmentFiles, path: Path) -> Config:
    apns = ApnsConfig(proxy="proxy.example:3128", proxy_user="streampush", proxy_password_file=str(path))
    return replace(configured(files), apns=apns)


@pytest.mark.parametrize("content", ["swordfish", "swordfish\n", "swordfish\r\n", "sword fish ü\n"])
def test_the_password_of_a_proxy_is_one_line_of_a_private_file(files: DevelopmentFiles, tmp_path: Path, content: str) -> None:
    path = tmp_path / "proxy.txt"
    path.write_bytes(content.encode())
    path.chmod(0o600)
    assert check_files(with_password(files, path)) == []
    assert read_password(str(path)) == content.strip()


@pytest.mark.parametrize("content", [b"", b"\n", b"sword\nfish", b"sword\x00fish", b"\xff\xfe", b"x" * 1025])
def test_what_is_no_password_is_refused_and_not_shown(files: DevelopmentFiles, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "proxy.txt"
    path.write_bytes(content)
    path.chmod(0o600)
    problem = only(with_password(files, path))
    assert problem.key == "apns.proxy_password_file"
    assert problem.text == f"{path} does not hold one line of 1 to 1024 printable characters"


def test_a_password_that_others_can_read_is_refused(files: DevelopmentFiles, tmp_path: Path) -> None:
    path = tmp_path / "proxy.txt"
    path.write_text("swordfish")
    path.chmod(0o644)
    assert only(with_password(files, path)).text.endswith(f"(mode 0644), type: chmod 600 {path}")
