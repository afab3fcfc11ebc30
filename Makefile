# SPDX-License-Identifier: Apache-2.0

PREFIX ?= /usr
PYTHONDIR ?= $(PREFIX)/lib/python3/dist-packages
LIBEXECDIR ?= $(PREFIX)/libexec/syscont
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
	@echo 'make bench     speed beside Incus, on one host in one run'
	@echo 'make deb       the Debian package, into dist/'
	@echo 'make install   install into DESTDIR, PREFIX=$(PREFIX)'
	@echo 'make clean     remove what the above made here (not the cache in ~/.cache/syscont)'

.PHONY: native
native:
	$(if $(wildcard sysd/_cext/build.py),$(PYTHON) sysd/_cext/build.py)

.PHONY: deb
deb:
	@tools/need-packages dpkg-dev
	@tools/build-deb

INSTALL_DATA = install -D -m 0644
# Installed files name each other by absolute path; those follow PREFIX.
RELOCATE = sed -i -e 's,/usr/lib/python3/dist-packages,$(PYTHONDIR),' -e 's,/usr/libexec/syscont,$(LIBEXECDIR),'

.PHONY: install
install:
	find sysd -name '*.py' ! -path sysd/_cext/build.py -o -name py.typed -o -name '*.abi3.so' | while read -r file; do \
	    $(INSTALL_DATA) "$$file" "$(DESTDIR)$(PYTHONDIR)/$$file" || exit 1; done
	if [ -e data/bin/syscont ]; then install -D -m 0755 data/bin/syscont "$(DESTDIR)$(PREFIX)/bin/syscont"; fi
	install -D -m 0755 -t "$(DESTDIR)$(LIBEXECDIR)" data/bin/syscontd data/bin/launch
	$(INSTALL_DATA) -t "$(DESTDIR)$(UNITDIR)" data/systemd/*.service data/systemd/*.socket data/systemd/*.slice
	$(INSTALL_DATA) data/sysusers.d/syscont.conf "$(DESTDIR)$(PREFIX)/lib/sysusers.d/syscont.conf"
	$(INSTALL_DATA) data/tmpfiles.d/syscont.conf "$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/syscont.conf"
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/dbus-1/system.d" data/dbus-1/system.d/*.conf
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/dbus-1/system-services" data/dbus-1/system-services/*.service
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/polkit-1/actions" data/polkit-1/actions/*.policy
	$(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/syscont" data/varlink/*.varlink
	for file in data/dbus-1/interfaces/*.xml; do [ ! -e "$$file" ] || \
	    $(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/dbus-1/interfaces" "$$file" || exit 1; done
	for file in docs/man/*.[1-8]; do [ ! -e "$$file" ] || \
	    $(INSTALL_DATA) -t "$(DESTDIR)$(PREFIX)/share/man/man$${file##*.}" "$$file" || exit 1; done
	$(RELOCATE) "$(DESTDIR)$(LIBEXECDIR)"/* "$(DESTDIR)$(UNITDIR)"/syscontd.service
	if [ -e "$(DESTDIR)$(PREFIX)/bin/syscont" ]; then $(RELOCATE) "$(DESTDIR)$(PREFIX)/bin/syscont"; fi

.PHONY: clean
clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find sysd tests vm-tests tools -name __pycache__ -prune -exec rm -rf {} +
	rm -f sysd/_cext/*.so sysd/_cext/*.o sysd/_cext/_native.c
