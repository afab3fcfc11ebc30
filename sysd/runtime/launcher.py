# SPDX-License-Identifier: Apache-2.0
"""Runs as the main process of an instance's unit, makes the container, and leaves.

    launcher (host root) --clone sibling--> middle (enters the user namespace, unshares the rest)
                                            --clone sibling--> guest (PID 1 of the container)

Siblings are children of the service manager, so the guest's PID 1 is its own child. The launcher
makes what needs the host's privileges (idmapped overlay, device nodes, veth); the guest side mounts
what must belong to its namespaces and sends back its console. When the guest has exec'ed its init the
launcher tells systemd the new main PID, hands console and notification socket to the daemon, and ends.

Imports stay few on purpose (posix instead of os, too): this is on the path of every start. Nothing here runs guest code
before the final exec, and the guest's tree is entered by descriptors that follow no links.

Sources: systemd.io CONTAINER_INTERFACE, pivot_root(2) NOTES, overlayfs.rst, sd_notify(3).
"""

from __future__ import annotations

import _socket
import fcntl
import posix as os
import sys

from sysd import _cext as c
from sysd.codec import decode, encode, quote_ascii
from sysd.runtime.beneath import LaunchError, beneath, exists_at, mount_point, mount_tmpfs, write_at
from sysd.runtime.layers import LAUNCH_DIR, lock_layers, mount_layers
from sysd.runtime.provision import CREDENTIALS, listen, put_credentials, put_seed, put_templates
from sysd.runtime.replay import NETNS_FD, open_netlink, replay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, TypedDict

    from sysd.runtime.shares import Share

    class Spec(TypedDict):
        uuid: str
        name: str
        id_base: int
        tty_group: int
        uid_map: str
        gid_map: str
        rootfs: str
        state_dir: str
        waits_for_guest: bool
        environment: dict[str, str]
        host_links: list[str]
        guest_links: list[str]
        sysctls: dict[str, str]
        core_scheduling: bool
        credentials: dict[str, str]
        seed: dict[str, str]
        lxd_socket: bool
        shares: list[Share]
        pin: bool
        filter: str
        apparmor: str
        privileged: bool
        nesting: bool
        templates: dict[str, list[tuple[str, str, str]]]


HANDOVER_SOCKET = "/run/syscont/handover"
PIN_DIR = "/run/syscont/netns"
MANAGER = "syscont"
ENOENT = 2
TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430

DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
EXTRA_DEVICES = (("net/tun", 10, 200), ("fuse", 10, 229))
HIDDEN = ("/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/timer_list")
READ_ONLY = ("/proc/sysrq-trigger",)
READ_ONLY_TO_PRIVILEGED = ("/proc/acpi", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/scsi")
"""As systemd-nspawn has them (nspawn-mount.c)."""
# S_IFREG and the like of inode(7).
NODE_KINDS = (("reg", 0o100000), ("fifo", 0o010000), ("sock", 0o140000), ("chr", 0o020000), ("blk", 0o060000))
DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
)


def exists(path: str) -> bool:
    return os.access(path, os.F_OK)


def main() -> None:
    with open(sys.argv[1], "rb") as stream:
        spec: Spec = decode(stream.read().decode())
    try:
        launch(spec)
    except (OSError, LaunchError) as error:
        fail(spec, str(error))
    os._exit(0)


def fail(spec: Spec, message: str) -> NoReturn:
    """Tell the journal and the waiting daemon what went wrong."""
    sys.stderr.write(f"cannot start {spec['name']}: {message}\n")
    sys.stderr.flush()
    notify({"STATUS": message})
    hand_over({"uuid": spec["uuid"], "error": message}, [])
    os._exit(1)


