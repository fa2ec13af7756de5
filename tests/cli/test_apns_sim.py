"""`streampush apns-sim`: what it makes, what it says, what it refuses."""

from __future__ import annotations

import stat
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from streampush.apns.simulator import Orders, Validation, mint_key, preset, read_key
from streampush.cli.apns_sim import Simulation, Simulator, SimulatorFiles
from streampush.cli.exits import Failure
from streampush.cli.main import main
from tests.apns.simulator.providers import PAYLOAD, TOKEN, make_jwt
from tests.apns.simulator.visiting import Visitor, visit


class RunningTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.files = SimulatorFiles(Path(directory.name) / "apns")
        self.files.mint_certificate("localhost")
        self.minted = mint_key()
        self.lines: list[str] = []
        self.running: Deferred[None] | None = None

    def start(self, orders: Orders, *, quiet: bool = False, port: int = 0, clock_skew: float = 0.0) -> None:
        simulation = Simulation(
            "127.0.0.1",
            port,
            self.files,
            self.files.p8("K"),
            Validation(keys=(self.minted.key,)),
            orders,
            100,
            clock_skew=clock_skew,
            quiet=quiet,
            show=self.lines.append,
        )
        assert isinstance(reactor, ReactorBase)
        self.running = Deferred.fromCoroutine(Simulator(reactor, simulation).work())

    async def push(self, want: int) -> Visitor:
        port = int(self.lines[0].split(",")[0].rpartition(":")[2])
        jwt = make_jwt(self.minted, int(time.time()))
        return await visit("127.0.0.1", port, want, self.files.ca.read_bytes(), jwt)

    async def stop(self) -> None:
        assert self.running is not None
        self.running.cancel()
        with pytest.raises(CancelledError):
            await self.running

    async def test_it_serves_and_tells_each_push_without_its_token(self) -> None:
        self.start(Orders())
        visitor = await self.push(2)
        await self.stop()
        self.assertEqual(visitor.statuses, [200, 200])
        pushes = [line for line in self.lines if "  200  " in line]
        self.assertEqual(len(pushes), 2)
        self.assertIn(f"com.example.app alert  {len(PAYLOAD)} bytes", pushes[0])
        self.assertNotIn(TOKEN, "".join(self.lines))
        self.assertIn("connections 1, requests 2, accepted 2", self.lines)

    async def test_orders_are_told_and_carried_out_and_counted(self) -> None:
        self.start(preset("gone"), quiet=True)
        visitor = await self.push(10)
        await self.stop()
        self.assertEqual(sorted(visitor.statuses), [200] * 9 + [410])
        self.assertIn("  order   reject reason=Unregistered every=10", self.lines)
        self.assertEqual(self.lines[-2:], ["connections 1, requests 10, accepted 9", "  Unregistered 1"])

    async def test_a_clock_that_is_behind_takes_a_token_for_one_from_the_future(self) -> None:
        self.start(Orders(), clock_skew=-600.0)
        visitor = await self.push(1)
        await self.stop()
        self.assertEqual(visitor.statuses, [403])
        self.assertIn("  InvalidProviderToken 1", self.lines)

    async def test_a_port_that_is_taken_is_a_failure(self) -> None:
        self.start(Orders())
        first, port = self.running, int(self.lines[0].split(",")[0].rpartition(":")[2])
        self.start(Orders(), port=port)
        assert self.running is not None
        with pytest.raises(Failure, match="cannot listen"):
            await self.running
        self.running = first
        await self.stop()


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["apns-sim", *arguments])


def test_presets_are_listed() -> None:
    result = invoke("--presets")
    assert result.exit_code == 0
    assert "refuse           every tenth stream is refused" in result.output


def test_what_is_no_preset_and_no_file_is_wrong_usage() -> None:
    result = invoke("--orders", "nope")
    assert (result.exit_code, "'nope' is neither a preset nor a file" in result.output) == (2, True)


def test_a_file_with_a_mistake_is_named_with_it(tmp_path: Path) -> None:
    file = tmp_path / "orders.toml"
    file.write_text("[[order]]\nkind = 'explode'")
    result = invoke("--orders", str(file), "--mint", str(tmp_path))
    assert result.exit_code == 1
    assert f"{file}: order 1: kind 'explode'" in result.output


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key.p8"
    key.write_text("nonsense")
    result = invoke("--key", str(key), "--mint", str(tmp_path))
    assert result.exit_code == 1
    assert "not a private key in PEM" in result.output


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("--mint", str(tmp_path / "file" / "below"))
    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.output


def test_what_was_minted_stays_and_keys_are_the_owners_alone(tmp_path: Path) -> None:
    files = SimulatorFiles(tmp_path)
    for _ in range(2):
        files.mint_certificate("localhost")
        files.mint_key("KEY0000001", "TEAM")
        contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(contents) == ["AuthKey_KEY0000001.p8", "ca.crt", "server.crt", "server.key"]
    assert contents == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for path in (files.key, files.p8("KEY0000001")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read_key(contents["AuthKey_KEY0000001.p8"], "KEY0000001", "TEAM")
