# SPDX-License-Identifier: Apache-2.0

PREFIX ?= /usr
PYTHONDIR ?= $(PREFIX)/lib/python3/dist-packages
LIBEXECDIR ?= $(PREFIX)/libexec/syscont
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Debian's Python, not another one that happens to be first on PATH: the bindings come from Debian's packages.
PYTHON ?= /usr/bin/python3

.PHONY: help
help:
	@echo 'make demo      start a test host, run instances in it and show them (4 minutes the first time)'
	@echo 'make check     everything that must pass: lint, test, vm-test'
	@echo 'make lint      ruff, mypy, import layers, well-formed XML'
	@echo 'make test      unit tests: seconds, no network'
	@echo 'make vm-test   integration tests on real hosts (systemd-nspawn, then QEMU)'
	@echo 'make vm-test-heavy  the longer ones: crash sweeps, load (an hour)'
	@echo 'make bench     speed beside Incus, on one host in one run'
	@echo 'make bench-vms the same of virtual machines (an hour)'
	@echo 'make generate  anew what is made from tables: completions, man page, reference, D-Bus XML'
	@echo 'make deb       the Debian package, into dist/'
	@echo 'make client    the command as one file for macOS, Windows and other systems, dist/syscont.pyz'
	@echo 'make install   install into DESTDIR, PREFIX=$(PREFIX)'
	@echo 'make clean     remove what the above made here (not the cache in ~/.cache/syscont)'

.PHONY: native
native: sysd/_cext/_native.abi3.so build/attach build/forward build/guest-init build/join \
    build/launch build/launch-vm build/plug build/session

build/attach: sysd/_cext/attach.c sysd/_cext/enter.c sysd/_cext/enter.h sysd/_cext/clone.h sysd/_cext/confine.h
	@tools/need-packages gcc libc6-dev
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -std=gnu11 $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^)

build/session: sysd/_cext/session.c
build/join: sysd/_cext/join.c
build/session build/join:
	@tools/need-packages gcc libc6-dev
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -std=gnu11 -pthread $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

