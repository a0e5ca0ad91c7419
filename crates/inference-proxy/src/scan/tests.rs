use serde_json::Value;

use super::*;

/// Scans a body in pieces of this size.
fn scan(body: &[u8], piece: usize) -> Result<Option<Model>, BodyError> {
    let mut scanner = Scanner::new();
    for piece in body.chunks(piece) {
        scanner.feed(piece)?;
    }
    Ok(scanner.finish()?.model)
}

/// However a body is cut into pieces, the same is found.
#[track_caller]
fn check(body: impl AsRef<[u8]>, expected: Result<Option<&str>, BodyError>) {
    let body = body.as_ref();
    for piece in [1, 2, 3, 7, body.len().max(1)] {
        let found = scan(body, piece);
        let text = String::from_utf8_lossy(body);
        let name = found.as_ref().map(|model| model.as_ref().map(|model| &*model.name));
        assert_eq!(name.map_err(|error| *error), expected, "{text} by {piece}");
        if let Ok(Some(model)) = found {
            let quoted = &body[model.span.start - 1..=model.span.end];
            assert_eq!(serde_json::from_slice::<String>(quoted).unwrap(), model.name);
        }
    }
}

#[test]
fn the_top_level_model_is_found_wherever_it_stands() {
    check(r#"{"model":"gpt-4o"}"#, Ok(Some("gpt-4o")));
    check(r#" { "messages" : [ ] , "model" : "gpt-4o" , "n" : 1 } "#, Ok(Some("gpt-4o")));
    check(r#"{"messages":[{"model":"no"}],"a":{"model":"no"},"model":"yes"}"#, Ok(Some("yes")));
    check(r#"{"content":"\"model\":\"no\"","model":"yes"}"#, Ok(Some("yes")));
    check(r#"{"content":"ends in \\","model":"yes"}"#, Ok(Some("yes")));
    check(r#"{"model":"openai/gpt-4o"}"#, Ok(Some("openai/gpt-4o")));
    check(r#"{"t":true,"f":false,"n":null,"x":-1.5e+7,"model":"m"}"#, Ok(Some("m")));
    check(r"{}", Ok(None));
    check(r#"{"models":"a","mode":"b"}"#, Ok(None));
    check("{\"prompt\":\"日本語 \u{1f600}\",\"model\":\"m\"}", Ok(Some("m")));
}

#[test]
fn escapes_do_not_hide_a_model() {
    check(r#"{"mod\u0065l":"m"}"#, Ok(Some("m")));
    check(r#"{"\u006d\u006f\u0064\u0065\u006c":"m"}"#, Ok(Some("m")));
    check(r#"{"model":"gpt\u002d4o"}"#, Ok(Some("gpt-4o")));
    check(r#"{"model":"openai\/gpt-4o"}"#, Ok(Some("openai/gpt-4o")));
    check(r#"{"model":"\ud83d\ude00"}"#, Err(BodyError::ModelUnusable));
    check(r#"{"a":"m","mod\u0065l":"x","model":"y"}"#, Err(BodyError::Duplicate));
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    check(r#"{"model":"a","model":"b"}"#, Err(BodyError::Duplicate));
    check(r#"{"model":"a","model":"a"}"#, Err(BodyError::Duplicate));
    check(r#"{"model":"a","x":[{}],"model":null}"#, Err(BodyError::Duplicate));
    check(r#"{"Model":"a"}"#, Err(BodyError::Ambiguous));
    check(r#"{"model":"a","MODE\u004c":"b"}"#, Err(BodyError::Ambiguous));
    for body in [
        r#"{"model":"a",}"#,
        r#"{,"model":"a"}"#,
        r#"{"model" "a"}"#,
        r#"{"model":"a"}{"model":"b"}"#,
        r#"{"model":"a"} x"#,
        r#"{"model":"a"}]"#,
        r"{'model':'a'}",
        r#"{model:"a"}"#,
        r#"{"x":[}],"model":"a"}"#,
        r#"{"x":{],"model":"a"}"#,
        r#"{"x":/* " */1,"model":"a"}"#,
        r#"{"x":tru,"model":"a"}"#,
        r#"{"x":True,"model":"a"}"#,
        r#"{"x":[1,],"model":"a"}"#,
        r#"{"x":NaN,"model":"a"}"#,
    ] {
        check(body, Err(BodyError::Malformed));
    }
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in ["", "  ", "[]", "\"model\"", "1", "null", "\u{feff}{}", "<html>"] {
        check(body, Err(BodyError::NotAnObject));
    }
    for body in
        [r"{", r#"{"model""#, r#"{"model":"a"#, r#"{"model":"a""#, r#"{"a":[{"b":1}"#, r#"{"a":tr"#]
    {
        check(body, Err(BodyError::Truncated));
    }
}

#[test]
fn a_model_that_is_no_usable_text_is_refused() {
    for value in ["null", "1", "[\"a\"]", "{\"a\":1}", "true"] {
        check(format!("{{\"model\":{value}}}"), Err(BodyError::ModelNotText));
    }
    check(r#"{"model":""}"#, Err(BodyError::ModelUnusable));
    check(r#"{"model":"a\nb"}"#, Err(BodyError::ModelUnusable));
    check(r#"{"model":"\ud800"}"#, Err(BodyError::ModelUnusable));
    check(r#"{"model":"tell me a joke"}"#, Err(BodyError::ModelUnusable));
    check(r#"{"model":"\x"}"#, Err(BodyError::ModelUnusable));
    check(b"{\"model\":\"\xff\"}", Err(BodyError::ModelUnusable));
    let long = |length| format!("{{\"model\":\"{}\"}}", "m".repeat(length));
    check(long(256), Ok(Some(&"m".repeat(256))));
    check(long(257), Err(BodyError::ModelUnusable));
    check(long(5000), Err(BodyError::ModelUnusable));
    check(format!("{{\"model\":\"{}\"}}", "\\u006d".repeat(256)), Ok(Some(&"m".repeat(256))));
}

#[test]
fn sixty_four_levels_are_deep_enough() {
    let nested = |levels: usize| {
        format!("{{\"a\":{}{},\"model\":\"m\"}}", "[".repeat(levels), "]".repeat(levels))
    };
    check(nested(63), Ok(Some("m")));
    check(nested(64), Err(BodyError::TooDeep));
    check(nested(10_000), Err(BodyError::TooDeep));
}

/// A small deterministic source of variety.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn value(&mut self, depth: usize) -> Value {
        let texts = [
            "",
            "a",
            "gpt-4o",
            "ft:m/1",
            "\"",
            "\\",
            "\\\"model\\\":",
            "é\u{1f600}\n",
            "{\"model\":1}",
            "}",
        ];
        match self.roll(if depth == 0 { 4 } else { 6 }) {
            0 => Value::Null,
            1 => Value::from(self.roll(1000)),
            2 => Value::from(self.roll(2) == 0),
            3 => Value::from(texts[self.roll(texts.len())]),
            4 => (0..self.roll(4)).map(|_| self.value(depth - 1)).collect(),
            _ => self.object(depth - 1),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let keys = ["model", "messages", "mode", "a\"b", "\\", "é", "stream"];
        let members =
            (0..self.roll(5)).map(|_| (keys[self.roll(keys.len())].to_owned(), self.value(depth)));
        Value::Object(members.collect())
    }
}

#[test]
fn what_serde_reads_the_scanner_reads_alike() {
    let mut dice = Dice(1);
    let mut found = 0;
    for _ in 0..10_000 {
        let value = dice.object(4);
        let text = if dice.roll(2) == 0 {
            serde_json::to_string(&value).unwrap()
        } else {
            serde_json::to_string_pretty(&value).unwrap()
        };
        let piece = 1 + dice.roll(20);
        let scanned = scan(text.as_bytes(), piece);
        match value.get("model") {
            None => assert_eq!(scanned, Ok(None), "{text}"),
            Some(Value::String(name)) if is_model_name(name) => {
                found += 1;
                assert_eq!(scanned.unwrap().unwrap().name, *name, "{text}");
            }
            Some(_) => assert!(scanned.is_err(), "{text}"),
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn what_the_scanner_takes_after_a_mutation_serde_reads_alike() {
    let mut dice = Dice(2);
    let mut taken = 0;
    for _ in 0..5000 {
        let mut text = serde_json::to_vec(&dice.object(3)).unwrap();
        let at = dice.roll(text.len());
        text[at] = b"{}[]\",:\\am 1"[dice.roll(12)];
        let Ok(scanned) = scan(&text, 5) else { continue };
        // Where both take the body they agree; numbers and escapes the scanner leaves to the provider.
        if let Ok(value) = serde_json::from_slice::<Value>(&text) {
            taken += 1;
            let model = scanned.map(|model| model.name);
            assert_eq!(model.as_deref(), value.get("model").and_then(Value::as_str));
        }
    }
    assert!(taken > 50, "{taken}");
}

/// However a body is cut into pieces, the same is said of it.
#[track_caller]
fn outline(body: &str, streams: bool, has_stream_options: bool) {
    for piece in [1, 3, body.len()] {
        let mut scanner = Scanner::new();
        body.as_bytes().chunks(piece).for_each(|piece| scanner.feed(piece).unwrap());
        let found = scanner.finish().unwrap();
        assert_eq!(
            (found.streams, found.has_stream_options),
            (streams, has_stream_options),
            "{body}"
        );
        assert_eq!(body.as_bytes()[found.inside - 1], b'{', "{body}");
    }
}

#[test]
fn a_wish_for_a_stream_is_found_at_the_top_and_nowhere_else() {
    outline(r#"{"stream":true}"#, true, false);
    outline(r#"  {"str\u0065am" : true }"#, true, false);
    outline(r#"{"stream":false}"#, false, false);
    outline(r#"{"a":{"stream":true},"b":"stream"}"#, false, false);
    outline(r#"{"stream":true,"stream_options":{"include_usage":true}}"#, true, true);
    outline(r#"{"stream":{"x":true},"stream_option":1}"#, false, false);
}
