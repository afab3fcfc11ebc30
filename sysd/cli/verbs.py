# SPDX-License-Identifier: Apache-2.0
"""The table of verbs: what each takes, where it lives, and its one line of help.

Help, completion and the man page are made from it; the longer words are in sysd/cli/words.py and examples.py.
"""

from __future__ import annotations

from sysd.cli.errors import EXEC_FAILURE
from sysd.cli.options import LIST, NUMBER, PAIRS, VALUE, Option, Verb

FORMATS = ("table", "compact", "csv", "json", "yaml")

_ALL = Option("all", "Act on every instance that this applies to.")
_FORCE_STOP = Option("force", "Kill the guest at once instead of asking it to stop.", "f")
_TIMEOUT = Option("timeout", "Seconds that the guest gets to stop before it is killed.", "", NUMBER, "SECONDS")
_WAIT = Option("wait", "Return only when the guest has booted.", "w")
_ALIAS = Option("alias", "Give the image this name too; may be given several times.", "", LIST, "ALIAS")
_DEVICE = Option(
    "device",
    "Add a device, or change one that profiles give; may be given several times.",
    "d",
    LIST,
    "DEVICE,KEY=VALUE...",
)
_NETWORK = Option("network", "Put eth0 into this managed network.", "n", VALUE, "NETWORK", complete="network")
_CONFIG = Option("config", "Set a configuration key; may be given several times.", "c", PAIRS, "KEY=VALUE",
                 complete="key")  # fmt: skip
_FORMAT = Option("format", "How to print it.", "", VALUE, "FORMAT", FORMATS)
_NO_LEGEND = Option("no-legend", "Print neither the header nor the count.")
_SHOW = Option("format", "How to print it.", "", VALUE, "FORMAT", ("text", "json", "yaml"))
_DATA = Option("format", "How to print it.", "", VALUE, "FORMAT", ("yaml", "json"))
_ENV = Option("env", "Set a variable in the command's environment; may be repeated.", "", PAIRS, "KEY=VALUE")
_USER = Option("user", "Run as this user of the guest (a name or a number).", "u", VALUE, "USER")
_CWD = Option("cwd", "Run in this directory of the guest.", "", VALUE, "PATH")

_VM = Option("vm", "Make it a virtual machine's image.")
_DISK = Option("format", "It is a virtual machine's disk in this format.", "", VALUE, "FORMAT", ("qcow2", "raw"))

_LIST = (_FORMAT, _NO_LEGEND)
_STATELESS = Option("stateless", "Give up the memory that was kept of a virtual machine, and let it boot.")
_STOP = (_FORCE_STOP, _TIMEOUT, _ALL)
_IMAGE_COLUMNS = Option("columns", "Which columns to print, by letter.", "c", VALUE, "COLUMNS")
_COLUMNS = Option("columns", "Which columns to print, by letter or configuration key.", "c", VALUE, "COLUMNS")
_EXEC = (
    _USER,
    _CWD,
    _ENV,
    Option("tty", "Give the command a terminal of its own, also when this one is none.", "t"),
    Option("no-tty", "Give the command no terminal: it gets this one's streams as they are.", "T"),
    Option("no-stdin", "Let the command read from /dev/null.", "n"),
)
_SHELL = (_USER, _CWD, _ENV)
_LOGS = (
    Option("follow", "Go on printing what is logged from now on.", "f"),
    Option("lines", "Print only this many of the newest lines.", "n", NUMBER, "LINES"),
    Option("boot", "Print only what was logged since the host booted.", "b"),
    Option("output", "journalctl's output mode: short, json, cat, ...", "o", VALUE, "MODE"),
)
_EPHEMERAL = Option("ephemeral", "Delete it by itself once it has stopped.", "e")
_PROJECT = Option("target-project", "Put it into this project.", "", VALUE, "PROJECT")
_MODE = Option("mode", "Between hosts: which of them calls the other one.", "", VALUE, "MODE", ("auto", "pull", "push"))
_SNAPSHOT = (
    Option("stateful", "With a virtual machine's memory."),
    Option("reuse", "Replace the snapshot of that name if there is one."),
    Option("no-expiry", "Keep it, whatever snapshots.expiry says."),
    Option("scheduled", "As the timer of snapshots.schedule does: only if the schedule's keys want it now."),
)
_COPY = (
    _CONFIG,
    Option("device", "Give a device other options: NAME,KEY=VALUE,...", "d", LIST, "DEVICE"),
    Option("profile", "Use this profile instead of the source's; may be given several times.", "p", LIST, "PROFILE"),
    Option("no-profiles", "Use none of the source's profiles."),
    _EPHEMERAL,
    Option("instance-only", "Leave the source's snapshots out."),
    _PROJECT,
    Option("storage", "The storage pool to put it into.", "s", VALUE, "POOL"),
    Option("refresh", "Between hosts: bring a copy that is there already to what the source is by now."),
    _MODE,
)
_TAKE = Option("take", "Take over what has come from another host that is gone for good and can't give it up any more.")
_WITH_MEMORY = Option("stateful", "With what it has in memory, or not at all.")
_OF_COPIES = ("ephemeral", "refresh", "target-project")
_MOVE = (_PROJECT, _TAKE, _WITH_MEMORY, *(one for one in _COPY if one.long not in _OF_COPIES))
_EXPORT = (
    Option("compression", "How to compress it.", "", VALUE, "ALGORITHM",
           ("none", "gzip", "bzip2", "xz", "lzma", "zstd", "lz4")),
    Option("instance-only", "Leave the snapshots out."),
)  # fmt: skip
_PROPERTY = Option("property", "Set a property of the image; may be given several times.", "", PAIRS, "KEY=VALUE")
_VERSION = (Option("client", "Print only this command's own version."),)
_MONITOR = (Option("format", "How to print it.", "", VALUE, "FORMAT", ("text", "json")),)
_CONFIG_SHOW = (
    Option("expanded", "With what its profiles give it.", "e"),
    Option("all", "List every key with the value in force and where it comes from, defaults too.", "a"),
    _FORMAT,
    _NO_LEGEND,
)
_REFUSED = Option("refused", "List what LXD has and syscont can't offer, and why.")
_KEYS = (
    Option("device", "List the options of this type of device, or of all, instead.", "", VALUE, "TYPE",
           complete="device-type"),
    Option("server", "List the host's own instead."),
    _REFUSED,
)  # fmt: skip

