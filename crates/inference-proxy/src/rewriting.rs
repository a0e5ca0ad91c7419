use providers::{Rewrite, Target};
use serde_json::{Map, Value};

use crate::{body::Frames, members::Members, refusal::Refusal, scan::Outline};

/// Makes of a caller's body what the provider expects: the model, and changes that its catalogue
/// lists. Says whether figures of usage are now asked for that the caller must not see.
///
/// A body to which only the model or the wish for usage is new is not parsed: bytes are put in.
pub(crate) fn rewrite(
    frames: &mut Frames,
    outline: &Outline,
    in_path: Option<&str>,
    target: &Target,
) -> Result<bool, Refusal> {
    replace_model(frames, outline, in_path, &target.model);
    match &*target.rewrites {
        [] => Ok(false),
        [Rewrite::AskForUsage] if !outline.has_stream_options => {
            frames.replace(outline.inside..outline.inside, ASK_FOR_USAGE);
            Ok(true)
        }
        rewrites => rewrite_members(frames, rewrites),
    }
}

fn replace_model(frames: &mut Frames, outline: &Outline, in_path: Option<&str>, model: &str) {
    let Some(named) = &outline.model else { return };
    let wanted = match in_path {
        // The lease is for the path's model. Google's bodies repeat it as `models/…`.
        Some(path) if named.name.rsplit('/').next() == Some(path) => return,
        Some(path) if named.name.starts_with("models/") => &format!("models/{path}"),
        Some(path) => path,
        None => model,
    };
    if !wanted.is_empty() && wanted != named.name {
        let quoted = Value::from(wanted).to_string();
        let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        frames.replace(named.span.clone(), inner.as_bytes());
    }
}

/// Parses the members that are named in a rewrite; all others stay byte for byte what they are.
fn rewrite_members(frames: &mut Frames, rewrites: &[Rewrite]) -> Result<bool, Refusal> {
    let bytes = frames.joined();
    let members: Members<'_> = serde_json::from_slice(&bytes).map_err(|_| {
        Refusal::bad_request("invalid_request_body", "the request body is not valid JSON")
    })?;
    let (touched, kept): (Vec<_>, Vec<_>) =
        members.0.into_iter().partition(|(name, _)| rewrites.iter().any(|one| touches(one, name)));
    let mut touched: Map<String, Value> = touched
        .into_iter()
        .filter_map(|(name, value)| Some((name, serde_json::from_str(value.get()).ok()?)))
        .collect();
    let before = touched.clone();
    let mut hides_usage = false;
    for rewrite in rewrites {
        hides_usage |= rewrite.apply(&mut touched);
    }
    if touched == before {
        return Ok(hides_usage);
    }
    let kept = kept.into_iter().map(|(name, value)| (name, value.get().to_owned()));
    let touched = touched.into_iter().map(|(name, value)| (name, value.to_string()));
    let mut text = String::with_capacity(bytes.len() + 64);
    for (name, value) in kept.chain(touched) {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(&Value::from(name).to_string());
        text.push(':');
        text.push_str(&value);
    }
    text.push_str(if text.is_empty() { "{}" } else { "}" });
    frames.become_all(text.into());
    Ok(hides_usage)
}

fn touches(rewrite: &Rewrite, name: &str) -> bool {
    match rewrite {
        Rewrite::Drop(member) | Rewrite::Replace { member, .. } | Rewrite::Add { member, .. } => {
            member == name
        }
        Rewrite::Rename { from, to } => from == name || to == name,
        Rewrite::AskForUsage => name == "stream_options",
    }
}

const ASK_FOR_USAGE: &[u8] = br#""stream_options":{"include_usage":true},"#;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::scan::Scanner;

    #[track_caller]
    fn check(rewrites: &[Rewrite], body: &str, expected: &str, hides_usage: bool) {
        let mut scanner = Scanner::new();
        scanner.feed(body.as_bytes()).unwrap();
        let outline = scanner.finish().unwrap();
        let mut frames = Frames::default();
        frames.become_all(Bytes::copy_from_slice(body.as_bytes()));
        let target = Target {
            origin: "https://a".parse().unwrap(),
            base_path: String::new(),
            path: String::new(),
            query: None,
            model: "new\"m".to_owned(),
            proof: providers::Proof::Nothing,
            headers: Vec::new(),
            defaults: Vec::new(),
            rewrites: rewrites.to_vec(),
        };
        assert_eq!(rewrite(&mut frames, &outline, None, &target).unwrap(), hides_usage);
        assert_eq!(frames.joined(), expected);
    }

    #[test]
    fn what_no_rewrite_names_stays_as_it_is_written() {
        let drop = [Rewrite::Drop("user".to_owned()), Rewrite::Drop("user\u{e9}".to_owned())];
        let body = r#"{ "model":"m", "n" : 1.0e0 ,"user":[1], "big":12345678901234567890123, "us\u0065r":2}"#;
        let expected = r#"{"model":"new\"m","n":1.0e0,"big":12345678901234567890123}"#;
        check(&drop, body, expected, false);
        check(&[Rewrite::Drop("model".to_owned())], r#"{"model":"m"}"#, "{}", false);
        check(&drop, r#"{ "n" : 1.0e0 }"#, r#"{ "n" : 1.0e0 }"#, false);
    }

    #[test]
    fn usage_is_asked_for_without_parsing_where_nothing_stands_in_the_way() {
        let ask = [Rewrite::AskForUsage];
        check(
            &ask,
            r#" { "stream":true,"x":1.0e0,"model":"m"}"#,
            r#" {"stream_options":{"include_usage":true}, "stream":true,"x":1.0e0,"model":"new\"m"}"#,
            true,
        );
        let asked = r#"{"stream_options":{"include_usage":true}, "stream":true}"#;
        check(&ask, asked, asked, false);
        check(
            &ask,
            r#"{"stream_options":{"include_usage":false,"x":1},"stream":true}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
            true,
        );
    }

    #[test]
    fn a_body_names_the_model_of_its_path_or_gets_it() {
        for (body, expected) in [
            (r#"{"model":"models/m-1"}"#, r#"{"model":"models/m-1"}"#),
            (r#"{"model":"m-1"}"#, r#"{"model":"m-1"}"#),
            (r#"{"model":"m-2"}"#, r#"{"model":"m-1"}"#),
            (r#"{"model":"models/m-2"}"#, r#"{"model":"models/m-1"}"#),
            ("{}", "{}"),
        ] {
            let mut scanner = Scanner::new();
            scanner.feed(body.as_bytes()).unwrap();
            let outline = scanner.finish().unwrap();
            let mut frames = Frames::default();
            frames.become_all(Bytes::copy_from_slice(body.as_bytes()));
            replace_model(&mut frames, &outline, Some("m-1"), "other");
            assert_eq!(frames.joined(), expected);
        }
    }
}
