from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from errors import PermanentError
from sandbox.machine import addresses
from sandbox.machine.addresses import FIRST, LAST, Addresses, allocate, release
from sandbox.machine.paths import state_dir


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: what other sandboxes of this machine do must not decide these tests."""
    monkeypatch.setattr(addresses, "is_free", lambda port: True)


@contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_no_two_sandboxes_share_a_port_or_a_network() -> None:
    every = [Addresses.of(number) for number in range(FIRST, LAST)]
    ports = [port for one in every for port in one.ports()]
    assert len(ports) == len(set(ports))
    assert len({one.pod_network for one in every}) == len(every)


def test_all_ports_are_those_that_an_ordinary_user_may_take_and_the_kernel_does_not_hand_out() -> (
    None
):
    for number in (FIRST, LAST - 1):
        # ip(7): ephemeral ports start at 32768
        assert all(1024 <= port < 32768 for port in Addresses.of(number).ports())


def test_every_port_of_a_part_is_one_of_the_sandbox() -> None:
    one = Addresses.of(FIRST)
    parts = [port for ports in one.by_part().values() for port in ports]
    assert set(parts) <= set(one.ports())
    assert len(parts) == len(set(parts))


@pytest.mark.usefixtures("quiet_machine")
def test_a_sandbox_keeps_its_addresses_and_another_gets_others() -> None:
    first = allocate("one")
    assert allocate("two") != first
    assert allocate("one") == first


@pytest.mark.usefixtures("quiet_machine")
def test_released_addresses_are_given_again() -> None:
    first = allocate("one")
    release(state_dir() / "one")
    assert allocate("two") == first


def test_a_network_one_of_whose_ports_is_taken_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = Addresses.of(FIRST).kwok
    monkeypatch.setattr(addresses, "is_free", lambda port: port != taken)
    assert allocate("one").number == FIRST + 1


@pytest.mark.usefixtures("quiet_machine")
def test_when_all_are_taken_the_error_says_where_the_old_ones_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(addresses, "LAST", FIRST + 1)
    allocate("one")
    with pytest.raises(PermanentError, match=str(state_dir())):
        allocate("two")


def test_a_port_is_free_unless_somebody_listens_on_it() -> None:
    with listening() as port:
        assert not addresses.is_free(port)
    assert addresses.is_free(port)