_APPLY = (
    Option("dry-run", "Show the plan and change nothing."),
    Option("yes", "Do not ask.", "y"),
    Option("restart", "Restart instances where a change needs it."),
    Option("exit-code", "End with 10 when something was changed, or with --dry-run would be."),
    Option("quiet", "Do not show what is unchanged.", "q"),
    _SHOW,
)
_RECURSIVE = Option("recursive", "Directories too, with all that is in them.", "r")
_CREATE_DIRS = Option("create-dirs", "Make the directories that are missing on the way.", "p")
_ATTRIBUTES = (
    Option("mode", "Mode of what is made, octal.", "", VALUE, "MODE"),
    Option("uid", "Its user, as a number of the guest's.", "", NUMBER, "UID"),
    Option("gid", "Its group, as a number of the guest's.", "", NUMBER, "GID"),
)
_FILE_PUSH = (_RECURSIVE, _CREATE_DIRS, *_ATTRIBUTES)

_TYPE = Option("type", "Type of the network.", "t", VALUE, "TYPE", ("bridge", "macvlan", "ovn", "physical", "sriov"))
_CONFIG_OF_NETWORK = Option("config", "Set a configuration key; may be given several times.", "c", PAIRS, "KEY=VALUE",
                            complete="network-key")  # fmt: skip
_CONFIG_OF_ZONE = Option("config", "Set a configuration key; may be given several times.", "c", PAIRS, "KEY=VALUE",
                         complete="zone-key")  # fmt: skip
_TTL = Option("ttl", "How long others may remember it; 300 when not given.", "", NUMBER, "SECONDS")
_PROFILE = Option("profile", "Give it this profile; may be given several times, later ones win.", "p", LIST, "PROFILE",
                  complete="plain-profile")  # fmt: skip
_NO_PROFILES = Option("no-profiles", "Give it no profile, not even the default one.")
_DESCRIPTION = Option("description", "Say what it is for.", "", VALUE, "TEXT")
_ALL_PROJECTS = Option("all-projects", "List those of all projects.")
_VM = Option("vm", "Make a virtual machine: the image has to be one's. IMAGE/vm is found by IMAGE, too.")
_NEW = (_CONFIG, _DEVICE, _NETWORK, _PROFILE, _NO_PROFILES, _EPHEMERAL, _VM)

_FINGERPRINT = Option("fingerprint", "The host trusts you already: add it by HOST:PORT... in place of a token.", "",
                      VALUE, "SHA256")  # fmt: skip

ONE = ("instance",)
# An instance and its keys, or keys of the host.
_KEYS_OF = ("instance-or-key", "key")
MANY = ("instance", "...")

