"""`streampush nodes`, `drain`, `undrain` and `rebalance`: the nodes of a deployment, as an operator sees and orders them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from streampush.cli.asking import Where, failure_of, find_rest, question, rest_options
from streampush.cli.exits import Failure
from streampush.cli.running import run
from streampush.cli.words import counted, shown

COLUMNS = ("name", "state", "connections", "cap", "leaving", "handshakes/s", "free/s", "address")


@click.command(short_help="Which nodes are there?")
@rest_options("nodes")
def nodes(directory: Path | None, url: str | None, key_file: Path | None, as_json: bool) -> None:
    """List the nodes that live: state, connections, and how many handshakes per second each can make and has free.

    A * behind the handshakes: the node has made too few to have measured them.
    """
    where = find_rest(directory, url, key_file)
    answer = run(lambda reactor: question(reactor, where, "GET", "/v1/nodes"))
    for line in [json.dumps(answer, indent=2)] if as_json else render_nodes(_rows(answer, where)):
        click.echo(line)


@click.command(short_help="Send a node's connections to the others.")
@rest_options("nodes")
@click.argument("name")
def drain(directory: Path | None, url: str | None, key_file: Path | None, as_json: bool, name: str) -> None:
    """Let the node NAME take no new connections and send its own to the other nodes, as fast as these can take them.

    NAME may have a *, for the workers of one machine: 'node-1-*'. The readiness of a drained node goes red. The order ends with
    `streampush undrain`, or when the node starts anew. `streampush nodes` shows how far it is.
    """
    where = find_rest(directory, url, key_file)

    async def work(reactor: Any) -> None:
        told = await _order(reactor, where, name, "drain")
        rows = _rows(await question(reactor, where, "GET", "/v1/nodes"), where)
        if as_json:
            click.echo(json.dumps({"nodes": told}, indent=2))
            return
        for node in told:
            click.echo(f"{shown(node['name'])} is told to drain {counted(node['connections'], 'connection')}")
        leaving = {node["name"] for node in told}
        number = sum(node["connections"] for node in told)
        click.echo(outlook(number, [other for other in rows if other["name"] not in leaving]))

    run(work)


@click.command(short_help="Let a drained node serve again.")
@rest_options("nodes")
@click.argument("name")
def undrain(directory: Path | None, url: str | None, key_file: Path | None, as_json: bool, name: str) -> None:
    """Let the node NAME serve again; it may have a *. Connections that have left stay where they are: `streampush rebalance`."""
    where = find_rest(directory, url, key_file)
    told = run(lambda reactor: _order(reactor, where, name, "undrain"))
    for line in (
        [json.dumps({"nodes": told}, indent=2)] if as_json else [f"{shown(node['name'])} is told to serve" for node in told]
    ):
        click.echo(line)


@click.command(short_help="Give each node its share of the connections.")
@rest_options("nodes")
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
def rebalance(directory: Path | None, url: str | None, key_file: Path | None, as_json: bool, dry_run: bool) -> None:
    """Let each node that has more than its share of all connections send the surplus to the others; for when a node has joined.

    Shares are by the nodes' caps. Devices leave one after the other, as fast as the others can take them.
    """
    where = find_rest(directory, url, key_file)
    answer = run(lambda reactor: _ask(reactor, where, "/v1/nodes/rebalance", {"dry_run": dry_run}))
    for line in [json.dumps(answer, indent=2)] if as_json else render_moves(answer):
        click.echo(line)


async def _order(reactor: Any, where: Where, name: str, order: str) -> list[dict[str, Any]]:
    """The nodes that were told, as the server shows each."""
    names = [name]
    if "*" in name:
        rows = _rows(await question(reactor, where, "GET", "/v1/nodes"), where)
        names = [row["name"] for row in rows if fnmatchcase(row["name"], name)]
        if not names:
            raise Failure(f"no node is named like {shown(name)}")
    return [await _ask(reactor, where, f"/v1/nodes/{quote(one, safe='')}/{order}", None) for one in names]


async def _ask(reactor: Any, where: Where, path: str, body: Any) -> dict[str, Any]:
    client = where.client(reactor)
    try:
        status, answer = await client.ask("POST", path, body)
    finally:
        await client.close()
    if status != 200:
        raise failure_of(status, answer)
    return answer


def _rows(answer: Mapping[str, Any], where: Where) -> Sequence[Mapping[str, Any]]:
    rows = answer.get("nodes")
    if not isinstance(rows, list):
        raise Failure(f"{where.url} answers like no streampush server")
    return rows


def render_nodes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table for people."""
    table = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    for row in table:
        cells = [
            cell.rjust(width) if 2 <= column <= 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    if not rows:
        yield "no node has announced itself"
    for node in rows:
        for other in node["namesakes"]:
            yield (
                f"another process serves as {shown(node['name'])}, started earlier: {shown(other['address'])}."
                " If no upgrade is under way, set node.name of one of them"
            )


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    state = shown(row["state"])
    if row["drain"] != (state == "draining"):
        state += ", told to drain" if row["drain"] else ", told to serve" if state == "draining" else ""
    measured = "" if row["is_measured"] else "*"
    return (
        shown(row["name"]),
        state,
        str(row["connections"]),
        str(row["cap"]),
        str(row["leaving"]),
        f"{row['handshakes_per_second']:.0f}{measured}",
        f"{row['free_per_second']:.0f}",
        shown(row["address"]),
    )


def outlook(connections: int, others: Sequence[Mapping[str, Any]]) -> str:
    """How long it will take to drain so many connections, as it looks now."""
    takers = [other for other in others if other["state"] == "serving"]
    rate = sum(other["free_per_second"] for other in takers)
    room = sum(max(0, other["cap"] - other["connections"]) for other in takers)
    if not takers:
        return "no other node takes connections: they stay until one does, or until the node is stopped"
    if room < connections:
        return f"the others have room for {room}: the rest stays until there is more"
    seconds = connections / rate if rate else 0.0
    pace = f"{rate:.0f} a second" if rate else "slowly, they are busy"
    return f"the others take {pace}" + (f": about {max(1, round(seconds))} s" if rate else "")


def render_moves(answer: Mapping[str, Any]) -> Iterator[str]:
    """The plan for people."""
    for move in answer["moves"]:
        verb = "would send" if answer["dry_run"] else "sends"
        yield f"{shown(move['node'])} {verb} {counted(move['connections'], 'connection')} elsewhere"
    if not answer["moves"]:
        yield "each node has its share: nothing to move"
