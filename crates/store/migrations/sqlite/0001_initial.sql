-- One row: the end of the log. Who appends holds it locked, and so gives the log its order.
CREATE TABLE head (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    deployment BLOB    NOT NULL CHECK (length(deployment) = 16),
    size       INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    frontier   BLOB    NOT NULL,
    changed    INTEGER NOT NULL
) STRICT;

-- The log. `body` is what the tree hashes; all the rest only finds it.
CREATE TABLE record (
    idx        INTEGER PRIMARY KEY,
    body       BLOB    NOT NULL,
    leaf_hash  BLOB    NOT NULL CHECK (length(leaf_hash) = 32),
    kind       INTEGER NOT NULL,
    mutates    INTEGER NOT NULL,
    tenant     TEXT,
    lease_hash BLOB,
    expires_at INTEGER,
    batch      BLOB    NOT NULL
) STRICT;

CREATE INDEX record_changes ON record (idx) WHERE mutates;
CREATE INDEX record_of_tenant ON record (tenant, idx) WHERE tenant IS NOT NULL;
CREATE INDEX record_of_lease ON record (lease_hash) WHERE lease_hash IS NOT NULL;
CREATE INDEX record_live ON record (tenant, expires_at) WHERE expires_at IS NOT NULL;

-- The tree's perfect subtrees of 2^8, 2^16, … records, so that a proof need not read the log. What
-- they say is compared with what was signed; they are trusted in nothing.
CREATE TABLE tree_node (
    level INTEGER NOT NULL,
    idx   INTEGER NOT NULL,
    hash  BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, idx)
) WITHOUT ROWID, STRICT;

-- Access rules that records name by their SHA-256.
CREATE TABLE policy (
    sha256   BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    document BLOB NOT NULL
);

CREATE TABLE checkpoint (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    note TEXT    NOT NULL
) STRICT;

-- One row: the broker that does what one broker at a time does, and until when, by the database's
-- clock. It spares work; no promise rests on it.
CREATE TABLE leader (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    holder BLOB    NOT NULL CHECK (length(holder) = 16),
    until  INTEGER NOT NULL
);

-- How far each sink has come: the index of the first record that it has not acknowledged.
CREATE TABLE sink (
    name       TEXT    PRIMARY KEY,
    next_index INTEGER NOT NULL
) STRICT;

CREATE TABLE tenant (
    uid                BLOB    PRIMARY KEY,
    id                 TEXT    NOT NULL UNIQUE,
    display_name       TEXT    NOT NULL,
    preferred_provider TEXT,
    on_missing         TEXT    NOT NULL,
    rules              TEXT    NOT NULL,
    suspended          INTEGER NOT NULL,
    revision           INTEGER NOT NULL,
    request_id         TEXT,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    row_mac            BLOB    NOT NULL
) STRICT;

-- All versions of a tenant's key have one uid. Which version a row's MAC is under, the MAC's first four
-- bytes say; which a sealed value is under, its header. A version is deleted once none says it.
CREATE TABLE wrapped_key (
    uid        BLOB    NOT NULL,
    tenant_uid BLOB    NOT NULL REFERENCES tenant (uid),
    purpose    TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    wrapped    BLOB    NOT NULL,
    request_id TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (uid, version),
    UNIQUE (tenant_uid, purpose, version)
) STRICT;

-- What was asked to be done to all keys. How far it is, the keys say.
CREATE TABLE key_work (
    name       TEXT    PRIMARY KEY,
    request_id TEXT,
    begun_at   INTEGER NOT NULL,
    done       INTEGER NOT NULL
) STRICT;

-- People, of whom records hold commitments. `handle` finds a person whose SPIFFE ID is known, by a MAC
-- under the pepper; `sealed` has the id and the commitment's salt, under the tenant's key.
CREATE TABLE person (
    handle     BLOB PRIMARY KEY,
    commitment BLOB NOT NULL UNIQUE,
    tenant_uid BLOB NOT NULL REFERENCES tenant (uid),
    sealed     BLOB NOT NULL,
    row_mac    BLOB NOT NULL
) STRICT;

CREATE INDEX person_of_tenant ON person (tenant_uid);

CREATE TABLE credential (
    uid             BLOB    PRIMARY KEY,
    tenant_uid      BLOB    NOT NULL REFERENCES tenant (uid),
    tenant          TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    provider        TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    settings        TEXT    NOT NULL,
    enabled         INTEGER NOT NULL,
    priority        INTEGER NOT NULL,
    base_url        TEXT,
    models          TEXT    NOT NULL,
    last_four       TEXT    NOT NULL,
    current_version INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    row_mac         BLOB    NOT NULL,
    UNIQUE (tenant, id)
) STRICT;

CREATE TABLE credential_version (
    credential_uid BLOB    NOT NULL REFERENCES credential (uid) ON DELETE CASCADE,
    version        INTEGER NOT NULL,
    envelope       BLOB    NOT NULL,
    request_id     TEXT,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (credential_uid, version)
) STRICT;

CREATE TABLE virtual_key (
    id              TEXT    PRIMARY KEY,
    tenant_uid      BLOB    NOT NULL REFERENCES tenant (uid),
    tenant          TEXT    NOT NULL,
    display_name    TEXT    NOT NULL,
    verifier        BLOB    NOT NULL,
    scope_providers TEXT    NOT NULL,
    scope_models    TEXT    NOT NULL,
    expires_at      INTEGER,
    revoked         INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    row_mac         BLOB    NOT NULL
) STRICT;

CREATE INDEX virtual_key_of_tenant ON virtual_key (tenant, id);
