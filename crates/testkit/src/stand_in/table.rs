//! What each provider takes and how it answers, as data.

/// A provider: the one key that it takes, and everything that it serves.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) slug: &'static str,
    pub(super) kind: &'static str,
    pub(super) key: &'static str,
    pub(super) settings: &'static [(&'static str, &'static str)],
    pub(super) errors: Errors,
    pub(super) routes: &'static [Route],
    /// When streams of chat completions say what was used.
    pub(super) usage: UsageAt,
    /// Figures of usage that only this provider has, as JSON.
    pub(super) figures: &'static str,
    /// Members of a chat completion that only this provider has, as JSON.
    pub(super) beside: &'static str,
    /// What a stream of chat completions begins with.
    pub(super) comment: &'static str,
    /// What it tells whoever asks about a key, as JSON.
    pub(super) account: &'static str,
}

/// One path of a provider.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// The queries that are right, whole.
    pub(super) query: &'static [&'static str],
    /// The headers that may carry the key, with what stands before it.
    pub(super) proof: &'static [(&'static str, &'static str)],
    /// A header that must be there, with the values that are right.
    pub(super) needs: Option<(&'static str, &'static [&'static str])>,
    pub(super) models: &'static [&'static str],
    /// All members that a body may have; empty for any.
    pub(super) members: &'static [&'static str],
    pub(super) format: Format,
}

/// What a route answers in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// What is known of the key itself.
    Account,
    Chat,
    Cohere,
    Converse,
    ConverseStream,
    Embeddings,
    Gemini,
    GeminiStream,
    Invoke,
    InvokeStream,
    Messages,
    Models,
    Responses,
    VertexMessages,
    VertexMessagesStream,
    WorkersAi,
}

/// Whose errors a provider's look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Errors {
    AiStudio,
    Anthropic,
    Aws,
    Azure,
    Cloudflare,
    Cohere,
    DeepSeek,
    Mistral,
    OpenAi,
    OpenRouter,
    Perplexity,
    Vertex,
    Xai,
}

/// When a stream of chat completions says what was used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum UsageAt {
    Always,
    TheEnd,
    WhenAsked,
}

const BEARER: &[(&str, &str)] = &[("authorization", "Bearer ")];
const API_VERSIONS: Option<(&str, &[&str])> =
    Some(("anthropic-version", &["2023-06-01", "2026-10-21"]));

