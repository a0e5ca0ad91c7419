use domain::{Dialect, EndpointKind, ProviderId, is_model_name};
use http::{Method, request::Parts};
use providers::Catalogue;

/// What a request asks for, by its method and path alone.
#[derive(Clone, Debug)]
pub(crate) enum Route<'a> {
    /// A call that goes to a provider.
    Call(Call<'a>),
    /// The list of models, or the one of this name.
    Models(Option<&'a str>),
    /// Why a call would go where.
    Explain,
    /// A path of a provider's own API that is not passed through.
    NotPassed(ProviderId),
    /// The path may be meant for a provider, but begins with no provider's name.
    NoProvider,
    /// Nothing that is served here.
    Nothing,
}

/// A call that goes to a provider.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) operation: Operation,
    /// What the lease is for.
    pub(crate) dialect: Dialect,
    /// The provider that the path names.
    pub(crate) provider: Option<ProviderId>,
    /// What is called, as the catalogue sees it.
    pub(crate) asks: providers::Call<'a>,
    /// The model, when the path names it.
    pub(crate) model: Option<String>,
    pub(crate) needs_model: bool,
}

/// What kind of call it is, for spans and metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    ChatCompletions,
    Completions,
    Embeddings,
    Responses,
    Moderations,
    Messages,
    CountTokens,
    Models,
    Native,
    Explain,
    Unknown,
}

impl<'a> Route<'a> {
    /// Finds the route of a request.
    pub(crate) fn of(parts: &'a Parts, catalogue: &Catalogue) -> Self {
        let path = parts.uri.path();
        if parts.method == Method::POST
            && let Some(call) = Call::fixed(path)
        {
            return Self::Call(call);
        }
        if parts.method == Method::GET && path == "/v1/models" {
            return Self::Models(None);
        }
        if parts.method == Method::GET
            && let Some(model) = path.strip_prefix("/v1/models/")
        {
            return Self::Models(Some(model));
        }
        if parts.method == Method::POST && path == "/strongroom/v1/route:explain" {
            return Self::Explain;
        }
        Self::native(&parts.method, path, catalogue)
    }

    fn native(method: &'a Method, path: &'a str, catalogue: &Catalogue) -> Self {
        let Some((name, rest)) = path.strip_prefix('/').and_then(|path| path.split_once('/'))
        else {
            return Self::Nothing;
        };
        let Some(provider) = catalogue.named(name) else {
            let is_own = matches!(name, "" | "v1" | "strongroom");
            return if is_own { Self::Nothing } else { Self::NoProvider };
        };
        // The rest with the slash in front of it.
        let rest = path.get(path.len() - rest.len() - 1..).unwrap_or_default();
        let Some(call) = provider.native_call(method, rest) else {
            return Self::NotPassed(provider.id().clone());
        };
        let model = call.model_name();
        if model.as_deref().is_some_and(|name| !is_model_name(name)) {
            return Self::NotPassed(provider.id().clone());
        }
        Self::Call(Call {
            operation: if method == Method::GET { Operation::Models } else { Operation::Native },
            dialect: Dialect::Native,
            provider: Some(provider.id().clone()),
            asks: providers::Call::Native { method, path: rest },
            model,
            needs_model: false,
        })
    }

    /// In which shape errors are told.
    pub(crate) fn shape(&self, parts: &Parts, catalogue: &Catalogue) -> Dialect {
        match self {
            Self::Call(Call { provider: Some(id), dialect: Dialect::Native, .. })
            | Self::NotPassed(id) => {
                catalogue.provider(id).map_or(Dialect::OpenAi, providers::Provider::speaks)
            }
            Self::Call(call) => call.dialect,
            // Only Anthropic's SDKs send this header.
            Self::Models(_) | Self::NoProvider | Self::Nothing
                if parts.headers.contains_key("anthropic-version") =>
            {
                Dialect::Anthropic
            }
            Self::Models(_) | Self::Explain | Self::NoProvider | Self::Nothing => Dialect::OpenAi,
        }
    }

    pub(crate) fn operation(&self) -> Operation {
        match self {
            Self::Call(call) => call.operation,
            Self::Models(_) => Operation::Models,
            Self::Explain => Operation::Explain,
            Self::NotPassed(_) | Self::NoProvider | Self::Nothing => Operation::Unknown,
        }
    }
}

impl Call<'_> {
    /// What a virtual key must be for. Whatever goes through a provider's own path is of one kind.
    pub(crate) fn endpoint(&self) -> EndpointKind {
        match self.operation {
            _ if matches!(self.asks, providers::Call::Native { .. }) => EndpointKind::Native,
            Operation::ChatCompletions => EndpointKind::ChatCompletions,
            Operation::Completions => EndpointKind::Completions,
            Operation::Embeddings => EndpointKind::Embeddings,
            Operation::Responses => EndpointKind::Responses,
            Operation::Moderations => EndpointKind::Moderations,
            Operation::Messages => EndpointKind::Messages,
            Operation::CountTokens => EndpointKind::CountTokens,
            Operation::Models => EndpointKind::Models,
            Operation::Native | Operation::Explain | Operation::Unknown => EndpointKind::Native,
        }
    }

    fn fixed(path: &str) -> Option<Self> {
        let (_, operation, asks, needs_model) = *FIXED.iter().find(|(known, ..)| *known == path)?;
        // A moderation may name no model, and then OpenAI is the only one who does it.
        let provider =
            if operation == Operation::Moderations { "openai".parse().ok() } else { None };
        Some(Self {
            operation,
            dialect: asks.dialect(),
            provider,
            asks: providers::Call::Operation(asks),
            model: None,
            needs_model,
        })
    }
}