def launch(spec: Spec) -> None:
    lock_layers(spec["state_dir"])
    base = spec["id_base"]
    userns = -1 if spec["privileged"] else c.new_userns(spec["uid_map"], spec["gid_map"])
    netlink = open_netlink()
    chown_cgroup(base)
    host_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC) if spec["pin"] else -1
    c.unshare(c.CLONE_NEWNS)
    root_dir = os.open("/", os.O_PATH | os.O_DIRECTORY)
    c.mount_attributes(root_dir, propagation=c.MS_SLAVE, recursive=True)
    root = mount_layers(spec["name"], spec["rootfs"], spec["state_dir"], base, userns)
    sockets = fill_root(spec, root)
    if spec["shares"]:
        from sysd.runtime import shares

        shares.prepare(spec["shares"], userns, base)
    if spec.get("apparmor"):
        # Inside nothing can be loaded.
        __import__("sysd.runtime.apparmor.enter")

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    middle = c.clone_sibling()
    if middle == 0:
        guest_side(spec, theirs, userns, root)
    theirs.close()
    leader = int(receive(ours)[0] or b"0")
    if leader:
        enable_network(spec, netlink, leader)
        if spec["pin"]:
            pin_network(spec, host_mounts, leader)
        ours.send(b"go")
    message, fds = receive(ours)
    if message == b"console":
        message, _ = receive(ours)  # nothing more comes when the guest's init was executed
    if message or not fds:
        raise LaunchError(message.decode(errors="replace") or "the container's set-up ended early")

    # In this order: if we are killed in between, the unit ends with us and nothing runs without a console.
    words: dict[str, object] = {"uuid": spec["uuid"], "leader": leader, "fds": ["console", *sockets]}
    hand_over(words, [*fds, *(sock.fileno() for sock in sockets.values())])
    ready = {} if spec["waits_for_guest"] else {"READY": "1"}
    notify({"MAINPID": str(leader), "STATUS": "", **ready})


# --- what the host's privileges are needed for ---


def chown_cgroup(base: int) -> None:
    """Give the guest its delegated cgroup: the folder and the files the kernel lists as delegatable."""
    with open("/proc/self/cgroup") as stream:
        ours = [line.strip()[3:] for line in stream if line.startswith("0::")]
    path = "/sys/fs/cgroup" + ours[0]
    os.chown(path, base, base)
    with open("/sys/kernel/cgroup/delegate") as stream:
        for name in stream.read().split():
            if exists(f"{path}/{name}"):
                os.chown(f"{path}/{name}", base, base)


def fill_root(spec: Spec, root: int) -> dict[str, _socket.socket]:
    """Mount /dev and /run; returns the guest's sockets to the host by what the daemon calls them (guest.KINDS)."""
    base = spec["id_base"]
    for name in ("proc", "sys"):
        os.close(mount_point(root, name))
    if not exists_at(root, "tmp"):
        os.mkdir("tmp", 0o755, dir_fd=root)
    dev = mount_tmpfs(base, mount_point(root, "dev"), "0755", "4m")
    fill_dev(spec, dev)
    run = mount_tmpfs(base, mount_point(root, "run"), "0755", "20%")
    os.mkdir("host", 0o755, dir_fd=run)
    host = mount_tmpfs(base, beneath(root, "run/host"), "0755", "1m")
    write_at(host, "container-manager", f"{MANAGER}\n".encode())
    write_at(host, "container-uuid", f"{spec['uuid']}\n".encode())
    with open("/etc/os-release", "rb") as stream:
        write_at(host, "os-release", stream.read())
    os.mkdir("incoming", 0o700, dir_fd=host)
    make_inaccessible(host)
    put_credentials(host, spec["credentials"])
    put_templates(root, spec)
    put_seed(root, spec["seed"])
    notify_socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    notify_socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    notify_socket.bind(f"/proc/self/fd/{host}/notify")
    os.chmod(f"/proc/self/fd/{host}/notify", 0o666)
    c.mount_attributes(host, attributes=c.ATTR_RDONLY)
    sockets = {"notify": notify_socket, "guestapi": listen(dev, "syscont")}
    if spec["lxd_socket"]:
        sockets["lxdapi"] = listen(dev, "lxd")
    return sockets


