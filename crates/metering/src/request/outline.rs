use std::ops::Range;

use serde::de::IgnoredAny;
use thiserror::Error;

use crate::{
    Bound, Edit, Format,
    json::{Visit, Walker},
};

/// What a request's body says that has to do with its cost, found in one pass; the body is not parsed,
/// and nothing of it is kept.
#[derive(Clone, Debug)]
pub struct RequestOutline {
    members: Vec<Member>,
    /// Just behind the first brace, and whether the object has no members.
    open: (usize, bool),
    bytes: usize,
    has_more: bool,
    has_server_tools: bool,
    named_tools: u64,
    marked: CacheUse,
}

/// Into which cache a call's input may be written.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum CacheUse {
    /// Into none.
    #[default]
    None,
    /// One that keeps for minutes.
    Short,
    /// One that keeps for an hour or longer.
    Long,
}

/// Why a request cannot be bounded or changed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InvalidRequest {
    /// It is not a JSON object.
    #[error("the request body must be a JSON object")]
    NotAnObject,
    /// It has a member twice, and two parsers could read two different ones.
    #[error("the request body has more than one `{0}`; send exactly one")]
    Duplicate(&'static str),
    /// It has a member that some parsers take for another.
    #[error("the request body has a member that differs from `{0}` only in case; remove it")]
    Ambiguous(&'static str),
    /// A number is not one.
    #[error("`{0}` must be a whole number, not negative")]
    NotANumber(&'static str),
}

#[derive(Clone, Debug)]
struct Member {
    parent: &'static str,
    name: &'static str,
    value: Range<usize>,
}

/// Members that matter, with the one they stand in.
const KNOWN: [(&str, &str); 21] = [
    ("", "stream"),
    ("", "stream_options"),
    ("", "max_tokens"),
    ("", "max_completion_tokens"),
    ("", "max_output_tokens"),
    ("", "n"),
    ("", "best_of"),
    ("", "prompt"),
    ("", "tools"),
    ("", "generationConfig"),
    ("", "generation_config"),
    ("", "inferenceConfig"),
    ("stream_options", "include_usage"),
    ("generationConfig", "maxOutputTokens"),
    ("generationConfig", "max_output_tokens"),
    ("generationConfig", "candidateCount"),
    ("generationConfig", "candidate_count"),
    ("generation_config", "maxOutputTokens"),
    ("generation_config", "max_output_tokens"),
    ("generation_config", "candidateCount"),
    ("inferenceConfig", "maxTokens"),
];

/// Members that bring in what is not text in the body. Wherever they stand outside of `tools`.
const MORE: [&str; 25] = [
    "cachedContent",
    "cached_content",
    "container",
    "conversation",
    "document",
    "documents",
    "file",
    "fileData",
    "file_data",
    "file_id",
    "file_uri",
    "file_url",
    "image",
    "image_url",
    "inlineData",
    "inline_data",
    "input_audio",
    "input_image",
    "mcp_servers",
    "previous_response_id",
    "s3Location",
    "source",
    "vector_store_ids",
    "video",
    "video_url",
];

/// Members that let the provider work by itself: at the top, or of one of `tools`.
const SERVER_TOOLS: [&str; 15] = [
    "codeExecution",
    "code_execution",
    "connectors",
    "data_sources",
    "enterpriseWebSearch",
    "fileSearch",
    "googleMaps",
    "googleSearch",
    "googleSearchRetrieval",
    "google_search",
    "mcp_servers",
    "plugins",
    "search_parameters",
    "urlContext",
    "web_search_options",
];

/// How the types of such tools begin.
const SERVER_TOOL_TYPES: [&str; 10] = [
    "code_execution",
    "code_interpreter",
    "collections_search",
    "file_search",
    "image_generation",
    "mcp",
    "tool_search",
    "web_fetch",
    "web_search",
    "x_search",
];

impl RequestOutline {
    /// Reads a whole body.
    pub fn read(body: &[u8]) -> Result<Self, InvalidRequest> {
        let mut reader = Reader {
            body,
            outline: Self {
                members: Vec::new(),
                open: (0, true),
                bytes: body.len(),
                has_more: false,
                has_server_tools: false,
                named_tools: 0,
                marked: CacheUse::None,
            },
            top: "",
            wanted: None,
            open: Vec::new(),
            is_type: None,
            wrong: None,
        };
        let mut walker = Walker::new();
        walker.feed(body, &mut reader);
        if let Some(wrong) = reader.wrong {
            return Err(wrong);
        }
        let whole = walker.is_done() && !walker.is_lost() && reader.outline.open.0 > 0;
        if whole { Ok(reader.outline) } else { Err(InvalidRequest::NotAnObject) }
    }

    /// Whether the provider may search, run code and come back to the model by itself. What that takes
    /// is bounded by nothing that stands in the request.
    pub fn has_server_tools(&self) -> bool {
        self.has_server_tools
    }

    /// What bounds this call, when each of its answers has at most this much output.
    pub fn bound(
        &self,
        body: &[u8],
        format: Format,
        output_maximum: u64,
    ) -> Result<Bound, InvalidRequest> {
        Ok(Bound {
            body_bytes: u64::try_from(self.bytes).unwrap_or(u64::MAX),
            has_more: self.has_more,
            named_tools: self.named_tools,
            output_maximum,
            answers: self.answers(body, format)?,
            cache: self.cache(format),
        })
    }

    /// Into which cache the input may go. Anthropic's models are told what to cache; others decide
    /// themselves.
    pub fn cache(&self, format: Format) -> CacheUse {
        match format {
            Format::AnthropicMessages | Format::BedrockInvoke | Format::BedrockConverse => {
                self.marked
            }
            Format::OpenAiChat
            | Format::OpenAiResponses
            | Format::OpenAiEmbeddings
            | Format::Gemini
            | Format::CohereChat
            | Format::CohereUnits => self.marked.max(CacheUse::Short),
        }
    }

    fn answers(&self, body: &[u8], format: Format) -> Result<u64, InvalidRequest> {
        let mut most = 1;
        for (parent, name) in [
            ("", "n"),
            ("", "best_of"),
            ("generationConfig", "candidateCount"),
            ("generationConfig", "candidate_count"),
            ("generation_config", "candidateCount"),
        ] {
            most = self.number(body, parent, name)?.unwrap_or(1).max(most);
        }
        // The older completions answer each prompt of a list.
        let prompts = self.text(body, "", "prompt").filter(|_| format == Format::OpenAiChat);
        let prompts = prompts.and_then(|text| serde_json::from_slice::<Vec<IgnoredAny>>(text).ok());
        let prompts = prompts.map_or(1, |list| u64::try_from(list.len()).unwrap_or(u64::MAX));
        Ok(most.saturating_mul(prompts.max(1)))
    }

    /// A number that the body states; none when it is missing or null.
    pub(super) fn number(
        &self,
        body: &[u8],
        parent: &str,
        name: &'static str,
    ) -> Result<Option<u64>, InvalidRequest> {
        let Some(text) = self.text(body, parent, name) else { return Ok(None) };
        serde_json::from_slice(text).map_err(|_| InvalidRequest::NotANumber(name))
    }

    /// A member's value as it stands in the body.
    pub(super) fn text<'a>(&self, body: &'a [u8], parent: &str, name: &str) -> Option<&'a [u8]> {
        body.get(self.value(parent, name)?)
    }

    /// Where a member's value stands.
    pub(super) fn value(&self, parent: &str, name: &str) -> Option<Range<usize>> {
        let found = self.members.iter().find(|it| it.parent == parent && it.name == name);
        found.map(|member| member.value.clone())
    }

    /// Puts a member into the outermost object.
    pub(super) fn insert(&self, member: &str) -> Edit {
        let (at, empty) = self.open;
        let comma = if empty { "" } else { "," };
        Edit { at: at..at, with: format!("{member}{comma}").into_bytes() }
    }

    /// Puts a member into the object that is the value of another one, or makes it the value when
    /// there is none.
    pub(super) fn insert_into(&self, body: &[u8], parent: &str, member: &str) -> Edit {
        let Some(value) = self.value("", parent) else {
            return self.insert(&format!("\"{parent}\":{{{member}}}"));
        };
        let text = body.get(value.clone()).unwrap_or_default();
        let Some(inside) = text.strip_prefix(b"{") else {
            return Edit { at: value, with: format!("{{{member}}}").into_bytes() };
        };
        let empty = inside.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
        let comma = if empty { "" } else { "," };
        let at = value.start + 1;
        Edit { at: at..at, with: format!("{member}{comma}").into_bytes() }
    }
}

