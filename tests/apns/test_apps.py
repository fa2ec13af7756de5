"""The apps of the configuration: what speaks against them, and that a reload never leaves them worse than they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streampush.apns.apps import HOSTS, App, Apps, read_apps
from streampush.apns.push_certificate import PRODUCTION, TOPICS, PushCertificate
from streampush.apns.signing_key import SigningKey
from streampush.cli.pki import CertificateAuthority
from streampush.config import ApnsAppConfig, ApnsConfig, Config, Problem
from streampush.errors import ConfigError
from tests.apns.minting import BOTH, BUNDLE, KEY, NOW, certificate, pem, topic_list, write_private

WALL = NOW.timestamp()
TEAM, KEY_ID = "TEAM123456", "KEY1234567"
Change = Callable[[ApnsAppConfig], ApnsAppConfig]


@pytest.fixture
def by_key(tmp_path: Path) -> ApnsAppConfig:
    key = write_private(tmp_path / f"AuthKey_{KEY_ID}.p8", pem(KEY))
    return ApnsAppConfig(name="shop", bundle_id=BUNDLE, key=key, team_id=TEAM, key_id=KEY_ID)


@pytest.fixture
def by_certificate(tmp_path: Path) -> ApnsAppConfig:
    public = write_private(tmp_path / "push.pem", certificate({**BOTH, TOPICS: topic_list(BUNDLE, f"{BUNDLE}.voip")}), 0o644)
    return ApnsAppConfig(name="news", bundle_id=BUNDLE, certificate=public, key=write_private(tmp_path / "push.key", pem(KEY)))


def configured(*apps: ApnsAppConfig) -> Config:
    return Config(file="x.toml", apns=ApnsConfig(apps=apps))


def said(app: ApnsAppConfig, wall: float = WALL) -> list[str]:
    return [f"{problem.severity}: {problem}" for problem in read_apps(configured(app), wall)[1]]


def only(app: ApnsAppConfig, wall: float = WALL) -> Problem:
    apps, (problem,) = read_apps(configured(app), wall)
    assert (problem.severity == "error") is (not apps)
    return problem


def in_force(*apps: ApnsAppConfig) -> Apps:
    return Apps(configured(*apps), lambda: WALL)


# -------------------------------------------------------------------------------------------------------------- what is good


def test_an_app_with_a_key_goes_to_apple_with_it(by_key: ApnsAppConfig) -> None:
    apps, found = read_apps(configured(by_key), WALL)
    assert found == []
    route = apps["shop"].route
    assert (route.host, route.port, route.trust) == ("api.push.apple.com", 443, None)
    assert isinstance(route.credential, SigningKey)
    assert (route.credential.team_id, route.credential.key_id) == (TEAM, KEY_ID)


def test_an_app_with_a_certificate_goes_to_apple_with_it(by_certificate: ApnsAppConfig) -> None:
    apps, found = read_apps(configured(replace(by_certificate, topics=(f"{BUNDLE}.voip",))), WALL)
    assert found == []
    assert isinstance(apps["news"].route.credential, PushCertificate)
    assert apps["news"].topics == {BUNDLE, f"{BUNDLE}.voip"}
    assert apps["news"].route.tls().creator is not None


def test_the_sandbox_is_another_host(by_key: ApnsAppConfig) -> None:
    apps, _ = read_apps(configured(replace(by_key, environment="sandbox", port=2197)), WALL)
    assert (apps["shop"].route.host, apps["shop"].route.port) == (HOSTS["sandbox"], 2197)


def test_a_simulator_takes_the_place_of_apple_with_a_ca_of_its_own(by_key: ApnsAppConfig, tmp_path: Path) -> None:
    ca = CertificateAuthority.create("simulated").issued.certificate_pem
    (tmp_path / "ca.crt").write_bytes(ca)
    apps, found = read_apps(configured(replace(by_key, host="127.0.0.1", port=2197, ca=str(tmp_path / "ca.crt"))), 1.8e9)
    assert found == []
    assert (apps["shop"].route.host, apps["shop"].route.port, apps["shop"].route.trust) == ("127.0.0.1", 2197, ca)


def test_apps_with_the_same_key_share_a_route_and_a_provider_token(by_key: ApnsAppConfig) -> None:
    apps = in_force(by_key, replace(by_key, name="other", bundle_id="com.example.other"))
    shop, other = apps.all["shop"], apps.all["other"]
    assert shop.route == other.route
    assert apps.routes() == {shop.route}
    assert apps.provider_token(shop.route) is apps.provider_token(other.route)


def test_a_certificate_needs_no_provider_token(by_certificate: ApnsAppConfig) -> None:
    apps = in_force(by_certificate)
    assert apps.provider_token(apps.all["news"].route) is None


def test_topic_and_environment_tell_the_app_of_a_device_token(by_key: ApnsAppConfig) -> None:
    sandbox = replace(by_key, name="shop-dev", environment="sandbox", topics=(f"{BUNDLE}.voip",))
    apps = in_force(by_key, sandbox)
    found = [apps.of_token(topic, is_sandbox) for topic in (BUNDLE, f"{BUNDLE}.voip") for is_sandbox in (False, True)]
    assert [app.name if app else None for app in found] == ["shop", "shop-dev", None, "shop-dev"]


# ------------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("content", "mode", "text"),
    [
        (pem(rsa.generate_private_key(65537, 2048)), 0o600, "is no elliptic curve key: Apple's .p8 is needed"),
        (pem(ec.generate_private_key(ec.SECP384R1())), 0o600, "is a key on the curve secp384r1, Apple needs P-256"),
        (b"", 0o600, "is empty"),
        (pem(KEY), 0o640, "can be used by others (mode 0640), type: chmod 600 "),
    ],
)
def test_a_key_that_is_none_is_one_error_with_setting_and_file(by_key: ApnsAppConfig, content: bytes, mode: int, text: str) -> None:
    write_private(Path(by_key.key), content, mode)
    assert str(only(by_key)).startswith(f"x.toml: apns.apps[0].key: {by_key.key} {text}")


def test_a_key_that_is_not_there_is_named(by_key: ApnsAppConfig) -> None:
    problem = only(replace(by_key, key="/nowhere/AuthKey_KEY1234567.p8"))
    assert problem.text == "/nowhere/AuthKey_KEY1234567.p8 cannot be read: No such file or directory"


def test_a_missing_team_is_named_even_where_the_rules_were_not_asked(by_key: ApnsAppConfig) -> None:
    assert only(replace(by_key, team_id="")).key == "apns.apps[0].team_id"


def test_a_file_named_after_another_key_id_is_a_warning(by_key: ApnsAppConfig) -> None:
    problem = only(replace(by_key, key_id="KEY7654321"))
    assert (problem.severity, problem.key) == ("warning", "apns.apps[0].key_id")
    assert problem.text.startswith(f"KEY7654321, but the file's name says {KEY_ID}")


def test_two_keys_under_one_id_are_refused(by_key: ApnsAppConfig, tmp_path: Path) -> None:
    other = write_private(tmp_path / "other.p8", pem(ec.generate_private_key(ec.SECP256R1())))
    second = replace(by_key, name="second", bundle_id="com.example.second", key=other)
    apps, (problem,) = read_apps(configured(by_key, second), WALL)
    assert list(apps) == ["shop"]
    assert str(problem) == f"x.toml: apns.apps[1].key: {other} is not the key that app 'shop' has under the same key id"


def test_a_certificate_for_another_topic_is_refused(by_certificate: ApnsAppConfig) -> None:
    problem = only(replace(by_certificate, bundle_id="com.example.other"))
    assert problem.key == "apns.apps[0].certificate"
    assert f"the certificate is not for com.example.other but for {BUNDLE}" in problem.text


def test_each_topic_that_a_certificate_lacks_is_said(by_certificate: ApnsAppConfig) -> None:
    found = said(replace(by_certificate, topics=(f"{BUNDLE}.voip", f"{BUNDLE}.complication")))
    assert len(found) == 1
    assert f"is not for {BUNDLE}.complication" in found[0]


def test_a_certificate_for_the_other_environment_is_refused_once(by_certificate: ApnsAppConfig) -> None:
    write_private(Path(by_certificate.certificate), certificate({PRODUCTION: b"\x05\x00"}))
    problem = only(replace(by_certificate, environment="sandbox", topics=("com.example.more",)))
    assert problem.text == f"{by_certificate.certificate}: the certificate is not for sandbox but for production"


def test_what_apple_takes_with_a_key_only_is_refused_with_a_certificate(by_certificate: ApnsAppConfig) -> None:
    topic = f"{BUNDLE}.push-type.liveactivity"
    write_private(Path(by_certificate.certificate), certificate({**BOTH, TOPICS: topic_list(BUNDLE, topic)}))
    problem = only(replace(by_certificate, topics=(topic,)))
    assert problem.key == "apns.apps[0].topics"
    assert "with a .p8 key only" in problem.text


def test_a_certificate_that_ends_soon_is_a_warning(by_certificate: ApnsAppConfig) -> None:
    assert said(by_certificate) == []
    problem = only(by_certificate, WALL + 10 * 86_400)
    assert (problem.severity, problem.text) == (
        "warning",
        f"{by_certificate.certificate} expires in 20 days: renew it in Apple's developer account",
    )


def test_an_expired_certificate_is_an_error_that_keeps_no_server_from_starting(by_certificate: ApnsAppConfig) -> None:
    late = WALL + 33 * 86_400
    problem = only(by_certificate, late)
    assert "has expired 3 days ago" in problem.text
    assert list(Apps(configured(by_certificate), lambda: late).all) == ["news"]


def test_a_certificate_and_the_key_of_another_are_refused_as_the_key(by_certificate: ApnsAppConfig) -> None:
    write_private(Path(by_certificate.key), pem(ec.generate_private_key(ec.SECP256R1())))
    assert only(by_certificate).key == "apns.apps[0].key"


def test_what_is_no_certificate_is_refused_as_the_certificate(by_certificate: ApnsAppConfig) -> None:
    write_private(Path(by_certificate.certificate), b"no certificate")
    problem = only(by_certificate)
    assert problem.key == "apns.apps[0].certificate"
    assert "openssl pkcs12" in problem.text


@pytest.mark.parametrize(
    ("content", "text"), [(None, "cannot be read: No such file"), (b"nothing", "holds no PEM certificate that can be read")]
)
def test_a_ca_file_that_is_none_is_one_error(by_key: ApnsAppConfig, tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    problem = only(replace(by_key, host="localhost", ca=str(path)))
    assert problem.key == "apns.apps[0].ca"
    assert problem.text.startswith(f"{path} {text}")


def test_a_server_certificate_is_no_ca(by_key: ApnsAppConfig, tmp_path: Path) -> None:
    path = tmp_path / "server.crt"
    path.write_bytes(CertificateAuthority.create("simulated").issue_server(["localhost"]).certificate_pem)
    assert "is not a CA certificate" in only(replace(by_key, host="localhost", ca=str(path)), 1.8e9).text


def test_a_host_that_tls_cannot_take_is_an_error_even_where_the_rules_were_not_asked(by_key: ApnsAppConfig) -> None:
    assert only(replace(by_key, host="x" * 64 + ".example")).key == "apns.apps[0].host"


def test_the_first_error_is_raised_at_a_start(by_key: ApnsAppConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        in_force(by_key, replace(by_key, name="other", bundle_id="com.example.other", key="/nowhere"))
    assert (caught.value.file, caught.value.key) == ("x.toml", "apns.apps[1].key")


# -------------------------------------------------------------------------------------------------------------------- reload


def test_a_reload_of_the_same_files_changes_nothing_and_costs_no_provider_token(by_key: ApnsAppConfig) -> None:
    apps = in_force(by_key)
    shop = apps.all["shop"]
    token = apps.provider_token(shop.route)
    assert apps.reload() == []
    assert apps.all["shop"] == shop
    assert apps.provider_token(shop.route) is token


def test_a_new_key_takes_over_with_a_provider_token_of_its_own(by_key: ApnsAppConfig, tmp_path: Path) -> None:
    apps = in_force(by_key)
    old = apps.all["shop"]
    new_key = write_private(tmp_path / "AuthKey_KEY7654321.p8", pem(ec.generate_private_key(ec.SECP256R1())))
    assert apps.reload(configured(replace(by_key, key=new_key, key_id="KEY7654321"))) == []
    new = apps.all["shop"]
    assert new.route != old.route
    assert apps.routes() == {new.route}
    token = apps.provider_token(new.route)
    assert token is not None
    assert token.key.key_id == "KEY7654321"
    with pytest.raises(KeyError):
        apps.provider_token(old.route)


def test_another_key_under_the_same_id_is_another_epoch(by_key: ApnsAppConfig) -> None:
    apps = in_force(by_key)
    before = apps.provider_token(apps.all["shop"].route)
    assert before is not None
    before.bearer(0.0, WALL)
    write_private(Path(by_key.key), pem(ec.generate_private_key(ec.SECP256R1())))
    apps.reload()
    after = apps.provider_token(apps.all["shop"].route)
    assert after is not None
    after.bearer(1.0, WALL)
    assert after.epoch > before.epoch


def test_a_renewed_certificate_takes_over(by_certificate: ApnsAppConfig) -> None:
    apps = in_force(by_certificate)
    old = apps.all["news"].route
    write_private(Path(by_certificate.certificate), certificate(BOTH, days=(-1, 400)))
    assert apps.reload() == []
    assert apps.all["news"].route != old


def test_a_broken_file_leaves_its_app_as_it_was_and_the_others_go_on(by_key: ApnsAppConfig, by_certificate: ApnsAppConfig) -> None:
    news = replace(by_certificate, bundle_id=f"{BUNDLE}.voip")
    apps = in_force(by_key, news)
    before = dict(apps.all)
    write_private(Path(by_key.key), b"broken")
    write_private(Path(news.certificate), certificate({**BOTH, TOPICS: topic_list(f"{BUNDLE}.voip")}, days=(-1, 400)))
    (problem,) = apps.reload()
    assert problem.key == "apns.apps[0].key"
    assert apps.all["shop"] == before["shop"]
    assert apps.all["news"] != before["news"]
    assert apps.provider_token(apps.all["shop"].route) is not None


def test_an_expired_certificate_does_not_take_the_place_of_a_good_one(by_certificate: ApnsAppConfig) -> None:
    apps = in_force(by_certificate)
    before = apps.all["news"]
    write_private(Path(by_certificate.certificate), certificate(BOTH, days=(-30, -3)))
    (problem,) = apps.reload()
    assert "has expired 3 days ago" in problem.text
    assert apps.all["news"] == before


def test_a_new_app_comes_and_one_that_is_gone_goes(by_key: ApnsAppConfig) -> None:
    apps = in_force(by_key)
    apps.reload(configured(replace(by_key, name="other", bundle_id="com.example.other")))
    assert list(apps.all) == ["other"]
    assert apps.named("shop") is None
    assert apps.of_token(BUNDLE, sandbox=False) is None
    assert len(apps) == 1


def test_a_new_app_with_a_broken_file_is_left_out_until_it_is_mended(by_key: ApnsAppConfig, tmp_path: Path) -> None:
    late = replace(by_key, name="late", bundle_id="com.example.late", key=str(tmp_path / "late.p8"), key_id="KEY7654321")
    apps = in_force(by_key)
    assert len(apps.reload(configured(by_key, late))) == 1
    assert list(apps.all) == ["shop"]
    write_private(tmp_path / "late.p8", pem(ec.generate_private_key(ec.SECP256R1())))
    assert apps.reload() == []
    assert set(apps.all) == {"shop", "late"}


def test_an_app_that_stays_as_it_was_keeps_its_key_though_another_app_has_a_new_one_under_its_id(
    by_key: ApnsAppConfig, tmp_path: Path
) -> None:
    apps = in_force(by_key)
    new = write_private(tmp_path / "new.p8", pem(ec.generate_private_key(ec.SECP256R1())))
    Path(by_key.key).unlink()
    apps.reload(configured(by_key, replace(by_key, name="other", bundle_id="com.example.other", key=new)))
    shop, other = (apps.provider_token(apps.all[name].route) for name in ("shop", "other"))
    assert shop is not None
    assert other is not None
    assert shop.key != other.key


def test_who_watches_is_told_of_each_reload(by_key: ApnsAppConfig) -> None:
    apps = in_force(by_key)
    seen: list[dict[str, App]] = []
    apps.watch(lambda: seen.append(dict(apps.all)))
    apps.reload()
    write_private(Path(by_key.key), b"")
    apps.reload()
    assert seen == [dict(apps.all)] * 2


@given(steps=st.lists(st.sampled_from(["good", "other", "broken", "gone", "public"]), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_whatever_becomes_of_the_file_the_last_good_key_is_in_force(by_key: ApnsAppConfig, steps: list[str]) -> None:
    path = Path(by_key.key)
    keys = {"good": KEY, "other": ec.generate_private_key(ec.SECP256R1())}
    write_private(path, pem(KEY))
    apps = in_force(by_key)
    wanted = KEY
    for step in steps:
        if step == "gone":
            path.unlink(missing_ok=True)
        else:
            write_private(
                path,
                pem(keys[step]) if step in keys else pem(KEY) if step == "public" else b"-",
                0o644 if step == "public" else 0o600,
            )
        wanted = keys.get(step, wanted)
        assert bool(apps.reload()) is (step not in keys)
        credential = apps.all["shop"].route.credential
        assert isinstance(credential, SigningKey)
        assert credential.key.public_key() == wanted.public_key()
        assert apps.provider_token(apps.all["shop"].route) is not None


def test_neither_key_nor_certificate_is_in_a_repr(by_key: ApnsAppConfig, by_certificate: ApnsAppConfig) -> None:
    apps = in_force(by_key, replace(by_certificate, bundle_id=f"{BUNDLE}.voip"))
    assert "PRIVATE" not in repr(dict(apps.all))
    assert "BEGIN" not in repr(apps.routes())
