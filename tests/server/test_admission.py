from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampush.config import AdmissionConfig
from streampush.server.admission import HANDSHAKE_LIMIT, Admission, address_key

NOW = 1000.0


def admission(cap: int = 1000, **limits: float) -> Admission:
    return Admission(AdmissionConfig(**limits), cap)  # type: ignore[arg-type]


def test_connection_within_every_limit_is_admitted_and_counted() -> None:
    door = admission()
    assert door.admit("192.0.2.1", NOW) is None
    assert (door.connections, door.handshakes, door.addresses) == (1, 1, 1)


def test_cap_refuses_until_a_connection_is_released() -> None:
    door = admission(cap=1)
    door.admit("192.0.2.1", NOW)
    assert door.admit("192.0.2.2", NOW) == "connection_limit"
    door.handshake_done("192.0.2.1")
    door.released("192.0.2.1")
    assert door.admit("192.0.2.2", NOW) is None


def test_configured_limit_holds_when_the_process_could_carry_more() -> None:
    door = admission(cap=10, max_connections=1)
    door.admit("192.0.2.1", NOW)
    assert door.admit("192.0.2.2", NOW) == "connection_limit"


def test_one_address_does_not_take_the_place_of_another() -> None:
    door = admission(max_per_address=2)
    assert [door.admit("192.0.2.1", NOW) for _ in range(3)] == [None, None, "address_limit"]
    assert door.admit("192.0.2.2", NOW) is None


def test_ipv6_addresses_of_one_network_count_together() -> None:
    door = admission(max_per_address=1)
    door.admit("2001:db8:0:1::1", NOW)
    assert door.admit("2001:db8:0:1:ffff::2", NOW) == "address_limit"
    assert door.admit("2001:db8:0:2::1", NOW) is None


def test_mapped_ipv4_addresses_count_as_ipv4() -> None:
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1")
    assert address_key("::ffff:192.0.2.1") != address_key("::ffff:192.0.2.2")


def test_link_local_address_with_a_zone_has_a_key() -> None:
    assert address_key("fe80::1%lo") == address_key("fe80::2%lo")
    assert address_key("not:an:address") == "not:an:address"


def test_burst_is_let_in_at_once_and_then_the_rate_holds() -> None:
    door = admission(accept_rate=2.0, accept_burst=3)
    assert [door.admit("192.0.2.1", NOW) for _ in range(4)] == [None, None, None, "accept_rate"]
    assert door.admit("192.0.2.1", NOW + 0.4) == "accept_rate"
    assert door.admit("192.0.2.1", NOW + 0.5) is None
    assert door.admit("192.0.2.1", NOW + 0.5) == "accept_rate"


def test_bucket_never_holds_more_than_the_burst() -> None:
    door = admission(accept_rate=10.0, accept_burst=2)
    door.admit("192.0.2.1", NOW)
    later = NOW + 3600
    assert [door.admit("192.0.2.1", later) for _ in range(3)] == [None, None, "accept_rate"]


def test_clock_that_goes_back_gives_no_tokens() -> None:
    door = admission(accept_rate=1.0, accept_burst=1)
    door.admit("192.0.2.1", NOW)
    assert door.admit("192.0.2.1", NOW - 100) == "accept_rate"


def test_handshakes_under_way_are_limited() -> None:
    door = admission(max_handshakes=1)
    door.admit("192.0.2.1", NOW)
    assert door.admit("192.0.2.2", NOW) == "handshake_limit"
    door.handshake_done("192.0.2.1")
    assert door.admit("192.0.2.2", NOW) is None


def test_draining_refuses_everyone() -> None:
    door = admission()
    door.draining = True
    assert door.admit("192.0.2.1", NOW) == "draining"
    assert door.connections == 0


def test_refusal_counts_nothing_and_takes_no_token() -> None:
    door = admission(max_per_address=1, accept_burst=2, accept_rate=0.1)
    door.admit("192.0.2.1", NOW)
    for _ in range(5):
        assert door.admit("192.0.2.1", NOW) == "address_limit"
    assert door.connections == 1
    assert door.admit("192.0.2.2", NOW) is None


