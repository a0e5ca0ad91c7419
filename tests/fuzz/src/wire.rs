use std::sync::LazyLock;

use domain::ProviderId;
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use metering::{
    Edit, Ended, Filter, Format, Framing, Meter, Piece, Reading, RequestOutline, UsageOptIn, apply,
};
use providers::{Answer, Catalogue};
use serde_json::Value;

use crate::text;

static CATALOGUE: LazyLock<Option<Catalogue>> = LazyLock::new(|| Catalogue::builtin().ok());

const FORMATS: [Format; 9] = [
    Format::OpenAiChat,
    Format::OpenAiResponses,
    Format::OpenAiEmbeddings,
    Format::AnthropicMessages,
    Format::Gemini,
    Format::BedrockConverse,
    Format::BedrockInvoke,
    Format::CohereChat,
    Format::CohereUnits,
];

const FRAMINGS: [Framing; 3] = [Framing::Document, Framing::Events, Framing::Frames];

/// Where an answer is cut into chunks changes neither what is read of it nor what is taken out.
pub(crate) fn stream(input: &[u8]) -> bool {
    let Some((&[format, framing, cut], body)) = input.split_first_chunk::<3>() else {
        return false;
    };
    let pick = |byte: u8, of: usize| usize::from(byte) % of;
    let (Some(&format), Some(&framing)) =
        (FORMATS.get(pick(format, FORMATS.len())), FRAMINGS.get(pick(framing, FRAMINGS.len())))
    else {
        return false;
    };
    let mut heard = false;
    for provider in ["openai", "openrouter", "xai", "perplexity", "anthropic"] {
        let Ok(provider) = provider.parse::<ProviderId>() else { return false };
        let read = |chunks: &mut dyn Iterator<Item = &[u8]>| {
            let mut meter = Meter::new(Reading::of(&provider, format), framing);
            chunks.for_each(|chunk| meter.feed(chunk));
            format!("{:?}", meter.finish(Ended::Whole))
        };
        let whole = read(&mut std::iter::once(body));
        assert_eq!(whole, read(&mut chunks(body, cut)), "chunks change what is read");
        heard |= whole != "Missing";
    }
    let whole = filtered(&mut std::iter::once(body));
    assert_eq!(whole, filtered(&mut chunks(body, cut)), "chunks change what is taken out");
    heard
}

fn chunks(body: &[u8], cut: u8) -> impl Iterator<Item = &[u8]> {
    body.chunks(usize::from(cut).max(1))
}

fn filtered(chunks: &mut dyn Iterator<Item = &[u8]>) -> Vec<u8> {
    let (mut filter, mut sent, mut pieces) = (Filter::new(), Vec::new(), Vec::new());
    for chunk in chunks {
        filter.feed(chunk, &mut pieces);
        for piece in pieces.drain(..) {
            match piece {
                Piece::Held(bytes) => sent.extend_from_slice(&bytes),
                Piece::Part(range) => sent.extend_from_slice(chunk.get(range).unwrap_or_default()),
            }
        }
    }
    sent.extend_from_slice(&filter.finish());
    sent
}

/// A request that is read and edited is still one JSON object, with the limit that was put in.
pub(crate) fn request(input: &[u8]) -> bool {
    let Ok(outline) = RequestOutline::read(input) else { return false };
    let valid = serde_json::from_slice::<Value>(input).is_ok();
    for format in FORMATS {
        for provider in ["openai", "mistral", "google"] {
            let Ok(provider) = provider.parse::<ProviderId>() else { return false };
            let limit = outline.output_limit(input, &provider, format, 4096);
            let _ = outline.bound(input, format, 4096);
            let mut edits: Vec<Edit> = Vec::new();
            edits.extend(limit.into_iter().filter_map(|limit| limit.edit));
            if let UsageOptIn::Added(edit) = outline.usage_opt_in(input, &provider, format) {
                edits.push(edit);
            }
            let edited = apply(input, &edits);
            if valid {
                let still = serde_json::from_slice::<Value>(&edited);
                assert!(still.is_ok_and(|value| value.is_object()), "an edit breaks the request");
            }
        }
    }
    valid
}

/// What a provider answers, as every provider's rules read it.
pub(crate) fn answer(input: &[u8]) -> bool {
    let Some((&[status, kind], body)) = input.split_first_chunk::<2>() else { return false };
    let Some(catalogue) = &*CATALOGUE else { return false };
    let mut headers = HeaderMap::new();
    let kind = if kind % 2 == 0 { "application/json" } else { "text/event-stream" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let answer = Answer { status: 200 + u16::from(status) % 400, headers: &headers, body };
    let mut told = false;
    for provider in catalogue.providers() {
        told |= provider.failure(answer).is_some();
        for form in provider.credential_forms() {
            let _ = provider.verdict(form.kind, b"sk-fuzz", answer);
        }
    }
    told
}

/// A path that is let through is one of the provider's own and has no way out of it.
pub(crate) fn native_path(input: &[u8]) -> bool {
    let Some(path) = text(input) else { return false };
    let Some(catalogue) = &*CATALOGUE else { return false };
    let _ = (catalogue.recognize(path), catalogue.split_model(path));
    let mut passed = false;
    for provider in catalogue.providers() {
        for method in [Method::GET, Method::POST] {
            let Some(call) = provider.native_call(&method, path) else { continue };
            let escapes = |segment: &str| matches!(segment, "." | "..") || segment.contains('\\');
            assert!(!path.split('/').any(escapes), "{path} leaves the provider's API");
            let _ = call.model_name();
            passed = true;
        }
    }
    passed
}
