# SPDX-License-Identifier: Apache-2.0
"""Hosts for tests, and which tests a kind of host can serve."""

import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

import canaries
import coverage_of_kinds
import pytest
from guests import Instance, syscont, unique
from hosts import KINDS, Host, Recipe, VmHost, images
from hosts.cli import newest_deb

NEEDS = {
    "needs_controllers": "cgroup controllers (memory, cpu, pids...), for limits that bite",
    "needs_apparmor": "AppArmor in the kernel",
    "needs_kvm": "a /dev/kvm on which a guest boots",
    "needs_smt": "cores with two threads, and core scheduling in the kernel",
    "needs_sriov": "an SR-IOV network card, and netdevsim",
    "needs_quotas": "a kernel whose file systems count by projects",
    "needs_hardware": "hardware that is plugged in and out, and Debian's kernel with all its drivers",
    "needs_iommu": "an IOMMU, and PCI functions that the host can do without",
    "needs_ovn": "Open vSwitch and OVN, and a kernel that has all that they use",
    "needs_power_cut": "a power cut that loses what was not synced (any host can be cut off)",
}

_made_hosts = pytest.StashKey[list[Host]]()


class MakeHost(Protocol):
    def __call__(
        self, *, deb: bool = True, uplink: bool = False, variant: str = "plain"
    ) -> Host: ...


class Launch(Protocol):
    """`syscont VERB OPTIONS IMAGE NAME`; a name is made up when none is given."""

    def __call__(
        self, image: str = "", *options: str, name: str = "", verb: str = "launch"
    ) -> Instance: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hosts")
    group.addoption("--host-kind", choices=sorted(KINDS), default="container")
    group.addoption("--deb", type=Path, help="syscont's package (default: newest in dist/)")
    group.addoption(
        "--needs-only", action="store_true", help="only what a container host can't run"
    )
    group.addoption("--heavy", action="store_true", help="only what is too long for make check")
    group.addoption("--every-test-ran", type=Path, metavar="FILE", help=coverage_of_kinds.HELP)


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background with these ignored, and children inherit that (bash(1), SIGNALS).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    for name, text in NEEDS.items():
        config.addinivalue_line("markers", f"{name}: needs {text}")
    config.addinivalue_line("markers", "uplink: the test's own host reaches the machine's network")
    config.addinivalue_line("markers", "heavy: takes minutes; run by make vm-test-heavy")
    ledger = config.getoption("--every-test-ran")
    if ledger and hasattr(config, "workeroutput"):
        config.pluginmanager.register(coverage_of_kinds.Worker(config.workeroutput))
    elif ledger:
        kind = config.getoption("--host-kind")
        watcher = coverage_of_kinds.EveryTestRan(ledger, kind, frozenset(KINDS))
        config.pluginmanager.register(watcher)


