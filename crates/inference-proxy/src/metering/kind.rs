use metering::Format;
use providers::{Operation, Provider, Rewrite, Target};

use crate::route::Call;

/// What a call's answer says of what it took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Figures of usage, in this format.
    Read(Format),
    /// Nothing, for nothing is charged: no model is asked.
    Free,
    /// Nothing that is known here.
    Unknown,
}

impl Kind {
    pub(crate) fn of(call: &Call<'_>) -> Self {
        match call.asks {
            providers::Call::Operation(operation) => Self::of_operation(operation),
            providers::Call::Native { method, path } => {
                if method == http::Method::GET {
                    return Self::Free;
                }
                let found = NATIVE.iter().find(|(end, _)| path.ends_with(end));
                found.map_or(Self::Unknown, |(_, kind)| *kind)
            }
        }
    }

    fn of_operation(operation: Operation) -> Self {
        match operation {
            Operation::ChatCompletions | Operation::Completions => Self::Read(Format::OpenAiChat),
            Operation::Embeddings => Self::Read(Format::OpenAiEmbeddings),
            Operation::Responses => Self::Read(Format::OpenAiResponses),
            Operation::Messages => Self::Read(Format::AnthropicMessages),
            // OpenAI, who alone is asked for moderations here, charges nothing for them.
            Operation::Moderations | Operation::Models | Operation::CountTokens => Self::Free,
        }
    }
}

/// Sees to it that a stream of a provider's own chat completions says what it took, as one in OpenAI's
/// format does.
pub(crate) fn ask_for_usage(
    provider: &Provider,
    call: &Call<'_>,
    streams: bool,
    target: &mut Target,
) {
    let is_native = matches!(call.asks, providers::Call::Native { .. });
    if streams && is_native && Kind::of(call) == Kind::Read(Format::OpenAiChat) {
        let shape = provider.usage(Operation::ChatCompletions);
        let on_request =
            shape.and_then(|shape| shape.stream.as_ref()).is_some_and(|it| it.on_request);
        if on_request && !target.rewrites.contains(&Rewrite::AskForUsage) {
            target.rewrites.push(Rewrite::AskForUsage);
        }
    }
}

/// How paths of providers' own APIs end. The longer ones first.
const NATIVE: [(&str, Kind); 17] = [
    ("/chat/completions", Kind::Read(Format::OpenAiChat)),
    ("/completions", Kind::Read(Format::OpenAiChat)),
    ("/responses", Kind::Read(Format::OpenAiResponses)),
    ("/embeddings", Kind::Read(Format::OpenAiEmbeddings)),
    ("/count_tokens", Kind::Free),
    (":countTokens", Kind::Free),
    ("/v1/messages", Kind::Read(Format::AnthropicMessages)),
    (":rawPredict", Kind::Read(Format::AnthropicMessages)),
    (":streamRawPredict", Kind::Read(Format::AnthropicMessages)),
    (":generateContent", Kind::Read(Format::Gemini)),
    (":streamGenerateContent", Kind::Read(Format::Gemini)),
    ("/converse", Kind::Read(Format::BedrockConverse)),
    ("/converse-stream", Kind::Read(Format::BedrockConverse)),
    ("/invoke", Kind::Read(Format::BedrockInvoke)),
    ("/invoke-with-response-stream", Kind::Read(Format::BedrockInvoke)),
    ("/v2/chat", Kind::Read(Format::CohereChat)),
    ("/v2/rerank", Kind::Read(Format::CohereUnits)),
];

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use providers::Catalogue;

    use super::*;
    use crate::route::Route;

    #[track_caller]
    fn check(method: &Method, path: &str, expected: Kind) {
        let catalogue = Catalogue::builtin().unwrap();
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let Route::Call(call) = Route::of(&parts, &catalogue) else { panic!("{path} is no call") };
        assert_eq!(Kind::of(&call), expected, "{path}");
    }

    #[test]
    fn the_path_says_how_an_answer_is_read() {
        let post = |path, format| check(&Method::POST, path, Kind::Read(format));
        post("/v1/chat/completions", Format::OpenAiChat);
        post("/v1/messages", Format::AnthropicMessages);
        post("/openai/v1/responses", Format::OpenAiResponses);
        post("/google/v1beta/models/m:streamGenerateContent", Format::Gemini);
        post("/bedrock/model/m/converse-stream", Format::BedrockConverse);
        post("/cohere/v2/chat", Format::CohereChat);
        check(&Method::POST, "/v1/messages/count_tokens", Kind::Free);
        check(&Method::POST, "/google/v1beta/models/m:countTokens", Kind::Free);
        check(&Method::GET, "/openai/v1/models/gpt-4o", Kind::Free);
        check(&Method::POST, "/google/v1beta/models/m:embedContent", Kind::Unknown);
    }
}
