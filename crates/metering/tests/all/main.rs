//! Prices, usage and requests as other crates see them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod answers;
mod filter;
mod frames;
mod prices;
mod requests;
mod spoofs;
mod streams;

use domain::{ProviderId, Tokens};
use metering::{Ended, Format, Framing, Meter, Metered, Reading, Usage};

fn provider(slug: &str) -> ProviderId {
    slug.parse().unwrap()
}

fn meter(slug: &str, format: Format, framing: Framing) -> Meter {
    Meter::new(Reading::of(&provider(slug), format), framing)
}

/// Reads an answer whole, cut in two at every byte, and byte by byte; it must come to the same.
#[track_caller]
fn read(slug: &str, format: Format, framing: Framing, answer: &[u8], ended: Ended) -> Metered {
    let fed = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut meter = meter(slug, format, framing);
        pieces.for_each(|piece| meter.feed(piece));
        assert_eq!(meter.bytes(), answer.len() as u64);
        meter.finish(ended)
    };
    let whole = fed(&mut [answer].into_iter());
    for at in 0..=answer.len() {
        let (one, other) = answer.split_at(at);
        assert_eq!(fed(&mut [one, other].into_iter()), whole, "cut at {at}");
    }
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(fed(&mut answer.chunks(size)), whole, "in pieces of {size}");
    }
    whole
}

fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input, output, ..Tokens::default() }
}

fn usage(tokens: Tokens) -> Usage {
    Usage { tokens, ..Usage::default() }
}
