"""What a server may be called, where nothing else keeps pages of elsewhere out."""

import pytest

from embellama.server.hosts import Hosts
from embellama.server.problems import Problem

OWN = (
    b"localhost",
    b"localhost:8080",
    b"LocalHost.:8080",
    b"search.localhost",
    b"127.0.0.1:8080",
    b"127.9.9.9",
    b"192.168.1.7:80",
    b"[::1]:8080",
    b"[::1]",
    b"host.docker.internal:8080",
    b"127.1:8080",
    b"0",
    b"LOCALHOST",
    b"localhost:",
)
OTHERS = (
    b"evil.example",
    b"evil.example:8080",
    b"localhost.evil.example",
    b"127.0.0.1.evil.example:8080",
    b"notlocalhost",
    b"internal",
    b"[evil.example]:8080",
    b"\xff",
    b":8080",
    b"[127.0.0.1].evil.example",
    b"[localhost]evil",
    b"[::1",
    b"evil.example:80:80",
)


@pytest.mark.parametrize("host", OWN)
def test_names_of_this_machine_are_its_own(host):
    hosts = Hosts((), is_needed=True)
    hosts.check({b"host": host})
    hosts.check({b"host": host})


@pytest.mark.parametrize("host", OTHERS)
def test_other_names_are_refused_each_time(host):
    hosts = Hosts(("mine.example",), is_needed=True)
    for _ in range(2):
        with pytest.raises(Problem, match="--allowed-host NAME") as refused:
            hosts.check({b"host": host})
        assert (refused.value.status, refused.value.code) == (403, "host_refused")
        hosts.check({b"host": b"mine.example"})


def test_a_long_name_is_not_said_back_whole():
    with pytest.raises(Problem) as refused:
        Hosts((), is_needed=True).check({b"host": b"a" * 60_000})
    assert len(refused.value.message) < 400


def test_names_that_are_allowed():
    hosts = Hosts(("Search.Example.:8080",), is_needed=True)
    for host in (b"search.example", b"SEARCH.example:443", b"search.example."):
        hosts.check({b"host": host})
    with pytest.raises(Problem):
        hosts.check({b"host": b"www.search.example"})


def test_what_has_no_name_is_no_browser():
    Hosts((), is_needed=True).check({})


@pytest.mark.parametrize(("names", "is_needed"), [(("*",), True), ((), False)])
def test_any_name_will_do(names, is_needed):
    Hosts(names, is_needed=is_needed).check({b"host": b"evil.example"})
