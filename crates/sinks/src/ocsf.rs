use audit::Kind;
use serde_json::{Map, Value as Json, json};

use crate::{
    Event,
    fields::{Value, fields},
    meaning::{Weight, is_about_identity, summary, weight},
};

/// A record as an event of the Open Cybersecurity Schema Framework, on one line.
pub(crate) fn line(event: &Event) -> String {
    let (class, activity) = class(event);
    let mut all = common(event, class, activity);
    match class {
        Class::ApiActivity => {
            all.insert("actor".to_owned(), actor(event));
            all.insert("api".to_owned(), api(event));
            all.insert("src_endpoint".to_owned(), source(event));
            let resources = resources(event);
            if !resources.is_empty() {
                all.insert("resources".to_owned(), Json::Array(resources));
            }
        }
        Class::EntityManagement => {
            all.insert("actor".to_owned(), actor(event));
            all.insert("entity".to_owned(), entity(event));
            all.insert("src_endpoint".to_owned(), source(event));
        }
        Class::Authentication => {
            all.insert("user".to_owned(), user(event));
            all.insert("service".to_owned(), json!({ "name": PRODUCT }));
            all.insert("is_remote".to_owned(), Json::Bool(true));
            let session = hex::encode(&event.record.session_key_sha256);
            if !session.is_empty() {
                all.insert("session".to_owned(), json!({ "uid": session, "is_remote": true }));
            }
        }
    }
    Json::Object(all).to_string()
}

/// The classes of events that a record can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Class {
    ApiActivity,
    EntityManagement,
    Authentication,
}

impl Class {
    fn uid(self) -> u64 {
        match self {
            Self::ApiActivity => 6003,
            Self::EntityManagement => 3004,
            Self::Authentication => 3002,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ApiActivity => "API Activity",
            Self::EntityManagement => "Entity Management",
            Self::Authentication => "Authentication",
        }
    }

    fn category(self) -> (u64, &'static str) {
        match self {
            Self::ApiActivity => (6, "Application Activity"),
            Self::EntityManagement | Self::Authentication => (3, "Identity & Access Management"),
        }
    }
}

/// What was done, as the classes number it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Activity {
    Create,
    Read,
    Update,
    Delete,
    Logon,
    Logoff,
    /// None of those that the class names: its name is the record's own.
    Other,
}

impl Activity {
    fn id(self) -> u64 {
        match self {
            Self::Create | Self::Logon => 1,
            Self::Read | Self::Logoff => 2,
            Self::Update => 3,
            Self::Delete => 4,
            Self::Other => 99,
        }
    }