# In the order in which help shows them.
SECTIONS = (
    ("Instances", ("launch", "create", "list", "info", "rename", "copy", "move", "delete")),
    ("Running them", ("start", "stop", "restart", "pause", "resume")),
    ("Inside them", ("exec", "shell", "console", "logs")),
    ("Files in them", ("file push", "file pull", "file edit", "file mkdir", "file delete")),
    ("Configuration", ("config get", "config set", "config unset", "config show", "config keys", "edit", "apply")),
    ("Snapshots", ("snapshot create", "snapshot restore", "snapshot list", "snapshot show", "snapshot rename",
                   "snapshot delete")),
    ("Profiles", ("profile list", "profile show", "profile create", "profile copy", "profile rename", "profile delete",
                  "profile edit", "profile get", "profile set", "profile unset", "profile assign", "profile add",
                  "profile remove")),
    ("Devices of profiles", ("profile device list", "profile device add", "profile device set", "profile device unset",
                             "profile device remove")),
    ("Projects", ("project list", "project show", "project info", "project create", "project rename", "project delete",
                  "project edit", "project get", "project set", "project unset", "project keys",
                  "project switch", "project current")),
    ("Devices", ("device add", "device override", "device set", "device unset", "device get", "device remove",
                 "device list", "device show")),
    ("Backups", ("export", "import", "publish")),
    ("Images", ("image build", "image import", "image list", "image show", "image delete")),
    ("Image aliases", ("image alias add", "image alias remove", "image alias list")),
    ("Networks", ("network list", "network show", "network info", "network create", "network rename", "network delete",
                  "network edit", "network get", "network set", "network unset", "network keys", "network attach",
                  "network detach", "network list-leases")),
    ("Network forwards", ("network forward list", "network forward show", "network forward create",
                          "network forward set", "network forward delete", "network forward port add",
                          "network forward port remove")),
    ("Network peers", ("network peer list", "network peer show", "network peer create", "network peer delete")),
    ("Network ACLs", ("network acl list", "network acl show", "network acl create", "network acl rename",
                      "network acl delete", "network acl edit", "network acl get", "network acl set",
                      "network acl unset", "network acl rule add", "network acl rule remove")),
    ("Network zones", ("network zone list", "network zone show", "network zone create", "network zone delete",
                       "network zone edit", "network zone get", "network zone set", "network zone unset",
                       "network zone keys")),
    ("Records of zones", ("network zone record list", "network zone record show", "network zone record create",
                          "network zone record delete", "network zone record entry add",
                          "network zone record entry remove")),
    ("Other hosts", ("remote list", "remote add", "remote remove", "remote rename", "remote set-address",
                     "remote switch", "remote current", "remote certificate", "remote token", "trust list",
                     "trust add", "trust remove")),
    ("The host", ("operation list", "operation cancel", "monitor")),
    ("This command", ("completion", "version", "help")),
)

GROUPS = {
    "file": "Move files between here and instances, running or stopped.",
    "config": "Look at and change the configuration of instances, and of the host.",
    "profile": "Configuration and devices that instances have in common.",
    "profile device": "Devices that profiles give to instances.",
    "project": "Namespaces of instances, with limits and restrictions.",
    "device": "Give instances devices: disks, network interfaces, device nodes, proxies.",
    "image": "Build, import and look after images.",
    "image alias": "Names that stand for images.",
    "snapshot": "Keep what instances are at a moment, and go back to it.",
    "network": "Bridges with addresses, DNS and NAT, networks of OVN, and links of the host, that instances are in.",
    "network forward": "What comes for addresses of the host's, sent on to guests of a network.",
    "network forward port": "Which ports go where.",
    "network peer": "Networks of OVN that reach each other.",
    "network acl": "What goes between guests of networks and the world.",
    "network acl rule": "Rules of ACLs.",
    "network zone": "DNS zones in which instances have names, served to DNS servers and clients of yours.",
    "network zone record": "Records of your own in zones.",
    "network zone record entry": "What records say.",
    "operation": "Look at and cancel what takes long.",
    "remote": "Other hosts that you manage from here.",
    "trust": "Who may manage this host from elsewhere.",
}

