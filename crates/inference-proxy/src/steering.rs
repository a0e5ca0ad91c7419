use providers::{Provider, Steer};
use serde_json::value::RawValue;

use crate::{body::Frames, members::Members, refusal::Refusal};

/// Refuses a body that would have the provider use another model, route or credential than those that
/// are lent. What no rule of the catalogue is about is not looked into.
pub(crate) fn check(provider: &Provider, frames: &mut Frames) -> Result<(), Refusal> {
    if provider.steers().is_empty() || frames.is_empty() {
        return Ok(());
    }
    let bytes = frames.joined();
    let body: &RawValue = serde_json::from_slice(&bytes).map_err(|_| not_json())?;
    let rules = provider.steers().iter().map(|rule| (rule, rule.steps().collect::<Vec<_>>()));
    let rules: Vec<_> = rules.collect();
    for (name, value) in members(body).ok_or_else(not_json)? {
        for (rule, steps) in &rules {
            let rest = steps.split_first().filter(|(first, _)| is_called(&name, first));
            if rest.is_some_and(|(_, rest)| !passes(rule, rest, value)) {
                return Err(refused(provider, rule));
            }
        }
    }
    Ok(())
}

/// Whether a value has nothing that the rule forbids. What has another shape than the place in the rule
/// does not pass: nobody knows what the provider would make of it.
fn passes(rule: &Steer, steps: &[&str], value: &RawValue) -> bool {
    let text = value.get();
    if text == "null" {
        return true;
    }
    match steps.split_first() {
        None => is_allowed(rule, value),
        Some((&"*", rest)) => serde_json::from_str::<Vec<&RawValue>>(text)
            .is_ok_and(|items| items.into_iter().all(|item| passes(rule, rest, item))),
        Some((first, rest)) => members(value).is_some_and(|members| {
            let mut named = members.iter().filter(|(name, _)| is_called(name, first));
            named.all(|(_, value)| passes(rule, rest, value))
        }),
    }
}

fn is_allowed(rule: &Steer, value: &RawValue) -> bool {
    let allows = |text: &String| rule.allows.contains(text);
    match members(value) {
        Some(members) => !rule.allows.is_empty() && members.iter().all(|(name, _)| allows(name)),
        None => serde_json::from_str(value.get()).is_ok_and(|text| allows(&text)),
    }
}

/// Some parsers do not tell cases apart.
fn is_called(name: &str, step: &str) -> bool {
    name.eq_ignore_ascii_case(step)
}

/// The members of an object, those of one name each by itself; `None` of anything else.
fn members(value: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(value.get()).ok().map(|members| members.0)
}

fn refused(provider: &Provider, rule: &Steer) -> Refusal {
    let but = if rule.allows.is_empty() {
        String::new()
    } else {
        format!(", or with no more in it than {}", rule.allows.join(", "))
    };
    let message = format!(
        "`{}` would let the request choose the model, the route or the credential at {}, which are the \
         virtual key's and its tenant's to choose: send the request without it{but}",
        rule.at,
        provider.id(),
    );
    let mut refusal = Refusal::bad_request("field_not_allowed", message);
    refusal.param = Some(rule.at.clone().into());
    refusal
}

