//! Answers that are streams of events.

use super::*;

#[track_caller]
fn check(slug: &str, format: Format, answer: &str, expected: Metered) {
    for answer in [answer.to_owned(), answer.replace('\n', "\r\n")] {
        let read = read(slug, format, Framing::Events, answer.as_bytes(), Ended::Whole);
        assert_eq!(read, expected);
    }
}

const CHAT: &str = concat!(
    "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\"}}],\"usage\": null}\n\n",
    ": a comment with \"usage\":{}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":4}}\n\n",
    "data: [DONE]\n\n",
);

#[test]
fn openai_chat() {
    check("openai", Format::OpenAiChat, CHAT, Metered::Final(usage(tokens(11, 4))));
    // Mistral's is in the last chunk of the answer itself, and has no line's end behind it here.
    let mistral =
        "data:{\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3}}";
    check("mistral", Format::OpenAiChat, mistral, Metered::Final(usage(tokens(3, 0))));
    check("openai", Format::OpenAiChat, "data: [DONE]\n\n", Metered::Missing);
}

#[test]
fn openai_responses() {
    let answer = concat!(
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null,",
        "\"tools\":[{\"parameters\":{\"properties\":{\"usage\":{\"type\":\"object\"}}}}]}}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{",
        "\"metadata\":{\"usage\":{\"input_tokens\":999}},\"usage\":{\"input_tokens\":36,",
        "\"output_tokens\":87,\"output_tokens_details\":{\"reasoning_tokens\":7}}}}\n\n",
    );
    let expected = Tokens { reasoning: 7, ..tokens(36, 80) };
    check("openai", Format::OpenAiResponses, answer, Metered::Final(usage(expected)));
}

const MESSAGES: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\"",
    ":25,\"cache_read_input_tokens\":100,\"cache_creation_input_tokens\":8,\"cache_creation\":",
    "{\"ephemeral_5m_input_tokens\":0,\"ephemeral_1h_input_tokens\":8},\"output_tokens\":1}}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,",
    "\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":",
    "{\"output_tokens\":15,\"input_tokens\":null}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

#[test]
fn anthropic_messages() {
    let expected = Tokens { cache_read: 100, cache_write_1h: 8, ..tokens(25, 15) };
    check("anthropic", Format::AnthropicMessages, MESSAGES, Metered::Final(usage(expected)));
}

#[test]
fn a_stream_that_is_cut_has_had_no_last_word() {
    let cut = &MESSAGES[..MESSAGES.find("event: message_delta").unwrap()];
    let expected = Tokens { cache_read: 100, cache_write_1h: 8, ..tokens(25, 1) };
    check("anthropic", Format::AnthropicMessages, cut, Metered::Partial(usage(expected)));
    let unsure = MESSAGES.find("event: message_stop").unwrap();
    let bytes = &MESSAGES.as_bytes()[..unsure];
    let format = Format::AnthropicMessages;
    let cut = read("anthropic", format, Framing::Events, bytes, Ended::Cut);
    let expected = Tokens { output: 15, ..expected };
    assert_eq!(cut, Metered::Partial(usage(expected)), "another message_delta might have come");
    let document = br#"{"usage":{"input_tokens":3,"output_tokens":4},"cont"#;
    let cut = read("anthropic", format, Framing::Document, document, Ended::Cut);
    assert_eq!(cut, Metered::Final(usage(tokens(3, 4))));
    let gemini =
        b"data: {\"usageMetadata\":{\"promptTokenCount\":5,\"candidatesTokenCount\":2}}\n\n";
    let cut = read("google", Format::Gemini, Framing::Events, gemini, Ended::Cut);
    assert_eq!(cut, Metered::Partial(usage(tokens(5, 2))));
    let whole = read("google", Format::Gemini, Framing::Events, gemini, Ended::Whole);
    assert_eq!(whole, Metered::Final(usage(tokens(5, 2))));
    // The last word of a chat is its last word, whatever happens behind it.
    let cut = CHAT.strip_suffix("data: [DONE]\n\n").unwrap();
    let cut = read("openai", Format::OpenAiChat, Framing::Events, cut.as_bytes(), Ended::Cut);
    assert_eq!(cut, Metered::Final(usage(tokens(11, 4))));
}

#[test]
fn gemini_says_sums_so_far() {
    let answer = concat!(
        "data: {\"candidates\":[{}],\"usageMetadata\":{\"promptTokenCount\":7,",
        "\"candidatesTokenCount\":1,\"thoughtsTokenCount\":30}}\n\n",
        "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":",
        "{\"promptTokenCount\":7,\"candidatesTokenCount\":12,\"thoughtsTokenCount\":30}}\n\n",
    );
    let expected = Metered::Final(usage(Tokens { reasoning: 30, ..tokens(7, 12) }));
    check("google", Format::Gemini, answer, expected);
    // Without `alt=sse` it is an array of the same documents.
    let array = r#"[{"candidates":[],"usageMetadata":{"promptTokenCount":7}},
        {"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":12,"thoughtsTokenCount":30}}]"#;
    let read = read("google", Format::Gemini, Framing::Document, array.as_bytes(), Ended::Whole);
    assert_eq!(read, expected);
}

#[test]
fn cohere() {
    let answer = concat!(
        "event: content-delta\ndata: {\"type\":\"content-delta\",\"delta\":{\"message\":{}}}\n\n",
        "event: message-end\ndata: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":",
        "\"COMPLETE\",\"usage\":{\"billed_units\":{\"input_tokens\":3,\"output_tokens\":10},",
        "\"tokens\":{\"input_tokens\":69,\"output_tokens\":10}}}}\n\n",
    );
    check("cohere", Format::CohereChat, answer, Metered::Final(usage(tokens(3, 10))));
}

#[test]
fn perplexity_repeats_itself_until_the_end() {
    let answer = concat!(
        "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":1}}\n\n",
        "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":9,",
        "\"cost\":{\"total_cost\":0.005}}}\n\n",
    );
    let stated = Some(domain::Cost::from_picos(5_000_000_000));
    let expected = Usage { stated, ..usage(tokens(8, 9)) };
    check("perplexity", Format::OpenAiChat, answer, Metered::Final(expected));
}

#[test]
fn a_line_longer_than_what_is_kept_is_read_as_it_comes() {
    // OpenAI's last event repeats the whole answer.
    let said = "x".repeat(200_000);
    let answer = format!(
        "data: {{\"response\":{{\"output\":[{{\"text\":\"{said}\"}}],\"usage\":{{\"input_tokens\":5,\
         \"output_tokens\":6}}}}}}\n\ndata: {{\"later\":1}}\n\n"
    );
    for size in [1, 1_000, 16_384, answer.len()] {
        let mut meter = meter("openai", Format::OpenAiResponses, Framing::Events);
        answer.as_bytes().chunks(size).for_each(|piece| meter.feed(piece));
        assert_eq!(meter.finish(Ended::Whole), Metered::Final(usage(tokens(5, 6))), "{size}");
    }
}
