"""Where a command looks for the server."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from streampush.cli.exits import Failure
from streampush.cli.target import find_target, parse_rest_url

TLS = '[tls]\ncertificate = "a"\nkey = "b"\nclient_ca = "c"\n'


def configured(tmp_path: Path, text: str) -> Path:
    (tmp_path / "streampush.toml").write_text(TLS + text)
    return tmp_path


def test_without_a_configuration_the_defaults_count(tmp_path: Path) -> None:
    target = find_target(tmp_path)
    assert (target.host, target.port, target.rest_url) == ("localhost", 7443, "http://127.0.0.1:7480")


def test_the_configuration_is_followed(tmp_path: Path) -> None:
    text = "[listen]\nport = 1001\naddress = '::1'\n[rest]\nport = 1002\naddress = '::1'\n[publish]\nmax_payload = 99\n"
    target = find_target(configured(tmp_path, text))
    assert (target.host, target.port, target.rest_url, target.max_payload) == ("::1", 1001, "http://[::1]:1002", 99)


def test_an_exposed_rest_api_is_reached_by_name_over_tls(tmp_path: Path) -> None:
    text = "[rest]\naddress = '0.0.0.0'\ncertificate = 'a'\nkey = 'b'\n"
    assert find_target(configured(tmp_path, text)).rest_url == "https://localhost:7480"


def test_options_win(tmp_path: Path) -> None:
    target = find_target(tmp_path, "push.example.org", 443, "https://push.example.org/")
    assert (target.host, target.port, target.rest_url) == ("push.example.org", 443, "https://push.example.org")


def test_a_port_that_the_kernel_picks_must_be_given(tmp_path: Path) -> None:
    directory = configured(tmp_path, "[listen]\nport = 0\n")
    with pytest.raises(Failure, match="give --port"):
        find_target(directory)
    assert find_target(directory, port=5).port == 5


def test_only_the_framed_protocol_needs_the_port(tmp_path: Path) -> None:
    assert find_target(configured(tmp_path, "[listen]\nport = 0\n"), framed=False).rest_url == "http://127.0.0.1:7480"


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:7480", "https://push.example.org", "http://[::1]:7480/", "https://a/behind/a/proxy"]
)
def test_a_url_of_the_rest_api_is_taken(text: str) -> None:
    assert parse_rest_url(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "nonsense", "localhost:7480", "ftp://a", "http://", "http://:7480", "http://a:x", "http://a:0", "http://a:70000"),
        *("http://[::1", "http://a b", "http://a\n", "http://pöst", "http://a?b=c", "http://a#b"),
    ],
)
def test_what_is_no_url_of_a_rest_api_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="must be as in http://HOST:PORT or https://HOST"):
        parse_rest_url(text)
