//! What reading usage costs, beside a bare search for line ends in the same bytes, in the same run.
//! `cargo bench -p metering`; `docs/benchmarks.md` says what came out.

use std::{hint::black_box, time::Duration};

use memchr::memchr_iter;
use metering::{Ended, Filter, Format, Framing, Meter, Reading, RequestOutline};
use rustix::time::{ClockId, clock_gettime};

/// Rounds that count, after one that does not.
const ROUNDS: usize = 21;
const TIMES: u32 = 100;

struct Stream {
    name: &'static str,
    provider: &'static str,
    format: Format,
    framing: Framing,
    chunks: Vec<Vec<u8>>,
}

#[expect(clippy::print_stdout, reason = "this is what the benchmark is run for")]
fn main() {
    if cfg!(debug_assertions) {
        println!("this build is not optimized: its figures mean nothing");
        return;
    }
    println!(
        "{:<34} {:>8} {:>10} {:>10} {:>8} {:>10}",
        "", "bytes", "memchr µs", "meter µs", "ratio", "ns/chunk"
    );
    for stream in streams() {
        let Ok(provider) = stream.provider.parse() else { continue };
        let reading = Reading::of(&provider, stream.format);
        let bare = || {
            for chunk in &stream.chunks {
                black_box(memchr_iter(b'\n', black_box(chunk)).count());
            }
        };
        let times = compare(bare, || {
            let mut meter = Meter::new(reading, stream.framing);
            for chunk in &stream.chunks {
                meter.feed(black_box(chunk));
            }
            black_box(meter.finish(Ended::Whole));
        });
        report(stream.name, &stream.chunks, times);
        if stream.name == "OpenAI chat, by event" {
            let times = compare(bare, || {
                let (mut filter, mut out) = (Filter::new(), Vec::with_capacity(4));
                for chunk in &stream.chunks {
                    out.clear();
                    filter.feed(black_box(chunk), &mut out);
                    black_box(&out);
                }
            });
            report("  and its filter", &stream.chunks, times);
        }
    }
    let body = request();
    let bare = || {
        black_box(memchr_iter(b'"', black_box(&body)).count());
    };
    let times = compare(bare, || {
        let _ = black_box(RequestOutline::read(black_box(&body)));
    });
    report("request of 64 KiB, outline", std::slice::from_ref(&body), times);
}

#[expect(clippy::print_stdout, reason = "this is what the benchmark is run for")]
fn report(name: &str, chunks: &[Vec<u8>], (bare, metered): (Duration, Duration)) {
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let per_chunk = micros(metered) * 1e3 / f64::from(u32::try_from(chunks.len()).unwrap_or(1));
    println!(
        "{name:<34} {bytes:>8} {:>10.1} {:>10.1} {:>8.1} {per_chunk:>10.0}",
        micros(bare),
        micros(metered),
        micros(metered) / micros(bare),
    );
}

/// The medians over the rounds of the CPU time of one pass of each, measured in turn.
fn compare(mut bare: impl FnMut(), mut other: impl FnMut()) -> (Duration, Duration) {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        one.push(time(&mut bare));
        two.push(time(&mut other));
    }
    (median(one), median(two))
}

fn time(pass: &mut impl FnMut()) -> Duration {
    let start = cpu();
    (0..TIMES).for_each(|_| pass());
    cpu().saturating_sub(start) / TIMES
}

/// This thread's own time, so that what else the machine does is not in it.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn median(mut rounds: Vec<Duration>) -> Duration {
    rounds.swap_remove(0);
    rounds.sort_unstable();
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}

fn streams() -> Vec<Stream> {
    let by_event = |events: &[String]| events.iter().map(|it| it.clone().into_bytes()).collect();
    let by_size = |text: &str, size| text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
    let (chat, messages, gemini) = (chat(), messages(), gemini());
    let document = format!(
        r#"{{"choices":[{{"message":{{"content":"{}"}}}}],"usage":{{"prompt_tokens":9,"completion_tokens":9}}}}"#,
        "All work and no play. ".repeat(3_000),
    );
    let stream = |name, provider, format, framing, chunks| Stream {
        name,
        provider,
        format,
        framing,
        chunks,
    };
    let (openai, anthropic) = (Format::OpenAiChat, Format::AnthropicMessages);
    let (events, whole) = (Framing::Events, Framing::Document);
    vec![
        stream("OpenAI chat, by event", "openai", openai, events, by_event(&chat)),
        stream("OpenAI chat, by 16 KiB", "openai", openai, events, by_size(&chat.concat(), 16_384)),
        stream("OpenAI chat, by 100 bytes", "openai", openai, events, by_size(&chat.concat(), 100)),
        stream("Anthropic, by event", "anthropic", anthropic, events, by_event(&messages)),
        stream(
            "Gemini, by event (usage in each)",
            "google",
            Format::Gemini,
            events,
            by_event(&gemini),
        ),
        stream("OpenAI document, by 16 KiB", "openai", openai, whole, by_size(&document, 16_384)),
    ]
}

/// As OpenAI sends it when usage was asked for: with a null in every chunk.
fn chat() -> Vec<String> {
    let mut events: Vec<_> = (0..1_000)
        .map(|at| {
            format!(
                "data: {{\"id\":\"chatcmpl-Abc123\",\"object\":\"chat.completion.chunk\",\"created\":\
                 1790000000,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
                 \"system_fingerprint\":\"fp_0123456789\",\"choices\":[{{\"index\":0,\"delta\":\
                 {{\"content\":\" word{at}\"}},\"logprobs\":null,\"finish_reason\":null}}],\
                 \"usage\":null}}\n\n"
            )
        })
        .collect();
    events.push(
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1000}}\n\n"
            .to_owned(),
    );
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn messages() -> Vec<String> {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":\
                 {\"input_tokens\":9,\"output_tokens\":1}}}\n\n";
    let said = (0..1_000).map(|at| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{{\"type\":\"text_delta\",\"text\":\" word{at}\"}}}}\n\n"
        )
    });
    let end = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":\
               {\"output_tokens\":1000}}\n\n";
    [start.to_owned()].into_iter().chain(said).chain([end.to_owned()]).collect()
}

fn gemini() -> Vec<String> {
    let text = "and so on ".repeat(20);
    let event = |at| {
        format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}],\"role\":\
             \"model\"}},\"index\":0}}],\"usageMetadata\":{{\"promptTokenCount\":9,\
             \"candidatesTokenCount\":{at},\"totalTokenCount\":{at}}},\"modelVersion\":\"g\"}}\n\n"
        )
    };
    (0..200).map(event).collect()
}

fn request() -> Vec<u8> {
    let said = "All work and no play makes Jack a dull boy.\\n".repeat(45);
    let message = format!("{{\"role\":\"user\",\"content\":\"{said}\"}},");
    let messages = message.repeat(32);
    let messages = messages.trim_end_matches(',');
    format!("{{\"model\":\"gpt-4o\",\"stream\":true,\"messages\":[{messages}]}}").into_bytes()
}
