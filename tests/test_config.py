"""Reading settings: sources and their precedence, values, rules between them. Files that settings name: test_config_files.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from streampush.config import (
    ApnsAppConfig,
    ApnsConfig,
    Config,
    HeartbeatConfig,
    KeyConfig,
    ListenConfig,
    PublisherConfig,
    StoreConfig,
    TlsConfig,
)
from streampush.config_rules import check_rules, fd_budget
from streampush.errors import ConfigError
from streampush.loading import load_config, problems, read_config

TLS = '[tls]\ncertificate = "server.crt"\nkey = "server.key"\nclient_ca = "ca.crt"\n'
DIGEST = "ab" * 32


def write(tmp_path: Path, text: str, before: str = "") -> str:
    path = tmp_path / "streampush.toml"
    path.write_text(before + TLS + text)
    return str(path)


def load(tmp_path: Path, text: str = "", environ: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> Config:
    return load_config(write(tmp_path, text), environ or {}, overrides)


def errors(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> list[str]:
    """The errors, without the name of the TOML file."""
    path = write(tmp_path, text)
    _, found = read_config(path, environ or {}, overrides)
    return [str(problem).removeprefix(f"{path}: ") for problem in found if problem.severity == "error"]


def warnings(tmp_path: Path, text: str) -> list[str]:
    path = write(tmp_path, text)
    _, found = read_config(path, {})
    return [problem.key for problem in found if problem.severity == "warning"]


# ----------------------------------------------------------------------------------------------------------------- precedence


def test_a_file_with_tls_only_gives_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert replace(config, file="(defaults)", tls=TlsConfig(), store=StoreConfig()) == Config()


def test_a_default_path_counts_from_the_files_folder_too(tmp_path: Path) -> None:
    assert load(tmp_path).store == replace(StoreConfig(), path=str(tmp_path / "streampush.db"))


def test_the_store_holds_what_its_backend_can_unless_a_limit_is_set() -> None:
    memory, disk = (StoreConfig(backend=backend).sized() for backend in ("memory", "sqlite"))
    assert (memory.max_bytes, memory.max_channels) == (256 * 1024**2, 100_000)
    assert (disk.max_bytes, disk.max_channels) == (16 * 1024**3, 1_000_000)
    assert StoreConfig(max_bytes=2048, max_channels=7).sized() == StoreConfig(max_bytes=2048, max_channels=7)


def test_the_configuration_remembers_its_file(tmp_path: Path) -> None:
    assert load(tmp_path).file == str(tmp_path / "streampush.toml")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "[listen]\nport = 1001", {"STREAMPUSH_LISTEN__PORT": "1002"})
    assert config.listen.port == 1002


def test_an_option_wins_over_the_environment(tmp_path: Path) -> None:
    config = load(tmp_path, "[listen]\nport = 1001", {"STREAMPUSH_LISTEN__PORT": "1002"}, ["listen.port=1003"])
    assert config.listen.port == 1003


def test_a_later_option_wins_over_an_earlier_one(tmp_path: Path) -> None:
    assert load(tmp_path, "", {}, ["listen.port=1", "listen.port=2"]).listen.port == 2


def test_sources_are_merged_key_by_key(tmp_path: Path) -> None:
    config = load(tmp_path, "[listen]\nport = 1001", {"STREAMPUSH_LISTEN__BACKLOG": "7"}, ["listen.address=::1"])
    assert (config.listen.port, config.listen.backlog, config.listen.address) == (1001, 7, "::1")


def test_everything_can_come_from_the_environment_without_a_file() -> None:
    environ = {f"STREAMPUSH_TLS__{name}": "/etc/x.pem" for name in ("CERTIFICATE", "KEY", "CLIENT_CA")}
    assert load_config(None, environ).tls.key == "/etc/x.pem"


def test_variables_without_two_underscores_are_the_platforms_own(tmp_path: Path) -> None:
    assert load(tmp_path, "", {"STREAMPUSH_PORT": "tcp://10.0.0.1:7443", "STREAMPUSH_SERVICE_HOST": "10.0.0.1"})


# --------------------------------------------------------------------------------------------------------------------- values


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, 'crl = "../lists/crl.pem"')
    assert config.tls.certificate == str(tmp_path / "server.crt")
    assert config.tls.crl == str(tmp_path.parent / "lists" / "crl.pem")


def test_absolute_and_empty_paths_stay(tmp_path: Path) -> None:
    config = load(tmp_path, 'crl = "/etc/crl.pem"\ndeny_list = ""')
    assert (config.tls.crl, config.tls.deny_list) == ("/etc/crl.pem", "")


def test_a_whole_number_is_a_number_of_seconds(tmp_path: Path) -> None:
    interval = load(tmp_path, "[heartbeat]\ninterval = 20").heartbeat.interval
    assert (interval, type(interval)) == (20.0, float)


def test_rest_keys_and_publishers_are_read(tmp_path: Path) -> None:
    text = f"""