def _needs(item: pytest.Item) -> set[str]:
    return {name for name in NEEDS if item.get_closest_marker(name)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    serves = KINDS[config.getoption("--host-kind")].serves
    needs_only, heavy = config.getoption("--needs-only"), config.getoption("--heavy")
    unserved = [
        item
        for item in items
        if _needs(item) - serves
        or (needs_only and not _needs(item))
        or bool(item.get_closest_marker("heavy")) != heavy
    ]
    if unserved:
        config.hook.pytest_deselected(items=unserved)
        items[:] = [item for item in items if item not in unserved]
    for item in items if heavy else ():
        item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def host_kind(pytestconfig: pytest.Config) -> type[Host]:
    return KINDS[pytestconfig.getoption("--host-kind")]


@pytest.fixture(scope="session")
def deb(pytestconfig: pytest.Config) -> Path:
    path: Path | None = pytestconfig.getoption("--deb") or newest_deb()
    if path is None or not path.exists():
        raise pytest.UsageError("no syscont package: run `make deb`, or give --deb PATH")
    return path


@pytest.fixture(scope="session")
def installed(host_kind: type[Host], deb: Path) -> Iterator[Callable[[str], Host]]:
    """By variant, a host with syscont installed that is off: what other hosts start from."""
    bases: dict[str, Host] = {}

    def base(variant: str) -> Host:
        if variant not in bases:
            bases[variant] = host_kind(recipe=Recipe(variant=variant))
            bases[variant].install_deb(deb)
            bases[variant].power_off()
        return bases[variant]

    yield base
    for one in bases.values():
        one.close()


@pytest.fixture
def make_host(
    request: pytest.FixtureRequest, host_kind: type[Host], installed: Callable[[str], Host]
) -> Iterator[MakeHost]:
    """Makes hosts of the test's own, for a test that wants several, or special ones."""
    hosts: list[Host] = request.node.stash.setdefault(_made_hosts, [])

    def make(*, deb: bool = True, uplink: bool = False, variant: str = "plain") -> Host:
        base = installed(variant) if deb else None
        hosts.append(host_kind(recipe=Recipe(variant=variant), uplink=uplink, base=base))
        return hosts[-1]

    yield make
    for one in reversed(hosts):
        one.close()


@pytest.fixture(scope="session")
def host(host_kind: type[Host], installed: Callable[[str], Host]) -> Iterator[Host]:
    """One host for the whole run, with syscont installed and an uplink. Leave it as it was."""
    with host_kind(uplink=True, base=installed("plain")) as one:
        yield one


@pytest.fixture(scope="session")
def hardware_host(host_kind: type[Host], deb: Path) -> Iterator[VmHost]:
    """The same with Debian's own kernel, and with hardware to plug in. Tests on it are marked needs_hardware."""
    with host_kind(recipe=Recipe(variant="hardware")) as one:
        assert isinstance(one, VmHost)
        one.install_deb(deb)
        yield one


@pytest.fixture(scope="session")
def vm_host(host_kind: type[Host], installed: Callable[[str], Host]) -> Iterator[Host]:
    """Another for the whole run, of the variant `vms`: it has what virtual machines need. Leave it as it was."""
    with host_kind(recipe=Recipe(variant="vms"), uplink=True, base=installed("vms")) as one:
        yield one


@pytest.fixture(scope="session")
def debian_vm(vm_host: Host) -> str:
    """Alias of a Debian image of virtual machines, on vm_host."""
    return imported(vm_host, "vm", *images.debian_vm(), "--vm")


@pytest.fixture(scope="session")
def tiny_vm(vm_host: Host) -> str:
    """Alias of the smallest one, on vm_host: it boots in seconds, and no commands can be run in it."""
    return imported(vm_host, "tiny", *images.tiny_vm(), "--vm")


@pytest.fixture(scope="session")
def busybox(host: Host) -> str:
    """Alias of the small image, on the shared host."""
    syscont(host, "image", "build", "busybox")
    return "busybox"


@pytest.fixture(scope="session")
def debian(host: Host) -> str:
    """Alias of a Debian image, on the shared host."""
    return imported(host, "debian", *images.debian())


@pytest.fixture(scope="session")
def debian_with_cloud_init(host: Host) -> str:
    """The same with cloud-init in it."""
    return imported(host, "cloud", *images.debian("cloud-init"))


def imported(host: Host, alias: str, metadata: Path, rootfs: Path, *options: str) -> str:
    """An image of the machine's, under an alias on a host."""
    files = {"metadata.tar": metadata, "rootfs.tar": rootfs}
    for name, path in files.items():
        host.push(path, f"/var/tmp/{name}")
    remote = [f"/var/tmp/{name}" for name in files]
    syscont(host, "image", "import", *remote, "--alias", alias, *options)
    host.run(["rm", *remote])
    return alias


@pytest.fixture(scope="session")
def guest(host: Host, busybox: str) -> Iterator[Instance]:
    """A running busybox instance that many tests share; leave it running and as it was."""
    yield from _shared(host, busybox, "guest")


@pytest.fixture(scope="session")
def debian_guest(host: Host, debian: str) -> Iterator[Instance]:
    """The same of Debian, booted."""
    yield from _shared(host, debian, "debian-guest")


def _shared(host: Host, image: str, name: str) -> Iterator[Instance]:
    syscont(host, "launch", "--wait", image, name)
    yield Instance(host, name)
    syscont(host, "delete", "--force", name)


@pytest.fixture
def launch(host: Host, busybox: str) -> Iterator[Launch]:
    """Makes instances of the test's own on the shared host, of busybox if nothing else is said."""
    made: list[Instance] = []

    def one(image: str = "", *options: str, name: str = "", verb: str = "launch") -> Instance:
        instance = Instance(host, name or unique())
        made.append(instance)
        syscont(host, verb, *options, image or busybox, instance.name)
        return instance

    yield one
    for instance in made:
        syscont(host, "delete", "--force", instance.name, check=False)


@pytest.fixture
def canary(host: Host) -> Iterator[None]:
    """A folder of the shared host's, canaries.PLACE, that the test may not change whatever it lets a guest do."""
    with canaries.unharmed(host):
        yield


@pytest.fixture
def fresh_host(request: pytest.FixtureRequest, make_host: MakeHost) -> Host:
    """A host of the test's own, with syscont installed."""
    return make_host(uplink=bool(request.node.get_closest_marker("uplink")))


@pytest.fixture
def bare_host(request: pytest.FixtureRequest, host_kind: type[Host]) -> Iterator[Host]:
    """A host of the test's own, as Debian made it."""
    with host_kind(uplink=bool(request.node.get_closest_marker("uplink"))) as one:
        yield one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        used = [*getattr(item, "funcargs", {}).values(), *item.stash.get(_made_hosts, [])]
        for one in {value.name: value for value in used if isinstance(value, Host)}.values():
            report.sections.append((f"last words of {one.name}", _last_words(one)))
    return report


def _last_words(host: Host) -> str:
    try:
        if host.running():
            return host.journal(lines=200)
        return "(off) console:\n" + "\n".join(host.console().splitlines()[-200:])
    except Exception as error:
        return f"could not be asked: {error}"