struct Reader<'a> {
    body: &'a [u8],
    outline: RequestOutline,
    /// The outermost member at hand, if it is a known one.
    top: &'static str,
    wanted: Option<(&'static str, &'static str)>,
    open: Vec<(u32, (&'static str, &'static str), usize)>,
    /// Whether the next value is a type, and where it began.
    is_type: Option<usize>,
    wrong: Option<InvalidRequest>,
}

impl Reader<'_> {
    fn known(&mut self, parent: &'static str, key: &[u8]) {
        let of_parent = KNOWN.iter().filter(|(of, _)| *of == parent);
        let mut alike = of_parent.filter(|(_, name)| name.as_bytes().eq_ignore_ascii_case(key));
        let Some((_, first)) = alike.next() else { return };
        // `maxOutputTokens` and `max_output_tokens` are two names; no two differ in case alone.
        if first.as_bytes() != key {
            self.wrong = Some(InvalidRequest::Ambiguous(first));
        } else if self.outline.value(parent, first).is_some() {
            self.wrong = Some(InvalidRequest::Duplicate(first));
        }
        self.wanted = Some((parent, first));
    }

    /// Takes the type of a tool, or of whatever else has one. One that is written with escapes might
    /// be any.
    fn of_type(&mut self, kind: &[u8]) {
        let escaped = kind.contains(&b'\\');
        if self.top != "tools" {
            self.outline.has_more |= escaped || kind == b"item_reference";
            return;
        }
        let server = SERVER_TOOL_TYPES.iter().any(|it| kind.starts_with(it.as_bytes()));
        self.outline.has_server_tools |= server || escaped;
        let named = !matches!(kind, b"function" | b"custom");
        self.outline.named_tools = self.outline.named_tools.saturating_add(named.into());
    }
}