def make_inaccessible(host: int) -> None:
    """One node of each kind that nobody can open: what a guest's systemd mounts over what is to be hidden, and
    could not make itself."""
    os.mkdir("inaccessible", 0o755, dir_fd=host)
    os.mkdir("inaccessible/dir", 0, dir_fd=host)
    for name, kind in NODE_KINDS:
        os.mknod(f"inaccessible/{name}", kind, 0, dir_fd=host)


def fill_dev(spec: Spec, dev: int) -> None:
    base = spec["id_base"]
    old = os.umask(0)
    os.mkdir("net", 0o755, dir_fd=dev)
    for name, major, minor in DEVICES + tuple(d for d in EXTRA_DEVICES if exists(f"/dev/{d[0]}")):
        os.mknod(name, 0o020666, os.makedev(major, minor), dir_fd=dev)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(name, 0o755, dir_fd=dev)
    os.close(os.open("console", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=dev))
    for name, target in DEV_LINKS:
        os.symlink(target, name, dir_fd=dev)
    os.chown("tty", base, spec["tty_group"], dir_fd=dev)
    os.umask(old)


def enable_network(spec: Spec, netlink: _socket.socket, leader: int) -> None:
    netns = os.open(f"/proc/{leader}/ns/net", os.O_RDONLY)
    os.dup2(netns, NETNS_FD, inheritable=False)
    replay(netlink, spec["host_links"])


def pin_network(spec: Spec, host_mounts: int, leader: int) -> None:
    """Mount the guest's network namespace in the host's mount namespace. The unit's ExecStopPost= takes it away."""
    c.setns(host_mounts, c.CLONE_NEWNS)
    place = f"{PIN_DIR}/{spec['uuid']}"
    if exists(place) and os.stat(place).st_dev != os.stat(PIN_DIR).st_dev:
        c.unmount(place)
    os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o400))
    c.move_mount(c.open_tree(f"/proc/{leader}/ns/net"), os.open(place, os.O_PATH | os.O_CLOEXEC))


# --- inside ---


def guest_side(spec: Spec, pipe: _socket.socket, userns: int, root: int) -> NoReturn:
    """Middle process: enter the namespaces, give birth to the guest's PID 1, leave."""
    try:
        if spec["core_scheduling"]:
            c.new_core_cookie()
        if userns >= 0:
            c.setns(userns, c.CLONE_NEWUSER)
        c.set_ids(0, 0)
        c.unshare(c.CLONE_NEWNS | c.CLONE_NEWUTS | c.CLONE_NEWIPC | c.CLONE_NEWNET | c.CLONE_NEWPID | c.CLONE_NEWCGROUP)
        leader = c.clone_sibling()
        if leader == 0:
            become_init(spec, pipe)
        pipe.send(str(leader).encode())
    except BaseException as error:
        pipe.send(b"0")
        pipe.send((str(error) or type(error).__name__).encode())
    os._exit(0)


def become_init(spec: Spec, pipe: _socket.socket) -> NoReturn:
    """PID 1 of the container, up to the exec of its init."""
    try:
        if pipe.recv(16) != b"go":
            os._exit(1)
        # From here on the guest's files are in view: no module may ever be loaded from them.
        sys.path.clear()
        sys.meta_path.clear()
        os.setsid()
        _socket.sethostname(spec["name"])
        enter_root()
        show_shares(spec)
        mount_api_file_systems(nesting=spec["nesting"])
        allow_ping()
        set_sysctls(spec["sysctls"])
        # As the last of it: some of the settings are not beneath net.
        read_only("/proc/sys", but="/proc/sys/net")
        hide_host(privileged=spec["privileged"])
        master, console = open_console()
        share_mounts()
        bring_up_links(spec)
        pipe.sendmsg([b"console"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))])
        execute_init(spec, console)
    except BaseException as error:
        pipe.send((str(error) or type(error).__name__).encode())
    os._exit(1)


