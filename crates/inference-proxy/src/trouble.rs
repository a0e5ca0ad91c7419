use std::error::Error;

use domain::Failure;
use http::StatusCode;

use egress::EgressError;

use crate::{outgoing::SHORT_WAIT, refusal::Refusal};

/// What came of a provider that did not answer with HTTP: whose matter it is, if another credential
/// could do better, and what to tell the caller.
pub(crate) fn failed(error: &hyper_util::client::legacy::Error) -> (Option<Failure>, Refusal) {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<EgressError>() {
            // An address that must not be called is a matter for whoever runs this.
            let failure = (!error.is_refusal()).then_some(Failure::Unreachable);
            return (failure, egress_refusal(error));
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            tracing::warn!(%error, "the provider's answer is not HTTP");
            return (Some(Failure::ProviderTrouble), garbled());
        }
        cause = error.source();
    }
    tracing::warn!(%error, "the provider did not answer");
    (Some(Failure::ProviderTrouble), failed_answer())
}

fn failed_answer() -> Refusal {
    let message = "the provider broke off before its answer could be used";
    Refusal::new(StatusCode::BAD_GATEWAY, "upstream_failed", message)
}

pub(crate) fn garbled() -> Refusal {
    let message = "what the provider answered is not HTTP, or has a head that is too large: if the \
                   credential has an address of its own, check it";
    Refusal::new(StatusCode::BAD_GATEWAY, "upstream_garbled", message)
}

/// What stands in the place of an answer with the leased secret in it.
pub(crate) fn withheld() -> Refusal {
    let message = "the provider's answer held the credential that it was called with, and was withheld: \
                   tell whoever runs this gateway, whose log has the request's id";
    Refusal::new(StatusCode::BAD_GATEWAY, "secret_in_answer", message).and_final()
}

/// The provider was asked not to encode its answer.
pub(crate) fn encoded_answer() -> Refusal {
    let message = "the provider's answer is compressed although it was asked not to do so, and an answer \
                   that cannot be searched for the credential is not handed on: if the credential has \
                   an address of its own, turn compression off there";
    Refusal::new(StatusCode::BAD_GATEWAY, "upstream_encoded", message)
}

pub(crate) fn egress_refusal(error: &EgressError) -> Refusal {
    if error.is_refusal() {
        let message = format!(
            "the provider's address was not called: {error}. Whoever runs this gateway can allow \
             networks in `egress.allow`"
        );
        return Refusal::new(StatusCode::BAD_GATEWAY, "upstream_address_refused", message)
            .and_final();
    }
    tracing::warn!(%error, "the provider was not reached");
    let message = format!("the provider was not reached: {error}; nothing was sent, try again");
    Refusal::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", message).retry_after(SHORT_WAIT)
}

pub(crate) fn too_slow() -> Refusal {
    let message = "the provider did not begin its answer in time";
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
}

pub(crate) fn no_lease() -> Refusal {
    let message = "no credential can be lent at the moment; nothing was sent, try again";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable", message)
        .retry_after(SHORT_WAIT)
}

pub(crate) fn overloaded() -> Refusal {
    let message = "this gateway has too many calls in hand; nothing was sent, try again";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message).retry_after(SHORT_WAIT)
}
