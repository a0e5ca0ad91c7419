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

CREATE TABLE wrapped_key (
    uid        BYTEA   PRIMARY KEY,
    tenant_uid BYTEA   NOT NULL REFERENCES tenant (uid),
    purpose    TEXT    NOT NULL,
    version    BIGINT  NOT NULL,
    wrapped    BYTEA   NOT NULL,
    created_at BIGINT  NOT NULL,
    UNIQUE (tenant_uid, purpose, version)
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

-- Of the value before the last rotation, `previous_verifier` is empty when there is none.
CREATE TABLE virtual_key (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    tenant_uid          BYTEA   NOT NULL REFERENCES tenant (uid),
    tenant              TEXT COLLATE "C" NOT NULL,
    display_name        TEXT    NOT NULL,
    verifier            BYTEA   NOT NULL,
    previous_verifier   BYTEA   NOT NULL,
    previous_ends_at    BIGINT,
    scope_providers     TEXT    NOT NULL,
    scope_models        TEXT    NOT NULL,
    endpoints           TEXT    NOT NULL,
    networks            TEXT    NOT NULL,
    expires_at          BIGINT,
    labels              TEXT    NOT NULL,
    owner               TEXT,
    key_group           TEXT COLLATE "C",
    requests_per_minute BIGINT,
    tokens_per_minute   BIGINT,
    concurrent          BIGINT,
    blocked             BOOLEAN NOT NULL,
    revoked             BOOLEAN NOT NULL,
    revision            BIGINT  NOT NULL,
    created_at          BIGINT  NOT NULL,
    updated_at          BIGINT  NOT NULL,
    row_mac             BYTEA   NOT NULL
);

CREATE INDEX virtual_key_of_tenant ON virtual_key (tenant, id);

-- What may be spent. Who holds it, for which period and how much are texts of this program's.
CREATE TABLE budget (
    uid        BYTEA   PRIMARY KEY,
    tenant_uid BYTEA   NOT NULL REFERENCES tenant (uid),
    tenant     TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    holder     TEXT    NOT NULL,
    period     TEXT    NOT NULL,
    mode       TEXT    NOT NULL,
    limits     TEXT    NOT NULL,
    alerts     TEXT    NOT NULL,
    request_id TEXT,
    revision   BIGINT  NOT NULL,
    created_at BIGINT  NOT NULL,
    updated_at BIGINT  NOT NULL,
    row_mac    BYTEA   NOT NULL,
    UNIQUE (tenant, id)
);

-- What is known of one limit in one window, which is made when it is first needed and never reset. A
-- virtual key's rate limits have accounts too, and no budget. `rolling` is the length of a rolling
-- window, 0 for others; `buckets` has what was spent in it and when. `told` is the percentage whose
-- alert is in the log.
CREATE TABLE budget_account (
    budget           BYTEA   NOT NULL,
    unit             TEXT    NOT NULL,
    window_start     BIGINT  NOT NULL,
    cap              BIGINT  NOT NULL,
    mode             TEXT    NOT NULL,
    rolling          BIGINT  NOT NULL,
    alerts           TEXT    NOT NULL,
    revision         BIGINT  NOT NULL,
    spent            BIGINT  NOT NULL,
    spent_millionths BIGINT  NOT NULL,
    unknown          BIGINT  NOT NULL,
    reserved         BIGINT  NOT NULL,
    overrun          BIGINT  NOT NULL,
    alerted          BIGINT  NOT NULL,
    told             BIGINT  NOT NULL,
    buckets          TEXT    NOT NULL,
    PRIMARY KEY (budget, unit, window_start)
);

CREATE INDEX budget_account_untold ON budget_account (budget) WHERE alerted > told;

-- What is held of several accounts at once, which `holds` names. Figures are by unit. `due_at` is when
-- there is something to do for it next, if nobody settles it before.
CREATE TABLE allowance (
    id          BYTEA   PRIMARY KEY CHECK (octet_length(id) = 16),
    attempt     BYTEA   NOT NULL,
    tenant      TEXT COLLATE "C" NOT NULL,
    virtual_key TEXT    NOT NULL,
    holder      TEXT    NOT NULL,
    granted     TEXT    NOT NULL,
    covered     TEXT    NOT NULL,
    returned    TEXT    NOT NULL,
    spent       TEXT    NOT NULL,
    sequence    BIGINT  NOT NULL,
    state       TEXT    NOT NULL,
    holds       TEXT    NOT NULL,
    recorded    BOOLEAN NOT NULL,
    granted_at  BIGINT  NOT NULL,
    expires_at  BIGINT  NOT NULL,
    expired_at  BIGINT ,
    due_at      BIGINT 
);

CREATE INDEX allowance_due ON allowance (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX allowance_unknown ON allowance (tenant, id) WHERE state = 'unknown';