def enter_root() -> None:
    """Make the overlay the root. A copy of it is needed: mounts inherited from outside are locked in place."""
    tree = c.open_tree(f"{LAUNCH_DIR}/root", c.OPEN_TREE_CLONE | c.AT_RECURSIVE)
    place = os.open(f"{LAUNCH_DIR}/root", os.O_PATH | os.O_DIRECTORY)
    # /proc and /sys of the host must still be in view while new ones are mounted (mount_too_revealing).
    c.move_mount(tree, place)
    os.chdir(f"{LAUNCH_DIR}/root")


def show_shares(spec: Spec) -> None:
    """Where the image or the guest of the last run has put a link, it counts from the guest's root."""
    if spec["shares"]:
        shares = sys.modules["sysd.runtime.shares"]
        shares.attach(shares.collect(spec["shares"]), os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def attach(fs_type: str, where: str, options: dict[str, str | None], attributes: int) -> None:
    place = c.openat2(-100, where, os.O_PATH | os.O_DIRECTORY, c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS)
    mount = c.new_mount(fs_type, {"source": fs_type, **options}, attributes)
    c.move_mount(mount, place)
    os.close(mount)


def read_only(path: str, *, but: str = "") -> None:
    """Turn a part of the tree read-only by mounting it on itself, with one folder in it left writable."""
    kept = c.open_tree(but, c.OPEN_TREE_CLONE) if but else -1
    tree = c.open_tree(path, c.OPEN_TREE_CLONE)
    c.mount_attributes(tree, attributes=c.ATTR_RDONLY | c.ATTR_NOSUID | c.ATTR_NODEV | c.ATTR_NOEXEC)
    c.move_mount(tree, os.open(path, os.O_PATH))
    if but:
        c.move_mount(kept, os.open(but, os.O_PATH))


def hide(path: str) -> None:
    """Have a file there that nobody can open: a device, where no devices are. As systemd-nspawn and runc do."""
    try:
        place = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    tree = c.open_tree("/dev/null", c.OPEN_TREE_CLONE)
    c.mount_attributes(tree, attributes=c.ATTR_RDONLY | c.ATTR_NOSUID | c.ATTR_NODEV | c.ATTR_NOEXEC)
    c.move_mount(tree, place)


def hide_host(*, privileged: bool) -> None:
    """Keep from view, and from the hand, what is of the whole kernel and the hardware. In a user namespace the
    kernel itself refuses most of it; what guests read by chance and would take for their own is hidden there too."""
    for path in HIDDEN:
        hide(path)
    for path in READ_ONLY + (READ_ONLY_TO_PRIVILEGED if privileged else ()):
        if exists(path):
            read_only(path)


def mount_for_nesting() -> None:
    """The kernel lets a user namespace mount proc and sysfs only where nothing of theirs is hidden from it
    (mount_too_revealing in fs/namespace.c): a guest that makes some needs one of each that is as the kernel made it."""
    os.mkdir("dev/.syscont", 0o700)
    for fs_type in ("proc", "sysfs"):
        os.mkdir(f"dev/.syscont/{fs_type}", 0o700)
        attach(fs_type, f"dev/.syscont/{fs_type}", {}, c.ATTR_NOSUID | c.ATTR_NODEV | c.ATTR_NOEXEC)


def mount_api_file_systems(*, nesting: bool) -> None:
    strict = c.ATTR_NOSUID | c.ATTR_NODEV | c.ATTR_NOEXEC
    attach("proc", "proc", {}, strict)
    attach("sysfs", "sys", {}, strict | c.ATTR_RDONLY)
    attach("cgroup2", "sys/fs/cgroup", {}, strict)
    attach("mqueue", "dev/mqueue", {}, strict)
    if nesting:
        mount_for_nesting()
    attach("tmpfs", "dev/shm", {"mode": "1777", "size": "10%"}, c.ATTR_NOSUID | c.ATTR_NODEV)
    attach(
        "devpts",
        "dev/pts",
        {"newinstance": None, "ptmxmode": "0666", "mode": "0620", "gid": "5"},
        c.ATTR_NOSUID | c.ATTR_NOEXEC,
    )
    c.pivot_root()
    os.chdir("/")


def allow_ping() -> None:
    """Let all users of the guest ping, as on a host. Its own systemd can't: it asks for more groups than there are,
    and Debian's ping has no capability of its own any more (icmp(7), ping_group_range)."""
    try:
        setting = os.open("/proc/sys/net/ipv4/ping_group_range", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    os.write(setting, b"0 65535")
    os.close(setting)


def set_sysctls(settings: dict[str, str]) -> None:
    """Each as the guest's root and in its namespaces, where nothing of the host's can be written."""
    for path, value in settings.items():
        try:
            setting = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.write(setting, value.encode())
            finally:
                os.close(setting)
        except OSError as error:
            why = "this kernel has no such setting" if error.errno == ENOENT else error.strerror
            raise LaunchError(f"linux.sysctl.{path.replace('/', '.')}={value}: {why}") from None


def open_console() -> tuple[int, int]:
    """A terminal of the guest's own devpts, its name bound to /dev/console."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, bytes(4))
    path = f"/dev/pts/{int.from_bytes(fcntl.ioctl(master, TIOCGPTN, bytes(4)), sys.byteorder)}"
    console = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    os.fchmod(console, 0o600)
    c.move_mount(c.open_tree(path), os.open("/dev/console", os.O_PATH))
    return master, console


def share_mounts() -> None:
    """As on a host, and in systemd-nspawn: systemd sets up credentials of services in mount namespaces from which
    they propagate to its own. Nothing propagates to the host, whose mounts these are slaves of."""
    c.mount_attributes(os.open("/", os.O_PATH | os.O_DIRECTORY), propagation=c.MS_SHARED, recursive=True)


def bring_up_links(spec: Spec) -> None:
    netlink = open_netlink()
    replay(netlink, spec["guest_links"])
    netlink.close()


def execute_init(spec: Spec, console: int) -> None:
    """Exec the guest's init. Everything but stdio is close-on-exec, so the launcher sees the pipe close."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "container": MANAGER,
        "container_uuid": spec["uuid"],
        "TERM": "vt220",
        "NOTIFY_SOCKET": "/run/host/notify",
        **spec["environment"],
    }
    if spec["credentials"]:
        environment["CREDENTIALS_DIRECTORY"] = CREDENTIALS
    for fd in (0, 1, 2):
        os.dup2(console, fd)
    c.leave_keyring()
    c.bound_capabilities(privileged=spec["privileged"])
    os.umask(0o022)
    if spec.get("apparmor"):
        sys.modules["sysd.runtime.apparmor.enter"].at_exec(spec["apparmor"])
    if spec["filter"]:
        # The last step: the filter need allow nothing of ours but execve(2).
        c.install_filter(bytes.fromhex(spec["filter"]))
    for init in ("/sbin/init", "/etc/init", "/bin/init"):
        try:
            os.execve(init, [init], environment)
        except FileNotFoundError:
            continue
    raise LaunchError("no /sbin/init in the image")


# --- messages ---


def receive(pipe: _socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = pipe.recvmsg(4096, 64)
    fds = []
    for _level, _kind, payload in ancillary:
        fds += [int.from_bytes(payload[i : i + 4], sys.byteorder) for i in range(0, len(payload), 4)]
    return data, fds


def notify(fields: dict[str, str]) -> None:
    address = os.environ.get(b"NOTIFY_SOCKET", b"").decode()
    if not address:
        return
    text = "\n".join(f"{key}={value}" for key, value in fields.items())
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    sock.connect("\0" + address[1:] if address[0] == "@" else address)
    sock.send(text.encode())
    sock.close()


def hand_over(message: dict[str, object], fds: list[int]) -> None:
    """Tell the daemon. systemd holds the socket, so this works while the daemon is away; it never waits."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if fds else []
    try:
        sock.connect(HANDOVER_SOCKET)
        sock.sendmsg([encode(message, quote_ascii).encode()], ancillary)
    except OSError as error:
        sys.stderr.write(f"console is lost, the daemon can't be told: {error}\n")
    sock.close()


if __name__ == "__main__":
    main()