impl Operation {
    pub(crate) const COUNT: usize = 11;

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The word in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Moderations => "moderations",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Native => "native",
            Self::Explain => "explain",
            Self::Unknown => "unknown",
        }
    }

    /// The word of the GenAI semantic conventions, where they have one.
    pub(crate) fn gen_ai_name(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Messages => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Native => "generate_content",
            Self::Moderations
            | Self::CountTokens
            | Self::Models
            | Self::Explain
            | Self::Unknown => self.as_str(),
        }
    }
}

/// Path, operation, what the catalogue calls it, and whether a model is needed.
const FIXED: [(&str, Operation, providers::Operation, bool); 7] = {
    use providers::Operation as Asks;
    [
        ("/v1/chat/completions", Operation::ChatCompletions, Asks::ChatCompletions, true),
        ("/v1/completions", Operation::Completions, Asks::Completions, true),
        ("/v1/embeddings", Operation::Embeddings, Asks::Embeddings, true),
        ("/v1/responses", Operation::Responses, Asks::Responses, true),
        ("/v1/moderations", Operation::Moderations, Asks::Moderations, false),
        ("/v1/messages", Operation::Messages, Asks::Messages, true),
        ("/v1/messages/count_tokens", Operation::CountTokens, Asks::CountTokens, true),
    ]
};

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn found(method: &str, path: &str) -> String {
        let catalogue = Catalogue::builtin().unwrap();
        let (parts, ()) =
            Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        match Route::of(&parts, &catalogue) {
            Route::Call(Call { asks: providers::Call::Native { path, .. }, .. }) => path.to_owned(),
            Route::Call(call) => call.operation.as_str().to_owned(),
            Route::Models(_) => "models".to_owned(),
            Route::Explain => "explain".to_owned(),
            Route::NotPassed(provider) => format!("not passed by {provider}"),
            Route::NoProvider => "no provider".to_owned(),
            Route::Nothing => "nothing".to_owned(),
        }
    }

    #[track_caller]
    fn check(method: &str, path: &str, expected: &str) {
        assert_eq!(found(method, path), expected, "{method} {path}");
    }

    #[test]
    fn what_is_served_is_a_fixed_list() {
        check("POST", "/v1/chat/completions", "chat_completions");
        check("POST", "/v1/messages", "messages");
        check("POST", "/v1/messages?beta=true", "messages");
        check("GET", "/v1/models", "models");
        check("GET", "/v1/models/meta/llama", "models");
        check("POST", "/openai/v1/responses", "/v1/responses");
        check("GET", "/anthropic/v1/models", "/v1/models");
        check("POST", "/strongroom/v1/route:explain", "explain");
        for path in [
            "/",
            "/v1",
            "/v1/chat/completions/",
            "/v1/files",
            "/openai",
            "/v1/chat%2fcompletions",
            "//openai/v1/responses",
            "/strongroom/v1/route",
        ] {
            check("POST", path, "nothing");
            check("DELETE", path, "nothing");
        }
        for path in ["/V1/models", "/nobody/v1/responses"] {
            check("POST", path, "no provider");
        }
        for path in [
            "/openai/",
            "/openai/v1/files",
            "/openai/../anthropic/v1/messages",
            "/openai//v1/responses",
            "/openai/v1/responses/%2e%2e/files",
            "/openai/v1/responses;x",
            "/openai/v1/models/a%2fb",
        ] {
            check("POST", path, "not passed by openai");
            check("DELETE", path, "not passed by openai");
        }
        check("GET", "/v1/chat/completions", "nothing");
        check("DELETE", "/v1/models", "nothing");
        check("GET", "/strongroom/v1/route:explain", "nothing");
    }

    #[test]
    fn a_model_in_a_native_path_is_known_without_its_escapes() {
        let catalogue = Catalogue::builtin().unwrap();
        for (method, path, model) in [
            ("GET", "/openai/v1/models/gpt-4o", "gpt-4o"),
            ("POST", "/google/v1beta/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro"),
            (
                "POST",
                "/bedrock/model/eu.anthropic.claude-sonnet-4-5-v1%3A0/converse",
                "eu.anthropic.claude-sonnet-4-5-v1:0",
            ),
        ] {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            let (parts, ()) = request.into_parts();
            let Route::Call(call) = Route::of(&parts, &catalogue) else { panic!("not a call") };
            assert_eq!(call.model.as_deref(), Some(model));
        }
    }

    #[test]
    fn every_provider_has_calls_of_its_own_that_are_passed() {
        for provider in Catalogue::builtin().unwrap().providers() {
            for native in provider.native_paths() {
                let path = native.template.split('/').map(|part| match part.split_once('}') {
                    Some((_, verb)) => format!("m{verb}"),
                    None => part.to_owned(),
                });
                let path = path.collect::<Vec<_>>().join("/");
                let full = format!("/{}{path}", provider.id());
                check(native.method.as_str(), &full, &path);
            }
        }
    }
}
