use std::{collections::HashMap, time::Duration};

use audit::{Reason, Step};
use domain::ProviderId;
use envelope::KmsError;
use http::StatusCode;
use store::StoreError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::refused::{Reached, Refused, Why};

/// The domain of every `ErrorInfo`.
const DOMAIN: &str = "strongroom.dev";

impl Why {
    /// The gRPC code. The one place where a refusal becomes one.
    #[expect(clippy::too_many_lines, reason = "a table: each refusal is in it")]
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NotPermitted(_)
            | Self::IdentityBlocked
            | Self::SamePerson
            | Self::NotAPerson
            | Self::VirtualKeyBlocked
            | Self::ProviderNotInScope(_)
            | Self::ModelNotInScope { .. } => Code::PermissionDenied,
            Self::Unidentified | Self::VirtualKeyRefused => Code::Unauthenticated,
            Self::UnknownMethod => Code::Unimplemented,
            Self::Overloaded | Self::LimitReached(_) => Code::ResourceExhausted,
            Self::NoSuchModel { .. }
            | Self::NoSuchProvider(_)
            | Self::NoSuchTenant
            | Self::NoSuchCredential
            | Self::NoSuchVirtualKey
            | Self::NoSuchLease
            | Self::NoSuchIdentity
            | Self::NoSuchPolicy
            | Self::NoSuchApproval
            | Self::NoSuchBudget
            | Self::NoCheckpoint => Code::NotFound,
            Self::NotExchanged { error, .. } if error.is_passing() => Code::Unavailable,
            Self::NoSuchSession
            | Self::NoCredential(_)
            | Self::CredentialDisabled(_)
            | Self::CredentialsExhausted { .. }
            | Self::NoFallback
            | Self::ModelAmbiguous(_)
            | Self::DialectNotServed { .. }
            | Self::NotExchanged { .. }
            | Self::LeaseEnded
            | Self::NoSuchRotation
            | Self::ApprovalNeeded(_)
            | Self::ApprovalLapsed(_)
            | Self::ApprovalIsOver(_)
            | Self::RotationRunning(_)
            | Self::VirtualKeyRevoked
            | Self::TooManyKeyValues
            | Self::Erased
            | Self::NotErasable
            | Self::Kms(KmsError::Refused(_))
            | Self::TenantSuspended => Code::FailedPrecondition,
            Self::NameTaken(_) | Self::Store(StoreError::Exists(_)) => Code::AlreadyExists,
            Self::EtagMismatch | Self::Store(StoreError::Changed(_)) => Code::Aborted,
            Self::DeadlineMissing
            | Self::SecretEmpty
            | Self::SecretTooLong
            | Self::SecretMalformed
            | Self::SecretUnusable(_)
            | Self::SecretRefused(_)
            | Self::BoxDoesNotOpen
            | Self::PublicKeyMalformed
            | Self::Store(StoreError::TooLarge)
            | Self::InvalidField(_) => Code::InvalidArgument,
            Self::NotInTree | Self::Pruned(_) => Code::OutOfRange,
            Self::DeadlinePassed => Code::DeadlineExceeded,
            Self::Corrupt(_)
            | Self::CredentialCorrupt { .. }
            | Self::Kms(KmsError::Corrupt)
            | Self::Store(StoreError::Corrupt(_)) => Code::DataLoss,
            Self::Kms(KmsError::Unavailable(_))
            | Self::Store(StoreError::Unavailable(_))
            | Self::LogUnavailable
            | Self::LogBehindCheckpoint
            | Self::LogForked => Code::Unavailable,
            Self::Store(StoreError::InvalidRecord(_) | StoreError::Misconfigured(_))
            | Self::Internal(_) => Code::Internal,
        }
    }

    /// The HTTP status, for what is read as files.
    pub(crate) fn http_status(&self) -> StatusCode {
        if matches!(self, Self::Pruned(_)) {
            return StatusCode::GONE;
        }
        match self.code() {
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::NotFound | Code::OutOfRange => StatusCode::NOT_FOUND,
            Code::Unavailable | Code::ResourceExhausted => StatusCode::SERVICE_UNAVAILABLE,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the caller may know.
    #[expect(clippy::too_many_lines, reason = "a table: one entry for each refusal")]
    pub(crate) fn public(&self) -> String {
        let text = match self {
            Self::NotPermitted(missing) => return missing.to_string(),
            Self::Unidentified => "the client certificate is no longer valid",
            Self::UnknownMethod => "no such method",
            Self::Overloaded => "the broker is at its limit; try again shortly",
            Self::DeadlineMissing => "a deadline of 30 s at most is required (grpc-timeout)",
            Self::DeadlinePassed => {
                "the deadline has passed; what was asked for may have been done"
            }
            Self::VirtualKeyRefused => "the virtual key is unknown, expired or revoked",
            Self::VirtualKeyBlocked => {
                "the virtual key is blocked; ask its owner, who can have it unblocked"
            }
            Self::VirtualKeyRevoked => "the virtual key is revoked, for good; make another",
            Self::TooManyKeyValues => {
                "three older values of the virtual key are still accepted; wait for one to end, or \
                 retire them"
            }
            Self::ProviderNotInScope(provider) => {
                return format!("the virtual key is not for provider `{provider}`");
            }
            Self::ModelNotInScope { model, models } => {
                return format!(
                    "the virtual key is not for model `{model}`; it is for {}",
                    listed(models)
                );
            }
            Self::NoSuchModel { model, models } => {
                return format!(
                    "no provider is known for model `{model}`; try {}, or name the provider: \
                     `provider/model`",
                    listed(models)
                );
            }
            Self::NoSuchProvider(provider) => return format!("no provider `{provider}`"),
            Self::NoSuchTenant => "no such tenant",
            Self::NoSuchCredential => "no such credential",
            Self::NoSuchVirtualKey => "no such virtual key",
            Self::NoSuchLease => "no such lease",
            Self::NoSuchSession => "no such session at this broker; open another",
            Self::NoCredential(provider) => {
                return format!(
                    "the tenant has no credential for `{provider}`; store one, or allow managed \
                     ones in the tenant's policy"
                );
            }
            Self::CredentialDisabled(provider) => {
                return format!("every credential of the tenant for `{provider}` is disabled");
            }
            Self::CredentialsExhausted { .. } => {
                "every credential that the tenant's policy lists has failed or rests after failures; \
                 try again later, or check them"
            }
            Self::NoFallback => {
                "the tenant's policy lists no other credential for this call; list one, or check this one"
            }
            Self::NoSuchBudget => "no such budget",
            Self::LimitReached(limit) => return reached(limit),
            Self::ModelAmbiguous(providers) => {
                let names: Vec<&str> = providers.iter().map(ProviderId::as_str).collect();
                return format!(
                    "{} serve models of this name, and the tenant has credentials for more than \
                     one: write provider/model, or set the tenant's preferred provider",
                    names.join(" and ")
                );
            }
            Self::DialectNotServed { provider, dialect } => {
                return format!("`{provider}` does not serve the {dialect} format");
            }
            Self::NotExchanged { provider, error } => {
                return format!("no token for `{provider}`: {error}");
            }
            Self::SecretRefused(verdict) => {
                return format!("the secret was tried and not stored: {verdict}");
            }
            Self::LeaseEnded => "the lease has ended; acquire another",
            Self::TenantSuspended => "the tenant is suspended: nothing is lent until it is resumed",
            Self::Erased => "it was erased: nobody can open it any more",
            Self::NotErasable => {
                "the tenant `platform` has what the deployment itself needs; shred its credentials one \
                 by one"
            }
            Self::IdentityBlocked => "this identity is blocked; an administrator can lift that",
            Self::NoSuchIdentity => "that identity is not blocked",
            Self::NoSuchPolicy => "no record names such access rules",
            Self::NoSuchRotation => "the credential is not being rotated",
            Self::NoSuchApproval => "no such approval; it may be older than a day",
            Self::ApprovalNeeded(id) => {
                return format!(
                    "this needs a second person: have somebody else approve `approvals/{0}`, with \
                     `strongroom approvals approve {0}`, then do it again as it is, or with \
                     `strongroom approvals run {0}`; within a day",
                    hex::encode(id)
                );
            }
            Self::ApprovalLapsed(id) => {
                return format!(
                    "who approved this may not any more, so it needs a new approval: have somebody else \
                     approve `approvals/{0}`, with `strongroom approvals approve {0}`, then do it again as \
                     it is, or with `strongroom approvals run {0}`; within a day",
                    hex::encode(id)
                );
            }
            Self::ApprovalIsOver(Some(Step::Approved)) => {
                "it is approved already: whoever proposed it can do it, with `strongroom approvals run`"
            }
            Self::ApprovalIsOver(Some(Step::Declined)) => "it was declined; propose it anew",
            Self::ApprovalIsOver(Some(Step::Used)) => "it was done already",
            Self::ApprovalIsOver(Some(Step::Proposed) | None) => "its day is over; propose it anew",
            Self::SamePerson => "who proposed it cannot approve it: somebody else must",
            Self::NotAPerson => {
                "only people propose and approve; who is one, `people` in [log] of the broker's \
                 configuration says"
            }
            Self::RotationRunning(operation) => {
                return format!(
                    "the credential is being rotated by operation `{}`; wait until that is done, or \
                     promote or cancel it",
                    operation.as_str()
                );
            }
            Self::NameTaken(name) | Self::Store(StoreError::Exists(name)) => {
                return format!("`{name}` exists already");
            }
            Self::EtagMismatch | Self::Store(StoreError::Changed(_)) => {
                "it has changed since it was read; read it again"
            }
            Self::SecretEmpty => "the secret is empty",
            Self::SecretTooLong => "the secret is longer than 16384 bytes",
            Self::SecretMalformed => "the secret has characters that no header can carry",
            Self::SecretUnusable(why) => return format!("the secret cannot be used: {why}"),
            Self::BoxDoesNotOpen => "the sealed secret does not open for this credential",
            Self::PublicKeyMalformed => "the public key is not 32 bytes of an X25519 key",
            Self::InvalidField(what) => return what.clone(),
            Self::Store(StoreError::TooLarge) => {
                "what this adds up to is more than can be kept: nothing of it was counted"
            }
            Self::NotInTree => "the log does not reach that far",
            Self::Pruned(first) => {
                return format!("records before {first} have been pruned from this log");
            }
            Self::NoCheckpoint => "no checkpoint has been signed yet; try again in a second",
            Self::Corrupt(_)
            | Self::CredentialCorrupt { .. }
            | Self::Kms(KmsError::Corrupt)
            | Self::Store(StoreError::Corrupt(_)) => {
                "what is stored is not what was written; the operator has been told"
            }
            Self::Kms(KmsError::Unavailable(_)) => "the KMS does not answer; try again",
            Self::Kms(KmsError::Refused(_)) => "the KMS refuses to unwrap the tenant's key",
            Self::Store(StoreError::Unavailable(_)) => "the store does not answer; try again",
            Self::LogBehindCheckpoint => {
                "the database has lost records that were signed, so nothing is lent; an operator \
                 must restore them or give the lost checkpoint up, as the broker's log says"
            }
            Self::LogForked => {
                "the database has other records than were signed, so nothing is lent; an operator \
                 must find out who changed them, as the broker's log says"
            }
            Self::LogUnavailable => "the log cannot be written, so nothing is lent; try again",
            Self::Store(StoreError::InvalidRecord(_) | StoreError::Misconfigured(_))
            | Self::Internal(_) => "internal error",
        };
        text.to_owned()
    }

    /// What programs may want beside the reason.
    #[expect(clippy::wildcard_enum_match_arm, reason = "few name what a program could act on")]
    fn metadata(&self) -> HashMap<String, String> {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        match self {
            Self::ModelNotInScope { model, models } | Self::NoSuchModel { model, models } => {
                HashMap::from([pair("model", model), pair("models", &models.join(","))])
            }
            Self::ProviderNotInScope(provider)
            | Self::NoCredential(provider)
            | Self::NotExchanged { provider, .. }
            | Self::CredentialDisabled(provider) => {
                HashMap::from([pair("provider", provider.as_str())])
            }
            Self::NotPermitted(missing) => HashMap::from([
                pair("permission", &missing.permission),
                pair("roles", &missing.roles.join(",")),
            ]),
            Self::SecretRefused(verdict) => HashMap::from([pair("verdict", verdict.as_str())]),
            Self::ApprovalNeeded(id) | Self::ApprovalLapsed(id) => {
                HashMap::from([pair("approval", &format!("approvals/{}", hex::encode(id)))])
            }
            Self::Pruned(first) => HashMap::from([pair("first_index", &first.to_string())]),
            Self::RotationRunning(operation) => {
                HashMap::from([pair("operation_id", operation.as_str())])
            }
            Self::LimitReached(limit) => {
                let named = limit.budget.as_ref().map(|name| pair("budget", &name.to_string()));
                let renews = limit.renews_at.map(|at| audit::proto_time(at).to_string());
                let renews = renews.map(|at| pair("renews_at", &at));
                let figures = [
                    pair("unit", limit.unit.as_str()),
                    pair("cap", &limit.cap.to_string()),
                    pair("left", &limit.left.to_string()),
                ];
                figures.into_iter().chain(named).chain(renews).collect()
            }
            Self::DialectNotServed { provider, dialect } => {
                HashMap::from([pair("provider", provider.as_str()), pair("dialect", dialect)])
            }
            Self::CredentialsExhausted { failure: Some(failure), .. } => {
                HashMap::from([pair("failure", failure.as_str())])
            }
            _ => HashMap::new(),
        }
    }

    /// When another try is worth it, where time alone helps.
    #[expect(clippy::wildcard_enum_match_arm, reason = "few refusals end by themselves")]
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CredentialsExhausted { retry_after, .. } => *retry_after,
            Self::LimitReached(limit) => limit.retry_after,
            _ => None,
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let why = &refused.why;
        let mut metadata = why.metadata();
        // Which one it is that somebody has to look at.
        if let (true, Some(credential)) = (why.is_unusable(), &refused.about.credential) {
            metadata.insert("credential".to_owned(), credential.to_string());
        }
        let mut details =
            ErrorDetails::with_error_info(reason_name(why.reason()), DOMAIN, metadata);
        if let Some(wait) = why.retry_after() {
            details.set_retry_info(Some(wait));
        }
        Self::with_error_details(why.code(), why.public(), details)
    }
}

/// The name of a reason on the wire.
fn reason_name(reason: Reason) -> &'static str {
    reason.as_str_name()
}

fn reached(limit: &Reached) -> String {
    let Reached { unit, cap, left, .. } = limit;
    let whose = match &limit.budget {
        Some(name) => format!("budget `{name}`"),
        None => "the virtual key's rate limit".to_owned(),
    };
    let when = match limit.renews_at {
        Some(at) => format!("there is more at {}", audit::proto_time(at)),
        None => "its limit must be raised, or what is held in it settled".to_owned(),
    };
    format!(
        "{whose} has {left} of {cap} {} left, and the call may need more; {when}",
        unit.as_str()
    )
}

fn listed(models: &[String]) -> String {
    if models.is_empty() { "none that is known here".to_owned() } else { models.join(", ") }
}
