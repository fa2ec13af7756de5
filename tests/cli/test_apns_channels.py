"""`streampush apns channels` and `streampush apns broadcast`: what they ask for, how they say what came of it, what they refuse."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from streampush.apns.broadcast import Channel, Storage
from streampush.apns.broadcast_sender import Created, Deleted, Listed, Published
from streampush.apns.outcome import NotSent, Refused, Rejected, Unknown, Why
from streampush.apns.simulator import Orders, SimulatedApple, Validation, mint_key
from streampush.apns.simulator.orders import Order, Stall
from streampush.apns.simulator.server import listen
from streampush.cli.apns_channels import Asked, Ended, ask, report
from streampush.cli.apns_sim import SimulatorFiles
from streampush.cli.main import main
from streampush.config import ApnsAppConfig, ApnsConfig, Config
from tests.apns.minting import BOTH, KEY, NOW, certificate, pem, write_private
from tests.cli import commands
from tests.support import make_files

CHANNEL = "AAAAAAAAAAAAAAAAAAAAAA=="
TOML = (
    '[tls]\ncertificate = "server.crt"\nkey = "secrets/server.key"\nclient_ca = "ca.crt"\n'
    '[[apns.apps]]\nname = "shop"\nbundle_id = "com.example.shop"\nenvironment = "sandbox"\n'
    'team_id = "SIMTEAM001"\nkey_id = "SIMKEY0001"\n'
)

# ----------------------------------------------------------------------------------------------------------------- the report


def reported(ended: Ended, fault: str = "", *, as_json: bool = False) -> tuple[int, str]:
    """The exit status and what is said, on either stream."""
    return commands.reported(lambda: report(Asked(ended, fault, 0.05), as_json=as_json))


@pytest.mark.parametrize(
    ("ended", "text", "document"),
    [
        (Created(CHANNEL), CHANNEL, {"outcome": "created", "channel": CHANNEL}),
        (Listed(("AA==", "BB==")), "AA==\nBB==", {"outcome": "listed", "channels": ["AA==", "BB=="]}),
        (
            Channel(CHANNEL, Storage.LATEST),
            f"{CHANNEL} keeps the latest broadcast",
            {"outcome": "found", "channel": CHANNEL, "keeps": "latest"},
        ),
        (
            Channel(CHANNEL, Storage.NOTHING),
            f"{CHANNEL} keeps nothing",
            {"outcome": "found", "channel": CHANNEL, "keeps": "nothing"},
        ),
        (Deleted(CHANNEL), f"deleted {CHANNEL}", {"outcome": "deleted", "channel": CHANNEL}),
        (Published("the-id"), "taken by Apple in 50 ms, request id the-id", {"outcome": "published", "request_id": "the-id"}),
    ],
)
def test_what_was_done_is_said_to_people_and_programs(ended: Ended, text: str, document: dict[str, Any]) -> None:
    assert reported(ended) == (0, text + "\n")
    status, line = reported(ended, as_json=True)
    assert (status, json.loads(line)) == (0, document | {"seconds": 0.05})


def test_no_channels_are_no_lines() -> None:
    assert reported(Listed(())) == (0, "")


@pytest.mark.parametrize(
    ("ended", "fault", "status", "text"),
    [
        (Rejected(400, "ChannelNotRegistered"), "", 3, "400 ChannelNotRegistered: there is no such channel in this environment"),
        (Rejected(403, "InvalidProviderToken"), "", 5, "403 InvalidProviderToken: the provider token is not valid"),
        (NotSent(Why.NO_CONNECTION), "Connection refused", 4, "not sent: Connection refused"),
        (Refused(Why.GONE_AWAY), "", 4, "not sent: gone away"),
        (Unknown(Why.NO_ANSWER), "", 4, "it was written and may have been carried out: no answer"),
    ],
)
def test_what_was_not_done_is_one_line_with_its_own_status(ended: Ended, fault: str, status: int, text: str) -> None:
    code, said = reported(ended, fault)
    assert code == status
    commands.assert_one_line(said, text)


def test_a_program_is_told_what_was_not_done() -> None:
    status, said = reported(Rejected(400, "TopicMismatch"), as_json=True)
    assert status == 3
    assert json.loads(said.splitlines()[0]) == {"outcome": "rejected", "status": 400, "reason": "TopicMismatch", "seconds": 0.05}


# ---------------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    make_files(tmp_path, devices=(), publishers=())
    write_private(tmp_path / "apple.p8", mint_key().p8)
    path = tmp_path / "streampush.toml"
    path.write_text(TOML + 'key = "apple.p8"\n')
    return path


def run(toml: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["apns", *arguments, "--config", str(toml)])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["channels", "show", "no channel"], "channel_id: is not 1 to 128 characters of base64"),
        (["channels", "list", "--app", "other"], "there is no app 'other'"),
        (["channels", "create", "--set", "apns.max_wait=0"], "apns.max_wait: 0.0 s, allowed are 0.1 to 3600"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(toml: Path, arguments: list[str], problem: str) -> None:
    result = run(toml, *arguments)
    assert result.exit_code == 1
    assert problem in result.output


def test_a_payload_that_apple_would_not_take_is_refused(toml: Path, tmp_path: Path) -> None:
    path = tmp_path / "update.json"
    for content, problem in (("[1]", "is no JSON object"), (json.dumps({"aps": "x" * 5200}), "5120")):
        path.write_text(content)
        result = run(toml, "broadcast", CHANNEL, str(path))
        assert result.exit_code == 1
        assert problem in result.output
        assert "xxx" not in result.output


# ------------------------------------------------------------------------------------------------------------- against Apple


class AskTests(TestCase):
    timeout = 120

    def start(self, *orders: Order, client_ca: bytes = b"") -> Config:
        directory = tempfile.TemporaryDirectory(prefix="streampush-apns-")
        self.addCleanup(directory.cleanup)
        root = Path(directory.name)
        files = SimulatorFiles(root)
        files.mint_certificate("localhost")
        minted = mint_key()
        path = write_private(root / "apple.p8", minted.p8)
        self.apple = SimulatedApple(
            Validation(keys=() if client_ca else (minted.key,)),
            Orders(orders),
            wall_offset=time.time() - reactor.seconds(),  # type: ignore[attr-defined]  # a module stands for the reactor
        )
        server = listen(
            reactor,  # type: ignore[arg-type]  # the same
            self.apple,
            certificate=files.certificate.read_bytes(),
            key=files.key.read_bytes(),
            client_ca=client_ca,
            host="127.0.0.1",
            port=0,
        )
        self.addCleanup(server.stop)
        app = ApnsAppConfig(
            "shop",
            "com.example.shop",
            environment="sandbox",
            host="127.0.0.1",
            port=server.port,
            ca=str(files.ca),
            key=path,
            team_id="SIMTEAM001",
            key_id="SIMKEY0001",
        )
        return Config(apns=ApnsConfig(apps=(app,)))

    async def test_a_channel_is_made_at_apples(self) -> None:
        config = self.start()
        asked = await ask(
            reactor, config, lambda sender, app, deadline: sender.create(app, Storage.LATEST, deadline=deadline), 10.0
        )
        self.assertIsInstance(asked.ended, Created)
        self.assertEqual((len(self.apple.channels), asked.fault), (1, ""))

    async def test_a_certificate_is_as_good_as_a_key(self) -> None:
        today = (dt.datetime.now(dt.UTC) - NOW).days
        chain = certificate(BOTH, uid="com.example.shop", days=(today - 10, today + 100))
        config = self.start(client_ca=chain)
        (app,) = config.apns.apps
        path = write_private(Path(app.key).with_name("push.pem"), chain + pem(KEY))
        certified = replace(app, certificate=path, key="", team_id="", key_id="")
        config = Config(apns=ApnsConfig(apps=(certified,)))
        asked = await ask(
            reactor, config, lambda sender, app, deadline: sender.create(app, Storage.LATEST, deadline=deadline), 10.0
        )
        self.assertIsInstance(asked.ended, Created)
        self.assertEqual(len(self.apple.channels), 1)

    async def test_no_answer_is_unknown_in_time(self) -> None:
        config = self.start(Stall())
        asked = await ask(reactor, config, lambda sender, app, deadline: sender.list(app, deadline=deadline), 2)
        self.assertEqual(asked.ended, Unknown(Why.NO_ANSWER))
        self.assertLess(asked.seconds, 60)

    async def test_a_server_of_another_ca_is_named_as_the_fault(self) -> None:
        config = self.start()
        other = SimulatorFiles(Path(self.mktemp()))
        other.mint_certificate("localhost")
        (app,) = config.apns.apps
        strange = Config(apns=ApnsConfig(apps=(replace(app, ca=str(other.ca)),)))
        asked = await ask(reactor, strange, lambda sender, app, deadline: sender.list(app, deadline=deadline), 10.0)
        self.assertEqual(asked.ended, NotSent(Why.NO_CONNECTION))
        self.assertIn("not trusted", asked.fault)


def test_the_commands_ask_over_tls_from_processes_of_their_own(tmp_path: Path) -> None:
    """The simulator in one process, each command in another: create, list, show, broadcast, delete, and show again."""
    script = str(Path(sysconfig.get_path("scripts"), "streampush"))
    simulator = subprocess.Popen(
        [sys.executable, script, "apns-sim", "--port", "0", "--mint", str(tmp_path / "sim"), "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert simulator.stdout is not None
        port = simulator.stdout.readline().split(",")[0].rpartition(":")[2]
        make_files(tmp_path, devices=(), publishers=())
        toml, update = tmp_path / "streampush.toml", tmp_path / "update.json"
        toml.write_text(f'{TOML}host = "127.0.0.1"\nport = {port}\nca = "sim/ca.crt"\nkey = "sim/AuthKey_SIMKEY0001.p8"\n')
        update.write_text('{"aps": {"timestamp": 1790000000, "event": "update", "content-state": {"home": 1}}}')

        def done(*arguments: str) -> tuple[int, str, str]:
            command = [sys.executable, script, "apns", *arguments, "--config", str(toml)]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            return ended.returncode, ended.stdout, ended.stderr

        status, channel, said = done("channels", "create", "--keep-latest")
        channel = channel.strip()
        assert (status, said) == (0, "")
        assert done("channels", "list") == (0, f"{channel}\n", "")
        assert done("channels", "show", channel) == (0, f"{channel} keeps the latest broadcast\n", "")
        status, published, said = done("broadcast", channel, str(update), "--ttl", "60")
        assert (status, said) == (0, "")
        assert published.startswith("taken by Apple in ")
        assert done("channels", "delete", channel) == (0, f"deleted {channel}\n", "")
        status, _, said = done("channels", "show", channel)
        assert status == 3
        assert said.startswith("Error: rejected by Apple: 400 ChannelNotRegistered")
    finally:
        simulator.terminate()
        simulator.wait(30)
        assert simulator.stdout is not None
        simulator.stdout.close()
