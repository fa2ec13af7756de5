"""`streampush apns-sim`: a local Apple for development and tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from streampush.apns.simulator import (
    PRESETS,
    Environment,
    Kind,
    Orders,
    Processed,
    SigningKey,
    SimulatedApple,
    UpdateScope,
    Validation,
    describe,
    load_orders,
    mint_key,
    read_key,
)
from streampush.apns.simulator.server import listen
from streampush.cli.exits import Failure
from streampush.cli.pki import CertificateAuthority, write_secret
from streampush.cli.running import run

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class SimulatorFiles:
    """What lies in the simulator's directory."""

    root: Path

    @property
    def ca(self) -> Path:
        """The certificate that a client must trust."""
        return self.root / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.root / "server.crt"

    @property
    def key(self) -> Path:
        return self.root / "server.key"

    def p8(self, key_id: str) -> Path:
        """A signing key, named as Apple names its download."""
        return self.root / f"AuthKey_{key_id}.p8"

    def mint_certificate(self, host: str) -> None:
        """Writes CA and certificate unless they are there: clients need not be told anew after a restart."""
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.ca.exists() and self.certificate.exists() and self.key.exists()):
            authority = CertificateAuthority.create("streampush simulated Apple CA")
            authority.issue_server([*LOCAL_NAMES, *({host} - set(LOCAL_NAMES))]).write(self.certificate, self.key)
            self.ca.write_bytes(authority.issued.certificate_pem)

    def mint_key(self, key_id: str, team_id: str) -> None:
        """Writes a signing key unless it is there."""
        if not self.p8(key_id).exists():
            write_secret(self.p8(key_id), mint_key(key_id, team_id).p8)


@dataclass(frozen=True, slots=True)
class Simulation:
    """One run of the command. `clock_skew`: seconds that Apple's clock is ahead. `show` takes a line."""

    host: str
    port: int
    files: SimulatorFiles
    p8: Path
    validation: Validation
    orders: Orders
    max_streams: int
    client_ca: bytes = b""
    clock_skew: float = 0.0
    quiet: bool = False
    show: Callable[[str], None] = field(default=click.echo, repr=False)


