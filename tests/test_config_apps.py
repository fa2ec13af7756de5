"""`[apns]` and `[[apns.apps]]`: what is read, and what is refused in one line. Their files: tests/apns/test_apps.py."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.errors import BadPush
from streampush.apns.outcome import UnknownPolicy
from streampush.apns.push import MAX_TOPIC, PushType, check_topic
from streampush.config import INTERRUPTION_LEVELS, ApnsAppConfig, ApnsConfig, Config
from streampush.config_apps import app_errors, split_place
from streampush.loading import load_config, read_config

TLS = '[tls]\ncertificate = "server.crt"\nkey = "server.key"\nclient_ca = "ca.crt"\n'
NAMED = '[[apns.apps]]\nname = "shop"\nbundle_id = "com.example.shop"\n'
KEY = 'key = "AuthKey_KEY1234567.p8"\nteam_id = "TEAM123456"\nkey_id = "KEY1234567"\n'
APP = NAMED + KEY
OTHER = APP.replace('"shop"', '"news"').replace("example.shop", "example.news")


def load(tmp_path: Path, text: str, overrides: tuple[str, ...] = ()) -> ApnsConfig:
    path = tmp_path / "streampush.toml"
    path.write_text(TLS + text)
    return load_config(str(path), {}, overrides).apns


def errors(tmp_path: Path, text: str) -> list[str]:
    """The errors, without the name of the TOML file."""
    path = tmp_path / "streampush.toml"
    path.write_text(TLS + text)
    _, found = read_config(str(path), {})
    return [str(problem).removeprefix(f"{path}: ") for problem in found if problem.severity == "error"]


def test_without_an_app_nothing_is_pushed_and_nothing_is_wrong(tmp_path: Path) -> None:
    assert load(tmp_path, "").apps == ()


def test_an_app_with_a_key_is_read_and_its_paths_count_from_the_file(tmp_path: Path) -> None:
    more = 'environment = "sandbox"\ntopics = ["com.example.shop.voip"]\nca = "apple/ca.crt"\nfallback_after = 2\n'
    (app,) = load(tmp_path, APP + more).apps
    assert app == ApnsAppConfig(
        name="shop",
        bundle_id="com.example.shop",
        environment="sandbox",
        key=str(tmp_path / "AuthKey_KEY1234567.p8"),
        team_id="TEAM123456",
        key_id="KEY1234567",
        topics=("com.example.shop.voip",),
        ca=str(tmp_path / "apple/ca.crt"),
        fallback_after=2.0,
    )


@pytest.mark.parametrize("text", ['certificate = "push.pem"\n', 'certificate = "push.pem"\nkey = "push.key"\n'])
def test_an_app_may_have_a_certificate_in_place_of_a_key(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, NAMED + text).apps[0].certificate == str(tmp_path / "push.pem")


def test_the_builds_of_both_environments_are_two_apps_of_one_bundle_id(tmp_path: Path) -> None:
    sandbox = APP.replace('"shop"', '"shop-dev"') + 'environment = "sandbox"\n'
    assert [app.name for app in load(tmp_path, APP + sandbox).apps] == ["shop", "shop-dev"]


def test_limits_and_proxy_are_read(tmp_path: Path) -> None:
    text = (
        '[apns]\nmax_connections = 2\nproxy = "proxy.example:3128"\nproxy_user = "streampush"\nproxy_password_file = "proxy.txt"\n'
    )
    apns = load(tmp_path, text + APP)
    assert (apns.max_connections, apns.proxy, apns.proxy_user) == (2, "proxy.example:3128", "streampush")
    assert apns.proxy_password_file == str(tmp_path / "proxy.txt")


def test_apps_may_come_as_text(tmp_path: Path) -> None:
    override = 'apns.apps=[{name = "a", bundle_id = "b.c", key = "k.p8", team_id = "TEAM123456", key_id = "KEY1234567"}]'
    assert load(tmp_path, "", (override,)).apps[0].bundle_id == "b.c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[apns]\napps = ['shop']\n", "apns.apps[0]: must be a table, [[apns.apps]]"),
        (APP + "bundle = 'x'", "apns.apps[0].bundle: unknown key, did you mean 'bundle_id'?"),
        (APP + OTHER + "port = 0", "apns.apps[1].port: port 0, allowed are 1 to 65535"),
        (APP + "environment = 'development'", "apns.apps[0].environment: 'development', allowed are production, sandbox"),
        (
            APP + "interruption_level = 'loud'",
            "apns.apps[0].interruption_level: 'loud', allowed are passive, active, time-sensitive, critical",
        ),
        (APP.replace('"TEAM123456"', "4711"), "apns.apps[0].team_id: must be text, not a whole number"),
        (APP.replace('"shop"', '"my shop"'), "apns.apps[0].name: 'my shop', allowed are 1 to 64 characters of A-Z a-z 0-9 . _ -"),
        (
            APP.replace('bundle_id = "com.example.shop"\n', ""),
            "apns.apps[0].bundle_id: required, the app's bundle id, such as com.example.shop",
        ),
        (
            APP.replace("com.example.shop", "com..shop"),
            "apns.apps[0].bundle_id: 'com..shop' is no bundle id: letters, digits, - and _ in parts between single dots",
        ),
        (
            APP.replace("com.example.shop", "x" * 156),
            "apns.apps[0].bundle_id: 156 characters, allowed are at most 155",
        ),
        (NAMED, "apns.apps[0].key: required: Apple's .p8 file, with team_id and key_id; or a certificate"),
        (
            APP.replace('team_id = "TEAM123456"\n', ""),
            "apns.apps[0].team_id: required with a .p8 key: the Team ID, in the membership details at Apple's",
        ),
        (
            APP.replace("KEY1234567", "key1234567"),
            "apns.apps[0].key_id: 'key1234567' is not 10 capital letters and digits: "
            "the Key ID, which is in the name of the file: AuthKey_KEYID.p8",
        ),
        (
            NAMED + 'certificate = "push.pem"\nteam_id = "TEAM123456"\n',
            "apns.apps[0].team_id: belongs to a .p8 key, and with a certificate there is none: take out one or the other",
        ),
        (APP + "host = 'https://localhost'", "apns.apps[0].host: 'https://localhost' is neither a host name nor an IP address"),
        (
            APP + f"host = '{'x' * 64}.example'",
            f"apns.apps[0].host: '{'x' * 64}.example' is neither a host name nor an IP address",
        ),
        (APP + "port = 8443", "apns.apps[0].port: port 8443, Apple listens on 443 and 2197 only"),
        (APP + 'sound = "a\\nb"', "apns.apps[0].sound: 3 characters, allowed are at most 255, printable"),
        (
            APP + "topics = ['com.example shop']",
            "apns.apps[0].topics: 'com.example shop' is no topic: a bundle id, perhaps with a suffix of Apple's, "
            "of at most 255 characters",
        ),
        (APP + OTHER.replace('"news"', '"shop"'), "apns.apps[1].name: 'shop' is the name of another app too"),
        (
            APP + OTHER.replace("example.news", "example.shop"),
            "apns.apps[1].bundle_id: com.example.shop in production belongs to app 'shop' already",
        ),
        (
            APP + OTHER + 'topics = ["com.example.shop"]',
            "apns.apps[1].topics: com.example.shop in production belongs to app 'shop' already",
        ),
        (
            "[apns]\nproxy = 'https://u:secret@p:1'",
            "apns.proxy: must be host:port, without a scheme; user and password have settings of their own",
        ),
        ("[apns]\nproxy_user = 'u'", "apns.proxy: required with apns.proxy_user"),
        ("[apns]\nproxy = 'p:1'\nproxy_user = 'a:b'", "apns.proxy_user: cannot have a colon or a control character"),
        ("[apns]\nproxy = 'p:1'\nproxy_password_file = 'x'", "apns.proxy_user: required with apns.proxy_password_file"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    assert errors(tmp_path, text) == [message]


def test_what_is_missing_of_a_key_is_named_in_one_pass(tmp_path: Path) -> None:
    found = errors(tmp_path, NAMED + 'key = "AuthKey.p8"\n')
    assert [line.split(":")[0] for line in found] == ["apns.apps[0].team_id", "apns.apps[0].key_id"]


@pytest.mark.parametrize(
    ("place", "host", "port"),
    [("proxy.example:3128", "proxy.example", 3128), ("10.0.0.1:1", "10.0.0.1", 1), ("[::1]:65535", "::1", 65535)],
)
def test_a_place_is_host_and_port(place: str, host: str, port: int) -> None:
    assert split_place(place) == (host, port)


@pytest.mark.parametrize(
    "place", ["", "proxy", "proxy:", ":1", "proxy:0", "proxy:65536", "proxy:1x", "proxy:\u0661", "::1:1", "[::1]", "[x]:1", "a b:1"]
)
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_place(place)


@given(st.text("ab.-_ é", max_size=8))
def test_a_bundle_id_is_taken_if_and_only_if_a_push_to_it_is(bundle_id: str) -> None:
    app = ApnsAppConfig("a", bundle_id, key="k", team_id="TEAM123456", key_id="KEY1234567")
    taken = not list(app_errors(Config(apns=ApnsConfig(apps=(app,)))))
    try:
        check_topic(bundle_id, PushType.ALERT)
    except BadPush:
        assert not taken
    else:
        assert taken


def test_the_longest_topic_is_that_of_a_push() -> None:
    def problems(size: int) -> int:
        app = ApnsAppConfig("a", "b", topics=("x" * size,), key="k", team_id="TEAM123456", key_id="KEY1234567")
        return len(list(app_errors(Config(apns=ApnsConfig(apps=(app,))))))

    assert [problems(MAX_TOPIC), problems(MAX_TOPIC + 1)] == [0, 1]


def test_a_device_rests_no_shorter_at_most_than_at_first() -> None:
    app = ApnsAppConfig("a", "b", key="k", team_id="TEAM123456", key_id="KEY1234567", device_rest=10.0, device_max_rest=5.0)
    problems = list(app_errors(Config(apns=ApnsConfig(apps=(app,)))))
    assert problems == [("apns.apps[0].device_rest", "10 s is above device_max_rest, 5 s")]


def test_the_policies_are_those_of_pushes() -> None:
    policies = {field.name: field for field in fields(ApnsAppConfig)}["repeat_unknown"].metadata["allowed"]
    assert policies == tuple(UnknownPolicy)
    assert policies[0] == ApnsAppConfig().repeat_unknown


def test_every_setting_of_an_app_has_a_reason_and_a_default_in_its_range() -> None:
    for field in fields(ApnsAppConfig):
        assert field.metadata["why"]
        low, high = field.metadata.get("low"), field.metadata.get("high")
        assert low is None or low <= field.default <= high
    assert set(INTERRUPTION_LEVELS) < set(
        {field.name: field for field in fields(ApnsAppConfig)}["interruption_level"].metadata["allowed"]
    )
