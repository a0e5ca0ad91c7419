use domain::Dialect;
use thiserror::Error;

use crate::{CredentialKind, Operation};

/// Why a call has no target, and what to change.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum NoTarget {
    /// Nobody here knows this provider.
    #[error("no provider is called `{name}`; there are {known}")]
    UnknownProvider {
        /// The name as given, made printable.
        name: String,
        /// The slugs that there are.
        known: String,
    },
    /// The provider takes other kinds of credentials.
    #[error("{provider} takes no credential of kind {kind}; it takes {takes}")]
    WrongCredentialKind {
        /// The provider.
        provider: String,
        /// The kind as given.
        kind: CredentialKind,
        /// The kinds that it takes.
        takes: String,
    },
    /// A setting of the credential is missing.
    #[error("the credential for {provider} lacks the setting `{setting}`: {help}")]
    MissingSetting {
        /// The provider.
        provider: String,
        /// The setting.
        setting: String,
        /// What it is.
        help: String,
    },
    /// A setting of the credential cannot be.
    #[error(
        "the setting `{setting}` of the credential for {provider} should look like {looks_like}"
    )]
    InvalidSetting {
        /// The provider.
        provider: String,
        /// The setting.
        setting: String,
        /// How it should look.
        looks_like: String,
    },
    /// The provider has no such setting.
    #[error(
        "a credential of kind {kind} for {provider} has no setting `{setting}`; it may have {known}"
    )]
    UnknownSetting {
        /// The provider.
        provider: String,
        /// The kind of credential.
        kind: CredentialKind,
        /// The setting as given, made printable.
        setting: String,
        /// The settings that it may have.
        known: String,
    },
    /// Each credential brings its own address, and this one does not.
    #[error("a credential for {provider} needs an address (base_url)")]
    MissingAddress {
        /// The provider.
        provider: String,
    },
    /// The address cannot be used.
    #[error("the address of the credential for {provider} cannot be used")]
    InvalidAddress {
        /// The provider.
        provider: String,
        /// What is wrong with it.
        #[source]
        source: domain::InvalidOrigin,
    },
    /// The call must say which model, or which deployment, it is for.
    #[error("name a model: {provider} needs one for this call{hint}")]
    MissingModel {
        /// The provider.
        provider: String,
        /// What a model is there.
        hint: &'static str,
    },
    /// The provider does not serve this dialect.
    #[error(
        "{provider} does not serve the format `{dialect}`; it serves {served}",
        dialect = .dialect.as_str()
    )]
    DialectNotServed {
        /// The provider.
        provider: String,
        /// The dialect.
        dialect: Dialect,
        /// The dialects that it serves.
        served: String,
    },
    /// The provider does not serve this operation.
    #[error(
        "{provider} does not serve {operation} in this format; it serves {served}",
        operation = .operation.as_str()
    )]
    OperationNotServed {
        /// The provider.
        provider: String,
        /// The operation.
        operation: Operation,
        /// The operations that it serves in the same dialect.
        served: String,
    },
    /// The call's body repeats the model of its path, or the other model could be no part of a path.
    #[error(
        "the tenant's policy puts the model `{model}` in the place of the one in the path, which this \
         call of {provider}'s own API does not allow: name that model yourself"
    )]
    ModelNotReplaceable {
        /// The provider.
        provider: String,
        /// The model that the policy names.
        model: String,
    },
    /// The call is not one of the provider's own that may pass through.
    #[error("this call of {provider}'s own API is not passed through; see its list of paths")]
    NativeCallNotServed {
        /// The provider.
        provider: String,
    },
}