def test_count_that_nobody_took_cannot_be_given_back() -> None:
    door = admission()
    with pytest.raises(ValueError, match="not admitted"):
        door.released("192.0.2.1")
    with pytest.raises(ValueError, match="not admitted"):
        door.handshake_done("192.0.2.1")


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=80))
def test_no_limit_is_ever_passed_and_nothing_is_left_behind(steps: list[tuple[int, bool]]) -> None:
    door = admission(cap=8, max_per_address=3, accept_rate=1e6)
    held: list[str] = []
    for n, (number, leave) in enumerate(steps):
        address = f"192.0.2.{number}"
        if leave and address in held:
            held.remove(address)
            door.handshake_done(address)
            door.released(address)
        elif door.admit(address, NOW + n) is None:
            held.append(address)
        assert door.connections == len(held) <= 8
        assert all(held.count(a) <= 3 for a in held)
        assert door.addresses == len(set(held))
    for address in held:
        door.handshake_done(address)
        door.released(address)
    assert (door.connections, door.handshakes, door.addresses) == (0, 0, 0)


def test_one_address_does_not_take_all_handshakes() -> None:
    door = admission(max_handshakes=4, max_handshakes_per_address=2)
    assert [door.admit("192.0.2.1", 0.0) for _ in range(3)] == [None, None, HANDSHAKE_LIMIT]
    assert door.admit("192.0.2.2", 0.0) is None
    door.handshake_done("192.0.2.1")
    assert door.admit("192.0.2.1", 0.0) is None


# ------------------------------------------------------------------------------------------ let in only to be told of a refusal


def test_some_of_those_who_are_refused_are_let_in_to_be_told() -> None:
    door = admission(cap=1, max_told=2)
    door.admit("192.0.2.1", NOW)
    assert [door.admit_to_tell("connection_limit", "192.0.2.2", NOW) for _ in range(3)] == [True, True, False]
    assert (door.connections, door.told, door.handshakes) == (1, 2, 3)


def test_who_was_told_takes_no_place_of_a_connection_and_gives_its_own_back() -> None:
    door = admission(cap=1, max_told=1)
    assert door.admit_to_tell("accept_rate", "192.0.2.2", NOW)
    assert door.admit("192.0.2.1", NOW) is None
    door.handshake_done("192.0.2.2")
    door.released("192.0.2.2", told=True)
    assert (door.connections, door.told, door.addresses) == (1, 0, 1)


@pytest.mark.parametrize("reason", ["address_limit", "handshake_limit", "file_descriptors"])
def test_what_is_the_fault_of_an_address_or_of_too_many_handshakes_is_told_nobody(reason: str) -> None:
    assert not admission().admit_to_tell(reason, "192.0.2.1", NOW)


def test_telling_has_a_rate_of_its_own() -> None:
    door = admission(accept_rate=4.0, max_told=100)
    told = 0
    for _ in range(200):
        if door.admit_to_tell("accept_rate", "192.0.2.1", NOW):
            told += 1
            door.handshake_done("192.0.2.1")
            door.released("192.0.2.1", told=True)
    assert told == 100
    assert not door.admit_to_tell("accept_rate", "192.0.2.1", NOW + 0.9)
    assert door.admit_to_tell("accept_rate", "192.0.2.1", NOW + 1.9)


def test_telling_keeps_the_limits_of_addresses_and_handshakes() -> None:
    door = admission(max_per_address=1, max_handshakes=2)
    assert door.admit_to_tell("draining", "192.0.2.1", NOW)
    assert not door.admit_to_tell("draining", "192.0.2.1", NOW)
    assert door.admit_to_tell("draining", "192.0.2.2", NOW)
    assert not door.admit_to_tell("draining", "192.0.2.3", NOW)


def test_nobody_is_told_where_that_is_switched_off() -> None:
    assert not admission(max_told=0).admit_to_tell("draining", "192.0.2.1", NOW)
