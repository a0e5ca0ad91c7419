use serde::Deserialize;

/// A part of a request's body by which a caller could choose another model, route or credential than
/// those that it was lent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Steer {
    /// Where it stands: names of members with dots between them, and `*` for each item of a list.
    pub at: String,
    /// What may stand there all the same: an object with no members but these, or one of these texts.
    #[serde(default)]
    pub allows: Vec<String>,
}

impl Steer {
    /// The steps from the top of the body to the place.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.at.split('.')
    }
}