    fn name(self, kind: Kind) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Read => "Read",
            Self::Update => "Update",
            Self::Delete => "Delete",
            Self::Logon => "Logon",
            Self::Logoff => "Logoff",
            Self::Other => summary(kind),
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
fn class(event: &Event) -> (Class, Activity) {
    use Class::{ApiActivity, Authentication, EntityManagement};

    match event.kind {
        Kind::SessionOpened => (Authentication, Activity::Logon),
        Kind::SessionRevoked => (Authentication, Activity::Logoff),
        Kind::Refused if is_about_identity(event.reason) => (Authentication, Activity::Logon),
        Kind::LeaseGranted | Kind::AllowanceDrawn => (ApiActivity, Activity::Create),
        Kind::Read => (ApiActivity, Activity::Read),
        Kind::LeaseRenewed | Kind::UsageReported => (ApiActivity, Activity::Update),
        Kind::LeaseReleased
        | Kind::LeaseRevoked
        | Kind::LogPruned
        | Kind::AllowanceSettled
        | Kind::AllowanceExpired => (ApiActivity, Activity::Delete),
        Kind::TenantCreated
        | Kind::CredentialCreated
        | Kind::VirtualKeyCreated
        | Kind::BudgetCreated => (EntityManagement, Activity::Create),
        Kind::TenantUpdated
        | Kind::TenantSuspended
        | Kind::TenantResumed
        | Kind::CredentialRotated
        | Kind::CredentialRotationStarted
        | Kind::CredentialRotationAdvanced
        | Kind::CredentialRotationFinished
        | Kind::CredentialRotationRolledBack
        | Kind::CredentialDisabled
        | Kind::CredentialEnabled
        | Kind::VirtualKeyUpdated
        | Kind::VirtualKeyRotated
        | Kind::VirtualKeyBlocked
        | Kind::VirtualKeyUnblocked
        | Kind::IdentityBlocked
        | Kind::PricesChanged
        | Kind::IdentityUnblocked
        | Kind::BudgetUpdated
        | Kind::AllowanceReconciled
        | Kind::KekRotated
        | Kind::KekRetired
        | Kind::KeyRewrapped => (EntityManagement, Activity::Update),
        Kind::CredentialDeleted
        | Kind::CredentialShredded
        | Kind::TenantShredded
        | Kind::SharesDestroyed
        | Kind::VirtualKeyRevoked
        | Kind::BudgetDeleted => (EntityManagement, Activity::Delete),
        Kind::Unspecified
        | Kind::BrokerStarted
        | Kind::BrokerStopped
        | Kind::Refused
        | Kind::PolicyLoaded
        | Kind::Finding
        | Kind::CredentialTested
        | Kind::SecretInAnswer
        | Kind::BudgetAlert
        | Kind::ApprovalRequested
        | Kind::ApprovalGiven
        | Kind::ApprovalDeclined
        | Kind::ApprovalUsed
        | Kind::PolicyAdmitted
        | Kind::BudgetWouldRefuse
        | Kind::KekRotationBegun
        | Kind::KeyRewrapBegun
        | Kind::CheckpointGivenUp => (ApiActivity, Activity::Other),
    }
}

fn common(event: &Event, class: Class, activity: Activity) -> Map<String, Json> {
    let (category_uid, category_name) = class.category();
    let (severity_id, severity) = severity(weight(event));
    let (status_id, status) = if event.is_refused() { (2, "Failure") } else { (1, "Success") };
    let mut all = Map::new();
    let mut put = |name: &str, value: Json| all.insert(name.to_owned(), value);
    put("activity_id", json!(activity.id()));
    put("activity_name", json!(activity.name(event.kind)));
    put("category_uid", json!(category_uid));
    put("category_name", json!(category_name));
    put("class_uid", json!(class.uid()));
    put("class_name", json!(class.name()));
    put("type_uid", json!(class.uid() * 100 + activity.id()));
    put("type_name", json!(format!("{}: {}", class.name(), activity.name(event.kind))));
    put("time", json!(event.time.as_millis()));
    put("severity_id", json!(severity_id));
    put("severity", json!(severity));
    put("status_id", json!(status_id));
    put("status", json!(status));
    if event.reason != audit::Reason::Unspecified {
        put("status_code", json!(event.reason.as_str_name()));
    }
    if event.record.count != 0 {
        put("count", json!(event.record.count));
    }
    put("message", json!(summary(event.kind)));
    put("metadata", metadata(event));
    put("unmapped", Json::Object(unmapped(event)));
    all
}

fn metadata(event: &Event) -> Json {
    let mut metadata = json!({
        "version": VERSION,
        "product": {
            "name": PRODUCT,
            "vendor_name": PRODUCT,
            "version": env!("CARGO_PKG_VERSION"),
        },
        "event_code": event.kind.as_str_name(),
        "log_name": "strongroom.v1.Record",
        "sequence": event.index,
        "uid": event.index.to_string(),
    });
    if let (Some(metadata), false) = (metadata.as_object_mut(), event.record.trace_id.is_empty()) {
        let trace = hex::encode(&event.record.trace_id);
        metadata.insert("correlation_uid".to_owned(), Json::String(trace));
    }
    metadata
}

/// Who did it. Where it was the broker itself, there is no user.
fn actor(event: &Event) -> Json {
    if !event.actor.is_empty() {
        let mut actor = json!({ "user": user(event) });
        let session = hex::encode(&event.record.session_key_sha256);
        if let (Some(actor), false) = (actor.as_object_mut(), session.is_empty()) {
            actor.insert("session".to_owned(), json!({ "uid": session }));
        }
        return actor;
    }
    json!({ "app_name": BROKER, "app_uid": broker(event) })
}

fn user(event: &Event) -> Json {
    if event.actor.is_empty() {
        return json!({ "name": "unknown", "type_id": 0, "type": "Unknown" });
    }
    let (type_id, kind) = if event.is_by_a_person() { (1, "User") } else { (99, "Workload") };
    json!({ "name": event.actor, "uid": event.actor, "type_id": type_id, "type": kind })
}

/// Where it came from. Records hold no addresses: an identity is what there is to say.
fn source(event: &Event) -> Json {
    if event.actor.is_empty() {
        json!({ "name": BROKER, "uid": broker(event) })
    } else {
        json!({ "name": event.actor })
    }
}

fn broker(event: &Event) -> String {
    let broker = hex::encode(&event.record.broker);
    if broker.is_empty() { "unknown".to_owned() } else { broker }
}

fn api(event: &Event) -> Json {
    let record = &event.record;
    // What the broker does of itself is no call: the kind stands for the operation.
    let (service, operation) =
        record.method.split_once('/').unwrap_or((BROKER, event.kind.as_str_name()));
    let mut api = json!({ "operation": operation, "service": { "name": service } });
    if let (Some(api), false) = (api.as_object_mut(), record.request_id.is_empty()) {
        api.insert("request".to_owned(), json!({ "uid": record.request_id }));
    }
    api
}

/// What was acted upon.
fn resources(event: &Event) -> Vec<Json> {
    let record = &event.record;
    let mut all = Vec::new();
    if !record.lease_hash.is_empty() {
        all.push(json!({ "type": "Lease", "uid": hex::encode(&record.lease_hash) }));
    }
    if !record.credential.is_empty() {
        all.push(json!({
            "type": "Credential",
            "name": record.credential,
            "uid": hex::encode(&record.credential_uid),
            "version": record.credential_version.to_string(),
        }));
    }
    if !record.virtual_key.is_empty() {
        all.push(json!({ "type": "Virtual key", "uid": record.virtual_key }));
    }
    if !record.tenant.is_empty() {
        all.push(json!({ "type": "Tenant", "name": record.tenant }));
    }
    all
}

/// What was changed.
fn entity(event: &Event) -> Json {
    let record = &event.record;
    if !event.subject.is_empty() {
        json!({ "type": "Identity", "name": event.subject, "uid": event.subject })
    } else if !record.credential.is_empty() {
        json!({
            "type": "Credential",
            "name": record.credential,
            "uid": hex::encode(&record.credential_uid),
            "version": record.credential_version.to_string(),
        })
    } else if !record.virtual_key.is_empty() {
        json!({ "type": "Virtual key", "name": record.virtual_key, "uid": record.virtual_key })
    } else {
        json!({ "type": "Tenant", "name": record.tenant, "uid": record.tenant })
    }
}

/// All that the record says, under its own names, but for what every class has a place for.
fn unmapped(event: &Event) -> Map<String, Json> {
    let mapped = ["index", "time", "kind", "reason", "actor", "trace_id"];
    fields(event)
        .into_iter()
        .filter(|(name, _)| !mapped.contains(name))
        .map(|(name, value)| match value {
            Value::Text(text) => (name.to_owned(), Json::String(text)),
            Value::Number(number) => (name.to_owned(), json!(number)),
        })
        .collect()
}

fn severity(weight: Weight) -> (u64, &'static str) {
    match weight {
        Weight::Routine => (1, "Informational"),
        Weight::Notice => (2, "Low"),
        Weight::Warning => (3, "Medium"),
        Weight::Alarm => (4, "High"),
    }
}

/// The version of the schema.
const VERSION: &str = "1.3.0";
const PRODUCT: &str = "Strongroom";
const BROKER: &str = "strongroom-broker";
