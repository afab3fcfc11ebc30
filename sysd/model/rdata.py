# SPDX-License-Identifier: Apache-2.0
"""Entries of records as people write them, checked by dnspython and made what goes over the wire.

Loads dnspython: to be imported where a zone is at work, and nowhere else.
"""

from __future__ import annotations

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from sysd.model.errors import InvalidError, UnsupportedError
from sysd.model.zones import APEX, MAX_TTL, Entry, Record

MAX_VALUE = 4096
MAX_RDATA = 8192
"""Bytes: a record has to fit into a message of a transfer."""
_REFUSED = {
    "SOA": "the zone has its own",
    "DNAME": "names below it would have to be made up for each question",
    **dict.fromkeys(("RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "CDS", "CDNSKEY", "SIG", "KEY", "NXT"),
                    "zones are signed by the servers that they are handed to"),
}  # fmt: skip
# dnspython keeps what it can't check as it is; that is not to be published.
_GENERIC = "\\#"


def check_entry(zone: str, name: str, entry: Entry) -> Entry:
    """The entry with its type in capitals. Raises InvalidError or UnsupportedError."""
    checked = Entry(entry.type.upper(), entry.value.strip(" "), entry.ttl)
    wire(zone, name, checked)
    return checked


def remembered(zone: str, name: str, entry: Entry) -> dict[str, str]:
    """An entry as a record keeps it, with what goes over the wire: to make that again of very many takes long."""
    checked = check_entry(zone, name, entry)
    kind, data = wire(zone, name, checked)
    ttl = str(checked.ttl)
    return {"type": checked.type, "value": checked.value, "ttl": ttl, "kind": str(kind), "data": data.hex()}


def wire(zone: str, name: str, entry: Entry) -> tuple[int, bytes]:
    """Number of the type, and data in wire form; names in value that have no dot at their end are in the zone."""
    kind = _type(entry.type)
    if name == APEX and kind in (dns.rdatatype.NS, dns.rdatatype.CNAME):
        hint = "dns.nameservers says them" if kind == dns.rdatatype.NS else "the zone has other records there"
        raise UnsupportedError(f"type: no {entry.type} for the zone itself", hint)
    if not 0 <= entry.ttl <= MAX_TTL:
        raise InvalidError(f"ttl: out of range: {entry.ttl}", f"seconds, at most {MAX_TTL}")
    if len(entry.value) > MAX_VALUE or not entry.value.isprintable() or entry.value.startswith(_GENERIC):
        raise InvalidError(f"value: not data of {entry.type}: {entry.value[:80]!r}", "one line, as in a zone file")
    try:
        found = dns.rdata.from_text(dns.rdataclass.IN, kind, entry.value, dns.name.from_text(zone), relativize=False)
        data = found.to_digestable() if kind in _NAMES else found.to_wire()
    except (dns.exception.DNSException, ValueError, IndexError, OverflowError, UnicodeError) as error:
        raise InvalidError(f"value: not data of {entry.type}: {entry.value[:80]!r}", str(error)[:200]) from None
    if data is None or len(data) > MAX_RDATA:
        raise InvalidError(f"value: too long for {entry.type}", f"at most {MAX_RDATA} bytes")
    return int(kind), data


# Of these the names that they hold are looked up by ours, in lower case.
_NAMES = frozenset({dns.rdatatype.CNAME, dns.rdatatype.NS, dns.rdatatype.PTR})


def _type(text: str) -> dns.rdatatype.RdataType:
    try:
        kind = dns.rdatatype.from_text(text)
    except (dns.exception.DNSException, ValueError):
        raise InvalidError(f"type: unknown: {text[:40]!r}", "such as A, AAAA, CNAME, MX, SRV or TXT") from None
    if why := _REFUSED.get(text.upper()):
        raise UnsupportedError(f"type: {text.upper()} can't be set", why)
    generic = dns.rdata.get_rdata_class(dns.rdataclass.IN, kind) is dns.rdata.GenericRdata
    if generic or dns.rdatatype.is_metatype(kind):
        raise UnsupportedError(f"type: {text[:40]} can't be checked", "it is not taken for that")
    return kind


def check_together(record: Record) -> None:
    """Raise InvalidError unless the entries of a record can be under one name."""
    entries = record.parsed
    aliases = [entry for entry in entries if entry.type == "CNAME"]
    if aliases and len(entries) > 1:
        raise InvalidError(f"record {record.name}: a CNAME and other entries", "a CNAME has to be alone (RFC 1034)")
    seen: set[tuple[str, str]] = set()
    for each in record.entries:
        if (each["kind"], each["data"]) in seen:
            raise InvalidError(f"record {record.name}: {each['type']} {each['value']} is there twice")
        seen.add((each["kind"], each["data"]))
