use serde::Deserialize;
use serde_json::{Map, Value};

/// One change to the JSON body of a call, without which the provider would refuse it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Rewrite {
    /// Take this member out.
    Drop(String),
    /// Give this member another name.
    Rename {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// Put one text in the place of another.
    Replace {
        /// The member.
        member: String,
        /// Its value.
        from: String,
        /// Its new value.
        to: String,
    },
    /// Add this member when there is none.
    Add {
        /// The member.
        member: String,
        /// Its value.
        value: String,
    },
    /// Ask for figures of usage: `stream_options.include_usage`. Only on streams.
    AskForUsage,
}

impl Rewrite {
    /// Changes the members of a body. Says whether figures of usage are now asked for that the caller
    /// did not ask for, who then must not see the event that has them.
    pub fn apply(&self, body: &mut Map<String, Value>) -> bool {
        match self {
            Self::Drop(member) => {
                body.remove(member);
            }
            // Who knows the provider's own name for it has said what is meant.
            Self::Rename { from, to } => {
                if let Some(value) = body.remove(from) {
                    body.entry(to).or_insert(value);
                }
            }
            Self::Replace { member, from, to } => {
                if let Some(value) = body.get_mut(member).filter(|value| **value == **from) {
                    *value = Value::from(&**to);
                }
            }
            Self::Add { member, value } => {
                body.entry(member).or_insert_with(|| Value::from(&**value));
            }
            Self::AskForUsage => return ask_for_usage(body),
        }
        false
    }
}

fn ask_for_usage(body: &mut Map<String, Value>) -> bool {
    let options = body.entry("stream_options").or_insert(Value::Null);
    if options.is_null() {
        *options = Value::Object(Map::new());
    }
    // What is no object is the provider's to refuse.
    let Some(options) = options.as_object_mut() else { return false };
    let before = options.insert("include_usage".to_owned(), Value::Bool(true));
    before != Some(Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rewrite: &Rewrite, body: &str, expected: &str, hides_usage: bool) {
        let mut body: Map<String, Value> = serde_json::from_str(body).unwrap();
        assert_eq!(rewrite.apply(&mut body), hides_usage);
        assert_eq!(Value::Object(body), serde_json::from_str::<Value>(expected).unwrap());
    }

    #[test]
    fn a_body_is_changed_in_one_place_and_nowhere_else() {
        let drop = Rewrite::Drop("user".into());
        check(&drop, r#"{"model":"m","user":"u"}"#, r#"{"model":"m"}"#, false);
        check(&drop, "{}", "{}", false);
        let rename = Rewrite::Rename { from: "seed".into(), to: "random_seed".into() };
        check(&rename, r#"{"seed":7}"#, r#"{"random_seed":7}"#, false);
        check(&rename, r#"{"random_seed":1,"seed":7}"#, r#"{"random_seed":1}"#, false);
        let (member, from) = ("tool_choice".into(), "required".into());
        let replace = Rewrite::Replace { member, from, to: "any".into() };
        check(&replace, r#"{"tool_choice":"required"}"#, r#"{"tool_choice":"any"}"#, false);
        check(&replace, r#"{"tool_choice":"auto"}"#, r#"{"tool_choice":"auto"}"#, false);
        let add = Rewrite::Add { member: "v".into(), value: "1".into() };
        check(&add, "{}", r#"{"v":"1"}"#, false);
        check(&add, r#"{"v":"2"}"#, r#"{"v":"2"}"#, false);
    }

    #[test]
    fn usage_is_asked_for_and_it_is_known_whether_the_caller_did() {
        let ask = Rewrite::AskForUsage;
        let asked = r#"{"stream_options":{"include_usage":true}}"#;
        check(&ask, "{}", asked, true);
        check(&ask, r#"{"stream_options":null}"#, asked, true);
        check(&ask, r#"{"stream_options":{"include_usage":false}}"#, asked, true);
        check(&ask, asked, asked, false);
        check(&ask, r#"{"stream_options":1}"#, r#"{"stream_options":1}"#, false);
        let more = r#"{"stream_options":{"x":1}}"#;
        check(&ask, more, r#"{"stream_options":{"include_usage":true,"x":1}}"#, true);
    }
}