fn not_json() -> Refusal {
    Refusal::bad_request("invalid_request_body", "the request body is not valid JSON")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use providers::Catalogue;

    use super::*;

    /// What the refusal is about, if the body is refused.
    fn found(provider: &str, body: &str) -> Option<String> {
        let catalogue = Catalogue::builtin().unwrap();
        let mut frames = Frames::default();
        frames.become_all(Bytes::copy_from_slice(body.as_bytes()));
        let refusal = check(catalogue.named(provider).unwrap(), &mut frames).err()?;
        assert_eq!(frames.joined(), body);
        Some(refusal.param.unwrap_or(refusal.code).into_owned())
    }

    #[track_caller]
    fn check_refused(provider: &str, bodies: &[&str], expected: &str) {
        for body in bodies {
            assert_eq!(found(provider, body).as_deref(), Some(expected), "{body}");
        }
    }

    #[track_caller]
    fn check_passes(provider: &str, bodies: &[&str]) {
        for body in bodies {
            assert_eq!(found(provider, body), None, "{body}");
        }
    }

    #[test]
    fn a_list_of_models_or_a_route_is_refused_however_it_is_written() {
        for provider in ["openrouter", "vercel", "perplexity"] {
            let bodies = [
                r#"{"model":"a/b","models":["c/d"]}"#,
                r#"{"mod\u0065ls":["c/d"],"model":"a/b"}"#,
                r#"{"model":"a/b","MODELS":["c/d"]}"#,
                r#"{"models":null,"model":"a/b","models":["c/d"]}"#,
                r#"{"models":[]}"#,
                r#"{"models":{}}"#,
            ];
            check_refused(provider, &bodies, "models");
            check_passes(
                provider,
                &[r#"{"model":"a/b","models":null}"#, r#"{"x":{"models":[1]}}"#],
            );
        }
        check_refused("openrouter", &[r#"{"route":"fallback"}"#], "route");
        check_refused("openrouter", &[r#"{"preset":"p"}"#], "preset");
        check_passes("openai", &[r#"{"models":["c/d"],"route":1}"#]);
    }

    #[test]
    fn of_preferences_only_those_pass_that_choose_nothing() {
        let bodies = [
            r#"{"provider":{"order":["azure"]}}"#,
            r#"{"provider":{"zdr":true,"only":["azure"]}}"#,
            r#"{"provider":{"Zdr":true}}"#,
            r#"{"provider":{},"provider":{"sort":"price"}}"#,
            r#"{"provider":"azure"}"#,
            r#"{"provider":["azure"]}"#,
        ];
        check_refused("openrouter", &bodies, "provider");
        let harmless = r#"{"provider":{"zdr":true,"data_collection":"deny"}}"#;
        check_passes("openrouter", &[harmless, r#"{"provider":{}}"#, r#"{"provider":null}"#]);
        check_passes("vercel", &[r#"{"provider":{"order":["azure"]}}"#]);
    }

    #[test]
    fn a_key_of_the_callers_own_does_not_take_the_place_of_the_one_that_is_lent() {
        let bodies = [
            r#"{"providerOptions":{"gateway":{"byok":{"anthropic":[{"apiKey":"sk-evil"}]}}}}"#,
            r#"{"providerOptions":{"gateway":{"tags":[],"order":["bedrock"]}}}"#,
            r#"{"providerOptions":{"gateway":{"only":["bedrock"]}}}"#,
            r#"{"providerOptions":{"gateway":{"models":["x/y"]}}}"#,
            r#"{"providerOptions":{"gateway":{},"gateway":{"models":["x/y"]}}}"#,
            r#"{"providerOptions":{"gatew\u0061y":{"models":["x/y"]}}}"#,
            r#"{"providerOptions":{},"provideroptions":{"Gateway":{"models":["x/y"]}}}"#,
            r#"{"providerOptions":"{\"gateway\":{}}"}"#,
            r#"{"providerOptions":[]}"#,
        ];
        check_refused("vercel", &bodies, "providerOptions.gateway");
        let harmless = r#"{"providerOptions":{"anthropic":{"thinking":{"type":"enabled"},"order":1},
            "gateway":{"user":"u","tags":["t"],"zeroDataRetention":true}}}"#;
        check_passes("vercel", &[harmless, r#"{"providerOptions":null}"#]);
    }

    #[test]
    fn plugins_and_tools_call_no_models_of_the_callers_choice() {
        check_refused(
            "openrouter",
            &[
                r#"{"plugins":[{"id":"web"},{"id":"auto-router"}]}"#,
                r#"{"plugins":[{"id":["web"]}]}"#,
            ],
            "plugins.*.id",
        );
        let models = r#"{"plugins":[{"id":"web","allowed_models":["x/*"]}]}"#;
        check_refused("openrouter", &[models, r#"{"plugins":{"id":"web"}}"#], "plugins.*");
        let tool = r#"{"tools":[{"type":"openrouter:x","parameters":{"model":"x/y"}}]}"#;
        check_refused("openrouter", &[tool], "tools.*.parameters.model");
        let plugin = r#"{"plugins":[{"id":"web","max_results":3}]}"#;
        let tool = r#"{"tools":[{"type":"function","name":"f","parameters":{"properties":{"model":{}}}},
            {"type":"function","function":{"name":"f","parameters":{}}}]}"#;
        check_passes("openrouter", &[plugin, tool]);
    }

    #[test]
    fn what_cannot_be_read_does_not_pass() {
        check_refused("openrouter", &[r#"{"\ud800":1}"#, r#"{"a":01}"#], "invalid_request_body");
        check_refused("custom", &[r#"{"api_base":"http://evil"}"#], "api_base");
        check_passes("custom", &["{}"]);
    }
}
