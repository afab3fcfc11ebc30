# SPDX-License-Identifier: Apache-2.0
"""The longer words of help and the man page: for each verb what is worth knowing, and examples to learn from."""

from __future__ import annotations

INTRODUCTION = (
    "syscont runs full Linux systems in containers. Every instance is a systemd unit, syscont@NAME.service, so "
    "systemctl, journalctl and machinectl know it too."
)

FIRST_STEPS = (
    ("syscont image build busybox", "make a small image, in a second"),
    ("syscont launch busybox web1", "make an instance of it and start it"),
    ("syscont exec web1 -- uname -a", "run a command in it"),
    ("syscont shell web1", "look around in it"),
    ("syscont list", "see what there is"),
    ("syscont delete -f web1", "stop it and throw it away"),
)

_COLUMN_HELP = (
    "Columns are letters: n name, s state, 4 IPv4, 6 IPv6, t type, i image, p PID of the guest's PID 1, c creation "
    "time, d description, e project, P profiles, f and F fingerprint of the image (short, long), u unit, U UUID, b "
    "first id on the host, m, D and N memory, disk and tasks in use. Keys stand between commas: -c n,limits.memory."
)

_EDIT_HELP = (
    "Opens the instance's description, profiles, configuration and devices as YAML in $VISUAL or $EDITOR, checks what "
    "is saved and puts all of it in force or nothing; after a mistake the editor opens again, with the error on top. "
    "When standard input is no terminal, the YAML is read from there. What changed is printed."
)
_HOST_HELP = "Without NAME: of the host as a whole, whose keys 'syscont config keys --server' lists."

_APPLY_HELP = (
    "FILE is YAML, - standard input; the manual's page on apply says what stands in it. What it does not name is left "
    "alone; of what it names, a field that is given is made just so, and one that is not stays as it is. First the "
    "plan is shown: for each object whether it is created, changed or unchanged, with each value that changes, and "
    "whether that needs a restart. Then you are asked, unless you say --yes. To apply the same again changes nothing."
)

_EXEC_HELP = (
    "When both standard input and output are terminals the command gets a terminal of its own, of the same size. "
    "Otherwise it gets the very descriptors that syscont was given, and nothing is copied. Signals sent to syscont "
    "are passed on to the command. What follows the command's name belongs to it; put -- before it when in doubt."
)