const fn post(path: &'static str, format: Format, models: &'static [&'static str]) -> Route {
    let method = "POST";
    Route { method, path, query: &[""], proof: BEARER, needs: None, models, members: &[], format }
}

/// Anthropic's messages, where a version of its API must be named; who copies the format does not ask.
const fn messages(path: &'static str, models: &'static [&'static str]) -> Route {
    Route { needs: API_VERSIONS, ..post(path, Format::Messages, models) }
}

const fn list(path: &'static str, models: &'static [&'static str]) -> Route {
    Route { method: "GET", ..post(path, Format::Models, models) }
}

const fn facts(slug: &'static str, key: &'static str, routes: &'static [Route]) -> Facts {
    Facts {
        slug,
        kind: "api_key",
        key,
        settings: &[],
        errors: Errors::OpenAi,
        routes,
        usage: UsageAt::WhenAsked,
        figures: "{}",
        beside: "{}",
        comment: "",
        account: r#"{"object":"list","data":[]}"#,
    }
}

/// Where a provider says what is known of a key.
const fn account(method: &'static str, path: &'static str) -> Route {
    Route { method, ..post(path, Format::Account, &[]) }
}

pub(super) static PROVIDERS: &[Facts] = &[
    facts("openai", "sk-proj-standinQ7xTb2VnKpLw93RfHsYc51DmZgJ08uAo", OPENAI),
    Facts {
        errors: Errors::Anthropic,
        ..facts("anthropic", "sk-ant-api03-standinW4kXn8RtLq27VbMz05HcFyPjS19dGoU", ANTHROPIC)
    },
    Facts {
        errors: Errors::AiStudio,
        account: r#"{"models":[]}"#,
        ..facts("google", "AIzaStandIn0Zt5Vb8Nq2Wm4Xc6Kj1Hg3Fd7SaP", GOOGLE)
    },
    Facts {
        kind: "access_token",
        settings: &[("project", "stand-in-123"), ("location", "europe-west4")],
        errors: Errors::Vertex,
        account: r#"{"totalTokens":1}"#,
        ..facts("vertex", "ya29.standin-a0AfB_byC4kXn8RtLq27VbMz05HcFyPjS19d", VERTEX)
    },
    Facts {
        kind: "bedrock_api_key",
        settings: &[("region", "eu-central-1")],
        errors: Errors::Aws,
        ..facts("bedrock", BEDROCK_KEY, BEDROCK)
    },
    Facts {
        settings: &[("resource", "stand-in")],
        errors: Errors::Azure,
        ..facts("azure", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", AZURE)
    },
    Facts {
        errors: Errors::OpenRouter,
        figures: r#"{"cost":0.00012,"is_byok":false}"#,
        beside: r#"{"provider":"OpenAI"}"#,
        comment: ": OPENROUTER PROCESSING\n\n",
        account: r#"{"data":{"label":"sk-or-v1-001...899","is_management_key":false,"limit_remaining":5}}"#,
        ..facts("openrouter", OPENROUTER_KEY, OPENROUTER)
    },
    Facts {
        errors: Errors::Xai,
        figures: r#"{"completion_tokens_details":{"reasoning_tokens":0},"cost_in_usd_ticks":120}"#,
        account: r#"{"api_key_blocked":false,"api_key_disabled":false,"team_blocked":false}"#,
        ..facts("xai", "xai-standinQ7xTb2VnKpLw93RfHsYc51DmZgJ08uAoW4kXn8Rt", XAI)
    },
    Facts {
        account: r#"{"balance":"95.50","total_used":"4.50"}"#,
        ..facts("vercel", "vck_standinQ7xTb2VnKpLw93RfHsYc51DmZgJ08uAo", VERCEL)
    },
    Facts {
        errors: Errors::Mistral,
        usage: UsageAt::TheEnd,
        ..facts("mistral", "standinQ7xTb2VnKpLw93RfHsYc51DmZ", MISTRAL)
    },
    Facts {
        errors: Errors::DeepSeek,
        figures: r#"{"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":3}"#,
        comment: "\n: keep-alive\n\n",
        account: r#"{"is_available":true,"balance_infos":[]}"#,
        ..facts("deepseek", "sk-0f1e2d3c4b5a69788796a5b4c3d2e1f0", DEEPSEEK)
    },
    Facts {
        errors: Errors::Perplexity,
        usage: UsageAt::Always,
        figures: r#"{"search_context_size":"low","cost":{"total_cost":0.005}}"#,
        beside: r#"{"citations":["https://example.com/"],"search_results":[]}"#,
        ..facts("perplexity", "pplx-standinQ7xTb2VnKpLw93RfHsYc51DmZgJ08uAoW4kXn8R", PERPLEXITY)
    },
    Facts {
        errors: Errors::Cohere,
        account: r#"{"valid":true,"organization_id":"2f0e"}"#,
        ..facts("cohere", "standinQ7xTb2VnKpLw93RfHsYc51DmZgJ08uAoW", COHERE)
    },
    Facts {
        settings: &[("account_id", "00112233445566778899aabbccddeeff")],
        errors: Errors::Cloudflare,
        account: r#"{"success":true,"errors":[],"result":{"id":"1","status":"active"}}"#,
        ..facts("cloudflare", "standinQ7xTb2VnKpLw93RfHsYc51DmZgJ08uAo_", CLOUDFLARE)
    },
];

const OPENROUTER_KEY: &str =
    "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";
const BEDROCK_KEY: &str = "ABSKc3RhbmQtaW4tUTd4VGIyVm5LcEx3OTNSZkhzWWM1MURtWmdKMDh1QW9XNGtYbjhSdExxMjdWYk16MDVIY0Z5UGpTMTlkR29VcTd4VGIyVm5LcEx3OTNSZg==";

const GPT: &[&str] = &["gpt-4o", "gpt-4o-mini"];
const CLAUDE: &[&str] = &["claude-sonnet-4-5"];
const GEMINI: &[&str] = &["gemini-2.5-flash"];
const EMBEDS: &[&str] = &["text-embedding-3-small"];

const OPENAI: &[Route] = &[
    post("/v1/chat/completions", Format::Chat, GPT),
    post("/v1/responses", Format::Responses, GPT),
    post("/v1/embeddings", Format::Embeddings, EMBEDS),
    list("/v1/models", GPT),
];

/// The key may come in either header, depending on the version of the API that a client speaks.
const ANTHROPIC: &[Route] = &[
    Route {
        proof: &[("x-api-key", ""), ("authorization", "Bearer ")],
        ..messages("/v1/messages", CLAUDE)
    },
    post("/v1/chat/completions", Format::Chat, CLAUDE),
    Route {
        query: &["limit=1"],
        proof: &[("x-api-key", ""), ("authorization", "Bearer ")],
        needs: API_VERSIONS,
        ..account("GET", "/v1/models")
    },
];

const GOOGLE: &[Route] = &[
    ai_studio("/v1/models/{model}:generateContent", false),
    ai_studio("/v1/models/{model}:streamGenerateContent", true),
    ai_studio("/v1beta/models/{model}:generateContent", false),
    ai_studio("/v1beta/models/{model}:streamGenerateContent", true),
    post("/v1beta/openai/chat/completions", Format::Chat, GEMINI),
    post("/v1beta/openai/embeddings", Format::Embeddings, &["gemini-embedding-001"]),
    list("/v1beta/openai/models", GEMINI),
    Route {
        query: &["pageSize=1"],
        proof: &[("x-goog-api-key", "")],
        ..account("GET", "/v1beta/models")
    },
];

const fn ai_studio(path: &'static str, streams: bool) -> Route {
    Route { proof: &[("x-goog-api-key", "")], ..gemini(path, streams) }
}

const fn gemini(path: &'static str, streams: bool) -> Route {
    let query: &[&str] = if streams { &["alt=sse", ""] } else { &[""] };
    let format = if streams { Format::GeminiStream } else { Format::Gemini };
    Route { query, ..post(path, format, GEMINI) }
}

macro_rules! in_project {
    ($version:literal, $rest:literal) => {
        concat!("/", $version, "/projects/stand-in-123/locations/europe-west4/", $rest)
    };
}

const ON_VERTEX: &[&str] = &["claude-sonnet-4-5@20250929"];
const VERTEX: &[Route] = &[
    gemini(in_project!("v1", "publishers/google/models/{model}:generateContent"), false),
    gemini(in_project!("v1", "publishers/google/models/{model}:streamGenerateContent"), true),
    gemini(in_project!("v1beta1", "publishers/google/models/{model}:generateContent"), false),
    gemini(in_project!("v1beta1", "publishers/google/models/{model}:streamGenerateContent"), true),
    post(
        in_project!("v1", "publishers/anthropic/models/{model}:rawPredict"),
        Format::VertexMessages,
        ON_VERTEX,
    ),
    post(
        in_project!("v1", "publishers/anthropic/models/{model}:streamRawPredict"),
        Format::VertexMessagesStream,
        ON_VERTEX,
    ),
    post(
        in_project!("v1", "endpoints/openapi/chat/completions"),
        Format::Chat,
        &["google/gemini-2.5-flash"],
    ),
    account("POST", in_project!("v1", "publishers/google/models/gemini-2.5-flash:countTokens")),
];

const ON_BEDROCK: &[&str] = &["eu.anthropic.claude-sonnet-4-5-20250929-v1:0"];
const BEDROCK: &[Route] = &[
    post("/model/{model}/converse", Format::Converse, ON_BEDROCK),
    post("/model/{model}/converse-stream", Format::ConverseStream, ON_BEDROCK),
    post("/model/{model}/invoke", Format::Invoke, ON_BEDROCK),
    post("/model/{model}/invoke-with-response-stream", Format::InvokeStream, ON_BEDROCK),
    post("/openai/v1/chat/completions", Format::Chat, &["openai.gpt-oss-120b-1:0"]),
    post("/openai/v1/responses", Format::Responses, &["openai.gpt-oss-120b-1:0"]),
    messages("/anthropic/v1/messages", ON_BEDROCK),
    account("GET", "/v1/models"),
];

/// A model is a deployment. Beside its own header the vendor takes keys as bearers where the path has
/// no deployment in it.
const DEPLOYMENTS: &[&str] = &["my-gpt-4o"];
const AZURE: &[Route] = &[
    azure("/openai/v1/chat/completions", Format::Chat, DEPLOYMENTS),
    azure("/openai/v1/responses", Format::Responses, DEPLOYMENTS),
    azure("/openai/v1/embeddings", Format::Embeddings, DEPLOYMENTS),
    Route {
        query: &["api-version=2024-10-21"],
        proof: &[("api-key", "")],
        ..azure("/openai/deployments/{model}/chat/completions", Format::Chat, DEPLOYMENTS)
    },
    Route {
        proof: &[("x-api-key", ""), ("api-key", "")],
        ..messages("/anthropic/v1/messages", &["my-claude"])
    },
    Route {
        proof: &[("api-key", ""), ("authorization", "Bearer ")],
        ..account("GET", "/openai/v1/models")
    },
];

const fn azure(path: &'static str, format: Format, models: &'static [&'static str]) -> Route {
    Route { proof: &[("api-key", ""), ("authorization", "Bearer ")], ..post(path, format, models) }
}

const VENDORS: &[&str] = &["openai/gpt-4o-mini", "anthropic/claude-sonnet-4.5"];
const OPENROUTER: &[Route] = &[
    post("/api/v1/chat/completions", Format::Chat, VENDORS),
    post("/api/v1/responses", Format::Responses, VENDORS),
    post("/api/v1/messages", Format::Messages, VENDORS),
    list("/api/v1/models", VENDORS),
    account("GET", "/api/v1/key"),
];

const GROK: &[&str] = &["grok-4.3"];
const XAI: &[Route] = &[
    post("/v1/chat/completions", Format::Chat, GROK),
    post("/v1/responses", Format::Responses, GROK),
    post("/v1/messages", Format::Messages, GROK),
    list("/v1/models", GROK),
    account("GET", "/v1/api-key"),
];

const VERCEL: &[Route] = &[
    post("/v1/chat/completions", Format::Chat, VENDORS),
    post("/v1/responses", Format::Responses, VENDORS),
    post("/v1/messages", Format::Messages, VENDORS),
    list("/v1/models", VENDORS),
    account("GET", "/v1/credits"),
];

const MISTRALS: &[&str] = &["mistral-small-latest"];
const MISTRAL: &[Route] = &[
    Route { members: MISTRAL_MEMBERS, ..post("/v1/chat/completions", Format::Chat, MISTRALS) },
    post("/v1/embeddings", Format::Embeddings, &["mistral-embed"]),
    list("/v1/models", MISTRALS),
];

/// The members of its chat requests; any other is refused.
const MISTRAL_MEMBERS: &[&str] = &[
    "frequency_penalty",
    "guardrails",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_mode",
    "random_seed",
    "reasoning_effort",
    "response_format",
    "safe_prompt",
    "service_tier",
    "stop",
    "stream",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
];

const DEEPSEEK: &[Route] = &[
    post("/chat/completions", Format::Chat, &["deepseek-chat"]),
    post("/anthropic/v1/messages", Format::Messages, &["deepseek-chat"]),
    list("/models", &["deepseek-chat"]),
    account("GET", "/user/balance"),
];

/// Some paths have a version in front and some have not.
const PERPLEXITY: &[Route] = &[
    post("/chat/completions", Format::Chat, &["sonar"]),
    post("/v1/responses", Format::Responses, VENDORS),
    post("/v1/embeddings", Format::Embeddings, &["pplx-embed-v1-4b"]),
    list("/v1/models", &["sonar"]),
    account("GET", "/async/chat/completions"),
];

const COMMAND: &[&str] = &["command-a-03-2025"];
const COHERE: &[Route] = &[
    post("/v2/chat", Format::Cohere, COMMAND),
    post("/compatibility/v1/chat/completions", Format::Chat, COMMAND),
    post("/compatibility/v1/embeddings", Format::Embeddings, &["embed-v4.0"]),
    list("/v1/models", COMMAND),
    account("POST", "/v1/check-api-key"),
];

const LLAMA: &[&str] = &["@cf/meta/llama-3.2-3b-instruct"];
const CLOUDFLARE: &[Route] = &[
    post(
        "/client/v4/accounts/00112233445566778899aabbccddeeff/ai/v1/chat/completions",
        Format::Chat,
        LLAMA,
    ),
    post(
        "/client/v4/accounts/00112233445566778899aabbccddeeff/ai/run/{model}",
        Format::WorkersAi,
        LLAMA,
    ),
    account("GET", "/client/v4/user/tokens/verify"),
];
