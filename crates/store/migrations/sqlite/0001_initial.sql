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

-- Requests that need a second person, by the digest that records name them by.
CREATE TABLE proposal (
    sha256   BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    document BLOB NOT NULL,
    until    INTEGER NOT NULL
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

-- How far each sink has come: the index of the first record that it has not acknowledged. A MAC here, in
-- `key_work` and in `erasure` is under a key of the deployment's own, which no rotation changes.
CREATE TABLE sink (
    name       TEXT    PRIMARY KEY,
    next_index INTEGER NOT NULL,
    row_mac    BLOB    NOT NULL
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
    done       INTEGER NOT NULL,
    row_mac    BLOB    NOT NULL
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
    rotation        TEXT    NOT NULL,
    rotation_due    INTEGER,
    revision        INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    row_mac         BLOB    NOT NULL,
    UNIQUE (tenant, id)
) STRICT;

-- `rotation` is under the row's MAC and says what is due; `rotation_due` only finds it.
CREATE INDEX credential_rotating ON credential (rotation_due) WHERE rotation_due IS NOT NULL;

CREATE TABLE credential_version (
    credential_uid BLOB    NOT NULL REFERENCES credential (uid) ON DELETE CASCADE,
    version        INTEGER NOT NULL,
    envelope       BLOB    NOT NULL,
    request_id     TEXT,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (credential_uid, version)
) STRICT;

-- How credentials fare that have failed, for brokers to tell each other: without `until` the rest since
-- `since` is over. It spares calls; no promise rests on it.
CREATE TABLE credential_health (
    credential_uid BLOB    PRIMARY KEY REFERENCES credential (uid) ON DELETE CASCADE,
    revision       INTEGER NOT NULL,
    failures       INTEGER NOT NULL,
    since          INTEGER NOT NULL,
    until          INTEGER,
    why            TEXT,
    probe          INTEGER,
    changed_at     INTEGER NOT NULL
) STRICT;

CREATE INDEX credential_health_changed ON credential_health (changed_at);

-- What the last test of each credential has shown.
CREATE TABLE credential_test (
    credential_uid BLOB PRIMARY KEY REFERENCES credential (uid) ON DELETE CASCADE,
    version        INTEGER NOT NULL,
    verdict        TEXT NOT NULL,
    tested_at      INTEGER NOT NULL,
    row_mac        BLOB NOT NULL
) STRICT;

-- `previous` has 40 bytes for each older value that is accepted: its verifier, and when it ends.
CREATE TABLE virtual_key (
    id                  TEXT    PRIMARY KEY,
    tenant_uid          BLOB    NOT NULL REFERENCES tenant (uid),
    tenant              TEXT    NOT NULL,
    display_name        TEXT    NOT NULL,
    verifier            BLOB    NOT NULL,
    previous            BLOB    NOT NULL,
    scope_providers     TEXT    NOT NULL,
    scope_models        TEXT    NOT NULL,
    endpoints           TEXT    NOT NULL,
    networks            TEXT    NOT NULL,
    expires_at          INTEGER,
    labels              TEXT    NOT NULL,
    owner               TEXT,
    key_group           TEXT,
    requests_per_minute INTEGER,
    tokens_per_minute   INTEGER,
    concurrent          INTEGER,
    blocked             INTEGER NOT NULL,
    revoked             INTEGER NOT NULL,
    revision            INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    row_mac             BLOB    NOT NULL
) STRICT;

CREATE INDEX virtual_key_of_tenant ON virtual_key (tenant, id);

-- Shares of keys that are to be destroyed: 16 bytes for the id of each. What was sealed with them is gone
-- from here already; the record that says that they are destroyed takes the row along.
CREATE TABLE erasure (
    id         BLOB    PRIMARY KEY,
    tenant     TEXT NOT NULL,
    credential TEXT,
    shares     BLOB    NOT NULL,
    begun_at   INTEGER NOT NULL,
    row_mac    BLOB    NOT NULL
) STRICT;

-- Calls that were made, without their content. A call is kept for some weeks; by `usage_id` it is
-- counted once.
CREATE TABLE usage_call (
    usage_id           BLOB    PRIMARY KEY,
    tenant             TEXT NOT NULL,
    started_at         INTEGER NOT NULL,
    virtual_key        TEXT    NOT NULL,
    credential         TEXT    NOT NULL,
    provider           TEXT    NOT NULL,
    model              TEXT    NOT NULL,
    source             INTEGER NOT NULL,
    outcome            INTEGER NOT NULL,
    status             INTEGER NOT NULL,
    credential_version INTEGER NOT NULL,
    requested_model    TEXT    NOT NULL,
    dialect            INTEGER NOT NULL,
    endpoint           TEXT    NOT NULL,
    input              INTEGER NOT NULL,
    cache_read         INTEGER NOT NULL,
    cache_write_5m     INTEGER NOT NULL,
    cache_write_1h     INTEGER NOT NULL,
    audio_input        INTEGER NOT NULL,
    output             INTEGER NOT NULL,
    reasoning          INTEGER NOT NULL,
    audio_output       INTEGER NOT NULL,
    searches           INTEGER NOT NULL,
    cost_micros        INTEGER NOT NULL,
    cost_picos         INTEGER NOT NULL,
    usage_known        INTEGER NOT NULL,
    cost_known         INTEGER NOT NULL,
    cost_stated        INTEGER NOT NULL,
    price_version      TEXT    NOT NULL,
    latency_millis     INTEGER NOT NULL,
    first_token_millis INTEGER,
    lease_hash         BLOB    NOT NULL,
    allowance_id       BLOB    NOT NULL,
    attempts           INTEGER NOT NULL
) STRICT;

CREATE INDEX usage_call_of_tenant ON usage_call (tenant, started_at, usage_id);
CREATE INDEX usage_call_in_order ON usage_call (started_at, usage_id);
CREATE INDEX usage_call_of_version ON usage_call (credential, credential_version);

-- The same added up: one row for each quarter of an hour since 1970 and all that calls are told apart
-- by. Written in the transaction that keeps the calls, and kept for longer than they are. A cost is
-- `cost_micros` and `cost_picos` (millionths of a micro-USD, more than a million of them in a sum).
CREATE TABLE usage_sum (
    tenant             TEXT NOT NULL,
    quarter            INTEGER NOT NULL,
    virtual_key        TEXT NOT NULL,
    credential         TEXT NOT NULL,
    provider           TEXT NOT NULL,
    model              TEXT NOT NULL,
    source             INTEGER NOT NULL,
    outcome            INTEGER NOT NULL,
    status             INTEGER NOT NULL,
    calls              INTEGER NOT NULL,
    input              INTEGER NOT NULL,
    cache_read         INTEGER NOT NULL,
    cache_write_5m     INTEGER NOT NULL,
    cache_write_1h     INTEGER NOT NULL,
    audio_input        INTEGER NOT NULL,
    output             INTEGER NOT NULL,
    reasoning          INTEGER NOT NULL,
    audio_output       INTEGER NOT NULL,
    searches           INTEGER NOT NULL,
    cost_micros        INTEGER NOT NULL,
    cost_picos         INTEGER NOT NULL,
    usage_unknown      INTEGER NOT NULL,
    cost_unknown       INTEGER NOT NULL,
    latency_millis     INTEGER NOT NULL,
    first_token_millis INTEGER NOT NULL,
    first_tokens       INTEGER NOT NULL,
    PRIMARY KEY (tenant, quarter, virtual_key, credential, provider, model, source, outcome, status)
) WITHOUT ROWID, STRICT;

CREATE INDEX usage_sum_in_order ON usage_sum (quarter);

-- Documents of prices, every one that there was: list prices, whose tenant is empty, and tenants' own.
-- Records of the log name them by their SHA-256.
CREATE TABLE price (
    tenant     TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    sha256     BLOB    NOT NULL,
    document   BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, revision)
) STRICT;

