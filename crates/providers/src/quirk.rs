use serde::Deserialize;

/// A way in which a provider differs from what a caller expects.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "snake_case")]
pub enum Quirk {
    /// Paths of one dialect do not have one prefix.
    MixedPaths,
    /// Fields that the provider does not know are refused; the catalogue lists what to drop.
    StrictFields,
    /// The model is the name of a deployment that the customer chose.
    ModelIsDeployment,
    /// The model stands in the path, not in the body, even in dialects where it should not.
    ModelInPath,
    /// The native API lives under two versions, and clients use both.
    TwoVersions,
    /// A model may be an inference profile: a name with a region's prefix, or a resource name.
    InferenceProfiles,
    /// Native streams are AWS event streams, which pass through byte by byte.
    EventStreams,
    /// A stream may begin with blank lines or comments that keep the connection alive.
    KeepAliveLines,
    /// The provider states what a call cost.
    StatesCost,
    /// Tokens of reasoning are not part of the output tokens and are billed beside them.
    ReasoningApart,
    /// A refusal may be a page for people instead of JSON.
    HtmlErrors,
    /// An error may come in an answer with status 200.
    ErrorsInSuccess,
    /// The list of models answers without a key, so it proves nothing about one.
    PublicModels,
    /// Errors repeat a part of the key or of the account.
    EchoesSecrets,
    /// A bare model of this provider may also be another vendor's.
    HostsOthers,
}

impl Quirk {
    /// What it means, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::MixedPaths => {
                "Some paths have `/v1` in front and some have not; Strongroom knows which."
            }
            Self::StrictFields => {
                "It refuses fields that it does not know, so OpenAI's fields that it lacks are taken out."
            }
            Self::ModelIsDeployment => "The model is the name of your deployment.",
            Self::ModelInPath => {
                "Anthropic's format is served with the model in the path; Strongroom moves it."
            }
            Self::TwoVersions => "The native API is served under `/v1` and `/v1beta`.",
            Self::InferenceProfiles => {
                "A model may be a name with a region's prefix (`eu.`, `us.`, `global.`) or an ARN."
            }
            Self::EventStreams => {
                "Native streams are AWS event streams and pass through untouched."
            }
            Self::KeepAliveLines => {
                "A stream may begin with blank lines or comments that keep the connection alive."
            }
            Self::StatesCost => "Answers say what the call cost.",
            Self::ReasoningApart => "Reasoning tokens are billed beside the output tokens.",
            Self::HtmlErrors => "A refusal may be an HTML page; callers get a proper error.",
            Self::ErrorsInSuccess => "An error may come in an answer with status 200.",
            Self::PublicModels => "Its list of models is public, so it is not used to test a key.",
            Self::EchoesSecrets => {
                "Its errors repeat a part of the key or account, which is taken out before callers see it."
            }
            Self::HostsOthers => "It also serves models of other vendors under their names.",
        }
    }
}