build/forward: $(wildcard sysd/_cext/forward/*.[ch])
	@tools/need-packages gcc libc6-dev
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -std=gnu11 $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^)

# It runs in guests, before there is any library.
build/guest-init: $(wildcard sysd/_cext/initrd/*.[ch])
	@tools/need-packages gcc libc6-dev
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -std=gnu11 $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -static -o $@ $(filter %.c,$^)

# They differ in their main parts alone.
MACHINE = $(addprefix sysd/_cext/launch/,machine.c starter.c stopper.c kept.c qmp.c den.c descriptors.c \
    macvtap.c functions.c hand.c)
LAUNCH = $(filter-out %/launch.c %/plug.c $(MACHINE),$(wildcard sysd/_cext/launch/*.c)) sysd/_cext/layers.c sysd/_cext/native.c
build/launch: sysd/_cext/launch/launch.c
build/launch-vm: $(MACHINE)
build/plug: sysd/_cext/launch/plug.c
build/launch build/launch-vm build/plug: $(LAUNCH) $(wildcard sysd/_cext/*.h sysd/_cext/launch/*.h)
	@tools/need-packages gcc libc6-dev libjson-c-dev
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -std=gnu11 $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^) -ljson-c

sysd/_cext/_native.abi3.so: sysd/_cext/build.py sysd/_cext/native.c sysd/_cext/layers.c $(wildcard sysd/_cext/*.h)
	@tools/need-packages gcc libc6-dev libpython3-dev python3-cffi python3-setuptools
	@echo '==> building the C part'
	@$(PYTHON) sysd/_cext/build.py

# Bindings and tools come from Debian, as they do on a user's host; only checkers come from elsewhere.
BINDINGS = python3-cffi python3-dbus-next python3-dnspython python3-ovsdbapp python3-pyroute2 python3-seccomp \
    python3-systemd python3-yaml
TOOLS = busybox-static bzip2 cpio dnsmasq-base dosfstools e2fsprogs fdisk fish groff-base lz4 mmdebstrap mtools nftables \
    openssh-client openvswitch-switch ovn-central qemu-guest-agent qemu-system-x86 qemu-utils squashfs-tools \
    squashfs-tools-ng tar xz-utils zsh zstd
VENV = .venv
PYTEST = $(VENV)/bin/python -m pytest
# Made last: an interrupted set-up starts anew.
READY = $(VENV)/ready

$(READY): tools/requirements.txt
	@tools/need-packages python3 python3-venv $(BINDINGS) $(TOOLS)
	@echo '==> making $(VENV)'
	@$(PYTHON) -m venv --clear --system-site-packages $(VENV)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --requirement tools/requirements.txt
	@touch $@

.PHONY: check
check: lint test vm-test

# All of them run, so that one look shows all that is wrong.
.PHONY: lint
lint: $(READY) native
	@status=0; \
	echo '==> ruff'; $(VENV)/bin/ruff check --quiet . || status=1; \
	echo '==> mypy'; $(VENV)/bin/mypy --no-error-summary || status=1; \
	(cd vm-tests && MYPYPATH=. ../$(VENV)/bin/mypy --no-error-summary --config-file ../pyproject.toml . ../tools/demo ../bench) || status=1; \
	echo '==> layers'; $(PYTHON) tools/layers.py || status=1; \
	echo '==> data files'; $(PYTHON) tools/wellformed.py || status=1; \
	exit $$status

.PHONY: test
test: $(READY) native
	@echo '==> unit tests'
	@$(PYTEST) -q -n 2 tests

# The ledger makes a test that ran on neither kind of host a failure.
RAN = build/vm-tests-ran.json
.PHONY: vm-test
vm-test: $(READY) native deb
	@rm -f $(RAN)
	@echo '==> integration tests on container hosts'
	@$(PYTEST) vm-tests -n 2 --dist loadfile --host-kind container --every-test-ran $(RAN) --durations=10
	@echo '==> integration tests on VM hosts'
	@$(PYTEST) vm-tests --host-kind vm --needs-only --every-test-ran $(RAN) --durations=10

# An hour or more; run before a release and before a change to what they test is called done.
.PHONY: vm-test-heavy
vm-test-heavy: $(READY) native deb
	CRASH_POINTS=24 $(PYTEST) vm-tests/test_*crash.py -n 2 --dist worksteal --host-kind container
	CRASH_POINTS=24 $(PYTEST) vm-tests -n 2 --dist worksteal --host-kind container --heavy
	$(PYTEST) vm-tests --host-kind vm --needs-only --heavy

# Ten minutes of messages for the DNS server that are none.
.PHONY: fuzz
fuzz: $(READY) native
	FUZZ_SECONDS=600 $(PYTEST) -q -s tests/zones/test_fuzz.py

# The tests hold these equal to what they are made from. Each is made whole before it takes its place.
GENERATE = PYTHONPATH=. $(PYTHON)
COMPLETIONS = bash:syscont.bash fish:syscont.fish zsh:_syscont
.PHONY: generate
generate:
	@mkdir -p build
	@for one in $(COMPLETIONS); do \
	    $(GENERATE) data/bin/syscont completion "$${one%%:*}" >build/generated && \
	    cp build/generated "data/completions/$${one#*:}" || exit 1; done
	@$(GENERATE) -m sysd.cli.manpage >build/generated && cp build/generated docs/man/syscont.1
	@$(GENERATE) tools/reference.py
	@$(GENERATE) tools/interfaces.py

.PHONY: demo
demo: deb
	@tools/need-packages python3-yaml mmdebstrap
	@tools/demo

.PHONY: bench
bench: $(READY) deb
	@$(VENV)/bin/python bench

# An hour: guests in a guest.
.PHONY: bench-vms
bench-vms: $(READY) deb
	@$(VENV)/bin/python bench --machines

.PHONY: deb
deb:
	@tools/need-packages dpkg-dev
	@tools/build-deb

.PHONY: client
client:
	@$(PYTHON) tools/build-client dist/syscont.pyz

INSTALL_DATA = install -D -m 0644
# Installed files name each other by absolute path; those follow PREFIX.
RELOCATE = sed -i -e 's,/usr/lib/python3/dist-packages,$(PYTHONDIR),' -e 's,/usr/libexec/syscont,$(LIBEXECDIR),'

.PHONY: install
install: native
	find sysd -name '*.py' ! -path sysd/_cext/build.py -o -name py.typed -o -name '*.abi3.so' | while read -r file; do \
	    $(INSTALL_DATA) "$$file" "$(DESTDIR)$(PYTHONDIR)/$$file" || exit 1; done
	install -D -m 0755 data/bin/syscont "$(DESTDIR)$(PREFIX)/bin/syscont"
	install -D -m 0755 -t "$(DESTDIR)$(LIBEXECDIR)" data/bin/syscontd data/bin/files
	$(INSTALL_DATA) -t "$(DESTDIR)$(UNITDIR)" data/systemd/*.service data/systemd/*.socket data/systemd/*.slice data/systemd/*.target
	$(INSTALL_DATA) data/sysusers.d/syscont.conf "$(DESTDIR)$(PREFIX)/lib/sysusers.d/syscont.conf"
	$(INSTALL_DATA) data/udev/99-syscont.rules "$(DESTDIR)$(PREFIX)/lib/udev/rules.d/99-syscont.rules"
	$(INSTALL_DATA) data/tmpfiles.d/syscont.conf "$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/syscont.conf"
	$(INSTALL_DATA) data/apparmor.d/syscont "$(DESTDIR)$(SYSCONFDIR)/apparmor.d/syscont"
	$(INSTALL_DATA) -t "$(DESTDIR)$(SYSCONFDIR)/apparmor.d/abstractions/syscont" data/apparmor.d/abstractions/syscont/*
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/dbus-1/system.d" data/dbus-1/system.d/*.conf
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/dbus-1/system-services" data/dbus-1/system-services/*.service
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/polkit-1/actions" data/polkit-1/actions/*.policy
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/syscont" data/varlink/*.varlink
	for file in data/dbus-1/interfaces/*.xml; do [ ! -e "$$file" ] || \
	    $(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/dbus-1/interfaces" "$$file" || exit 1; done
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/man/man1" docs/man/*.1
	$(INSTALL_DATA) data/completions/syscont.bash "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/syscont"
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d" data/completions/syscont.fish
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions" data/completions/_syscont
	$(RELOCATE) "$(DESTDIR)$(PREFIX)/bin/syscont" "$(DESTDIR)$(LIBEXECDIR)"/* "$(DESTDIR)$(UNITDIR)"/*.service
	install -D -m 0755 -t "$(DESTDIR)$(LIBEXECDIR)" build/attach build/forward build/guest-init build/join build/launch \
	    build/launch-vm build/plug build/session

.PHONY: clean
clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find sysd tests vm-tests tools -name __pycache__ -prune -exec rm -rf {} +
	rm -f sysd/_cext/*.so sysd/_cext/*.o sysd/_cext/_native.c
