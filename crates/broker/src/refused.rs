use std::{error::Error as _, fmt, time::Duration};

use audit::{Kind, Reason, Record, Step};
use domain::{
    BudgetName, CredentialName, Failure, ProviderId, RequestId, TenantId, Timestamp, Uid, Unit,
    VirtualKeyId,
};
use envelope::KmsError;
use exchange::ExchangeError;
use providers::Verdict;
use store::StoreError;
use tonic::Code;

use crate::access::Missing;

/// A call that is refused, and why: one variant for each thing a caller can do about it.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) why: Why,
    /// What the call was about, for the record. Only names that have been parsed stand here.
    pub(crate) about: About,
}

/// The reason, with what the caller may know of it.
#[derive(Clone, Debug)]
pub(crate) enum Why {
    NotPermitted(Box<Missing>),
    Unidentified,
    UnknownMethod,
    Overloaded,
    DeadlineMissing,
    DeadlinePassed,
    VirtualKeyRefused,
    /// The key is genuine.
    VirtualKeyBlocked,
    /// What a revoked key cannot have any more.
    VirtualKeyRevoked,
    TooManyKeyValues,
    ProviderNotInScope(ProviderId),
    ModelNotInScope {
        model: String,
        models: Vec<String>,
    },
    NoSuchModel {
        model: String,
        models: Vec<String>,
    },
    NoSuchProvider(String),
    NoSuchTenant,
    NoSuchCredential,
    NoSuchVirtualKey,
    NoSuchLease,
    NoSuchSession,
    NoCredential(ProviderId),
    CredentialDisabled(ProviderId),
    CredentialsExhausted {
        /// What failed last, if it is known.
        failure: Option<Failure>,
        /// When the first of them may be asked again, if time alone helps.
        retry_after: Option<Duration>,
    },
    NoFallback,
    NoSuchBudget,
    LimitReached(Box<Reached>),
    ModelAmbiguous(Vec<ProviderId>),
    SecretUnusable(String),
    DialectNotServed {
        provider: ProviderId,
        dialect: &'static str,
    },
    /// No token could be had of the credential.
    NotExchanged {
        provider: ProviderId,
        error: ExchangeError,
    },
    /// The provider does not accept the secret that is to be stored.
    SecretRefused(Verdict),
    LeaseEnded,
    /// The share of its key is destroyed.
    Erased,
    NotErasable,
    TenantSuspended,
    IdentityBlocked,
    NoSuchIdentity,
    NoSuchPolicy,
    NoSuchRotation,
    NoSuchApproval,
    /// A second person is to approve what is kept under this id.
    ApprovalNeeded(Uid),
    /// Who approved it may not any more; it is kept anew under this id.
    ApprovalLapsed(Uid),
    /// How far it had come; none if its day is over.
    ApprovalIsOver(Option<Step>),
    SamePerson,
    NotAPerson,
    /// Of which operation.
    RotationRunning(RequestId),
    NameTaken(String),
    EtagMismatch,
    SecretEmpty,
    SecretTooLong,
    SecretMalformed,
    BoxDoesNotOpen,
    PublicKeyMalformed,
    InvalidField(String),
    NotInTree,
    /// The first record that is kept.
    Pruned(u64),
    NoCheckpoint,
    /// What is stored is not what was written. The text says what, for the operator only.
    Corrupt(String),
    /// The same of a credential's row.
    CredentialCorrupt {
        credential: CredentialName,
        what: String,
    },
    Kms(KmsError),
    Store(StoreError),
    LogUnavailable,
    /// A checkpoint turned up that the log in the database does not reach.
    LogBehindCheckpoint,
    /// A checkpoint turned up that the log in the database contradicts.
    LogForked,
    Internal(String),
}

/// A limit that has no room for a call.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    /// Of which budget; none for a virtual key's rate limits.
    pub(crate) budget: Option<BudgetName>,
    pub(crate) unit: Unit,
    pub(crate) cap: u64,
    pub(crate) left: u64,
    /// When there will be more; none when time alone gives none.
    pub(crate) renews_at: Option<Timestamp>,
    pub(crate) retry_after: Option<Duration>,
}

/// What a refused call was about.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) credential: Option<CredentialName>,
    pub(crate) virtual_key: Option<VirtualKeyId>,
    pub(crate) provider: Option<ProviderId>,
}

impl Refused {
    /// Refuses with what is known of the call.
    pub(crate) fn about(why: impl Into<Why>, about: &About) -> Self {
        Self::from(why.into()).within(about)
    }

