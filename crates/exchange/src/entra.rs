use crate::{ExchangeError, Minter, Order, Token, answer::granted, encode::form, token::Asked};

/// OAuth client credentials at Entra, RFC 6749 section 4.4.
pub(crate) async fn token(minter: &Minter, order: &Order) -> Result<Token, ExchangeError> {
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", order.setting("client_id")?),
        ("client_secret", order.text()?),
        ("scope", SCOPE),
    ]);
    let asked = Asked::now(minter.clock());
    let answer = minter.post_form(order.url()?, body, &[]).await?;
    granted(&answer, asked, order)
}

/// Serves a resource's every API, whichever of its host names is called.
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
