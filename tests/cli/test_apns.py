"""`streampush apns send`: what it sends, how it says what became of it, and what it refuses."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from streampush.apns.outcome import Delivered, NotSent, Outcome, Refused, Rejected, Unknown, Why
from streampush.apns.push import ApnsPush, PushType, check_push
from streampush.apns.simulator import Orders, SigningKey, SimulatedApple, Validation, mint_key
from streampush.apns.simulator.orders import Order, Reject, Stall
from streampush.apns.simulator.reasons import Reason
from streampush.apns.simulator.server import AppleServer, listen
from streampush.cli.alert_options import alert_options
from streampush.cli.apns import Sent, choose, deliver, make_push, report
from streampush.cli.apns_sim import SimulatorFiles
from streampush.cli.exits import Failure
from streampush.cli.main import main
from streampush.config import ApnsAppConfig, ApnsConfig, Config
from tests.apns.minting import BOTH, KEY, NOW, certificate, pem, write_private
from tests.cli import commands
from tests.support import make_files

TOKEN = "a1" * 32
APP = ApnsAppConfig("shop", "com.example.shop", key="k.p8", team_id="SIMTEAM001", key_id="SIMKEY0001", sound="ping.caf")
NOTHING: dict[str, Any] = {
    "body": None,
    **dict.fromkeys(("title", "subtitle", "badge", "sound", "category", "thread_id", "interruption_level")),
    "relevance_score": None,
    "mutable_content": False,
    "custom": None,
    "background": False,
    "path": None,
    "push_type": None,
    "topic": None,
    "priority": None,
    "collapse_id": "",
    "ttl": None,
}


def made(**options: Any) -> ApnsPush:
    push = make_push(APP, TOKEN, NOTHING | options)
    check_push(push)
    return push


# ------------------------------------------------------------------------------------------------------------------- the push


def test_an_alert_has_the_defaults_of_its_app() -> None:
    push = made(title="Hi", body="there")
    assert json.loads(push.payload) == {"aps": {"alert": {"title": "Hi", "body": "there"}, "sound": "ping.caf"}}
    assert (push.topic, push.push_type, push.priority) == ("com.example.shop", PushType.ALERT, 10)
    assert push.expiration is not None
    assert abs(push.expiration - time.time() - 86_400) < 60


def test_an_alert_says_all_that_one_of_a_message_may_say() -> None:
    options = ("--title", "t", "--thread-id", "i", "--category", "c", "--interruption-level", "passive", "--custom", '{"a": 1}')
    found: list[ApnsPush] = []

    @click.command()
    @alert_options
    def command(**options: Any) -> None:
        found.append(made(**options))

    result = CliRunner().invoke(command, [*options, "--mutable-content", "--relevance-score", "0.5", "--badge", "0"])
    assert result.exit_code == 0, result.output
    aps = {"alert": {"title": "t"}, "badge": 0, "sound": "ping.caf", "thread-id": "i", "category": "c", "mutable-content": 1}
    document = {"aps": aps | {"interruption-level": "passive", "relevance-score": 0.5}, "a": 1}
    assert json.loads(found[0].payload) == document


def test_a_background_push_shows_nothing_and_takes_its_time() -> None:
    push = made(background=True)
    assert json.loads(push.payload) == {"aps": {"content-available": 1}}
    assert (push.push_type, push.priority) == (PushType.BACKGROUND, 5)


def test_a_payload_comes_from_a_file_with_the_topic_of_its_type(tmp_path: Path) -> None:
    path = tmp_path / "payload.json"
    path.write_text('{"aps": {}, "x": 1}')
    push = made(path=path, push_type="voip", ttl=0.0)
    assert (push.topic, push.payload, push.expiration) == ("com.example.shop.voip", b'{"aps":{},"x":1}', 0)


@pytest.mark.parametrize(("content", "problem"), [("{", "is no JSON"), ("[1]", "is no JSON object"), ("[" * 50_000, "is no JSON")])
def test_a_file_that_is_no_payload_is_named(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "payload.json"
    path.write_text(content)
    with pytest.raises(Failure, match=problem):
        made(path=path)


def test_a_payload_and_an_alert_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("{}")
    for part in ({"body": "x"}, {"badge": 0}, {"custom": {}}, {"mutable_content": True}):
        with pytest.raises(click.UsageError, match="not both"):
            made(path=tmp_path / "p", **part)
    with pytest.raises(click.UsageError, match="needs --payload"):
        made(push_type="voip")


def test_the_only_app_needs_no_name_and_several_do() -> None:
    one = Config(apns=ApnsConfig(apps=(APP,)))
    assert choose(one, None) is APP
    two = Config(apns=ApnsConfig(apps=(APP, ApnsAppConfig("news"))))
    assert choose(two, "shop") is APP
    for config, name, problem in (
        (two, None, "say which one with --app: shop, news"),
        (two, "shp", "there is no app 'shp', there are: shop, news"),
        (Config(file="x.toml"), None, r"x\.toml has no \[\[apns\.apps\]\]"),
    ):
        with pytest.raises(Failure, match=problem):
            choose(config, name)


# ----------------------------------------------------------------------------------------------------------------- the report


def reported(outcome: Outcome, fault: str = "", *, as_json: bool = False) -> tuple[int, str]:
    """The exit status and what is said, on either stream."""
    sent = Sent(ApnsPush(TOKEN, b"{}", "t", apns_id="the-id"), outcome, fault, 0.05)
    return commands.reported(lambda: report(sent, as_json=as_json))


def test_what_apple_took_is_said_with_its_id() -> None:
    assert reported(Delivered("the-id")) == (0, "delivered to Apple in 50 ms, apns-id the-id\n")


@pytest.mark.parametrize(
    ("outcome", "fault", "status", "text"),
    [
        (Rejected(410, "Unregistered"), "", 3, "410 Unregistered: the app is no longer on the device, or not registered"),
        (Rejected(400, "BadTopic"), "", 3, "400 BadTopic: the topic is not valid; compare the app's bundle id"),
        (Rejected(403, "InvalidProviderToken"), "", 5, "403 InvalidProviderToken: the provider token is not valid"),
        (Rejected(500, ""), "", 3, "rejected by Apple: 500, without a reason"),
        (NotSent(Why.NO_CONNECTION), "Connection refused", 4, "not sent: Connection refused"),
        (NotSent(Why.DEADLINE), "", 4, "not sent: deadline"),
        (Refused(Why.GONE_AWAY), "", 4, "not sent: gone away"),
        (Unknown(Why.NO_ANSWER), "", 4, "it was written and may have arrived: no answer"),
    ],
)
def test_what_apple_did_not_take_is_one_line_with_its_own_status(outcome: Outcome, fault: str, status: int, text: str) -> None:
    code, said = reported(outcome, fault)
    assert code == status
    commands.assert_one_line(said, text)


@pytest.mark.parametrize(
    ("outcome", "document"),
    [
        (Delivered("the-id"), {"outcome": "delivered"}),
        (Rejected(410, "Unregistered"), {"outcome": "rejected", "status": 410, "reason": "Unregistered"}),
        (NotSent(Why.QUEUE_FULL), {"outcome": "not_sent", "reason": "queue_full"}),
        (Unknown(Why.NO_ANSWER), {"outcome": "unknown", "reason": "no_answer"}),
    ],
)
def test_a_program_gets_a_json_object(outcome: Outcome, document: dict[str, Any]) -> None:
    line = reported(outcome, as_json=True)[1].splitlines()[0]
    assert json.loads(line) == document | {"apns_id": "the-id", "seconds": 0.05}


# ---------------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    make_files(tmp_path, devices=(), publishers=())
    write_private(tmp_path / "apple.p8", mint_key().p8)
    path = tmp_path / "streampush.toml"
    path.write_text(
        '[tls]\ncertificate = "server.crt"\nkey = "secrets/server.key"\nclient_ca = "ca.crt"\n'
        '[[apns.apps]]\nname = "shop"\nbundle_id = "com.example.shop"\nkey = "apple.p8"\n'
        'team_id = "SIMTEAM001"\nkey_id = "SIMKEY0001"\n'
    )
    return path


def run(toml: Path, *arguments: str, given: str = "") -> Result:
    return CliRunner().invoke(main, ["apns", "send", "--config", str(toml), *arguments], input=given)


@pytest.mark.parametrize(
    ("arguments", "given", "problem"),
    [
        (["xyz", "Hello"], "", "device_token: is not hexadecimal"),
        (["-", "Hello"], "secret\n", "device_token: is not hexadecimal"),
        (["-", "Hello"], "", "device_token: is empty"),
        ([TOKEN], "", "alert: says nothing"),
        ([TOKEN, "Hello", "--background"], "", "alert: a background push shows and plays nothing"),
        ([TOKEN, "x" * 5000], "", "bytes of JSON"),
        ([TOKEN, "Hello", "--topic", "a b"], "", "topic: is no bundle id"),
        ([TOKEN, "Hello", "--collapse-id", "x" * 65], "", "collapse_id: 65 bytes"),
        ([TOKEN, "Hello", "--app", "other"], "", "there is no app 'other'"),
    ],
)
def test_what_cannot_be_a_push_is_refused_before_anybody_is_asked(
    toml: Path, arguments: list[str], given: str, problem: str
) -> None:
    result = run(toml, *arguments, given=given)
    assert result.exit_code == 1
    assert problem in result.output
    assert "secret" not in result.output
    assert TOKEN not in result.output


def test_a_configuration_that_is_wrong_is_one_line(toml: Path) -> None:
    result = run(toml, TOKEN, "Hello", "--set", "apns.max_wait=0")
    assert result.exit_code == 1
    assert "apns.max_wait: 0.0 s, allowed are 0.1 to 3600" in result.output


# ------------------------------------------------------------------------------------------------------------- against Apple


def asynchronous(test: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Deferred[None]]:
    def wrapper(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(test(self))

    return wrapper


class DeliverTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="streampush-apns-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.files = SimulatorFiles(self.root)
        self.files.mint_certificate("localhost")
        self.minted = mint_key()
        write_private(self.root / "apple.p8", self.minted.p8)

    def start(self, *orders: Order, keys: tuple[SigningKey, ...] | None = None, client_ca: bytes = b"") -> SimulatedApple:
        apple = SimulatedApple(
            Validation(keys=(self.minted.key,) if keys is None else keys),
            Orders(orders),
            wall_offset=time.time() - reactor.seconds(),  # type: ignore[attr-defined]  # a module stands for the reactor
        )
        self.port: AppleServer = listen(
            reactor,  # type: ignore[arg-type]  # the same
            apple,
            certificate=self.files.certificate.read_bytes(),
            key=self.files.key.read_bytes(),
            client_ca=client_ca,
            host="127.0.0.1",
            port=0,
        )
        self.addCleanup(self.port.stop)
        return apple

    def configured(self, **changes: Any) -> Config:
        given: dict[str, Any] = {
            "name": "shop",
            "bundle_id": "com.example.shop",
            "environment": "sandbox",
            "host": "127.0.0.1",
            "port": self.port.port,
            "ca": str(self.files.ca),
            "key": str(self.root / "apple.p8"),
            "team_id": "SIMTEAM001",
            "key_id": "SIMKEY0001",
        }
        return Config(apns=ApnsConfig(apps=(ApnsAppConfig(**(given | changes)),)))

    async def sent(self, timeout: float = 10.0, **changes: Any) -> Sent:
        return await deliver(reactor, self.configured(**changes), made(body="Hello"), timeout)

    @asynchronous
    async def test_apple_gets_the_push_that_is_reported(self) -> None:
        apple = self.start()
        sent = await self.sent()
        self.assertIsInstance(sent.outcome, Delivered)
        self.assertEqual(apple.ledger.times_accepted(sent.push.apns_id), 1)

    @asynchronous
    async def test_a_rejection_is_reported_at_once_and_not_repeated(self) -> None:
        apple = self.start(Reject(Reason.SERVICE_UNAVAILABLE))
        sent = await self.sent()
        self.assertEqual(sent.outcome, Rejected(503, "ServiceUnavailable", apns_id=sent.push.apns_id))
        self.assertEqual(apple.ledger.requests, 1)

    @asynchronous
    async def test_a_key_that_apple_does_not_know_is_reported_at_once(self) -> None:
        self.start(keys=(mint_key("OTHERKEY01").key,))
        sent = await self.sent()
        assert isinstance(sent.outcome, Rejected)
        self.assertEqual(sent.outcome.reason, "InvalidProviderToken")

    @asynchronous
    async def test_a_certificate_is_as_good_as_a_key(self) -> None:
        today = (dt.datetime.now(dt.UTC) - NOW).days
        chain = certificate(BOTH, uid="com.example.shop", days=(today - 10, today + 100))
        apple = self.start(keys=(), client_ca=chain)
        path = write_private(self.root / "push.pem", chain + pem(KEY))
        sent = await self.sent(certificate=path, key="", team_id="", key_id="")
        self.assertIsInstance(sent.outcome, Delivered, sent)
        self.assertEqual(apple.ledger.times_accepted(sent.push.apns_id), 1)

    @asynchronous
    async def test_a_server_of_another_ca_is_named_as_the_fault(self) -> None:
        self.start()
        other = SimulatorFiles(self.root / "other")
        other.mint_certificate("localhost")
        sent = await self.sent(ca=str(other.ca))
        self.assertEqual(sent.outcome, NotSent(Why.NO_CONNECTION))
        self.assertIn("not trusted", sent.fault)

    @asynchronous
    async def test_no_answer_is_unknown_in_time(self) -> None:
        self.start(Stall())
        sent = await self.sent(timeout=2)
        self.assertEqual(sent.outcome, Unknown(Why.NO_ANSWER))
        self.assertLess(sent.seconds, 60)


def test_the_command_pushes_from_a_process_of_its_own(tmp_path: Path) -> None:
    """The simulator in one process, the command in another."""
    script = str(Path(sysconfig.get_path("scripts"), "streampush"))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    simulator = subprocess.Popen(
        [sys.executable, script, "apns-sim", "--port", "0", "--mint", str(tmp_path / "sim"), "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert simulator.stdout is not None
        port = simulator.stdout.readline().split(",")[0].rpartition(":")[2]
        make_files(tmp_path, devices=(), publishers=())
        toml = tmp_path / "streampush.toml"
        toml.write_text(
            '[tls]\ncertificate = "server.crt"\nkey = "secrets/server.key"\nclient_ca = "ca.crt"\n'
            '[[apns.apps]]\nname = "shop"\nbundle_id = "com.example.shop"\nenvironment = "sandbox"\n'
            f'host = "127.0.0.1"\nport = {port}\nca = "sim/ca.crt"\n'
            'key = "sim/AuthKey_SIMKEY0001.p8"\nteam_id = "SIMTEAM001"\nkey_id = "SIMKEY0001"\n'
        )
        command = [sys.executable, script, "apns", "send", "--config", str(toml), "-", "Hello"]
        done = subprocess.run(command, input=TOKEN, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("delivered to Apple in ")
    finally:
        simulator.terminate()
        simulator.wait(30)
        assert simulator.stdout is not None
        simulator.stdout.close()
