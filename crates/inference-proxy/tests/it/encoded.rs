//! Answers in an encoding that callers' SDKs take off and nobody on the way can read through.

use http::StatusCode;

use crate::harness::{Next, SECRET, World, refused};

const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o"}"#;

/// The text as gzip with the codes that deflate has fixed: all of it is compressed, nothing plain.
fn gzip(text: &str) -> Vec<u8> {
    let mut bits = vec![true, true, false];
    for byte in text.bytes() {
        // RFC 1951, 3.2.6: literals below 144 are eight bits from 0b00110000, the highest first.
        assert!(byte < 144);
        let code = byte + 0x30;
        bits.extend((0..8).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits.extend([false; 7]);
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bytes.extend(bits.chunks(8).map(byte));
    bytes.extend(checksum(text.as_bytes()).to_le_bytes());
    bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    bytes
}

fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum: u32, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
        })
    })
}

#[tokio::test]
async fn a_compressed_answer_does_not_carry_the_secret_past_the_search() {
    let world = World::start().await;
    let canary = format!(r#"{{"id":"c1","leak":"{SECRET}"}}"#);
    let zipped = gzip(&canary);
    // What is compressed does not show what is in it, and neither does its length.
    assert!(!zipped.windows(8).any(|part| SECRET.as_bytes().starts_with(part)));
    for encoding in ["gzip", "x-gzip", "GZIP", "br", "identity, gzip"] {
        world.upstream.answer(PATH, 200, &[("content-encoding", encoding)], &zipped);
        for (path, body) in [(PATH, BODY), ("/openai/v1/chat/completions", BODY)] {
            let (status, headers, answer) = world.call(path, body).await;
            assert_eq!(status, StatusCode::BAD_GATEWAY, "{encoding}: {answer}");
            assert_eq!(answer["error"]["code"], "upstream_encoded");
            assert!(!headers.contains_key("content-encoding"));
        }
    }
    assert!(world.upstream.seen().iter().all(|seen| seen.headers["accept-encoding"] == "identity"));
    // The very same bytes pass when nothing says that they are to be unpacked, and others pass under
    // the one name that changes nothing.
    let harmless = r#"{"id":"c1"}"#;
    world.upstream.answer(PATH, 200, &[("content-encoding", "identity")], harmless);
    let (status, headers, answer) = world.call(PATH, BODY).await;
    assert_eq!((status, &*answer.to_string()), (StatusCode::OK, harmless));
    assert!(!headers.contains_key("content-encoding"));
    world.upstream.answer(PATH, 200, &[], &zipped);
    assert_eq!(world.call(PATH, BODY).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_encoded_error_is_told_by_its_status_alone() {
    let world = World::start().await;
    let zipped = gzip(&format!(r#"{{"error":{{"message":"{SECRET}"}}}}"#));
    for status in [400, 429, 500] {
        world.upstream.answer(PATH, status, &[("content-encoding", "gzip")], &zipped);
        let (told, headers, answer) = world.call(PATH, BODY).await;
        assert_eq!(told.as_u16(), status);
        assert!(!headers.contains_key("content-encoding"));
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.ends_with("and no explanation"), "{message}");
    }
}

#[tokio::test]
async fn an_encoded_answer_is_the_providers_trouble() {
    let world = World::start().await;
    world.upstream.answer(PATH, 200, &[("content-encoding", "gzip")], gzip("{}"));
    world.then(Next::Refuse(refused("CREDENTIALS_EXHAUSTED")));
    let (status, headers, _) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let told = headers["x-strongroom-fallback"].to_str().unwrap();
    assert_eq!(told, "provider_trouble of tenants/acme/credentials/openai-prod");
}
