//! What is taken out of a stream that was asked for usage, and what is not.

use metering::{Filter, Piece};

fn filtered(pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<u8> {
    let (mut filter, mut sent) = (Filter::new(), Vec::new());
    for piece in pieces {
        let mut out = Vec::new();
        filter.feed(piece, &mut out);
        for part in out {
            match part {
                Piece::Held(bytes) => sent.extend(bytes),
                Piece::Part(range) => sent.extend_from_slice(piece.get(range).unwrap()),
            }
        }
    }
    sent.extend(filter.finish());
    sent
}

#[track_caller]
fn check(stream: &str, expected: &str) {
    for (stream, expected) in [
        (stream.to_owned(), expected.to_owned()),
        (stream.replace('\n', "\r\n"), expected.replace('\n', "\r\n")),
    ] {
        let bytes = stream.as_bytes();
        let same = |sent: Vec<u8>, how: &str| {
            assert_eq!(String::from_utf8(sent).unwrap(), expected, "{how}");
        };
        same(filtered(&mut [bytes].into_iter()), "whole");
        for at in 0..=bytes.len() {
            let (one, other) = bytes.split_at(at);
            same(filtered(&mut [one, other].into_iter()), &format!("cut at {at}"));
        }
        for size in [1, 2, 3, 7, 50] {
            same(filtered(&mut bytes.chunks(size)), &format!("in pieces of {size}"));
        }
    }
}

const SAID: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn the_chunk_of_usage_alone_is_taken_out_and_nothing_else() {
    check(&[SAID, SAID, USAGE, DONE].concat(), &[SAID, SAID, DONE].concat());
    check(&[USAGE, SAID, USAGE, USAGE, DONE].concat(), &[SAID, DONE].concat());
    check(USAGE, "");
    check(&[SAID, USAGE.trim_end()].concat(), &[SAID, USAGE.trim_end()].concat());
}

#[test]
fn usage_beside_something_said_stays() {
    let said = "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":1}}\n\n";
    let first = "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n";
    let spoof = "data: {\"choices\":[{\"delta\":{\"content\":\"{\\\"choices\\\":[],\\\"usage\\\":{}}\"}}]}\n\n";
    let comment = ": {\"choices\":[],\"usage\":{}}\n\n";
    for stream in
        [said, first, spoof, comment, DONE, "", "\n", "\n\n\n", "data: {\"usage\":{}}\n\n"]
    {
        let stream = [SAID, stream, SAID, DONE].concat();
        check(&stream, &stream);
    }
}

#[test]
fn an_event_of_more_lines_keeps_the_others() {
    let event = format!("id: 7\n{USAGE}");
    check(&[SAID, &event, DONE].concat(), &[SAID, "id: 7\n\n", DONE].concat());
}

#[test]
fn a_long_line_goes_on_as_it_comes() {
    let long =
        format!("data: {{\"choices\":[],\"x\":\"{}\",\"usage\":{{}}}}\n\n", "x".repeat(40_000));
    let stream = [&*long, USAGE, DONE].concat();
    for size in [999, 20_000, stream.len()] {
        let sent = filtered(&mut stream.as_bytes().chunks(size));
        assert_eq!(sent, [&*long, DONE].concat().as_bytes(), "{size}");
    }
}
