use std::error::Error;

use domain::Dialect;
use http::StatusCode;
use providers::{Ask, CredentialKind, NoTarget, Proof, Provider, Settings, Target};

use crate::{Loan, outgoing::unusable, refusal::Refusal, route::Call};

/// Where a call goes under a lease, and what must be done to it on the way.
///
/// The catalogue says where; the lease says where its secret may go and in which header. Unless the
/// two agree, nothing is sent.
pub(crate) fn aim(
    provider: &Provider,
    loan: &dyn Loan,
    call: &Call<'_>,
    streams: bool,
) -> Result<Target, Refusal> {
    let settings: Settings = loan.settings().iter().cloned().collect();
    let ask = Ask {
        call: call.asks,
        model: loan.model(),
        kind: kind(provider, loan.credential_kind())?,
        settings: &settings,
        base_url: loan.address(),
        streams,
    };
    let target = provider.target(&ask).map_err(|error| no_target(&error))?;
    if !loan.origins().contains(&target.origin) {
        tracing::error!(
            origin = %target.origin,
            credential = %loan.credential(),
            "a call would have left the origins of its lease"
        );
        let message = "the provider's address is not one of those for which the credential was lent; \
                       nothing was sent. Whoever runs this gateway must see that it and the broker are \
                       of the same version";
        let refusal = Refusal::new(StatusCode::BAD_GATEWAY, "upstream_address_refused", message);
        return Err(refusal.and_final());
    }
    let agrees = match &target.proof {
        Proof::Header { name, prefix } => {
            name == loan.header_name() && prefix == loan.header_prefix()
        }
        Proof::Nothing => true,
        // What signs is exchanged for a token before it is lent.
        Proof::AwsSignature { .. } => false,
    };
    if agrees { Ok(target) } else { Err(unusable("the header that its secret would go in")) }
}

/// The kind of credential that a lease names; without a word, the provider's usual one.
fn kind(provider: &Provider, word: &str) -> Result<CredentialKind, Refusal> {
    let forms = provider.credential_forms();
    let found = forms.iter().find(|form| word.is_empty() || form.kind.as_str() == word);
    found.map(|form| form.kind).ok_or_else(|| unusable("its kind"))
}

/// What to tell a caller whose call has nowhere to go.
pub(crate) fn no_target(error: &NoTarget) -> Refusal {
    let mut message = error.to_string();
    if let Some(source) = error.source() {
        message = format!("{message}: {source}");
    }
    match error {
        NoTarget::UnknownProvider { .. } => {
            Refusal::new(StatusCode::NOT_FOUND, "provider_not_found", message)
        }
        NoTarget::MissingModel { .. } => {
            Refusal::bad_request("missing_model", message).about("model")
        }
        NoTarget::ModelNotReplaceable { .. } => {
            Refusal::bad_request("model_not_replaceable", message).about("model")
        }
        NoTarget::DialectNotServed { .. } => Refusal::bad_request("dialect_not_served", message),
        NoTarget::OperationNotServed { .. } => {
            Refusal::bad_request("operation_not_served", message)
        }
        NoTarget::NativeCallNotServed { .. } => {
            Refusal::new(StatusCode::NOT_FOUND, "unknown_path", message)
        }
        NoTarget::WrongCredentialKind { .. }
        | NoTarget::MissingSetting { .. }
        | NoTarget::InvalidSetting { .. }
        | NoTarget::UnknownSetting { .. }
        | NoTarget::MissingAddress { .. }
        | NoTarget::InvalidAddress { .. } => {
            let message = format!("{message}. Ask whoever keeps the credential to correct it");
            Refusal::new(StatusCode::FAILED_DEPENDENCY, "credential_unusable", message).and_final()
        }
    }
}

/// Whether the call is of a provider's own API.
pub(crate) fn is_native(call: &Call<'_>) -> bool {
    call.dialect == Dialect::Native
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_to_change() {
        let provider = || "azure".to_owned();
        let missing = NoTarget::MissingSetting {
            provider: provider(),
            setting: "resource".to_owned(),
            help: "the name of your resource".to_owned(),
        };
        let refusal = no_target(&missing);
        assert_eq!((refusal.status.as_u16(), &*refusal.code), (424, "credential_unusable"));
        assert!(refusal.is_final);
        assert!(refusal.message.contains("`resource`: the name of your resource. Ask whoever"));
        let model = NoTarget::MissingModel { provider: provider(), hint: "; a deployment" };
        assert_eq!(no_target(&model).param.as_deref(), Some("model"));
        let path = NoTarget::NativeCallNotServed { provider: provider() };
        assert_eq!(no_target(&path).status.as_u16(), 404);
    }
}
