use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        SignableBody, SignableRequest, SignatureLocation, SigningInstructions, SigningSettings,
        sign,
    },
    sign::v4::SigningParams,
};
use domain::Timestamp;
use http::{HeaderName, HeaderValue};

use crate::{AwsKeys, ExchangeError};

/// What is signed: Signature Version 4 of AWS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signable<'a> {
    pub(super) url: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) at: Timestamp,
    /// How long the signature stands, if it goes into the query instead of headers.
    pub(super) presigned_for: Option<Duration>,
}

/// Signs a POST in its headers.
pub(super) fn signed_headers(
    request: &Signable<'_>,
    keys: &AwsKeys,
) -> Result<Vec<(HeaderName, HeaderValue)>, ExchangeError> {
    let signed = signed(request, keys)?;
    let headers = signed.headers().map(|(name, value)| {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    });
    headers.collect::<Option<Vec<_>>>().ok_or(ExchangeError::NotText)
}

/// Signs a POST.
pub(super) fn signed(
    request: &Signable<'_>,
    keys: &AwsKeys,
) -> Result<SigningInstructions, ExchangeError> {
    let unusable = || ExchangeError::NotText;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| ExchangeError::NotText);
    let token = keys.session_token.as_ref().map(|token| text(token.expose())).transpose()?;
    let identity = Credentials::new(
        &*keys.access_key_id,
        text(keys.secret_access_key.expose())?,
        token.map(str::to_owned),
        None,
        "strongroom",
    );
    let identity = identity.into();
    let mut settings = SigningSettings::default();
    if request.presigned_for.is_some() {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = request.presigned_for;
    }
    let millis = u64::try_from(request.at.as_millis()).map_err(|_| unusable())?;
    let params = SigningParams::builder()
        .identity(&identity)
        .region(request.region)
        .name(request.service)
        .time(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
        .settings(settings)
        .build()
        .map_err(|_| unusable())?
        .into();
    let headers = request.headers.iter().copied();
    let signable =
        SignableRequest::new("POST", request.url, headers, SignableBody::Bytes(request.body));
    let output = sign(signable.map_err(|_| unusable())?, &params).map_err(|_| unusable())?;
    Ok(output.into_parts().0)
}
