use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::Secret;
use providers::ServiceAccountFile;
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::json;

use crate::{ExchangeError, Minter, Order, Token, answer::granted, encode::form, token::Asked};

/// The grant of RFC 7523 section 2.1, with an assertion that the service account's key signs.
pub(crate) async fn token(minter: &Minter, order: &Order) -> Result<Token, ExchangeError> {
    let url = order.url()?;
    let asked = Asked::now(minter.clock());
    let audience = order.minting.public_url.as_deref().unwrap_or(url);
    let assertion = assertion(order, audience, asked)?;
    let body = form(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", &assertion),
    ]);
    let answer = minter.post_form(url, body, &[]).await?;
    granted(&answer, asked, order)
}

/// A JWT that says who asks, for what, whom and until when. The audience is the catalogue's address and
/// not what the file has.
fn assertion(order: &Order, audience: &str, asked: Asked) -> Result<String, ExchangeError> {
    let file = ServiceAccountFile::read(order.secret.expose())?;
    let key = signing_key(&order.secret)?;
    let issued = asked.at.as_millis().div_euclid(1000);
    let life = i64::try_from(order.lifetime().as_secs()).unwrap_or(LONGEST).min(LONGEST);
    let head = json!({ "alg": "RS256", "typ": "JWT", "kid": file.private_key_id });
    let claims = json!({
        "iss": file.client_email,
        "scope": SCOPE,
        "aud": audience,
        "iat": issued,
        "exp": issued.saturating_add(life),
    });
    let encode = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(head.to_string()), encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| ExchangeError::NoSigningKey)?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

#[derive(Deserialize)]
struct KeyOfFile {
    private_key: String,
}

fn signing_key(file: &Secret) -> Result<KeyPair, ExchangeError> {
    // The library's errors quote what they read, so they end here.
    let file = serde_json::from_slice::<KeyOfFile>(file.expose());
    let pem = file.map_err(|_| ExchangeError::NoSigningKey)?.private_key;
    let pem = Secret::new(pem.into_bytes());
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.expose());
    let der = der.map_err(|_| ExchangeError::NoSigningKey)?;
    KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| ExchangeError::NoSigningKey)
}

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Google takes no assertion that is to live longer.
const LONGEST: i64 = 3600;