_VERBS = (
    Verb("launch", "launch:launch", "Make an instance from an image and start it", "IMAGE [NAME]", 1, 2,
         (*_NEW, _WAIT), ("image", "target")),
    Verb("create", "launch:create", "Make an instance from an image", "IMAGE [NAME]", 1, 2, _NEW,
         ("image", "target")),
    Verb("list", "listing:instances", "List instances", "[FILTER...]", 0, -1, (_COLUMNS, _ALL_PROJECTS, *_LIST),
         ("filter", "...")),
    Verb("info", "info:run", "Show an instance, or the host", "[NAME]", 0, 1, (_SHOW,), ONE),
    Verb("rename", "lifecycle:rename", "Give a stopped instance another name", "NAME NEW-NAME", 2, 2, (),
         ("instance", "new")),
    Verb("copy", "snapshot:copy", "Make an instance of another, or of a snapshot", "NAME[/SNAPSHOT] [NEW-NAME]", 1, 2,
         _COPY, ("instance", "target")),
    Verb("move", "snapshot:move", "Give an instance another name, project or host", "NAME [NEW-NAME]", 1, 2,
         _MOVE, ("instance", "target")),
    Verb("delete", "lifecycle:delete", "Delete instances and all that is in them", "NAME...", 1, -1,
         (Option("force", "Stop an instance first when it runs.", "f"),), MANY),
    Verb("start", "lifecycle:start", "Start instances", "NAME...", 0, -1, (_WAIT, _STATELESS, _ALL),
         MANY),
    Verb("stop", "lifecycle:stop", "Stop instances", "NAME...", 0, -1,
         (Option("stateful", "Keep a virtual machine's memory, and go on with it at its next start."), *_STOP), MANY),
    Verb("restart", "lifecycle:restart", "Stop instances and start them again", "NAME...", 0, -1,
         (_WAIT, _STATELESS, *_STOP), MANY),
    Verb("pause", "lifecycle:pause", "Freeze all that runs in instances", "NAME...", 0, -1, (_ALL,), MANY),
    Verb("resume", "lifecycle:resume", "Let paused instances run on", "NAME...", 0, -1, (_ALL,), MANY),
    Verb("exec", "execute:run", "Run a command in an instance", "NAME [--] COMMAND [ARGUMENT...]", 1, -1, _EXEC, ONE,
         2, EXEC_FAILURE),
    Verb("shell", "execute:shell", "Open a login shell in an instance", "NAME", 1, 1, _SHELL, ONE,
         failure=EXEC_FAILURE),
    Verb("console", "console:run", "Attach to an instance's console", "NAME", 1, 1, (), ONE),
    Verb("logs", "logs:run", "Show what an instance logged", "NAME [-- JOURNALCTL-OPTION...]", 1, -1, _LOGS, ONE),
    Verb("file push", "file:push", "Put files into an instance", "SOURCE... NAME/PATH", 2, -1, _FILE_PUSH,
         ("file", "...", "instance")),
    Verb("file pull", "file:pull", "Fetch files from an instance", "NAME/PATH... TARGET", 2, -1,
         (_RECURSIVE, _CREATE_DIRS), ("instance", "...", "file")),
    Verb("file edit", "file:edit", "Open a file of an instance in your editor", "NAME/PATH", 1, 1, (), ONE),
    Verb("file mkdir", "file:make_directory", "Make directories in an instance", "NAME/PATH...", 1, -1,
         (_CREATE_DIRS, *_ATTRIBUTES), MANY),
    Verb("file delete", "file:delete", "Delete files in an instance", "NAME/PATH...", 1, -1, (_RECURSIVE,), MANY),
    Verb("config get", "config:get", "Print the value of a key", "[NAME] KEY", 1, 2, (), _KEYS_OF),
    Verb("config set", "config:set_keys", "Set keys: all of them or none", "[NAME] KEY=VALUE...", 1, -1, (),
         (*_KEYS_OF, "...")),
    Verb("config unset", "config:unset", "Remove keys, so that their defaults hold", "[NAME] KEY...", 1, -1, (),
         (*_KEYS_OF, "...")),
    Verb("config show", "config:show", "Print the configuration of an instance, or of the host", "[NAME]", 0, 1,
         _CONFIG_SHOW, ONE),
    Verb("config keys", "keys:run", "List the keys that there are", "", 0, 0, (*_KEYS, *_LIST)),
    Verb("edit", "edit:instance", "Edit what an instance, or the host, is configured by", "[NAME]", 0, 1, (), ONE),
    Verb("apply", "apply:run", "Make what there is what a file says", "FILE", 1, 1, _APPLY, ("file",)),
    Verb("snapshot create", "snapshot:create", "Take a snapshot", "NAME [SNAPSHOT]", 1, 2, _SNAPSHOT,
         ("instance", "")),
    Verb("snapshot restore", "snapshot:restore", "Make an instance what it was", "NAME SNAPSHOT", 2, 2,
         (Option("stateful", "With the memory that a virtual machine had, from which it goes on."),), ("instance", "")),
    Verb("snapshot list", "snapshot:list_all", "List an instance's snapshots", "NAME", 1, 1, _LIST, ONE),
    Verb("snapshot show", "snapshot:show_one", "Show a snapshot", "NAME SNAPSHOT", 2, 2, (_DATA,), ("instance", "")),
    Verb("snapshot rename", "snapshot:rename", "Give a snapshot another name", "NAME SNAPSHOT NEW-NAME", 3, 3, (),
         ("instance", "")),
    Verb("snapshot delete", "snapshot:delete", "Delete snapshots", "NAME SNAPSHOT...", 2, -1, (), ("instance", "")),
    Verb("profile list", "profile:list_all", "List profiles", "", 0, 0, (_ALL_PROJECTS, *_LIST)),
    Verb("profile show", "profile:show_one", "Show a profile", "PROFILE", 1, 1, (_DATA,), ("profile",)),
    Verb("profile create", "profile:create", "Make a profile", "PROFILE", 1, 1, (_CONFIG, _DESCRIPTION),
         ("new-profile",)),
    Verb("profile copy", "profile:copy", "Make a profile like another", "PROFILE NEW-PROFILE", 2, 2, (),
         ("profile", "new-profile")),
    Verb("profile rename", "profile:rename", "Give a profile another name", "PROFILE NEW-NAME", 2, 2, (),
         ("profile", "new")),
    Verb("profile delete", "profile:delete", "Delete profiles that no instance has", "PROFILE...", 1, -1, (),
         ("profile", "...")),
    Verb("profile edit", "edit:profile", "Edit a profile", "PROFILE", 1, 1, (), ("profile",)),
    Verb("profile get", "profile:get", "Print the value of a key", "PROFILE KEY", 2, 2, (), ("profile", "key")),
    Verb("profile set", "profile:set_keys", "Set keys: all of them or none", "PROFILE KEY=VALUE...", 2, -1, (),
         ("profile", "key", "...")),
    Verb("profile unset", "profile:unset", "Remove keys", "PROFILE KEY...", 2, -1, (), ("profile", "key", "...")),
    Verb("profile assign", "profile:assign", "Give an instance these profiles in place of those it has",
         "NAME [PROFILE...]", 1, -1, (), ("instance", "plain-profile", "...")),
    Verb("profile add", "profile:add", "Give an instance more profiles", "NAME PROFILE...", 2, -1, (),
         ("instance", "plain-profile", "...")),
    Verb("profile remove", "profile:remove", "Take profiles from an instance", "NAME PROFILE...", 2, -1, (),
         ("instance", "plain-profile", "...")),
    Verb("profile device list", "profile:device_list", "List a profile's devices", "PROFILE", 1, 1, _LIST,
         ("profile",)),
    Verb("profile device add", "profile:device_add", "Add a device", "PROFILE DEVICE TYPE [KEY=VALUE...]", 3, -1, (),
         ("profile", "")),
    Verb("profile device set", "profile:device_set", "Set options of a device", "PROFILE DEVICE KEY=VALUE...", 3, -1,
         (), ("profile", "")),
    Verb("profile device unset", "profile:device_unset", "Remove options of a device", "PROFILE DEVICE KEY...", 3, -1,
         (), ("profile", "")),
    Verb("profile device remove", "profile:device_remove", "Remove devices", "PROFILE DEVICE...", 2, -1, (),
         ("profile", "")),
    Verb("project list", "project:list_all", "List projects", "", 0, 0, _LIST),
    Verb("project show", "project:show_one", "Show a project", "[PROJECT]", 0, 1, (_DATA,), ("project",)),
    Verb("project info", "project:info", "Show how much of its limits a project takes", "[PROJECT]", 0, 1, _LIST,
         ("project",)),
    Verb("project create", "project:create", "Make a project", "PROJECT", 1, 1, (_CONFIG, _DESCRIPTION),
         ("new",)),
    Verb("project rename", "project:rename", "Give an empty project another name", "PROJECT NEW-NAME", 2, 2, (),
         ("project", "new")),
    Verb("project delete", "project:delete", "Delete empty projects", "PROJECT...", 1, -1, (), ("project", "...")),
    Verb("project edit", "edit:project", "Edit a project", "PROJECT", 1, 1, (), ("project",)),
    Verb("project get", "project:get", "Print the value of a key", "PROJECT KEY", 2, 2, (),
         ("project", "project-key")),
    Verb("project set", "project:set_keys", "Set keys: all of them or none", "PROJECT KEY=VALUE...", 2, -1, (),
         ("project", "project-key", "...")),
    Verb("project unset", "project:unset", "Remove keys", "PROJECT KEY...", 2, -1, (),
         ("project", "project-key", "...")),
    Verb("project keys", "keys:of_projects", "List the keys that there are", "", 0, 0, (_REFUSED, *_LIST)),
    Verb("project switch", "project:switch", "Act in a project from now on", "PROJECT", 1, 1, (), ("project",)),
    Verb("project current", "project:current", "Print the project that is acted in", "", 0, 0, ()),
    Verb("device add", "device:add", "Give an instance a device", "NAME DEVICE TYPE [KEY=VALUE...]", 3, -1, (),
         ("instance", "", "device-type", "device-option", "...")),
    Verb("device override", "device:override", "Change a device that comes from a profile, for one instance",
         "NAME DEVICE [KEY=VALUE...]", 2, -1, (), ("instance", "", "device-option", "...")),
    Verb("device set", "device:set_options", "Change options of a device", "NAME DEVICE KEY=VALUE...", 3, -1, (),
         ("instance", "", "device-option", "...")),
    Verb("device unset", "device:unset", "Remove options of a device", "NAME DEVICE KEY...", 3, -1, (),
         ("instance", "", "device-option", "...")),
    Verb("device get", "device:get", "Print the value of an option", "NAME DEVICE KEY", 3, 3, (),
         ("instance", "", "device-option")),
    Verb("device remove", "device:remove", "Take devices away from an instance", "NAME DEVICE...", 2, -1, (), ONE),
    Verb("device list", "device:list_devices", "List the devices of an instance, with those of its profiles", "NAME",
         1, 1, _LIST, ONE),
    Verb("device show", "device:show", "Print the devices of an instance's own", "NAME", 1, 1, (_DATA,), ONE),
    Verb("export", "backup:export", "Write a backup of an instance to a file", "NAME [FILE]", 1, 2, _EXPORT,
         ("instance", "file")),
    Verb("import", "backup:import_file", "Make an instance of a backup", "FILE [NAME]", 1, 2, (_PROJECT,),
         ("file", "target")),
    Verb("publish", "backup:publish", "Make an image of an instance, or of a snapshot", "NAME[/SNAPSHOT]", 1, 1,
         (_ALIAS, _PROPERTY), ONE),
    Verb("image build", "image:build", "Build an image", "SOURCE", 1, 1, (_ALIAS, _VM), ("source",)),
    Verb("image import", "image:import_files", "Import an image, in LXD's unified or split form", "FILE [ROOTFS]",
         1, 2, (_ALIAS, _VM, _DISK), ("file", "file")),
    Verb("image list", "listing:images", "List images", "[FILTER...]", 0, -1, (_IMAGE_COLUMNS, *_LIST),
         ("image", "...")),
    Verb("image show", "image:show", "Show an image", "IMAGE", 1, 1, (_DATA,), ("image",)),
    Verb("image delete", "image:delete", "Delete images", "IMAGE...", 1, -1, (), ("image", "...")),
    Verb("image alias add", "image:alias_add", "Give an image another name", "ALIAS IMAGE", 2, 2, (),
         ("new", "image")),
    Verb("image alias remove", "image:alias_remove", "Remove names of images", "ALIAS...", 1, -1, (),
         ("image", "...")),
    Verb("image alias list", "listing:aliases", "List the names of images", "", 0, 0, _LIST),
    Verb("network list", "network:list_all", "List networks", "", 0, 0, _LIST),
    Verb("network show", "network:show_one", "Show a network", "NETWORK", 1, 1, (_DATA,), ("network",)),
    Verb("network info", "network:info", "Show the state of a network's link", "[NETWORK]", 0, 1,
         (_DATA, Option("acceleration", "Show what the host's cards can do for networks of OVN, and what they lack.")),
         ("network",)),
    Verb("network create", "network:create", "Make a network", "NETWORK [KEY=VALUE...]", 1, -1,
         (_TYPE, _CONFIG_OF_NETWORK, _DESCRIPTION), ("new", "network-key", "...")),
    Verb("network rename", "network:rename", "Give a network that nobody uses another name", "NETWORK NEW-NAME", 2, 2,
         (), ("network", "new")),
    Verb("network delete", "network:delete", "Delete networks that nobody uses", "NETWORK...", 1, -1, (),
         ("network", "...")),
    Verb("network edit", "edit:network", "Edit a network", "NETWORK", 1, 1, (), ("network",)),
    Verb("network get", "network:get", "Print the value of a key", "NETWORK KEY", 2, 2, (),
         ("network", "network-key")),
    Verb("network set", "network:set_keys", "Set keys: all of them or none", "NETWORK KEY=VALUE...", 2, -1, (),
         ("network", "network-key", "...")),
    Verb("network unset", "network:unset", "Remove keys", "NETWORK KEY...", 2, -1, (),
         ("network", "network-key", "...")),
    Verb("network keys", "keys:of_networks", "List the keys that there are", "", 0, 0, (_TYPE, _REFUSED, *_LIST)),
    Verb("network attach", "network:attach", "Give an instance an interface in a network",
         "NETWORK NAME [DEVICE [INTERFACE]]", 2, 4, (), ("network", "instance", "")),
    Verb("network detach", "network:detach", "Take an instance's interface in a network away",
         "NETWORK NAME [DEVICE]", 2, 3, (), ("network", "instance", "")),
    Verb("network list-leases", "network:list_leases", "List who has which address in a network", "NETWORK", 1, 1,
         _LIST, ("network",)),
    Verb("network forward list", "forward:list_all", "List a network's forwards", "NETWORK", 1, 1, _LIST, ("network",)),
    Verb("network forward show", "forward:show_one", "Show a forward", "NETWORK ADDRESS", 2, 2, (_DATA,),
         ("network", "")),
    Verb("network forward create", "forward:create", "Send on what comes for an address of the host's",
         "NETWORK ADDRESS [target_address=ADDRESS]", 2, 3, (_DESCRIPTION,), ("network", "")),
    Verb("network forward set", "forward:change", "Send all that is for no port to another guest",
         "NETWORK ADDRESS target_address=[ADDRESS]", 3, 3, (), ("network", "")),
    Verb("network forward delete", "forward:delete", "Delete forwards", "NETWORK ADDRESS...", 2, -1, (),
         ("network", "")),
    Verb("network forward port add", "forward:port_add", "Send ports of a forward on",
         "NETWORK ADDRESS PROTOCOL PORTS TARGET [PORTS]", 5, 6, (_DESCRIPTION,), ("network", "")),
    Verb("network forward port remove", "forward:port_remove", "Send ports of a forward on no more",
         "NETWORK ADDRESS PROTOCOL PORTS", 4, 4, (), ("network", "")),
    Verb("network peer list", "peer:list_all", "List a network's peers", "NETWORK", 1, 1, _LIST, ("network",)),
    Verb("network peer show", "peer:show_one", "Show a peer", "NETWORK PEER", 2, 2, (_DATA,), ("network", "")),
    Verb("network peer create", "peer:create", "Let two networks of OVN reach each other, if the other one agrees",
         "NETWORK PEER OTHER-NETWORK", 3, 3, (_DESCRIPTION,), ("network", "", "network")),
    Verb("network peer delete", "peer:delete", "Let two networks reach each other no more", "NETWORK PEER...", 2, -1,
         (), ("network", "")),
    Verb("network acl list", "acl:list_all", "List ACLs", "", 0, 0, _LIST),
    Verb("network acl show", "acl:show_one", "Show an ACL", "ACL", 1, 1, (_DATA,), ("acl",)),
    Verb("network acl create", "acl:create", "Make an ACL, without rules yet", "ACL [KEY=VALUE...]", 1, -1,
         (_DESCRIPTION,), ("new",)),
    Verb("network acl rename", "acl:rename", "Give an ACL that nothing names another name", "ACL NEW", 2, 2, (),
         ("acl", "new")),
    Verb("network acl delete", "acl:delete", "Delete ACLs that nothing names", "ACL...", 1, -1, (), ("acl", "...")),
    Verb("network acl edit", "edit:acl", "Edit an ACL", "ACL", 1, 1, (), ("acl",)),
    Verb("network acl get", "acl:get", "Print the value of a key", "ACL KEY", 2, 2, (), ("acl", "")),
    Verb("network acl set", "acl:set_keys", "Set keys: all of them or none", "ACL KEY=VALUE...", 2, -1, (),
         ("acl", "")),
    Verb("network acl unset", "acl:unset", "Remove keys", "ACL KEY...", 2, -1, (), ("acl", "")),
    Verb("network acl rule add", "acl:rule_add", "Add a rule", "ACL DIRECTION KEY=VALUE...", 3, -1, (),
         ("acl", "direction", "")),
    Verb("network acl rule remove", "acl:rule_remove", "Remove a rule", "ACL DIRECTION [KEY=VALUE...]", 2, -1,
         (Option("force", "Remove all rules of which so much is said."),), ("acl", "direction", "")),
    Verb("network zone list", "zone:list_all", "List zones", "", 0, 0, _LIST),
    Verb("network zone show", "zone:show_one", "Show a zone", "ZONE", 1, 1, (_DATA,), ("zone",)),
    Verb("network zone create", "zone:create", "Make a zone", "ZONE [KEY=VALUE...]", 1, -1,
         (_CONFIG_OF_ZONE, _DESCRIPTION), ("new", "zone-key", "...")),
    Verb("network zone delete", "zone:delete", "Delete zones that no network names", "ZONE...", 1, -1, (),
         ("zone", "...")),
    Verb("network zone edit", "edit:zone", "Edit a zone", "ZONE", 1, 1, (), ("zone",)),
    Verb("network zone get", "zone:get", "Print the value of a key", "ZONE KEY", 2, 2, (), ("zone", "zone-key")),
    Verb("network zone set", "zone:set_keys", "Set keys: all of them or none", "ZONE KEY=VALUE...", 2, -1, (),
         ("zone", "zone-key", "...")),
    Verb("network zone unset", "zone:unset", "Remove keys", "ZONE KEY...", 2, -1, (), ("zone", "zone-key", "...")),
    Verb("network zone keys", "keys:of_zones", "List the keys that there are", "", 0, 0, (_REFUSED, *_LIST)),
    Verb("network zone record list", "zone:record_list", "List a zone's records of your own", "ZONE", 1, 1, _LIST,
         ("zone",)),
    Verb("network zone record show", "zone:record_show", "Show a record", "ZONE RECORD", 2, 2, (_DATA,), ("zone", "")),
    Verb("network zone record create", "zone:record_create", "Make a record, without entries yet", "ZONE RECORD", 2, 2,
         (_DESCRIPTION,), ("zone", "")),
    Verb("network zone record delete", "zone:record_delete", "Delete records", "ZONE RECORD...", 2, -1, (),
         ("zone", "")),
    Verb("network zone record entry add", "zone:entry_add", "Add an entry to a record", "ZONE RECORD TYPE VALUE", 4, 4,
         (_TTL,), ("zone", "")),
    Verb("network zone record entry remove", "zone:entry_remove", "Take an entry from a record",
         "ZONE RECORD TYPE VALUE", 4, 4, (), ("zone", "")),
    Verb("operation list", "listing:operations", "List what is going on", "", 0, 0, _LIST),
    Verb("operation cancel", "operation:cancel", "Cancel operations", "ID...", 1, -1, (), ("operation", "...")),
    Verb("monitor", "operation:monitor", "Print every change as it happens", "", 0, 0, _MONITOR),
    Verb("remote list", "remote:list_all", "List the hosts that you know", "", 0, 0, _LIST),
    Verb("remote add", "remote:add", "Come to know a host, by a token that it gave", "REMOTE [TOKEN]", 1, -1,
         (_FINGERPRINT,), ("", "")),
    Verb("remote remove", "remote:remove", "Know hosts no more", "REMOTE...", 1, -1, (), ("remote", "...")),
    Verb("remote rename", "remote:rename", "Call a host otherwise", "REMOTE NEW-NAME", 2, 2, (), ("remote", "")),
    Verb("remote set-address", "remote:set_address", "Say where a host is to be found now", "REMOTE HOST:PORT...", 2,
         -1, (), ("remote", "")),
    Verb("remote switch", "remote:switch", "Have names without a host be on this one", "REMOTE", 1, 1, (),
         ("remote",)),
    Verb("remote current", "remote:current", "Print the host that names without one are on", "", 0, 0, ()),
    Verb("remote certificate", "remote:certificate", "Print your own certificate, by which hosts trust you", "", 0, 0,
         ()),
    Verb("remote token", "trust:token", "Print a token, by which one from elsewhere comes to manage this host",
         "[NAME]", 0, 1, (), ("",)),
    Verb("trust list", "trust:list_all", "List who may manage this host from elsewhere, and tokens", "", 0, 0, _LIST),
    Verb("trust add", "trust:add", "Let the owner of a certificate manage this host", "FILE [NAME]", 1, 2, (),
         ("file", "")),
    Verb("trust remove", "trust:remove", "Trust certificates, or tokens, no more", "NAME...", 1, -1, (),
         ("trusted", "...")),
    Verb("completion", "completion:run", "Print the completion of a shell", "SHELL", 1, 1, (), ("shell",)),
    Verb("version", "version:run", "Print the versions of this command and of the daemon", "", 0, 0, _VERSION),
    Verb("help", "help:run", "Explain a verb", "[VERB...]", 0, -1, (), ("verb", "...")),
)  # fmt: skip

VERBS = {verb.name: verb for verb in _VERBS}