DETAILS = {
    "launch": "Without NAME the instance gets a pleasant one, which is printed. On a terminal Ctrl-C cancels.",
    "create": "As launch, but the instance is not started.",
    "list": (
        "FILTER is the beginning of a name, a pattern with * and ?, or FIELD=VALUE, where FIELD is state, type, "
        f"image or a configuration key. Without FILTER all are listed. {_COLUMN_HELP}"
    ),
    "info": "What NAME takes now, too. Without NAME: the host, and the versions of what runs on it.",
    "delete": (
        "A running instance is not deleted without --force. There is no way back. NAME/SNAPSHOT deletes a snapshot."
    ),
    "copy": (
        "The copy has what the source has written, its configuration, and its snapshots; its machine id and hardware "
        "addresses are its own. A source that runs stands still for the moment."
    ),
    "move": "PROJECT:NAME as NEW-NAME, or --target-project, moves it into another project.",
    "snapshot create": (
        "An instance that runs stands still while what it has written is copied (which takes no time where the file "
        "system can share data: btrfs, xfs). Without SNAPSHOT the name is made by snapshots.pattern, and printed. "
        "With the key snapshots.schedule systemd takes snapshots by itself; see 'syscont config keys'."
    ),
    "export": (
        "The backup has all files, snapshots and the configuration, in a form that LXD and Incus read too. FILE is "
        "NAME.tar.gz unless given; - is standard output. The instance may run: what is written is what it was when "
        "export began."
    ),
    "import": (
        "FILE is a backup of syscont's, LXD's or Incus's own (not one with optimized storage), compressed or not; - is "
        "standard input. What it has that this host does not take is left out, and named. The instance's name is "
        "printed."
    ),
    "publish": "The instance may run. The image's fingerprint is printed.",
    "snapshot restore": (
        "Files and configuration are those of the snapshot afterwards; what came later is lost. An instance that runs "
        "is stopped, and started again."
    ),
    "stop": "The guest is asked to power off. What still runs after boot.host_shutdown_timeout is killed.",
    "exec": _EXEC_HELP,
    "shell": "bash when the guest has it, else sh, as a login shell.",
    "console": "Leave with Ctrl-a q. Ctrl-a twice sends one Ctrl-a.",
    "logs": "This is journalctl --unit=syscont@NAME.service; what follows -- goes to journalctl as it is.",
    "file push": (
        "The last argument says where to: a file, or a directory when it ends in / or is one. Mode and owner go with "
        "the file, as numbers, unless others are given; what comes from standard input (-) belongs to root and has "
        "mode 0644, or keeps what the file had. A file is replaced at once and whole. --recursive puts a directory "
        "below PATH, under its own name, with links, modes and owners."
    ),
    "file pull": (
        "TARGET is a file, a directory, or - for standard output. Modes are kept, but for set-user-id and "
        "set-group-id, and owners too (as numbers) when you are root. Devices, sockets and file systems that are "
        "mounted below a directory are left out."
    ),
    "file edit": "Nothing happens when you change nothing. Without a terminal, standard input is the new content.",
    "file mkdir": "With --create-dirs a directory may be there already.",
    "file delete": "A directory must be empty, or else --recursive be given. Of a link, the link is deleted.",
    "config get": f"Prints nothing when the key is not set. {_HOST_HELP}",
    "config set": (
        "The value takes effect at once where 'syscont config keys' says that the key is live. A value of - is read "
        f"from standard input. {_HOST_HELP}"
    ),
    "config unset": _HOST_HELP,
    "config show": (
        "In YAML unless said otherwise. As a table, and with --all in any format: the keys with the value in force, "
        "and whether that comes from the instance, from a profile, from the host (server) or is the default."
    ),
    "edit": f"{_EDIT_HELP} Without NAME: the configuration of the host as a whole.",
    "apply": _APPLY_HELP,
    "profile create": "Afterwards 'profile set' and 'profile device add' say what it gives to instances.",
    "profile set": (
        "The change holds for all instances that have the profile and do not say otherwise, at once where 'syscont "
        "config keys' says that the key is live. When one of them can't be so, nothing changes. A value of - is read "
        "from standard input."
    ),
    "profile edit": _EDIT_HELP.replace("the instance's description, profiles, ", "the profile's description, "),
    "project edit": _EDIT_HELP.replace(
        "the instance's description, profiles, configuration and devices", "the project's description and configuration"
    ),
    "profile assign": (
        "Of several profiles, later ones win; what the instance itself says wins over all. Without PROFILE it has "
        "none. Profiles are those of the instance's project."
    ),
    "profile rename": "Instances that have it follow. The default profile can't be renamed or deleted.",
    "profile device add": (
        "TYPE and options are those of 'syscont config keys --device TYPE'. All instances that have the profile get "
        "the device, unless they have one of that name."
    ),
    "network create": (
        "TYPE is bridge (when it is not said), macvlan or physical. A bridge gets addresses that nobody else on the "
        "host has, and NAT, unless ipv4.address and ipv6.address say otherwise; none is none. DHCP, DNS and router "
        "advertisements come with it."
    ),
    "network set": (
        "It holds at once where 'syscont network keys' says that the key is live, and guests run on. When it can't be "
        "so, nothing changes. A value of - is read from standard input."
    ),
    "network edit": _EDIT_HELP.replace(
        "the instance's description, profiles, configuration and devices", "the network's description and configuration"
    ),
    "network rename": "Nobody uses it when no instance and no profile has a device in it.",
    "network delete": "Nobody uses it when no instance and no profile has a device in it.",
    "network attach": (
        "The device is called like the network when DEVICE is not given; INTERFACE is its name in the guest."
    ),
    "network detach": "DEVICE is needed when the instance has several in the network. What a profile gives stays.",
    "network list-leases": (
        "Kept (static) and leased (dynamic) addresses, also of instances that are stopped, those that guests made up "
        "for themselves, and the network's own (gateway)."
    ),
    "network forward create": (
        "ADDRESS is one of the host's, outside the network, or one that is routed to the host. What comes for it goes "
        "to the guest that has target_address, but for ports that have targets of their own; without, only those. A "
        "guest reaches itself by it only where the kernel's br_netfilter is not loaded."
    ),
    "network forward set": "With nothing behind target_address= only ports with targets of their own are sent on.",
    "network forward delete": "With all ports in it.",
    "network forward port add": (
        "PROTOCOL is tcp or udp; PORTS are numbers and ranges, 80,90-95; TARGET is the address of a guest in the "
        "network. The PORTS behind it are as many, or one for all; the same if not given."
    ),
    "network acl create": (
        "Networks name it then: syscont network set NETWORK security.acls=ACL. What none of its rules is about is "
        "rejected there (security.acls.default.ingress.action, security.acls.default.egress.action)."
    ),
    "network acl edit": _EDIT_HELP.replace(
        "the instance's description, profiles, configuration and devices",
        "the ACL's description, configuration and rules",
    ),
    "network acl rule add": (
        "DIRECTION is ingress, towards guests, or egress, away from them. Keys are action (allow, reject, drop), state "
        "(enabled, disabled, logged), source and destination (addresses, networks and ranges with commas between), "
        "protocol (tcp, udp, icmp4, icmp6), source_port and destination_port (such as 80,8000-8010), icmp_type, "
        "icmp_code, and description. Rules that drop come first, then those that reject, then those that allow, "
        "however they were added; answers to what was let through always pass, as do DHCP, DNS of the network and "
        "ICMP's errors."
    ),
    "network acl rule remove": "Say so much of it that no other rule is meant.",
    "network zone create": (
        "ZONE is a name of DNS, such as lab.example, or 7.0.10.in-addr.arpa for names of addresses. Instances get "
        "names in it when a network says so: dns.zone.forward, dns.zone.reverse.ipv4, dns.zone.reverse.ipv6. It is "
        "served where core.dns_address of the host says, to its peers. With --project, it is for that project's "
        "instances."
    ),
    "network zone set": "It holds at once. A value of - is read from standard input.",
    "network zone edit": _EDIT_HELP.replace(
        "the instance's description, profiles, configuration and devices", "the zone's description and configuration"
    ),
    "network zone delete": "With all records in it.",
    "network zone record list": "Not those of instances and networks, which come by themselves.",
    "network zone record create": "RECORD is a name below the zone, or @ for the zone itself; *.NAME is a wildcard.",
    "network zone record delete": "With all entries.",
    "network zone record entry add": (
        "VALUE is as in a zone file; names that have no dot at their end are below the zone. Where a record of yours "
        "is a CNAME, an instance of that name is left out."
    ),
    "project list": "A project without profiles of its own uses those of the default project.",
    "project create": (
        "With features.profiles=false it uses the default project's profiles; else it gets a default profile of its "
        "own, like that of a new installation. Images and networks are shared by all projects."
    ),
    "project set": (
        "limits.* hold for all instances of the project together; restricted=true blocks what restricted.* do not "
        "allow, see 'syscont project keys'. A change that an instance of the project breaks is refused."
    ),
    "project rename": "Empty is a project without instances, and without profiles but the default one.",
    "project delete": "Empty is a project without instances, and without profiles but the default one.",
    "project switch": (
        "Remembered for you in ~/.config/syscont/project. The environment's SYSCONT_PROJECT goes before it, and "
        "--project, which every verb takes, before both. PROJECT:NAME names an instance of any project."
    ),
    "config keys": "What live keys say is in force at once; what others say is so from the next start on.",
    "device add": (
        "TYPE is disk, nic, unix-char, unix-block, unix-hotplug, usb, gpu, proxy or none, which hides a device of a "
        "profile. A running instance has the device at once. 'syscont config keys --device TYPE' lists the options."
    ),
    "device override": "The instance gets a copy of the device, with these options changed.",
    "device remove": "A device that a profile gives is hidden by one of type none, not removed.",
    "device get": "Prints nothing when the option is not set. Devices of profiles are looked at too.",
    "image build": (
        "SOURCE is busybox (a second; for trying things out) or debian/SUITE, such as debian/trixie. "
        "The image's fingerprint is printed."
    ),
    "image import": (
        "One FILE is a unified archive; two are metadata and root file system. Tar with any usual compression, or "
        "squashfs for the root file system. - is standard input. The image's fingerprint is printed."
    ),
    "image list": (
        "FILTER is the beginning of, or a pattern for, an alias or a fingerprint. Columns are letters: l and L alias "
        "(first, all), f and F fingerprint (short, long), a architecture, i init, s size, u time of import, c time "
        "of creation, d description."
    ),
    "image delete": "IMAGE is an alias, a fingerprint or its unique beginning. An image in use is not deleted.",
    "monitor": "Ends with Ctrl-C.",
    "completion": "SHELL is bash, zsh or fish. Packages install what this prints.",
}

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "launch": (
        ("syscont launch debian/trixie web1", "a Debian instance"),
        ("syscont launch debian/trixie web1 --wait -c limits.memory=1GiB", "with a limit; return when it has booted"),
        ("syscont launch busybox web1 -d data,type=disk,source=/srv/web,path=/srv", "with a folder of the host's"),
        ("name=$(syscont launch busybox)", "in a script: any name will do"),
        ("syscont launch busybox web1 -p default -p small", "with these profiles; those of small win"),
        ("syscont launch busybox web1 --project lab", "in a project; 'syscont exec lab:web1' reaches it from anywhere"),
    ),
    "create": (("syscont create debian/trixie db1 -c boot.autostart=true", "starts with the host from now on"),),
    "list": (
        ("syscont list", "all instances"),
        ("syscont list 'web*' state=running", "the running ones whose name begins with web"),
        ("syscont list -c ns4,limits.memory", "name, state, IPv4 and a configuration key"),
        ("syscont list --format csv -c n", "for scripts: the names, one a line"),
        ("syscont list --format json | jq -r '.[].unit'", "for programs: everything there is to know"),
    ),
    "info": (("syscont info web1", "state, addresses, image, configuration"), ("syscont info", "the host")),
    "rename": (("syscont rename web1 web2", ""),),
    "delete": (("syscont delete web1 web2", ""), ("syscont delete -f web1", "also when it runs")),
    "copy": (
        ("syscont copy web1 web2", ""),
        ("syscont copy web1/before web2 -c limits.memory=1GiB", "a snapshot, configured otherwise"),
        ("syscont copy web1 web1 --target-project lab", "into another project"),
    ),
    "move": (("syscont move web1 web2", ""), ("syscont move web1 --target-project lab", "into another project")),
    "snapshot create": (
        ("syscont snapshot create web1 before-upgrade", ""),
        ("syscont snapshot create web1", "snap0, snap1, ..."),
    ),
    "export": (
        ("syscont export web1", "into web1.tar.gz"),
        ("syscont export web1 - --compression none | ssh backup 'cat >web1.tar'", "as a stream"),
    ),
    "import": (("syscont import web1.tar.gz", ""), ("syscont import web1.tar.gz web2", "by another name")),
    "publish": (
        ("syscont publish web1/good --alias web/1.0 --property release=1.0", "instances can be made from it"),
    ),
    "snapshot restore": (("syscont snapshot restore web1 before-upgrade", ""),),
    "snapshot list": (("syscont snapshot list web1", ""),),
    "snapshot show": (("syscont snapshot show web1 snap0", ""),),
    "snapshot rename": (("syscont snapshot rename web1 snap0 good", ""),),
    "snapshot delete": (("syscont snapshot delete web1 snap0 snap1", ""),),
    "start": (("syscont start web1 web2", ""), ("syscont start --wait web1 && ssh web1", "when it has booted")),
    "stop": (
        ("syscont stop web1 --timeout 5", "kill it when it has not stopped in 5 seconds"),
        ("syscont stop --all", "all that run"),
    ),
    "restart": (("syscont restart web1 --wait", ""),),
    "pause": (("syscont pause web1", ""),),
    "resume": (("syscont resume --all", ""),),
    "exec": (
        ("syscont exec web1 -- apt-get update", ""),
        ("syscont exec web1 -u www-data --cwd /srv -- ls -la", "as a user, in a directory"),
        ("tar c data | syscont exec web1 -- tar x -C /srv", "streams go straight through"),
        ("syscont exec web1 --env LANG=C -- sh -c 'echo $LANG'", "with a variable"),
        ("syscont exec -n web1 -- dmesg | less", "the keyboard is left to the pager"),
    ),
    "shell": (("syscont shell web1", ""), ("syscont shell web1 -u postgres", "as a user")),
    "console": (("syscont console web1", ""),),
    "logs": (
        ("syscont logs web1 -f", "and go on"),
        ("syscont logs web1 -n 50 -- --since today", "with options of journalctl"),
    ),
    "profile show": (("syscont profile show default", ""),),
    "profile copy": (("syscont profile copy default small", ""),),
    "profile rename": (("syscont profile rename small tiny", ""),),
    "profile delete": (("syscont profile delete tiny", ""),),
    "profile get": (("syscont profile get default limits.memory", ""),),
    "profile unset": (("syscont profile unset default limits.memory", ""),),
    "profile remove": (("syscont profile remove web1 small", ""),),
    "profile device list": (("syscont profile device list default", ""),),
    "profile device set": (("syscont profile device set default eth0 name=lan0", ""),),
    "profile device unset": (("syscont profile device unset default eth0 name", ""),),
    "profile device remove": (("syscont profile device remove default eth1", ""),),
    "project list": (("syscont project list", ""),),
    "project show": (("syscont project show lab", ""),),
    "project rename": (("syscont project rename lab workshop", ""),),
    "project delete": (("syscont project delete lab", ""),),
    "project get": (("syscont project get lab limits.memory", ""),),
    "project set": (("syscont project set lab restricted=true limits.instances=10", ""),),
    "project unset": (("syscont project unset lab limits.instances", ""),),
    "project keys": (("syscont project keys", ""),),
    "project current": (("syscont project current", ""),),
    "profile edit": (("syscont profile edit default", ""), ("syscont profile edit small <small.yaml", "")),
    "project edit": (("syscont project edit lab", ""),),
    "profile list": (("syscont profile list", ""),),
    "profile create": (("syscont profile create small -c limits.memory=256MiB -c limits.processes=200", ""),),
    "profile set": (("syscont profile set default limits.memory=1GiB", "for all that do not say otherwise"),),
    "profile assign": (
        ("syscont profile assign web1 default,small", ""),
        ("syscont profile assign web1", "without any profile"),
    ),
    "profile add": (("syscont profile add web1 small", ""),),
    "profile device add": (
        ("syscont profile device add default eth1 nic network=syscontbr0", "a second interface for all"),
    ),
    "project create": (("syscont project create lab -c limits.instances=10 -c restricted=true", ""),),
    "project switch": (("syscont project switch lab", ""), ("syscont project switch default", "and back")),
    "project info": (("syscont project info lab", ""),),
    "file push": (
        ("syscont file push hosts web1/etc/hosts", ""),
        ("syscont file push -r site web1/srv -p", "a directory: /srv/site"),
        ("echo hello | syscont file push - web1/etc/motd --mode 0644", "from a stream"),
    ),
    "file pull": (
        ("syscont file pull web1/etc/hosts .", ""),
        ("syscont file pull web1/var/log/syslog - | tail", "to a stream"),
        ("syscont file pull -r web1/etc backup -p", "a directory: backup/etc"),
    ),
    "file edit": (("syscont file edit web1/etc/hosts", ""),),
    "file mkdir": (("syscont file mkdir -p web1/srv/www/html --uid 33 --gid 33", ""),),
    "file delete": (("syscont file delete web1/etc/motd", ""), ("syscont file delete -r web1/srv/old", "")),
    "config get": (
        ("syscont config get web1 limits.memory", ""),
        ("syscont config get instances.security.core_scheduling", "of the host"),
    ),
    "config set": (
        ("syscont config set web1 limits.memory=2GiB limits.processes=500", ""),
        ("syscont config set web1 user.notes=- <notes.txt", "the value from a file"),
        ("syscont config set web1 snapshots.schedule=@daily snapshots.expiry=2w", "a snapshot a day, for two weeks"),
        ("syscont config set instances.security.core_scheduling=false", "what instances have that do not say it"),
    ),
    "config unset": (("syscont config unset web1 limits.memory", ""),),
    "config show": (
        ("syscont config show web1", ""),
        ("syscont config show --all web1", "every key, with where its value comes from"),
    ),
    "config keys": (
        ("syscont config keys", ""),
        ("syscont config keys --refused", "what can't be set, and why"),
        ("syscont config keys --server", "what can be set of the host"),
        ("syscont config keys --device nic", "the options of network interfaces"),
    ),
    "edit": (
        ("syscont edit web1", ""),
        ("EDITOR='code --wait' syscont edit web1", "in the editor that you like"),
        ("syscont edit web1 <web1.yaml", "without one"),
        ("syscont edit", "the configuration of the host"),
    ),
    "apply": (
        ("syscont apply lab.yaml", "show the plan, ask, and do it"),
        ("syscont apply lab.yaml --dry-run --exit-code", "in a script: is there anything to do? 10 says yes"),
        ("generate-lab | syscont apply - --yes", "from a stream"),
    ),
    "device add": (
        ("syscont device add web1 data disk source=/srv/web path=/srv/www", "show a folder of the host"),
        ("syscont device add web1 http proxy listen=tcp:0.0.0.0:80 connect=tcp:127.0.0.1:80", "a port of the host"),
        ("syscont device add web1 eth1 nic nictype=macvlan parent=eno1", "a second interface"),
        ("syscont device add web1 serial unix-char source=/dev/ttyUSB0 gid=20", "a device node"),
        ("syscont device add web1 eth0 none", "without the interface that the profile gives"),
    ),
    "device override": (("syscont device override web1 eth0 mtu=1400", ""),),
    "device set": (("syscont device set web1 data readonly=true", ""),),
    "device unset": (("syscont device unset web1 data readonly", ""),),
    "device get": (("syscont device get web1 data source", ""),),
    "device remove": (("syscont device remove web1 data", ""),),
    "device list": (("syscont device list web1", ""),),
    "device show": (("syscont device show web1", ""),),
    "image build": (
        ("syscont image build debian/trixie", "known as debian/trixie from then on"),
        ("syscont image build busybox --alias tiny", ""),
    ),
    "image import": (
        ("syscont image import debian.tar.xz --alias debian/12", "LXD's unified form"),
        ("syscont image import lxd.tar.xz rootfs.squashfs --alias noble", "LXD's split form"),
        ("curl -s URL | syscont image import - --alias noble", "from a stream"),
    ),
    "image list": (("syscont image list", ""), ("syscont image list debian/ --format json", "")),
    "image show": (("syscont image show debian/trixie", ""),),
    "image delete": (("syscont image delete debian/trixie", ""),),
    "image alias add": (("syscont image alias add stable debian/trixie", ""),),
    "image alias remove": (("syscont image alias remove stable", ""),),
    "image alias list": (("syscont image alias list", ""),),
    "network list": (("syscont network list", ""),),
    "network show": (("syscont network show syscontbr0", ""),),
    "network info": (("syscont network info syscontbr0", ""),),
    "network create": (
        ("syscont network create lab0", "a bridge with addresses of its own, and NAT"),
        ("syscont network create lab0 ipv4.address=10.7.0.1/24 ipv4.nat=true ipv6.address=none", "with these"),
        ("syscont network create lan --type macvlan parent=eno1", "interfaces beside the host's, in its network"),
        ("syscont network create servers --type macvlan parent=eno1 vlan=20", "in a VLAN of it"),
    ),
    "network rename": (("syscont network rename lab0 lab1", ""),),
    "network delete": (("syscont network delete lab0", ""),),
    "network edit": (("syscont network edit syscontbr0", ""),),
    "network get": (("syscont network get syscontbr0 ipv4.address", ""),),
    "network set": (
        ("syscont network set lab0 ipv4.address=10.8.0.1/24", "guests get addresses in it, at once or by renewal"),
        ("syscont network set lab0 ipv4.dhcp.ranges=10.8.0.100-10.8.0.200", "the rest is for ipv4.address of devices"),
    ),
    "network unset": (("syscont network unset lab0 ipv4.dhcp.ranges", ""),),
    "network keys": (("syscont network keys", "of bridges"), ("syscont network keys --type macvlan --refused", "")),
    "network attach": (("syscont network attach lab0 web1 eth1 eth1", "device and interface named eth1"),),
    "network detach": (("syscont network detach lab0 web1", ""),),
    "network list-leases": (("syscont network list-leases syscontbr0", ""),),
    "network forward list": (("syscont network forward list syscontbr0", ""),),
    "network forward show": (("syscont network forward show lab0 192.0.2.7", ""),),
    "network forward create": (
        ("syscont network forward create lab0 192.0.2.7", "for ports that are added"),
        ("syscont network forward create lab0 192.0.2.7 target_address=10.8.0.5", "all of it to one guest"),
    ),
    "network forward set": (("syscont network forward set lab0 192.0.2.7 target_address=10.8.0.6", ""),),
    "network forward delete": (("syscont network forward delete lab0 192.0.2.7", ""),),
    "network forward port add": (
        ("syscont network forward port add lab0 192.0.2.7 tcp 80,443 10.8.0.5", "the same ports there"),
        ("syscont network forward port add lab0 192.0.2.7 tcp 2222 10.8.0.5 22", ""),
    ),
    "network forward port remove": (("syscont network forward port remove lab0 192.0.2.7 tcp 80,443", ""),),
    "network acl list": (("syscont network acl list", ""),),
    "network acl show": (("syscont network acl show web", ""),),
    "network acl create": (("syscont network acl create web", ""),),
    "network acl rename": (("syscont network acl rename web front", ""),),
    "network acl delete": (("syscont network acl delete web", ""),),
    "network acl edit": (("syscont network acl edit web", ""),),
    "network acl get": (("syscont network acl get web user.owner", ""),),
    "network acl set": (("syscont network acl set web user.owner=ops", ""),),
    "network acl unset": (("syscont network acl unset web user.owner", ""),),
    "network acl rule add": (
        ("syscont network acl rule add web ingress action=allow protocol=tcp destination_port=80,443", ""),
        ("syscont network acl rule add web egress action=drop destination=10.0.0.0/8 state=logged", ""),
    ),
    "network acl rule remove": (
        ("syscont network acl rule remove web egress destination=10.0.0.0/8", "the one that says so"),
    ),
    "network zone list": (("syscont network zone list", ""),),
    "network zone show": (("syscont network zone show lab.example", ""),),
    "network zone create": (
        ("syscont network zone create lab.example peers.ns1.address=192.0.2.53", "for a secondary at that address"),
        ("syscont network zone create 7.0.10.in-addr.arpa peers.ns1.address=192.0.2.53", "names of addresses"),
    ),
    "network zone delete": (("syscont network zone delete lab.example", ""),),
    "network zone edit": (("syscont network zone edit lab.example", ""),),
    "network zone get": (("syscont network zone get lab.example peers.ns1.address", ""),),
    "network zone set": (
        ("syscont network zone set lab.example dns.nameservers=ns1.example.com,ns2.example.com", ""),
        ("syscont network zone set lab.example peers.ns1.key=\"$(cat key)\"", "let it sign with lab.example_ns1."),
        ("syscont network zone set lab.example peers.lan.address=10.0.0.0/8", "whole networks may ask, too"),
    ),
    "network zone unset": (("syscont network zone unset lab.example peers.lan.address", ""),),
    "network zone keys": (("syscont network zone keys", ""),),
    "network zone record list": (("syscont network zone record list lab.example", ""),),
    "network zone record show": (("syscont network zone record show lab.example www", ""),),
    "network zone record create": (("syscont network zone record create lab.example www", ""),),
    "network zone record delete": (("syscont network zone record delete lab.example www", ""),),
    "network zone record entry add": (
        ("syscont network zone record entry add lab.example www CNAME web1", ""),
        ("syscont network zone record entry add lab.example @ MX '10 mail.example.com.' --ttl 3600", ""),
    ),
    "network zone record entry remove": (
        ("syscont network zone record entry remove lab.example www CNAME web1", ""),
    ),
    "operation list": (("syscont operation list", ""),),
    "operation cancel": (("syscont operation cancel ID", ""),),
    "monitor": (("syscont monitor --format json", "one event a line"),),
    "completion": (("syscont completion bash >~/.local/share/bash-completion/completions/syscont", ""),),
    "version": (("syscont version", ""),),
    "help": (("syscont help image build", ""),),
}
