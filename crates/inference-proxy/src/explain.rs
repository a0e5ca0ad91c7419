use std::net::IpAddr;

use bytes::Bytes;
use domain::{Dialect, is_model_name};
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use strongroom_client::LeaseKey;
use strongroom_proto::v1::{ExplainRouteResponse, PlannedAttempt};
use tokio::time::timeout;

use crate::{
    aim::no_target, gateway::Gateway, lease_refusal::lease_refusal, models::source_word, place,
    presented::Presented, refusal::Refusal, reply::Reply,
};

/// What is asked with `POST /strongroom/v1/route:explain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    model: String,
    #[serde(default)]
    provider: Option<String>,
    #[serde(default)]
    dialect: Option<Word>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Openai,
    Anthropic,
    Native,
}

impl Gateway {
    /// Says which credentials a call would go out with and why; nobody is called and nothing is lent.
    pub(crate) async fn explain(
        &self,
        presented: Presented,
        source: Option<IpAddr>,
        body: Incoming,
    ) -> Result<Response<Reply>, Refusal> {
        let read = Limited::new(body, LONGEST_QUESTION).collect();
        let read = timeout(self.limits.body_idle, read).await.ok().and_then(Result::ok);
        let bytes = read.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let question: Question = serde_json::from_slice(&bytes).map_err(|_| not_understood())?;
        let provider = question.provider.as_deref().map(|name| self.catalogue.find(name));
        let provider = provider.transpose().map_err(|error| no_target(&error))?;
        if !question.model.is_empty() && !is_model_name(&question.model) {
            return Err(not_understood());
        }
        let key = LeaseKey {
            virtual_key: presented.id,
            digest: presented.digest,
            dialect: match question.dialect {
                None | Some(Word::Openai) => Dialect::OpenAi,
                Some(Word::Anthropic) => Dialect::Anthropic,
                Some(Word::Native) => Dialect::Native,
            },
            provider: provider.map(|provider| provider.id().clone()),
            model: question.model,
        };
        let explained = self.leases.explain(&key).await.map_err(lease_refusal)?;
        place::check_source(&place::told(&[], &explained.networks)?, source)?;
        let text = told(&explained).to_string();
        let mut response = Response::new(Reply::whole(Bytes::from(text)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

fn told(explained: &ExplainRouteResponse) -> Value {
    let attempt = |attempt: &PlannedAttempt| {
        json!({
            "credential": attempt.credential,
            "provider": attempt.provider,
            "source": source_word(attempt.source()),
            "model": attempt.model,
            "because": attempt.because,
            "origin": attempt.origin,
        })
    };
    let refusal = Some(&explained.refusal).filter(|refusal| !refusal.is_empty());
    json!({
        "steps": explained.steps,
        "attempts": explained.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "refusal": refusal,
    })
}

fn not_understood() -> Refusal {
    Refusal::bad_request(
        "invalid_request_body",
        "the request body must be like {\"model\": \"gpt-4o\", \"provider\": \"openai\", \"dialect\": \
         \"openai\"}, of which `model` must be there; `dialect` is `openai`, `anthropic` or `native`",
    )
}

const LONGEST_QUESTION: usize = 16 << 10;
