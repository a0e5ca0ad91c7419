use std::fmt;

use serde_json::{Value, json};

use super::{
    Reply,
    table::{Errors, Format},
};

/// What is wrong with a call.
#[derive(Debug)]
pub(super) enum Wrong {
    Path(String),
    Proof { header: &'static str, given: String },
    Query(String),
    Header { name: &'static str, given: String },
    Body(&'static str),
    Missing(&'static str),
    Unknown(String),
    Model(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "there is nothing at {path}"),
            Self::Proof { header, .. } => write!(f, "the wrong key (header: {header})"),
            Self::Query(query) => write!(f, "the query `{query}` is not right here"),
            Self::Header { name, given } => write!(f, "{name}: `{given}` is not right here"),
            Self::Body(what) => write!(f, "the body is {what}"),
            Self::Missing(name) => write!(f, "{name}: field required"),
            Self::Unknown(name) => write!(f, "{name}: extra inputs are not permitted"),
            Self::Model(model) => write!(f, "the model `{model}` does not exist"),
        }
    }
}

/// Refuses a call as the provider does. A route in Anthropic's format has Anthropic's errors.
pub(super) fn refuse(errors: Errors, format: Option<Format>, wrong: &Wrong) -> Reply {
    let status = status(errors, wrong);
    let anthropic = format == Some(Format::Messages);
    let shape = if anthropic { Errors::Anthropic } else { errors };
    let proof = matches!(wrong, Wrong::Proof { .. });
    let text = wrong.to_string();
    match shape {
        Errors::DeepSeek if proof => {
            plain(status, &openai(&masked("Authentication Fails, Your api key", wrong), proof))
        }
        Errors::Azure if proof => {
            let says = "Access denied due to invalid subscription key or wrong API endpoint.";
            plain(status, &json!({ "error": { "code": "401", "message": says } }))
        }
        Errors::OpenAi | Errors::Azure | Errors::DeepSeek => plain(status, &openai(&text, proof)),
        Errors::Anthropic if proof => plain(status, &anthropic_error(status, "invalid x-api-key")),
        Errors::Anthropic => plain(status, &anthropic_error(status, &text)),
        Errors::AiStudio => google(if proof { 400 } else { status }, &text, proof),
        Errors::Vertex => google(status, &text, false),
        Errors::Aws => aws(status, &text),
        Errors::OpenRouter => {
            plain(status, &json!({ "error": { "code": status, "message": text } }))
        }
        Errors::Xai => xai(status, &text, proof.then_some(wrong)),
        Errors::Mistral if proof => plain(status, &mistral(status, "Unauthorized")),
        Errors::Mistral => plain(status, &mistral(status, &text)),
        Errors::Perplexity => perplexity(status, &text, proof),
        Errors::Cohere if proof => cohere(status, "invalid api token"),
        Errors::Cohere => cohere(status, &text),
        Errors::Cloudflare if proof => cloudflare(status, 10000, "Authentication error"),
        Errors::Cloudflare => cloudflare(status, 5007, &text),
    }
}

fn status(errors: Errors, wrong: &Wrong) -> u16 {
    match wrong {
        Wrong::Path(_) | Wrong::Model(_) => 404,
        Wrong::Proof { .. } => 401,
        Wrong::Unknown(_) if errors == Errors::Mistral => 422,
        Wrong::Query(_)
        | Wrong::Header { .. }
        | Wrong::Body(_)
        | Wrong::Missing(_)
        | Wrong::Unknown(_) => 400,
    }
}

/// Some vendors repeat the ends of a key that they do not know.
fn masked(text: &str, wrong: &Wrong) -> String {
    let Wrong::Proof { given, .. } = wrong else { return text.to_owned() };
    let end = given.len().saturating_sub(4);
    format!("{text}: ****{}", given.get(end..).unwrap_or_default())
}

fn plain(status: u16, body: &Value) -> Reply {
    Reply { status, ..Reply::json(body) }
}

fn openai(text: &str, proof: bool) -> Value {
    let code = if proof { json!("invalid_api_key") } else { Value::Null };
    let kind = if proof { "authentication_error" } else { "invalid_request_error" };
    json!({ "error": { "message": text, "type": kind, "param": null, "code": code } })
}

fn anthropic_error(status: u16, text: &str) -> Value {
    let kind = match status {
        401 => "authentication_error",
        404 => "not_found_error",
        _ => "invalid_request_error",
    };
    let error = json!({ "type": kind, "message": text });
    json!({ "type": "error", "error": error, "request_id": "req_011StandIn" })
}

fn google(status: u16, text: &str, key_is_wrong: bool) -> Reply {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        _ => "NOT_FOUND",
    };
    let info = "type.googleapis.com/google.rpc.ErrorInfo";
    let details = if key_is_wrong {
        json!([{ "@type": info, "reason": "API_KEY_INVALID", "domain": "googleapis.com" }])
    } else {
        json!([])
    };
    let error = json!({ "code": status, "message": text, "status": name, "details": details });
    plain(status, &json!({ "error": error }))
}

fn aws(status: u16, text: &str) -> Reply {
    let (status, name) = match status {
        401 => (403, "UnrecognizedClientException"),
        404 => (404, "ResourceNotFoundException"),
        status => (status, "ValidationException"),
    };
    let mut reply = plain(status, &json!({ "message": text }));
    reply.headers.push(("x-amzn-errortype", name));
    reply
}

fn xai(status: u16, text: &str, wrong_key: Option<&Wrong>) -> Reply {
    let Some(wrong) = wrong_key else {
        return plain(status, &json!({ "code": "The request is wrong", "error": text }));
    };
    let text = masked("Incorrect API key provided", wrong);
    plain(400, &json!({ "code": "Client specified an invalid argument", "error": text }))
}

/// Flat, and for a member that should not be there as its framework has it.
fn mistral(status: u16, text: &str) -> Value {
    if status == 422 {
        let place = json!({ "type": "extra_forbidden", "loc": ["body"], "msg": text });
        return json!({ "detail": [place] });
    }
    let (object, kind) = ("error", "invalid_request_error");
    json!({ "object": object, "message": text, "type": kind, "param": null, "code": null })
}

/// A wrong key is told by the edge, in a page for people.
fn perplexity(status: u16, text: &str, proof: bool) -> Reply {
    if proof {
        let page = "<html>\r\n<head><title>401 Authorization Required</title></head>\r\n</html>";
        let headers = vec![("content-type", "text/html")];
        return Reply { status, headers, pieces: [page.into()].into() };
    }
    let error = json!({ "message": text, "type": "invalid_request", "code": status });
    plain(status, &json!({ "error": error }))
}

fn cohere(status: u16, text: &str) -> Reply {
    plain(status, &json!({ "id": "2f0e9a3c", "message": text }))
}

fn cloudflare(status: u16, code: u16, text: &str) -> Reply {
    let errors = json!([{ "code": code, "message": text }]);
    plain(status, &json!({ "success": false, "errors": errors, "messages": [], "result": null }))
}
