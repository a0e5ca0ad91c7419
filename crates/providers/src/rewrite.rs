use serde::Deserialize;

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
    /// Ask for figures of usage: `stream_options.include_usage`. Only on streams, and a caller that did
    /// not ask itself must not see the extra event.
    AskForUsage,
}
