# SPDX-License-Identifier: Apache-2.0
"""What the database is made of, step by step."""

MIGRATIONS = (
    """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE instances (
    uuid TEXT PRIMARY KEY, project TEXT NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL,
    body TEXT NOT NULL, UNIQUE (project, name)
) WITHOUT ROWID;
CREATE TABLE images (fingerprint TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE aliases (
    alias TEXT PRIMARY KEY, fingerprint TEXT NOT NULL REFERENCES images ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE networks (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE operations (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE projects (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE profiles (
    project TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (project, name)
) WITHOUT ROWID;
CREATE TABLE snapshots (
    uuid TEXT PRIMARY KEY, instance TEXT NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (instance, name)
) WITHOUT ROWID;
""",
    """
CREATE TABLE server_config (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
""",
    """
UPDATE networks SET body = json_object(
    'name', name, 'type', 'bridge', 'description', '', 'phase', 'ready', 'config', json_object(
        'ipv4.address', json_extract(body, '$.ipv4'), 'ipv4.nat', 'true',
        'ipv6.address', coalesce(nullif(json_extract(body, '$.ipv6'), ''), 'none'), 'ipv6.nat', 'true'
    )
);
""",
    """
CREATE TABLE zones (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE zone_records (
    zone TEXT NOT NULL REFERENCES zones ON DELETE CASCADE, name TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (zone, name)
) WITHOUT ROWID;
CREATE TABLE zone_content (
    zone TEXT NOT NULL REFERENCES zones ON DELETE CASCADE, record BLOB NOT NULL, PRIMARY KEY (zone, record)
) WITHOUT ROWID;
CREATE TABLE zone_changes (
    zone TEXT NOT NULL REFERENCES zones ON DELETE CASCADE, number INTEGER NOT NULL, removed BLOB NOT NULL,
    added BLOB NOT NULL, PRIMARY KEY (zone, number)
) WITHOUT ROWID;
""",
    """
CREATE TABLE acls (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE trusted (fingerprint TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE invitations (fingerprint TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE moves (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
""",
)
"""One step each; a database says how many it has taken. Steps that were released never change."""
