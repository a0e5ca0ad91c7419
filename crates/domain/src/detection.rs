use crate::ProviderId;

/// What a model's name alone says about who serves it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Detection {
    /// Nobody is known to have models of such names.
    #[default]
    Unknown,
    /// It is a model of this provider.
    One {
        /// Whose model it is.
        provider: ProviderId,
        /// Who serves it under the same name: asked only by a tenant that has no credential for
        /// `provider`.
        also: Vec<ProviderId>,
    },
    /// Several serve models of such names, and the name belongs to none of them more than to the
    /// others. Which one is meant depends on the credentials that the tenant has.
    Several(Vec<ProviderId>),
}

impl Detection {
    /// The provider whose model it is, when there is exactly one.
    pub fn owner(&self) -> Option<&ProviderId> {
        match self {
            Self::One { provider, .. } => Some(provider),
            Self::Unknown | Self::Several(_) => None,
        }
    }
}
