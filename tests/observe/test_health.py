from __future__ import annotations

from streampush.observe.health import Flag, Health, ProbeWatch


def test_without_a_probe_the_node_is_not_ready() -> None:
    ready, reasons = ProbeWatch(5.0, 3).ready(0.0)
    assert not ready
    assert reasons == ("no probe message has arrived yet",)


def test_probe_is_good_for_the_allowed_intervals_and_no_longer() -> None:
    watch = ProbeWatch(5.0, 3)
    watch.succeeded(100.0)
    assert watch.ready(115.0) == (True, ())
    ready, reasons = watch.ready(115.1)
    assert not ready
    assert reasons == ("no probe message has arrived for 15.1 s, the limit is 15 s",)


def test_new_success_makes_it_ready_again() -> None:
    watch = ProbeWatch(5.0, 3)
    watch.succeeded(100.0)
    watch.succeeded(120.0)
    assert watch.ready(121.0) == (True, ())


def test_every_reason_is_named() -> None:
    draining = Flag()
    health = Health({"probe": ProbeWatch(5.0, 3), "store": Flag("the store is not available")})
    health.add("drain", draining)
    ready, reasons = health.ready(0.0)
    assert not ready
    assert reasons == ("probe: no probe message has arrived yet", "store: the store is not available")
    draining.reason = "the node is draining"
    assert health.ready(0.0)[1][-1] == "drain: the node is draining"


def test_ready_when_no_check_objects() -> None:
    assert Health({"store": Flag()}).ready(0.0) == (True, ())
