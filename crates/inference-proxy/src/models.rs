use bytes::Bytes;
use domain::Dialect;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use strongroom_proto::v1::{ReachableModel, Source};

use crate::{refusal::Refusal, reply::Reply};

/// Answers `GET /v1/models`, or `GET /v1/models/{wanted}`, in the shape of the caller's SDK.
pub(crate) fn models(
    reachable: &[ReachableModel],
    wanted: Option<&str>,
    shape: Dialect,
) -> Result<Response<Reply>, Refusal> {
    let value = match wanted {
        None => list(reachable, shape),
        Some(wanted) => {
            let found = reachable.iter().find(|model| model.model == wanted);
            item(found.ok_or_else(|| missing(reachable, wanted))?, shape)
        }
    };
    let mut response = Response::new(Reply::whole(Bytes::from(value.to_string())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn list(reachable: &[ReachableModel], shape: Dialect) -> Value {
    let data: Vec<Value> = reachable.iter().map(|model| item(model, shape)).collect();
    match shape {
        Dialect::OpenAi | Dialect::Native => json!({ "object": "list", "data": data }),
        Dialect::Anthropic => json!({
            "data": data,
            "has_more": false,
            "first_id": reachable.first().map(|model| &model.model),
            "last_id": reachable.last().map(|model| &model.model),
        }),
    }
}

/// Whose credential it is, in the word of the header `x-strongroom-source`.
pub(crate) fn source_word(source: Source) -> &'static str {
    match source {
        Source::Byok => "byok",
        Source::Managed => "managed",
        Source::Custom => "custom",
        Source::Keyless => "keyless",
        Source::Unspecified => "unknown",
    }
}

/// A model; when it was made is not known here, and SDKs insist on a time.
fn item(model: &ReachableModel, shape: Dialect) -> Value {
    match shape {
        Dialect::OpenAi | Dialect::Native => json!({
            "id": model.model, "object": "model", "created": 0, "owned_by": model.provider,
            "provider": model.provider, "source": source_word(model.source()),
        }),
        Dialect::Anthropic => json!({
            "type": "model", "id": model.model, "display_name": model.model,
            "created_at": "1970-01-01T00:00:00Z",
            "provider": model.provider, "source": source_word(model.source()),
        }),
    }
}

fn missing(reachable: &[ReachableModel], wanted: &str) -> Refusal {
    let known: Vec<&str> = reachable.iter().map(|model| &*model.model).collect();
    let message = format!(
        "the model `{wanted}` is not one that this key reaches; models that would work: {}",
        known.join(","),
    );
    Refusal::new(StatusCode::NOT_FOUND, "model_not_found", message).about("model")
}
