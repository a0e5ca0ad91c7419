use bytes::Bytes;
use domain::Timestamp;
use http::{
    HeaderValue, Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use providers::Verdict;
use serde_json::{Value, json};

use crate::{
    ExchangeError, Minter, Order, Token,
    answer::{passing, refused, sendable},
    token::Asked,
};

/// A key of `OpenRouter` that ends, made by a management key.
pub(crate) async fn openrouter(minter: &Minter, order: &Order) -> Result<Token, ExchangeError> {
    let asked = Asked::now(minter.clock());
    let body = json!({ "name": name(asked), "expires_at": end(asked, order)? });
    let answer = made(minter, order, &body).await?;
    token(answer, asked, order, "/key", Some("/data/hash"))
}

/// A key of a service account of `OpenAI` that ends, made by an admin key.
pub(crate) async fn openai(minter: &Minter, order: &Order) -> Result<Token, ExchangeError> {
    let asked = Asked::now(minter.clock());
    let body = json!({
        "name": name(asked),
        "expires_in_seconds": order.lifetime().as_secs(),
    });
    let answer = made(minter, order, &body).await?;
    token(answer, asked, order, "/value", Some("/id"))
}

/// A key of a team of `xAI` that ends, made by a management key, for every model and endpoint.
pub(crate) async fn xai(minter: &Minter, order: &Order) -> Result<Token, ExchangeError> {
    let asked = Asked::now(minter.clock());
    let body = json!({
        "name": name(asked),
        "acls": ["api-key:model:*", "api-key:endpoint:*"],
        "expireTime": end(asked, order)?,
    });
    let answer = made(minter, order, &body).await?;
    token(answer, asked, order, "/apiKey", None)
}

/// Deletes a key by the name that the provider gave it.
pub(crate) async fn delete(
    minter: &Minter,
    key_id: &str,
    order: &Order,
) -> Result<(), ExchangeError> {
    let how = order.minting.how;
    let place = order.minting.delete_url.as_deref().ok_or(ExchangeError::NotMade(how))?;
    let request = Request::delete(format!("{place}{key_id}"))
        .header(AUTHORIZATION, bearer(order)?)
        .body(Bytes::new())
        .map_err(|_| ExchangeError::Unreadable)?;
    let answer = minter.send(request).await?;
    if answer.status().is_success() || answer.status().as_u16() == 404 {
        return Ok(());
    }
    Err(refusal(&answer))
}

async fn made(minter: &Minter, order: &Order, body: &Value) -> Result<Value, ExchangeError> {
    let request = Request::post(order.url()?)
        .header(AUTHORIZATION, bearer(order)?)
        .header(CONTENT_TYPE, "application/json")
        .body(Bytes::from(body.to_string()))
        .map_err(|_| ExchangeError::Unreadable)?;
    let answer = minter.send(request).await?;
    if !answer.status().is_success() {
        return Err(refusal(&answer));
    }
    serde_json::from_slice(answer.body()).map_err(|_| ExchangeError::Unreadable)
}

fn token(
    mut answer: Value,
    asked: Asked,
    order: &Order,
    secret: &str,
    id: Option<&str>,
) -> Result<Token, ExchangeError> {
    let mut take = |place: &str| match answer.pointer_mut(place).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(ExchangeError::Unreadable),
    };
    let token = Token::new(sendable(take(secret)?)?, asked, order.lifetime());
    let Some(id) = id else { return Ok(token) };
    let id = take(id)?;
    let is_segment = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=128).contains(&id.len()) || !id.bytes().all(is_segment) {
        return Err(ExchangeError::Unreadable);
    }
    Ok(token.with_key_id(id))
}

fn refusal(answer: &Response<Bytes>) -> ExchangeError {
    if let Some(passing) = passing(answer) {
        return passing;
    }
    let status = answer.status().as_u16();
    let told = serde_json::from_slice::<Value>(answer.body()).unwrap_or_default();
    let code = told.pointer("/error/code").unwrap_or(&Value::Null);
    let verdict = match status {
        // `OpenAI`'s word and `OpenRouter`'s; any other may be about a network or an organization.
        401 if *code == "invalid_api_key" || *code == 401 => Verdict::Invalid,
        401 | 403 | 404 => Verdict::RegionOrPermission,
        402 => Verdict::NoQuota,
        _ => Verdict::Unverifiable,
    };
    refused(verdict, code.as_str().unwrap_or_default(), status)
}

fn bearer(order: &Order) -> Result<HeaderValue, ExchangeError> {
    let value = HeaderValue::try_from(format!("Bearer {}", order.text()?));
    let mut value = value.map_err(|_| providers::UnusableSecret::NotSendable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// By which people know it at the provider.
fn name(asked: Asked) -> String {
    format!("strongroom-{}", asked.at.as_millis())
}

/// RFC 3339 in whole seconds, as all of them take it.
fn end(asked: Asked, order: &Order) -> Result<String, ExchangeError> {
    text_of(asked.at + order.lifetime())
}

fn text_of(moment: Timestamp) -> Result<String, ExchangeError> {
    let seconds = moment.as_millis().div_euclid(1000);
    let moment = jiff::Timestamp::from_second(seconds);
    moment.map(|moment| moment.to_string()).map_err(|_| ExchangeError::Unreadable)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_in_whole_seconds() {
        let moment = Timestamp::from_millis(1_767_323_045_678) + Duration::from_mins(1);
        assert_eq!(text_of(moment).unwrap(), "2026-01-02T03:05:05Z");
    }
}
