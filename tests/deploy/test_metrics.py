"""What alerts and dashboard ask for is what a node exports: a name or label that is not would never alert."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client import CollectorRegistry

from streampush.observe.bus_figures import BusFigures
from streampush.observe.store_figures import StoreFigures
from streampush.supervisor.figures import SupervisorFigures
from streampush.supervisor.roster import Roster
from streampush.supervisor.times import Times
from tests.deploy.files import alerts, all_files, dashboard
from tests.integration.harness import NodeTestCase, run

METRIC = re.compile(r"\b(?:streampush|process)_[a-z0-9_]+\b")
SELECTION = re.compile(r"(\b(?:streampush|process)_[a-z0-9_]+)\{([^}]*)\}")
MATCHER = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that a scrape adds."""


def expressions() -> Iterator[str]:
    for rule in alerts():
        yield rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


class ExportedTests(NodeTestCase):
    def exported(self) -> dict[str, list[dict[str, str]]]:
        """The labels of each sample by its name; names of families that have none yet, too."""
        assert self.node is not None
        with_redis = CollectorRegistry()
        BusFigures(with_redis)
        StoreFigures(with_redis).redis_clock(0.0)
        supervisor = SupervisorFigures(Roster(1, Times.of(self.node.config), lambda: 0.0))
        names: dict[str, list[dict[str, str]]] = {}
        for family in (*self.node.registry.collect(), *with_redis.collect(), *supervisor.collect()):
            ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
            for end in ends:
                names.setdefault(family.name + end, [])
            for sample in family.samples:
                names.setdefault(sample.name, []).append(sample.labels)
        return names

    async def all_exported(self) -> dict[str, list[dict[str, str]]]:
        """The same when the store has said how full it is."""
        await self.until(lambda: bool(self.exported()["streampush_store_held"]))
        return self.exported()

    @run
    async def test_every_metric_that_an_expression_names_is_exported(self) -> None:
        exported = await self.all_exported()
        asked = {name for expression in expressions() for name in METRIC.findall(expression)}
        self.assertGreater(len(asked), 30)
        self.assertEqual(asked - set(exported), set())

    @run
    async def test_every_metric_that_a_text_of_deploy_names_is_exported(self) -> None:
        exported = await self.all_exported()
        for path in all_files():
            named = {name for name in METRIC.findall(path.read_text()) if name.startswith("streampush_")}
            self.assertEqual({name for name in named if name not in exported}, set(), path.name)

    @run
    async def test_labels_and_their_values_are_those_of_the_metric(self) -> None:
        exported = await self.all_exported()
        asked = 0
        for expression in expressions():
            for name, matchers in SELECTION.findall(expression):
                for label, operator, value in MATCHER.findall(matchers):
                    if label in OF_PROMETHEUS or not exported[name]:
                        continue
                    values = {labels.get(label) for labels in exported[name]}
                    asked += 1
                    wanted = set(value.split("|")) if "~" in operator else {value}
                    self.assertEqual(wanted - values, set(), expression)
        self.assertGreater(asked, 5)


def test_every_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "what_to_do"}, rule["alert"]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    places = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        places |= cells
