# SPDX-License-Identifier: Apache-2.0
"""What ACLs log, for which a kernel has to have a log of its own and the module that writes to it."""

import pytest
from acl_world import ACL, NETWORK, built, use
from guests import syscont
from hosts import Host


@pytest.mark.needs_hardware
@pytest.mark.heavy
def test_what_is_logged_is_in_the_kernels_log(hardware_host: Host) -> None:
    host = hardware_host
    syscont(host, "image", "build", "busybox")
    with built(host, "busybox") as world:
        use(host, "egress action=allow state=logged protocol=tcp destination_port=80")
        syscont(host, "network", "set", NETWORK, "security.acls.default.ingress.logged=true")
        world.tried()
        log = host.sh("journalctl --dmesg --output=cat")
    assert f"{NETWORK} {ACL} egress allow: IN={NETWORK} OUT=wan0" in log
    assert f"{NETWORK} default ingress reject: IN=wan0 OUT={NETWORK}" in log
    assert f"{NETWORK} default egress" not in log
    syscont(host, "network", "acl", "delete", ACL)
