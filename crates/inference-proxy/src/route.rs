use domain::{Dialect, ProviderId};
use http::{Method, request::Parts};
use providers::Catalogue;

/// What a request asks for, by its method and path alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Route<'a> {
    /// A call that goes to a provider.
    Call(Call<'a>),
    /// The list of models, or the one of this name.
    Models(Option<&'a str>),
    /// Nothing that is served here.
    Nothing,
}

/// A call that goes to a provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Call<'a> {
    pub(crate) operation: Operation,
    /// What the lease is for.
    pub(crate) dialect: Dialect,
    /// The provider that the path names.
    pub(crate) provider: Option<ProviderId>,
    /// What is appended to the lease's address: one of a fixed list.
    pub(crate) path: &'a str,
    /// The model, when the path names it.
    pub(crate) model: Option<&'a str>,
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
        Call::native(&parts.method, path, catalogue).map_or(Self::Nothing, Self::Call)
    }

    /// In which shape errors are told.
    pub(crate) fn shape(&self, parts: &Parts, catalogue: &Catalogue) -> Dialect {
        match self {
            Self::Call(Call { provider: Some(id), dialect: Dialect::Native, .. }) => {
                catalogue.provider(id).map_or(Dialect::OpenAi, providers::Provider::speaks)
            }
            Self::Call(call) => call.dialect,
            // Only Anthropic's SDKs send this header.
            Self::Models(_) | Self::Nothing if parts.headers.contains_key("anthropic-version") => {
                Dialect::Anthropic
            }
            Self::Models(_) | Self::Nothing => Dialect::OpenAi,
        }
    }

    pub(crate) fn operation(&self) -> Operation {
        match self {
            Self::Call(call) => call.operation,
            Self::Models(_) => Operation::Models,
            Self::Nothing => Operation::Unknown,
        }
    }
}

impl<'a> Call<'a> {
    fn fixed(path: &str) -> Option<Self> {
        let (_, operation, dialect, path, needs_model) =
            FIXED.iter().find(|(known, ..)| *known == path)?;
        // A moderation may name no model, and then OpenAI is the only one who does it.
        let provider =
            if *operation == Operation::Moderations { "openai".parse().ok() } else { None };
        Some(Self {
            operation: *operation,
            dialect: *dialect,
            provider,
            path,
            model: None,
            needs_model: *needs_model,
        })
    }

    fn native(method: &Method, path: &'a str, catalogue: &Catalogue) -> Option<Self> {
        let (name, rest) = path.strip_prefix('/')?.split_once('/')?;
        let provider = catalogue.named(name)?;
        // The rest with the slash in front of it.
        let rest = path.get(path.len() - rest.len() - 1..)?;
        let model = provider.native_call(method, rest)?.model;
        let list = method == Method::GET;
        Some(Self {
            operation: if list { Operation::Models } else { Operation::Native },
            dialect: Dialect::Native,
            provider: Some(provider.id().clone()),
            path: rest,
            model,
            needs_model: false,
        })
    }
}

impl Operation {
    pub(crate) const COUNT: usize = 10;

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
            Self::Moderations | Self::CountTokens | Self::Models | Self::Unknown => self.as_str(),
        }
    }
}

/// Path, operation, dialect, what is appended to the provider's address, and whether a model is
/// needed.
const FIXED: [(&str, Operation, Dialect, &str, bool); 7] = [
    (
        "/v1/chat/completions",
        Operation::ChatCompletions,
        Dialect::OpenAi,
        "/chat/completions",
        true,
    ),
    ("/v1/completions", Operation::Completions, Dialect::OpenAi, "/completions", true),
    ("/v1/embeddings", Operation::Embeddings, Dialect::OpenAi, "/embeddings", true),
    ("/v1/responses", Operation::Responses, Dialect::OpenAi, "/responses", true),
    ("/v1/moderations", Operation::Moderations, Dialect::OpenAi, "/moderations", false),
    ("/v1/messages", Operation::Messages, Dialect::Anthropic, "/v1/messages", true),
    (
        "/v1/messages/count_tokens",
        Operation::CountTokens,
        Dialect::Anthropic,
        "/v1/messages/count_tokens",
        true,
    ),
];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[track_caller]
    fn check(method: &str, path: &str, expected: Option<(Operation, &str)>) {
        let catalogue = Catalogue::builtin().unwrap();
        let (parts, ()) =
            Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        let found = match Route::of(&parts, &catalogue) {
            Route::Call(call) => Some((call.operation, call.path.to_owned())),
            Route::Models(_) => Some((Operation::Models, String::new())),
            Route::Nothing => None,
        };
        let expected = expected.map(|(operation, path)| (operation, path.to_owned()));
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn what_is_served_is_a_fixed_list() {
        check(
            "POST",
            "/v1/chat/completions",
            Some((Operation::ChatCompletions, "/chat/completions")),
        );
        check("POST", "/v1/messages", Some((Operation::Messages, "/v1/messages")));
        check("POST", "/v1/messages?beta=true", Some((Operation::Messages, "/v1/messages")));
        check("GET", "/v1/models", Some((Operation::Models, "")));
        check("GET", "/v1/models/meta/llama", Some((Operation::Models, "")));
        check("POST", "/openai/v1/responses", Some((Operation::Native, "/v1/responses")));
        check("GET", "/anthropic/v1/models", Some((Operation::Models, "/v1/models")));
        for path in [
            "/",
            "/v1",
            "/v1/chat/completions/",
            "/v1/files",
            "/V1/models",
            "/openai",
            "/openai/",
            "/openai/v1/files",
            "/openai/../anthropic/v1/messages",
            "/openai//v1/responses",
            "/openai/v1/responses/%2e%2e/files",
            "/openai/v1/responses;x",
            "/nobody/v1/responses",
            "/v1/chat%2fcompletions",
            "/openai/v1/models/a%2fb",
            "//openai/v1/responses",
        ] {
            check("POST", path, None);
            check("DELETE", path, None);
        }
        check("GET", "/v1/chat/completions", None);
        check("DELETE", "/v1/models", None);
    }

    #[test]
    fn a_model_in_a_native_path_is_known() {
        let catalogue = Catalogue::builtin().unwrap();
        let request = Request::builder().uri("/openai/v1/models/gpt-4o").body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let Route::Call(call) = Route::of(&parts, &catalogue) else { panic!("not a call") };
        assert_eq!(call.model, Some("gpt-4o"));
    }
}
