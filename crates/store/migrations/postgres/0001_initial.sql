-- One row: the end of the log. Who appends holds it locked, and so gives the log its order.
CREATE TABLE head (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    deployment BYTEA   NOT NULL CHECK (octet_length(deployment) = 16),
    size       BIGINT  NOT NULL,
    time       BIGINT  NOT NULL,
    frontier   BYTEA   NOT NULL,
    changed    BIGINT  NOT NULL
);

-- The log. `body` is what the tree hashes; all the rest only finds it.
CREATE TABLE record (
    idx        BIGINT  PRIMARY KEY,
    body       BYTEA   NOT NULL,
    leaf_hash  BYTEA   NOT NULL CHECK (octet_length(leaf_hash) = 32),
    kind       BIGINT  NOT NULL,
    mutates    BOOLEAN NOT NULL,
    tenant     TEXT COLLATE "C",
    lease_hash BYTEA,
    expires_at BIGINT,
    batch      BYTEA   NOT NULL
);

CREATE INDEX record_changes ON record (idx) WHERE mutates;
CREATE INDEX record_of_tenant ON record (tenant, idx) WHERE tenant IS NOT NULL;
CREATE INDEX record_of_lease ON record (lease_hash) WHERE lease_hash IS NOT NULL;
CREATE INDEX record_live ON record (tenant, expires_at) WHERE expires_at IS NOT NULL;

-- The tree's perfect subtrees of 2^8, 2^16, … records, so that a proof need not read the log. What
-- they say is compared with what was signed; they are trusted in nothing.
CREATE TABLE tree_node (
    level BIGINT  NOT NULL,
    idx   BIGINT  NOT NULL,
    hash  BYTEA  NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, idx)
);

-- Access rules that records name by their SHA-256.
CREATE TABLE policy (
    sha256   BYTEA PRIMARY KEY CHECK (octet_length(sha256) = 32),
    document BYTEA NOT NULL
);

CREATE TABLE checkpoint (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    size BIGINT  NOT NULL,
    note TEXT    NOT NULL
);

-- One row: the broker that does what one broker at a time does, and until when, by the database's
-- clock. It spares work; no promise rests on it.
CREATE TABLE leader (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    holder BYTEA   NOT NULL CHECK (octet_length(holder) = 16),
    until  BIGINT  NOT NULL
);

-- How far each sink has come: the index of the first record that it has not acknowledged.
CREATE TABLE sink (
    name       TEXT COLLATE "C" PRIMARY KEY,
    next_index BIGINT  NOT NULL
);

CREATE TABLE tenant (
    uid                BYTEA   PRIMARY KEY,
    id                 TEXT COLLATE "C" NOT NULL UNIQUE,
    display_name       TEXT    NOT NULL,
    preferred_provider TEXT,
    on_missing         TEXT    NOT NULL,
    rules              TEXT    NOT NULL,
    suspended          BOOLEAN NOT NULL,
    revision           BIGINT  NOT NULL,
    request_id         TEXT,
    created_at         BIGINT  NOT NULL,
    updated_at         BIGINT  NOT NULL,
    row_mac            BYTEA   NOT NULL
);

-- All versions of a tenant's key have one uid. Which version a row's MAC is under, the MAC's first four
-- bytes say; which a sealed value is under, its header. A version is deleted once none says it.
CREATE TABLE wrapped_key (
    uid        BYTEA   NOT NULL,
    tenant_uid BYTEA   NOT NULL REFERENCES tenant (uid),
    purpose    TEXT    NOT NULL,
    version    BIGINT  NOT NULL,
    wrapped    BYTEA   NOT NULL,
    request_id TEXT,
    created_at BIGINT  NOT NULL,
    PRIMARY KEY (uid, version),
    UNIQUE (tenant_uid, purpose, version)
);

-- What was asked to be done to all keys. How far it is, the keys say.
CREATE TABLE key_work (
    name       TEXT COLLATE "C" PRIMARY KEY,
    request_id TEXT,
    begun_at   BIGINT  NOT NULL,
    done       BOOLEAN NOT NULL
);

-- People, of whom records hold commitments. `handle` finds a person whose SPIFFE ID is known, by a MAC
-- under the pepper; `sealed` has the id and the commitment's salt, under the tenant's key.
CREATE TABLE person (
    handle     BYTEA PRIMARY KEY,
    commitment BYTEA NOT NULL UNIQUE,
    tenant_uid BYTEA NOT NULL REFERENCES tenant (uid),
    sealed     BYTEA NOT NULL,
    row_mac    BYTEA NOT NULL
);

CREATE INDEX person_of_tenant ON person (tenant_uid);

CREATE TABLE credential (
    uid             BYTEA   PRIMARY KEY,
    tenant_uid      BYTEA   NOT NULL REFERENCES tenant (uid),
    tenant          TEXT COLLATE "C" NOT NULL,
    id              TEXT COLLATE "C" NOT NULL,
    provider        TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    settings        TEXT    NOT NULL,
    enabled         BOOLEAN NOT NULL,
    priority        BIGINT  NOT NULL,
    base_url        TEXT,
    models          TEXT    NOT NULL,
    last_four       TEXT    NOT NULL,
    current_version BIGINT  NOT NULL,
    revision        BIGINT  NOT NULL,
    created_at      BIGINT  NOT NULL,
    updated_at      BIGINT  NOT NULL,
    row_mac         BYTEA   NOT NULL,
    UNIQUE (tenant, id)
);

CREATE TABLE credential_version (
    credential_uid BYTEA   NOT NULL REFERENCES credential (uid) ON DELETE CASCADE,
    version        BIGINT  NOT NULL,
    envelope       BYTEA   NOT NULL,
    request_id     TEXT,
    created_at     BIGINT  NOT NULL,
    PRIMARY KEY (credential_uid, version)
);

CREATE TABLE virtual_key (
    id              TEXT COLLATE "C" PRIMARY KEY,
    tenant_uid      BYTEA   NOT NULL REFERENCES tenant (uid),
    tenant          TEXT COLLATE "C" NOT NULL,
    display_name    TEXT    NOT NULL,
    verifier        BYTEA   NOT NULL,
    scope_providers TEXT    NOT NULL,
    scope_models    TEXT    NOT NULL,
    expires_at      BIGINT,
    revoked         BOOLEAN NOT NULL,
    revision        BIGINT  NOT NULL,
    created_at      BIGINT  NOT NULL,
    updated_at      BIGINT  NOT NULL,
    row_mac         BYTEA   NOT NULL
);

CREATE INDEX virtual_key_of_tenant ON virtual_key (tenant, id);
