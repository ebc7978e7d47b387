"""Hosts of this machine: network namespaces on one bridge."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@dataclass(frozen=True)
class Network:
    """The addresses of a bridge: the servers' own, that of S3 and the API, and the hosts'."""

    bridge: str
    subnet: str

    @property
    def servers(self) -> str:
        """PostgreSQL, Redis, the code server, the webserver and the daemon."""
        return f"{self.subnet}.1"

    @property
    def outside(self) -> str:
        """S3 and the API."""
        return f"{self.subnet}.3"

    def namespace(self, host: str) -> str:
        """The network namespace of a host."""
        return f"{self.bridge}-{host}"

    def cut(self, host: str) -> None:
        """Take a host's link down."""
        ip("-n", self.namespace(host), "link", "set", "eth0", "down")

    def restore(self, host: str) -> None:
        """Take it up again."""
        ip("-n", self.namespace(host), "link", "set", "eth0", "up")


def ip(*words: str) -> None:
    """Run `ip`; RuntimeError with its message if it fails."""
    done = subprocess.run(  # noqa: S603  # this file's own words
        ["ip", *words],  # noqa: S607  # wherever the distribution has it
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def why_not() -> str | None:
    """Why no cluster can be had here."""
    if os.geteuid():
        return "only root makes network namespaces"
    if not (POSTGRES and shutil.which("redis-server") and shutil.which("ip")):
        return "apt-get install postgresql redis-server iproute2"
    try:
        with network(("probe",)):
            return None
    except RuntimeError as error:
        return f"no network namespaces ({error})"


@contextlib.contextmanager
def network(hosts: tuple[str, ...]) -> Iterator[Network]:
    """A bridge with these hosts, whose addresses end in 11, 12 and so on; gone at the end."""
    own = os.getpid()
    made = Network(f"ru{own}", f"10.{213 + own % 16}.{own // 16 % 256}")
    with contextlib.ExitStack() as stack:
        ip("link", "add", made.bridge, "type", "bridge")
        stack.callback(ip, "link", "del", made.bridge)
        for address in (made.servers, made.outside):
            ip("addr", "add", f"{address}/24", "dev", made.bridge)
        ip("link", "set", made.bridge, "up")
        for number, host in enumerate(hosts):
            space, port = made.namespace(host), f"{made.bridge}p{number}"
            ip("netns", "add", space)
            stack.callback(ip, "netns", "del", space)
            ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", port, "master", made.bridge, "up")
            ip("-n", space, "addr", "add", f"{made.subnet}.{11 + number}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", space, "link", "set", link, "up")
        yield made