def _show_presets(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        width = max(len(name) for name in PRESETS)
        for name, preset in PRESETS.items():
            click.echo(f"{name:{width}}  {preset.about}")
        context.exit()


@click.command(name="apns-sim", short_help="Be a local Apple that pushes can be tried on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=2197, show_default=True, help="0: a free one.")
@click.option(
    "--orders",
    "order_names",
    multiple=True,
    metavar="PRESET|FILE",
    help="What shall go wrong; see --presets, or a TOML or JSON file. May be given several times.",
)
@click.option(
    "--presets", is_flag=True, is_eager=True, expose_value=False, callback=_show_presets, help="List the presets and exit."
)
@click.option("--seed", type=int, help="Decides what chance decides.  [default: that of the file, or 0]")
@click.option(
    "--mint",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/apns-sim"),
    show_default=True,
    help="Directory of CA, server certificate and signing key; what is missing is made.",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Accept this .p8 in place of a minted one.",
)
@click.option("--key-id", default="SIMKEY0001", show_default=True, help="The key's id at Apple.")
@click.option("--team-id", default="SIMTEAM001", show_default=True, help="The team's id at Apple.")
@click.option("--topic", "topics", multiple=True, metavar="BUNDLE_ID", help="An app that exists.  [default: every one]")
@click.option("--production", is_flag=True, help="Be the production environment, not the sandbox.")
@click.option("--max-streams", type=click.IntRange(1), default=1000, show_default=True, help="Requests at once on a connection.")
@click.option("--per-device", type=click.IntRange(0), default=0, help="Pushes to a device in a second.  [default: no limit]")
@click.option(
    "--token-updates",
    type=click.Choice([scope.value for scope in UpdateScope]),
    default=UpdateScope.CONNECTION.value,
    show_default=True,
    help="Over what a new provider token within 20 minutes is one too many.",
)
@click.option(
    "--client-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM: take client certificates of these CAs.",
)
@click.option("--clock-skew", type=float, default=0.0, help="Seconds that Apple's clock is ahead; then answers have a date.")
@click.option("--quiet", is_flag=True, help="No line for each push.")
def apns_sim(**options: Any) -> None:
    """Be Apple's push service on this machine: TLS and HTTP/2, validation as Apple does it, misbehaviour on order.

    Prints where it listens, the CA that clients must trust and the signing key that it accepts, then a line for each push, with a
    hash in place of the device token. Ctrl-C ends it with a summary.
    """
    simulation = _simulation(**options)
    run(lambda reactor: Simulator(reactor, simulation).work())


def _simulation(
    host: str,
    port: int,
    directory: Path,
    key_file: Path | None,
    key_id: str,
    team_id: str,
    topics: tuple[str, ...],
    production: bool,
    per_device: int,
    token_updates: str,
    order_names: tuple[str, ...],
    seed: int | None,
    max_streams: int,
    client_ca: Path | None,
    clock_skew: float,
    quiet: bool,
) -> Simulation:
    files = SimulatorFiles(directory)
    p8 = key_file or files.p8(key_id)
    try:
        orders = _orders(order_names, seed)
        files.mint_certificate(host)
        if key_file is None:
            files.mint_key(key_id, team_id)
        key = _read_key(p8, key_id, team_id)
        client_pem = client_ca.read_bytes() if client_ca is not None else b""
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from error
    validation = Validation(
        keys=(key,),
        topics=frozenset(topics),
        environment=Environment.PRODUCTION if production else Environment.SANDBOX,
        update_scope=UpdateScope(token_updates),
        per_device=per_device,
        send_date=bool(clock_skew),
    )
    return Simulation(host, port, files, p8, validation, orders, max_streams, client_pem, clock_skew, quiet)


def _read_key(path: Path, key_id: str, team_id: str) -> SigningKey:
    try:
        return read_key(path.read_bytes(), key_id, team_id)
    except ValueError as error:
        raise Failure(f"{path}: {error}") from error


def _orders(names: tuple[str, ...], seed: int | None) -> Orders:
    """All that was asked for, in that order. The seed of the first file counts unless one is given."""
    orders = Orders()
    for name in names:
        if name in PRESETS:
            orders = Orders(orders.orders + PRESETS[name].orders.orders, orders.seed)
        elif Path(name).is_file():
            try:
                read = load_orders(Path(name).read_text(), name)
            except ValueError as error:
                raise Failure(str(error)) from error
            orders = Orders(orders.orders + read.orders, orders.seed or read.seed)
        else:
            raise click.UsageError(f"{name!r} is neither a preset nor a file; see --presets")
    return orders if seed is None else replace(orders, seed=seed)


class Simulator:
    """One run of the command, on a reactor."""

    def __init__(self, reactor: ReactorBase, simulation: Simulation) -> None:
        self._reactor = reactor
        self._simulation = simulation
        self._apple = SimulatedApple(
            simulation.validation,
            simulation.orders,
            wall_offset=time.time() - reactor.seconds() + simulation.clock_skew,
            max_streams=simulation.max_streams,
            kept=0,
            on_processed=None if simulation.quiet else self._processed,
        )

    async def work(self) -> None:
        """Serves until it is cancelled. Raises Failure if it cannot listen."""
        wanted = self._simulation
        try:
            server = listen(
                self._reactor,
                self._apple,
                certificate=wanted.files.certificate.read_bytes(),
                key=wanted.files.key.read_bytes(),
                client_ca=wanted.client_ca,
                host=wanted.host,
                port=wanted.port,
            )
        except (CannotListenError, ValueError) as error:
            raise Failure(f"cannot listen on {wanted.host} port {wanted.port}: {error}") from error
        except OSError as error:
            raise Failure(f"{error.filename}: {error.strerror}") from error
        self._introduce(server.host, server.port)
        forever: Deferred[None] = Deferred()
        try:
            await forever
        finally:
            await server.stop()
            self._sum_up()

    def _introduce(self, host: str, port: int) -> None:
        wanted = self._simulation
        (key,) = wanted.validation.keys
        shown = f"[{host}]" if ":" in host else host
        wanted.show(f"listening on {shown}:{port}, {wanted.validation.environment.value}")
        wanted.show(f"  CA      {wanted.files.ca}")
        wanted.show(f"  key     {wanted.p8}, key id {key.key_id}, team {key.team_id}")
        wanted.show(f"  topics  {', '.join(sorted(wanted.validation.topics)) or 'any'}")
        for order in wanted.orders.orders:
            wanted.show(f"  order   {describe(order)}")
        if wanted.orders.orders:
            wanted.show(f"  seed    {wanted.orders.seed}")

    def _processed(self, record: Processed, payload: bytes) -> None:
        outcome = f"{record.status} {record.reason}".rstrip()
        target = {Kind.PUSH: "token", Kind.BROADCAST: "broadcast to channel", Kind.CHANNELS: "manages channel"}[record.kind]
        kind = f"{record.topic} {record.push_type}".strip()
        self._simulation.show(
            f"{time.strftime('%H:%M:%S')}  {outcome}  {target} {record.token_hash}  {kind}  {record.payload_size} bytes  "
            f"{record.apns_id}  connection {record.connection} stream {record.stream_id}"
        )

    def _sum_up(self) -> None:
        ledger = self._apple.ledger
        self._simulation.show(f"connections {ledger.connections}, requests {ledger.requests}, accepted {ledger.accepted}")
        for reason, number in sorted(ledger.outcomes.items()):
            if reason:
                self._simulation.show(f"  {reason} {number}")
        if ledger.over_limit:
            self._simulation.show(f"  refused for being too many at once {ledger.over_limit}")
        for fault in ledger.faults:
            where = f"connection {fault.connection}" + (f" stream {fault.stream_id}" if fault.stream_id else "")
            self._simulation.show(f"  the client broke the protocol: {where}: {fault.code}: {fault.text}")
