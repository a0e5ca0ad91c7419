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

-- Requests that need a second person, by the digest that records name them by.
CREATE TABLE proposal (
    sha256   BYTEA PRIMARY KEY CHECK (octet_length(sha256) = 32),
    document BYTEA NOT NULL,
    until    BIGINT NOT NULL
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

-- How far each sink has come: the index of the first record that it has not acknowledged. A MAC here, in
-- `key_work` and in `erasure` is under a key of the deployment's own, which no rotation changes.
CREATE TABLE sink (
    name       TEXT COLLATE "C" PRIMARY KEY,
    next_index BIGINT  NOT NULL,
    row_mac    BYTEA   NOT NULL
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
    done       BOOLEAN NOT NULL,
    row_mac    BYTEA   NOT NULL
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
    rotation        TEXT    NOT NULL,
    rotation_due    BIGINT,
    revision        BIGINT  NOT NULL,
    created_at      BIGINT  NOT NULL,
    updated_at      BIGINT  NOT NULL,
    row_mac         BYTEA   NOT NULL,
    UNIQUE (tenant, id)
);

-- `rotation` is under the row's MAC and says what is due; `rotation_due` only finds it.
CREATE INDEX credential_rotating ON credential (rotation_due) WHERE rotation_due IS NOT NULL;

CREATE TABLE credential_version (
    credential_uid BYTEA   NOT NULL REFERENCES credential (uid) ON DELETE CASCADE,
    version        BIGINT  NOT NULL,
    envelope       BYTEA   NOT NULL,
    request_id     TEXT,
    created_at     BIGINT  NOT NULL,
    PRIMARY KEY (credential_uid, version)
);

-- How credentials fare that have failed, for brokers to tell each other: without `until` the rest since
-- `since` is over. It spares calls; no promise rests on it.
CREATE TABLE credential_health (
    credential_uid BYTEA   PRIMARY KEY REFERENCES credential (uid) ON DELETE CASCADE,
    revision       BIGINT  NOT NULL,
    failures       BIGINT  NOT NULL,
    since          BIGINT  NOT NULL,
    until          BIGINT,
    why            TEXT,
    probe          BIGINT,
    changed_at     BIGINT  NOT NULL
);

CREATE INDEX credential_health_changed ON credential_health (changed_at);

-- What the last test of each credential has shown.
CREATE TABLE credential_test (
    credential_uid BYTEA PRIMARY KEY REFERENCES credential (uid) ON DELETE CASCADE,
    version        BIGINT NOT NULL,
    verdict        TEXT NOT NULL,
    tested_at      BIGINT NOT NULL,
    row_mac        BYTEA NOT NULL
);

-- `previous` has 40 bytes for each older value that is accepted: its verifier, and when it ends.
CREATE TABLE virtual_key (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    tenant_uid          BYTEA   NOT NULL REFERENCES tenant (uid),
    tenant              TEXT COLLATE "C" NOT NULL,
    display_name        TEXT    NOT NULL,
    verifier            BYTEA   NOT NULL,
    previous            BYTEA   NOT NULL,
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

-- Shares of keys that are to be destroyed: 16 bytes for the id of each. What was sealed with them is gone
-- from here already; the record that says that they are destroyed takes the row along.
CREATE TABLE erasure (
    id         BYTEA    PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL,
    credential TEXT,
    shares     BYTEA    NOT NULL,
    begun_at   BIGINT NOT NULL,
    row_mac    BYTEA NOT NULL
);

-- Calls that were made, without their content. A call is kept for some weeks; by `usage_id` it is
-- counted once.
CREATE TABLE usage_call (
    usage_id           BYTEA   PRIMARY KEY,
    tenant             TEXT COLLATE "C" NOT NULL,
    started_at         BIGINT  NOT NULL,
    virtual_key        TEXT    NOT NULL,
    credential         TEXT    NOT NULL,
    provider           TEXT    NOT NULL,
    model              TEXT    NOT NULL,
    source             BIGINT  NOT NULL,
    outcome            BIGINT  NOT NULL,
    status             BIGINT  NOT NULL,
    credential_version BIGINT  NOT NULL,
    requested_model    TEXT    NOT NULL,
    dialect            BIGINT  NOT NULL,
    endpoint           TEXT    NOT NULL,
    input              BIGINT  NOT NULL,
    cache_read         BIGINT  NOT NULL,
    cache_write_5m     BIGINT  NOT NULL,
    cache_write_1h     BIGINT  NOT NULL,
    audio_input        BIGINT  NOT NULL,
    output             BIGINT  NOT NULL,
    reasoning          BIGINT  NOT NULL,
    audio_output       BIGINT  NOT NULL,
    searches           BIGINT  NOT NULL,
    cost_micros        BIGINT  NOT NULL,
    cost_picos         BIGINT  NOT NULL,
    usage_known        BIGINT  NOT NULL,
    cost_known         BIGINT  NOT NULL,
    cost_stated        BIGINT  NOT NULL,
    price_version      TEXT    NOT NULL,
    latency_millis     BIGINT  NOT NULL,
    first_token_millis BIGINT,
    lease_hash         BYTEA   NOT NULL,
    allowance_id       BYTEA   NOT NULL,
    attempts           BIGINT  NOT NULL
);

CREATE INDEX usage_call_of_tenant ON usage_call (tenant, started_at, usage_id);
CREATE INDEX usage_call_in_order ON usage_call (started_at, usage_id);
CREATE INDEX usage_call_of_version ON usage_call (credential, credential_version);

-- The same added up: one row for each quarter of an hour since 1970 and all that calls are told apart
-- by. Written in the transaction that keeps the calls, and kept for longer than they are. A cost is
-- `cost_micros` and `cost_picos` (millionths of a micro-USD, more than a million of them in a sum).
CREATE TABLE usage_sum (
    tenant             TEXT COLLATE "C" NOT NULL,
    quarter            BIGINT  NOT NULL,
    virtual_key        TEXT COLLATE "C" NOT NULL,
    credential         TEXT COLLATE "C" NOT NULL,
    provider           TEXT COLLATE "C" NOT NULL,
    model              TEXT COLLATE "C" NOT NULL,
    source             BIGINT  NOT NULL,
    outcome            BIGINT  NOT NULL,
    status             BIGINT  NOT NULL,
    calls              BIGINT  NOT NULL,
    input              BIGINT  NOT NULL,
    cache_read         BIGINT  NOT NULL,
    cache_write_5m     BIGINT  NOT NULL,
    cache_write_1h     BIGINT  NOT NULL,
    audio_input        BIGINT  NOT NULL,
    output             BIGINT  NOT NULL,
    reasoning          BIGINT  NOT NULL,
    audio_output       BIGINT  NOT NULL,
    searches           BIGINT  NOT NULL,
    cost_micros        BIGINT  NOT NULL,
    cost_picos         BIGINT  NOT NULL,
    usage_unknown      BIGINT  NOT NULL,
    cost_unknown       BIGINT  NOT NULL,
    latency_millis     BIGINT  NOT NULL,
    first_token_millis BIGINT  NOT NULL,
    first_tokens       BIGINT  NOT NULL,
    PRIMARY KEY (tenant, quarter, virtual_key, credential, provider, model, source, outcome, status)
);

CREATE INDEX usage_sum_in_order ON usage_sum (quarter);

-- Documents of prices, every one that there was: list prices, whose tenant is empty, and tenants' own.
-- Records of the log name them by their SHA-256.
CREATE TABLE price (
    tenant     TEXT COLLATE "C" NOT NULL,
    revision   BIGINT  NOT NULL,
    sha256     BYTEA   NOT NULL,
    document   BYTEA   NOT NULL,
    created_at BIGINT  NOT NULL,
    PRIMARY KEY (tenant, revision)
);

CREATE INDEX price_by_digest ON price (sha256);
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
-- window, 0 for others; `buckets` has what was spent in it and when. Of what was spent, `managed` was
-- on managed credentials, and `over_...` is what a hard account would have refused. `told` is the
-- percentage whose alert is in the log, `over_told` whether the log says that something was over.
CREATE TABLE budget_account (
    budget                BYTEA   NOT NULL,
    unit                  TEXT    NOT NULL,
    window_start          BIGINT  NOT NULL,
    cap                   BIGINT  NOT NULL,
    mode                  TEXT    NOT NULL,
    rolling               BIGINT  NOT NULL,
    alerts                TEXT    NOT NULL,
    revision              BIGINT  NOT NULL,
    spent                 BIGINT  NOT NULL,
    spent_millionths      BIGINT  NOT NULL,
    managed               BIGINT  NOT NULL,
    managed_millionths    BIGINT  NOT NULL,
    over_reservations     BIGINT  NOT NULL,
    over_calls            BIGINT  NOT NULL,
    over_spent            BIGINT  NOT NULL,
    over_spent_millionths BIGINT  NOT NULL,
    unknown               BIGINT  NOT NULL,
    reserved              BIGINT  NOT NULL,
    overrun               BIGINT  NOT NULL,
    alerted               BIGINT  NOT NULL,
    told                  BIGINT  NOT NULL,
    over_told             BOOLEAN NOT NULL,
    buckets               TEXT    NOT NULL,
    PRIMARY KEY (budget, unit, window_start)
);

CREATE INDEX budget_account_untold ON budget_account (budget)
    WHERE alerted > told OR (over_reservations > 0 AND NOT over_told);

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
    managed     TEXT    NOT NULL,
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