impl Visit for Reader<'_> {
    fn key(&mut self, depth: u32, key: &[u8]) {
        self.wanted = None;
        self.is_type = None;
        let is_in = |list: &[&str]| list.iter().any(|name| name.as_bytes() == key);
        match depth {
            1 => {
                self.outline.open.1 = false;
                self.known("", key);
                self.top = self.wanted.map_or("", |(_, name)| name);
            }
            2 if !self.top.is_empty() => self.known(self.top, key),
            _ => {}
        }
        let of_a_tool = depth == 3 && self.top == "tools";
        if (depth == 1 || of_a_tool) && is_in(&SERVER_TOOLS) {
            self.outline.has_server_tools = true;
        }
        if key == b"type" && (of_a_tool || self.top != "tools") {
            self.is_type = Some(0);
        }
        if self.top != "tools" && is_in(&MORE) {
            self.outline.has_more = true;
        }
        if is_in(&["cache_control", "cachePoint", "cache_point"]) {
            self.outline.marked = self.outline.marked.max(CacheUse::Short);
        }
        if is_in(&["ttl", "prompt_cache_retention"]) {
            self.outline.marked = CacheUse::Long;
        }
    }

    fn begin(&mut self, depth: u32, at: usize, first: u8) {
        if depth == 0 && first == b'{' {
            self.outline.open.0 = at + 1;
        }
        if let Some(from) = &mut self.is_type {
            *from = at;
        }
        if let Some(wanted) = self.wanted.take() {
            // OpenAI keeps prompts, which are then objects here.
            self.outline.has_more |= wanted.1 == "prompt" && first == b'{';
            self.open.push((depth, wanted, at));
        }
    }

    fn end(&mut self, depth: u32, at: usize) {
        if let Some(from) = self.is_type.take()
            && let Some(kind) = self.body.get(from + 1..at.saturating_sub(1))
        {
            self.of_type(kind);
        }
        if let Some((_, (parent, name), from)) = self.open.pop_if(|(opened, ..)| *opened == depth) {
            self.outline.members.push(Member { parent, name, value: from..at });
        }
    }
}