CREATE INDEX price_by_digest ON price (sha256);
-- What may be spent. Who holds it, for which period and how much are texts of this program's.
CREATE TABLE budget (
    uid        BLOB    PRIMARY KEY,
    tenant_uid BLOB    NOT NULL REFERENCES tenant (uid),
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    holder     TEXT    NOT NULL,
    period     TEXT    NOT NULL,
    mode       TEXT    NOT NULL,
    limits     TEXT    NOT NULL,
    alerts     TEXT    NOT NULL,
    request_id TEXT,
    revision   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    row_mac    BLOB    NOT NULL,
    UNIQUE (tenant, id)
) STRICT;

-- What is known of one limit in one window, which is made when it is first needed and never reset. A
-- virtual key's rate limits have accounts too, and no budget. `rolling` is the length of a rolling
-- window, 0 for others; `buckets` has what was spent in it and when. Of what was spent, `managed` was
-- on managed credentials, and `over_...` is what a hard account would have refused. `told` is the
-- percentage whose alert is in the log, `over_told` whether the log says that something was over.
CREATE TABLE budget_account (
    budget                BLOB    NOT NULL,
    unit                  TEXT    NOT NULL,
    window_start          INTEGER NOT NULL,
    cap                   INTEGER NOT NULL,
    mode                  TEXT    NOT NULL,
    rolling               INTEGER NOT NULL,
    alerts                TEXT    NOT NULL,
    revision              INTEGER NOT NULL,
    spent                 INTEGER NOT NULL,
    spent_millionths      INTEGER NOT NULL,
    managed               INTEGER NOT NULL,
    managed_millionths    INTEGER NOT NULL,
    over_reservations     INTEGER NOT NULL,
    over_calls            INTEGER NOT NULL,
    over_spent            INTEGER NOT NULL,
    over_spent_millionths INTEGER NOT NULL,
    unknown               INTEGER NOT NULL,
    reserved              INTEGER NOT NULL,
    overrun               INTEGER NOT NULL,
    alerted               INTEGER NOT NULL,
    told                  INTEGER NOT NULL,
    over_told             INTEGER NOT NULL,
    buckets               TEXT    NOT NULL,
    PRIMARY KEY (budget, unit, window_start)
) STRICT;

CREATE INDEX budget_account_untold ON budget_account (budget)
    WHERE alerted > told OR (over_reservations > 0 AND NOT over_told);

-- What is held of several accounts at once, which `holds` names. Figures are by unit. `due_at` is when
-- there is something to do for it next, if nobody settles it before.
CREATE TABLE allowance (
    id          BLOB    PRIMARY KEY CHECK (length(id) = 16),
    attempt     BLOB    NOT NULL,
    tenant      TEXT NOT NULL,
    virtual_key TEXT    NOT NULL,
    holder      TEXT    NOT NULL,
    granted     TEXT    NOT NULL,
    covered     TEXT    NOT NULL,
    returned    TEXT    NOT NULL,
    spent       TEXT    NOT NULL,
    managed     TEXT    NOT NULL,
    sequence    INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    holds       TEXT    NOT NULL,
    recorded    INTEGER NOT NULL,
    granted_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    expired_at  INTEGER,
    due_at      INTEGER
) STRICT;

CREATE INDEX allowance_due ON allowance (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX allowance_unknown ON allowance (tenant, id) WHERE state = 'unknown';