    /// The same, with what else is known of the call.
    pub(crate) fn within(mut self, about: &About) -> Self {
        let About { tenant, credential, virtual_key, provider } = about.clone();
        self.about.tenant = self.about.tenant.or(tenant);
        self.about.credential = self.about.credential.or(credential);
        self.about.virtual_key = self.about.virtual_key.or(virtual_key);
        self.about.provider = self.about.provider.or(provider);
        self
    }

    /// The record of the refusal; who and how is added by the caller.
    pub(crate) fn record(&self) -> Record {
        self.about.name_in(Record {
            kind: Kind::Refused.into(),
            reason: self.why.reason().into(),
            ..Record::default()
        })
    }
}

impl About {
    /// Puts the names into a record.
    pub(crate) fn name_in(&self, record: Record) -> Record {
        fn text(name: Option<&impl ToString>) -> String {
            name.map(ToString::to_string).unwrap_or_default()
        }
        Record {
            tenant: text(self.tenant.as_ref()),
            credential: text(self.credential.as_ref()),
            virtual_key: text(self.virtual_key.as_ref()),
            provider: text(self.provider.as_ref()),
            ..record
        }
    }
}

impl From<&TenantId> for About {
    fn from(tenant: &TenantId) -> Self {
        Self { tenant: Some(tenant.clone()), ..Self::default() }
    }
}

impl From<&CredentialName> for About {
    fn from(name: &CredentialName) -> Self {
        let tenant = Some(name.tenant.clone());
        Self { tenant, credential: Some(name.clone()), ..Self::default() }
    }
}

