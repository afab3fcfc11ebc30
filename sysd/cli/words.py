# SPDX-License-Identifier: Apache-2.0
"""The longer words of help and the man page: for each verb what is worth knowing (examples: sysd/cli/examples.py)."""

from __future__ import annotations

INTRODUCTION = (
    "syscont runs full Linux systems in containers and virtual machines. Every instance is a systemd unit, "
    "syscont@NAME.service, so systemctl, journalctl and machinectl know it too. REMOTE:NAME names what is on another "
    "host."
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
        "addresses are its own. A source that runs stands still for the moment. Where NEW-NAME is on another host it "
        "goes there; HOST: alone is the same name on that host. Profiles that the other host has not are an error. "
        "--refresh sends the whole root again, and of the snapshots those that are missing. With --mode pull the "
        "target's host calls the source's, with push it is the other way round; who is called has core.https_address."
    ),
    "move": (
        "PROJECT:NAME as NEW-NAME, or --target-project, moves it into another project. HOST:NAME, or HOST: alone, "
        "moves it to another host, where it goes on as what it was; the other options are for that. It may run: a "
        "virtual machine with migration.stateful=true goes on there, a container is stopped for the end of it and "
        "started there. --take moves nothing: an instance that had come from another host, and waits for it to be "
        "given up there, waits no longer."
    ),
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
    "logs": (
        "This is journalctl --unit=syscont@NAME.service; what follows -- goes to journalctl as it is, though not to "
        "that of another host."
    ),
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
        "TYPE is bridge (when it is not said), macvlan, ovn, physical or sriov. A bridge, and a network of OVN, gets "
        "addresses that nobody else on the host has, and NAT, unless ipv4.address and ipv6.address say otherwise; none "
        "is none. DHCP, DNS and router advertisements come with it."
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
    "network peer create": "Nothing goes between them until the other network has this one as a peer, too.",
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
        "(enabled, disabled, logged), source and destination (addresses, networks and ranges with commas between; in "
        "networks of OVN the other end also by ACLs that it has, @internal, @external and @NETWORK/PEER), "
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
        "TYPE is disk, nic, unix-char, unix-block, unix-hotplug, usb, gpu, pci, tpm, proxy or none, which hides a "
        "device of a profile. A running instance has the device at once. 'syscont config keys --device TYPE' lists the "
        "options."
    ),
    "device override": "The instance gets a copy of the device, with these options changed.",
    "device remove": "A device that a profile gives is hidden by one of type none, not removed.",
    "device get": "Prints nothing when the option is not set. Devices of profiles are looked at too.",
    "image build": (
        "SOURCE is busybox (a second; for trying things out) or debian/SUITE, such as debian/trixie. With --vm it is a "
        "virtual machine's, and known as debian/SUITE/vm. The image's fingerprint is printed."
    ),
    "image import": (
        "One FILE is a unified archive; two are metadata and root file system. Tar with any usual compression, or "
        "squashfs for the root file system, or the disk of a virtual machine as LXD has it (qcow2). With --vm a disk "
        "is made of the root file system, which needs a kernel and systemd-boot in it. With --format FILE, or ROOTFS, "
        "is a disk in that format; it is not looked at to find out. - is standard input. The image's fingerprint is "
        "printed."
    ),
    "image list": (
        "FILTER is the beginning of, or a pattern for, an alias or a fingerprint. Columns are letters: l and L alias "
        "(first, all), f and F fingerprint (short, long), t type, a architecture, i init, s size on the host, D size "
        "of a virtual machine's disk, u time of import, c time of creation, d description."
    ),
    "image delete": "IMAGE is an alias, a fingerprint or its unique beginning. An image in use is not deleted.",
    "remote list": "This host is one of them, local.",
    "remote add": (
        "'syscont remote token' on the host prints TOKEN; without it, or as -, it is read from standard input. It is "
        "used up by this: the host trusts your certificate from then on, and you know the host by its own. REMOTE:NAME "
        "names what is on it, in every verb, and REMOTE: the host itself. With --fingerprint, addresses stand in place "
        "of the token."
    ),
    "remote remove": "The hosts go on trusting you; 'syscont trust remove' there ends that.",
    "remote switch": (
        "Remembered for you in ~/.config/syscont/remote. The environment's SYSCONT_REMOTE goes before it. local is "
        "this host."
    ),
    "remote certificate": "The key that goes with it stays in ~/.config/syscont/client.pem.",
    "remote token": (
        "Whoever uses it may do all that root may on this host. It is good once, and until core.remote_token_expiry is "
        "over (an hour). NAME is what they are called in 'syscont trust list'. core.https_address has to be set."
    ),
    "trust add": (
        "FILE is a certificate in PEM, as 'syscont remote certificate' prints it. Without NAME the file's is taken."
    ),
    "trust remove": "NAME may be a fingerprint, or its beginning. Connections end at once.",
    "monitor": "Ends with Ctrl-C.",
    "completion": "SHELL is bash, zsh or fish. Packages install what this prints.",
}