[[rest.keys]]
name = "web"
sha256 = "{DIGEST.upper()}"
publish = ["news/*"]
scopes = ["publish", "read"]
[publishers.backend]
publish = ["*"]
[publishers.silent]
"""
    config = load(tmp_path, text)
    assert config.rest.keys == (KeyConfig("web", DIGEST, ("news/*",), ("publish", "read")),)
    assert config.publishers == {"backend": PublisherConfig(("*",)), "silent": PublisherConfig()}


def test_publishers_and_keys_may_come_as_text(tmp_path: Path) -> None:
    overrides = ["publishers.night.backend.publish=a, b", f'rest.keys=[{{name = "k", sha256 = "{DIGEST}", publish = ["*"]}}]']
    config = load(tmp_path, "", {"STREAMPUSH_PUBLISHERS__WEB__PUBLISH": "*"}, overrides)
    assert config.publishers == {"web": PublisherConfig(("*",)), "night.backend": PublisherConfig(("a", "b"))}
    assert config.rest.keys == (KeyConfig("k", DIGEST, ("*",)),)


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("session.max_frame=524_288", "session", "max_frame", 524288),
        ("heartbeat.interval=12", "heartbeat", "interval", 12.0),
        ("tls.resumption=false", "tls", "resumption", False),
        ("node.name=7", "node", "name", "7"),
        ("node.name=a=b", "node", "name", "a=b"),
        ("delivery.subscribe=news/*, public/*", "delivery", "subscribe", ("news/*", "public/*")),
        ('delivery.subscribe=["a,b"]', "delivery", "subscribe", ("a,b",)),
        ("delivery.subscribe=", "delivery", "subscribe", ()),
    ],
)
def test_text_is_read_as_the_type_of_the_setting(tmp_path: Path, override: str, section: str, key: str, value: Any) -> None:
    found = getattr(getattr(load(tmp_path, "", {}, [override]), section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sesion]", "sesion: unknown section, did you mean 'session'?"),
        ("[zzz]", "zzz: unknown section"),
        ("[session]\nmax_fram = 1", "session.max_fram: unknown key, did you mean 'max_frame'?"),
        ("[[rest.keys]]\nnme = 'x'", "rest.keys[0].nme: unknown key, did you mean 'name'?"),
        ("[publishers.x]\nsubscribe = []", "publishers.x.subscribe: unknown key"),
        ("[publishers]\nx = 1", "publishers.x: must be a section, [publishers.x]"),
        ("[rest]\nkeys = ['x']", "rest.keys[0]: must be a table, [[rest.keys]]"),
        ("[rest]\nkeys = 'x'", "rest.keys: must be a list, not text"),
        ("[listen]\nport = '7443'", "listen.port: must be a whole number, not text"),
        ("[listen]\nport = 7443.0", "listen.port: must be a whole number, not 7443.0"),
        ("[listen]\nport = true", "listen.port: must be a whole number, not true"),
        ("[heartbeat]\ninterval = false", "heartbeat.interval: must be a number, not false"),
        ("[node]\nname = 5", "node.name: must be text, not a whole number"),
        ("[rest]\nenabled = 1", "rest.enabled: must be true or false, not 1"),
        ("[delivery]\nsubscribe = 'a'", "delivery.subscribe: must be a list, not text"),
        ("[delivery]\nsubscribe = ['a', 1]", "delivery.subscribe[1]: must be text, not a whole number"),
        ("[listen]\nport = 70000", "listen.port: port 70000, allowed are 0 to 65535"),
        ("[heartbeat]\ninterval = 0.01", "heartbeat.interval: 0.01 s, allowed are 0.05 to 3600"),
        ("[session]\nidle_timeout = nan", "session.idle_timeout: nan s, allowed are 0 to 604800"),
        ("[session]\nidle_timeout = inf", "session.idle_timeout: inf s, allowed are 0 to 604800"),
        ("[log]\nformat = 'xml'", "log.format: 'xml', allowed are json, text"),
        ('[node]\nname = "a\\u0000"', "node.name: must not contain a NUL character"),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    assert errors(tmp_path, text) == [message]


def test_a_key_in_place_of_a_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"node: must be a section, \[node\]"):
        load_config(write(tmp_path, "", before="node = 1\n"), {})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"STREAMPUSH_LISTEN__PORT": "x"}, "environment: STREAMPUSH_LISTEN__PORT: must be a whole number, not text"),
        ({"STREAMPUSH_LISTEN__PROT": "1"}, "environment: STREAMPUSH_LISTEN__PROT: unknown key, did you mean 'port'?"),
        ({"STREAMPUSH_LISTN__PORT": "1"}, "environment: STREAMPUSH_LISTN__PORT: unknown section 'listn', did you mean 'listen'?"),
        ({"STREAMPUSH_LISTEN__PORT__X": "1"}, "environment: STREAMPUSH_LISTEN__PORT__X: unknown key in section 'listen'"),
        (
            {"STREAMPUSH_HEARTBEAT__REPLY_TIMEOUT": "40"},
            "environment: STREAMPUSH_HEARTBEAT__REPLY_TIMEOUT: 40 s, allowed is at most heartbeat.interval, 30 s",
        ),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    assert errors(tmp_path, "", environ) == [message]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("listen.port", "options: 'listen.port' is not of the form section.key=value"),
        ("port=5", "options: 'port' is not of the form section.key=value"),
        ("listen.port=99999", "options: listen.port: port 99999, allowed are 0 to 65535"),
        ("publishers.x=5", "options: publishers.x: unknown key in section 'publishers'"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, override: str, message: str) -> None:
    assert errors(tmp_path, "", {}, [override]) == [message]


def test_all_problems_are_found_in_one_pass(tmp_path: Path) -> None:
    found = errors(tmp_path, "[listen]\nport = -1\n[session]\nmax_frame = 1\nfoo = 1\n[nope]")
    assert len(found) == 4


def test_the_first_error_is_raised_and_says_how_many_follow(tmp_path: Path) -> None:
    path = write(tmp_path, "[listen]\nport = -1\n[session]\nmax_frame = 1")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    problem = "port -1, allowed are 0 to 65535 (and 1 more, see `streampush check`)"
    assert (caught.value.file, caught.value.key, caught.value.problem) == (path, "listen.port", problem)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory$"):
        load_config(str(tmp_path / "none.toml"), {})


@pytest.mark.parametrize("data", [b"[listen", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        load_config(str(path), {})
    assert "\n" not in str(caught.value)
    assert "more, see" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------- rules


def test_tls_files_are_required() -> None:
    _, found = read_config(None, {})
    assert [problem.key for problem in found if problem.severity == "error"] == ["tls.certificate", "tls.key", "tls.client_ca"]


KEY = f'[[rest.keys]]\nname = "a"\nsha256 = "{DIGEST}"\npublish = ["*"]\n'


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("[listen]\naddress = 'localhost'", "listen.address", "not an IPv4 or IPv6 address"),
        ("[rest]\naddress = ''", "rest.address", "not an IPv4 or IPv6 address"),
        ("[listen]\nproxy_protocol = 'v2'", "listen.proxy_from", "the addresses or networks of the proxies"),
        ("[listen]\nproxy_protocol = 'any'\nproxy_from = ['10.0.0.1/8']", "listen.proxy_from", "such as 10.0.0.0/24"),
        ("[listen]\nproxy_protocol = 'any'\nproxy_from = ['haproxy']", "listen.proxy_from", "neither an address nor a network"),
        ("[rest]\nport = 7443", "rest.port", "listen.port too"),
        ("[heartbeat]\ninterval = 5", "heartbeat.reply_timeout", "10 s, allowed is at most heartbeat.interval, 5 s"),
        ("[reconnect]\nbackoff_max = 0.5", "reconnect.backoff_initial", "at most reconnect.backoff_max, 0.5 s"),
        ("[session]\nmax_frame = 262144", "publish.max_payload", "at most 245760 bytes, session.max_frame less 16384"),
        ("[session]\nmax_frame = 8192", "session.max_frame", "publish.max_payload, 262144 bytes, needs at least 278528 bytes"),
        ("[session]\nmax_frame = 16384", "session.max_frame", "16384 bytes leave no room for a payload beside 16384 bytes"),
        ("[session]\nmax_frame = 16385", "publish.max_payload", "at most 1 bytes, session.max_frame less 16384"),
        ("[session]\nsend_buffer_max = 300000", "session.send_buffer_max", "at least 540672 bytes"),
        ("[store]\nhistory_bytes = 1024", "store.history_bytes", "at least publish.max_payload, 262144 bytes"),
        ("[store]\nmax_bytes = 1048576", "store.history_bytes", "at most store.max_bytes, 1048576 bytes"),
        ("[rest]\naddress = '0.0.0.0'", "rest.address", "reached from other machines"),
        ("[rest]\naddress = '::'", "rest.address", "reached from other machines"),
        ("[rest]\nkey = 'rest.key'", "rest.certificate", "required with rest.key"),
        ("[rest]\ncertificate = 'rest.crt'", "rest.key", "required with rest.certificate"),
        (KEY.replace('"a"', '""'), "rest.keys[0].name", "1 to 128 characters"),
        (KEY.replace(DIGEST, DIGEST[1:]), "rest.keys[0].sha256", "63 characters"),
        (KEY.replace(DIGEST, "zz" * 32), "rest.keys[0].sha256", "64 hex digits"),
        (KEY + KEY.replace(DIGEST, "cd" * 32), "rest.keys[1].name", "name of another key"),
        (KEY + KEY.replace('"a"', '"b"'), "rest.keys[1].sha256", "same key"),
        (KEY + 'scopes = ["admin"]', "rest.keys[0].scopes", "'admin', allowed are publish, push, read, devices, "),
        (KEY.replace("*", "{device}"), "rest.keys[0].publish", "which a publisher has not"),
        ("[publishers.'a b']\npublish = ['*']", "publishers.a b", "1 to 128 characters"),
        ("[publishers.x]\npublish = ['a b']", "publishers.x.publish", "no channel has spaces"),
        ("[delivery]\nsubscribe = ['{phone}']", "delivery.subscribe", "allowed are {device} and {user}"),
        ("[delivery]\npublish = ['']", "delivery.publish", "a pattern of 0 bytes"),
        (f"[delivery]\npublish = ['{'x' * 256}']", "delivery.publish", "a pattern of 256 bytes"),
    ],
)
def test_a_broken_rule_is_refused(tmp_path: Path, text: str, key: str, part: str) -> None:
    (found,) = errors(tmp_path, text)
    assert found.startswith(f"{key}: ")
    assert part in found


def test_a_number_in_place_of_a_secret_text_is_not_shown(tmp_path: Path) -> None:
    assert "4711" not in str(errors(tmp_path, KEY.replace(f'"{DIGEST}"', "4711")))


def test_a_key_in_place_of_its_digest_is_not_shown(tmp_path: Path) -> None:
    assert "my-real-key" not in str(errors(tmp_path, KEY.replace(DIGEST, "my-real-key")))


def test_rest_may_be_exposed_with_tls(tmp_path: Path) -> None:
    assert load(tmp_path, "[rest]\naddress = '0.0.0.0'\ncertificate = 'a'\nkey = 'b'").rest.address == "0.0.0.0"


def test_placeholders_are_for_devices(tmp_path: Path) -> None:
    assert load(tmp_path, "[delivery]\npublish = ['from/{device}', 'chat/{user}/*']")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "rest.keys"),
        (f"[[rest.keys]]\nname = 'a'\nsha256 = '{DIGEST}'", "rest.keys[0].publish"),
        (KEY + "[publishers.x]", "publishers.x.publish"),
        ("[rest]\nmax_body = 2048\n" + KEY, "rest.max_body"),
        ("[delivery]\nreceive_window_bytes = 2048\n" + KEY, "delivery.receive_window_bytes"),
        ("[heartbeat]\nmin_ping_interval = 41\n" + KEY, "heartbeat.min_ping_interval"),
        ("[listen]\nproxy_from = ['10.0.0.1']\n" + KEY, "listen.proxy_from"),
        ("[listen]\nsteering = 'address'\nproxy_protocol = 'v1'\nproxy_from = ['::1']\n" + KEY, "listen.steering"),
        ("[listen]\nproxy_protocol = 'v2'\nproxy_from = ['::/0']\n" + KEY, "listen.proxy_from"),
    ],
)
def test_a_doubtful_setting_is_a_warning_and_no_error(tmp_path: Path, text: str, key: str) -> None:
    assert warnings(tmp_path, text) == [key]
    assert load(tmp_path, text)


def test_the_defaults_keep_every_rule() -> None:
    config = Config(tls=TlsConfig("a", "b", "c"))
    assert [problem.key for problem in check_rules(config)] == ["rest.keys"]


def test_every_default_is_in_its_own_range() -> None:
    for section in fields(Config):
        value = getattr(Config(), section.name)
        if not is_dataclass(value):
            continue
        for field in fields(value):
            low, high = field.metadata.get("low"), field.metadata.get("high")
            if low is not None and high is not None:
                assert low <= getattr(value, field.name) <= high, (section.name, field.name)


def test_every_setting_has_a_reason() -> None:
    for section in fields(Config):
        value = getattr(Config(), section.name)
        if is_dataclass(value):
            assert [field.name for field in fields(value) if not field.metadata.get("why")] in ([], ["keys"], ["apps"])


def test_problems_include_those_of_files(tmp_path: Path) -> None:
    found = problems(write(tmp_path, ""), {})
    assert {problem.key for problem in found if problem.severity == "error"} == {"tls.certificate", "tls.key", "tls.client_ca"}
    assert "server.crt cannot be read: No such file" in str(found[1])


# ----------------------------------------------------------------------------------------------------------- file descriptors


def test_a_high_file_descriptor_limit_leaves_the_cap() -> None:
    assert fd_budget(Config(), 10_100) == (10_000, None)


def test_no_file_descriptor_limit_leaves_the_cap() -> None:
    assert fd_budget(Config(), -1) == (10_000, None)


def test_a_low_file_descriptor_limit_lowers_the_cap_and_says_what_to_type() -> None:
    cap, warning = fd_budget(Config(), 1024)
    assert cap == 924
    assert warning is not None
    assert "ulimit -n 10100" in warning
    assert "admission.max_connections" in warning


def test_connections_to_apple_take_descriptors_too() -> None:
    apns = ApnsConfig(max_connections=8, apps=(ApnsAppConfig("a"), ApnsAppConfig("b")))
    assert fd_budget(Config(apns=apns), 1024)[0] == 1024 - 100 - 16


def test_connections_whose_proxy_has_not_spoken_take_descriptors_too() -> None:
    listen = ListenConfig(proxy_protocol="v2", proxy_waiting=50)
    assert fd_budget(Config(listen=listen), 1024)[0] == 1024 - 100 - 50


def test_a_tiny_file_descriptor_limit_still_admits_one() -> None:
    assert fd_budget(Config(), 50)[0] == 1


def test_a_single_miss_needs_a_short_reply_timeout() -> None:
    found = check_rules(Config(heartbeat=HeartbeatConfig(interval=10, reply_timeout=6, misses=1)))
    (problem,) = [problem for problem in found if problem.key == "heartbeat.reply_timeout"]
    assert problem.severity == "error"
    assert "misses = 1" in problem.text