impl Why {
    /// The stable reason: in the record, and in the `ErrorInfo` under the same name.
    #[expect(clippy::too_many_lines, reason = "a table: each refusal is in it")]
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NotPermitted(_) => Reason::NotPermitted,
            Self::Unidentified => Reason::Unidentified,
            Self::UnknownMethod => Reason::UnknownMethod,
            Self::Overloaded => Reason::Overloaded,
            Self::DeadlineMissing => Reason::DeadlineMissing,
            Self::DeadlinePassed => Reason::DeadlinePassed,
            Self::VirtualKeyRefused => Reason::VirtualKeyRefused,
            Self::ProviderNotInScope(_) => Reason::ProviderNotInScope,
            Self::ModelNotInScope { .. } => Reason::ModelNotInScope,
            Self::NoSuchModel { .. } => Reason::NoSuchModel,
            Self::NoSuchProvider(_) => Reason::NoSuchProvider,
            Self::NoSuchTenant => Reason::NoSuchTenant,
            Self::NoSuchCredential => Reason::NoSuchCredential,
            Self::NoSuchVirtualKey => Reason::NoSuchVirtualKey,
            Self::NoSuchLease => Reason::NoSuchLease,
            Self::NoSuchSession => Reason::NoSuchSession,
            Self::NoCredential(_) => Reason::NoCredential,
            Self::CredentialDisabled(_) => Reason::CredentialIsDisabled,
            Self::CredentialsExhausted { .. } => Reason::CredentialsExhausted,
            Self::NoFallback => Reason::NoFallback,
            Self::NoSuchBudget => Reason::NoSuchBudget,
            Self::LimitReached(limit) if limit.budget.is_none() => Reason::RateLimitReached,
            Self::LimitReached(_) => Reason::BudgetExhausted,
            Self::ModelAmbiguous(_) => Reason::ModelIsAmbiguous,
            Self::VirtualKeyBlocked => Reason::VirtualKeyIsBlocked,
            Self::VirtualKeyRevoked => Reason::VirtualKeyIsRevoked,
            Self::TooManyKeyValues => Reason::TooManyKeyValues,
            Self::DialectNotServed { .. } => Reason::DialectNotServed,
            Self::NotExchanged { error, .. } if error.is_passing() => {
                Reason::TokenServiceUnavailable
            }
            Self::NotExchanged { .. } => Reason::CredentialNotExchanged,
            Self::SecretRefused(_) => Reason::SecretRefused,
            Self::LeaseEnded => Reason::LeaseEnded,
            Self::Erased => Reason::Erased,
            Self::NotErasable => Reason::NotErasable,
            Self::TenantSuspended => Reason::TenantIsSuspended,
            Self::IdentityBlocked => Reason::IdentityIsBlocked,
            Self::NoSuchIdentity => Reason::NoSuchIdentity,
            Self::NoSuchPolicy => Reason::NoSuchPolicy,
            Self::NoSuchRotation => Reason::NoSuchRotation,
            Self::NoSuchApproval => Reason::NoSuchApproval,
            Self::ApprovalNeeded(_) => Reason::ApprovalNeeded,
            Self::ApprovalLapsed(_) => Reason::ApprovalLapsed,
            Self::ApprovalIsOver(_) => Reason::ApprovalIsOver,
            Self::SamePerson => Reason::SamePerson,
            Self::NotAPerson => Reason::NotAPerson,
            Self::RotationRunning(_) => Reason::RotationIsRunning,
            Self::NameTaken(_) => Reason::NameTaken,
            Self::EtagMismatch => Reason::EtagMismatch,
            Self::SecretEmpty => Reason::SecretEmpty,
            Self::SecretTooLong => Reason::SecretTooLong,
            Self::SecretMalformed | Self::SecretUnusable(_) => Reason::SecretMalformed,
            Self::BoxDoesNotOpen => Reason::BoxDoesNotOpen,
            Self::PublicKeyMalformed => Reason::PublicKeyMalformed,
            Self::InvalidField(_) => Reason::InvalidField,
            Self::NotInTree => Reason::NotInTree,
            Self::Pruned(_) => Reason::Pruned,
            Self::NoCheckpoint => Reason::NoCheckpoint,
            Self::Corrupt(_) | Self::CredentialCorrupt { .. } | Self::Kms(KmsError::Corrupt) => {
                Reason::StoredDataCorrupt
            }
            Self::Kms(KmsError::Unavailable(_)) => Reason::KmsUnavailable,
            Self::Kms(KmsError::Refused(_)) => Reason::KmsRefused,
            Self::Store(error) => match error {
                StoreError::Exists(_) => Reason::NameTaken,
                StoreError::Changed(_) => Reason::EtagMismatch,
                StoreError::Unavailable(_) => Reason::StoreUnavailable,
                StoreError::TooLarge => Reason::InvalidField,
                StoreError::Corrupt(_) => Reason::StoredDataCorrupt,
                StoreError::InvalidRecord(_) | StoreError::Misconfigured(_) => Reason::Internal,
            },
            Self::LogUnavailable => Reason::LogUnavailable,
            Self::LogBehindCheckpoint => Reason::LogBehindCheckpoint,
            Self::LogForked => Reason::LogForked,
            Self::Internal(_) => Reason::Internal,
        }
    }

    /// Whether it may be due to a change that came in between.
    pub(crate) fn is_outdated(&self) -> bool {
        matches!(self, Self::NotExchanged { error: ExchangeError::Stopped, .. })
    }

    /// Whether what is stored of a credential, or of what it is under, cannot be used any more.
    pub(crate) fn is_unusable(&self) -> bool {
        matches!(
            self,
            Self::Erased
                | Self::Corrupt(_)
                | Self::CredentialCorrupt { .. }
                | Self::Kms(KmsError::Corrupt)
                | Self::Store(StoreError::Corrupt(_))
        )
    }

    /// The same, said of this credential.
    pub(crate) fn of_credential(self, credential: &CredentialName) -> Self {
        if let Self::Corrupt(what) = self {
            Self::CredentialCorrupt { credential: credential.clone(), what }
        } else {
            self
        }
    }

    /// Whether the fault is the deployment's, so that an operator should see it in the log file.
    pub(crate) fn is_ours(&self) -> bool {
        // A budget that refuses does what it is for.
        !matches!(self, Self::LimitReached(_))
            && (matches!(self, Self::Kms(_) | Self::Erased)
                || matches!(
                    self.code(),
                    Code::Unavailable | Code::Internal | Code::DataLoss | Code::ResourceExhausted
                ))
    }
}

impl From<Why> for Refused {
    fn from(why: Why) -> Self {
        let about = if let Why::CredentialCorrupt { credential, .. } = &why {
            credential.into()
        } else {
            About::default()
        };
        Self { why, about }
    }
}

impl From<StoreError> for Why {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<KmsError> for Why {
    fn from(error: KmsError) -> Self {
        Self::Kms(error)
    }
}

impl From<getrandom::Error> for Why {
    fn from(error: getrandom::Error) -> Self {
        Self::Internal(format!("the operating system gave no random bytes: {error}"))
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Why::from(error).into()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl fmt::Display for Why {
    #[expect(clippy::wildcard_enum_match_arm, reason = "of most, the reason's name says it all")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(what) | Self::CredentialCorrupt { what, .. } | Self::Internal(what) => {
                f.write_str(what)
            }
            // Whoever runs the KMS needs to know what it said.
            Self::Kms(error) => {
                write!(f, "the KMS: {error}")?;
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
            Self::Store(error) => write!(f, "the store: {error}"),
            _ => f.write_str(self.reason().as_str_name()),
        }
    }
}
