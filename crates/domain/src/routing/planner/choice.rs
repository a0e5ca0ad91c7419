use super::{Choice, Planner};
use crate::{
    Detection, ProviderId,
    routing::{Because, Candidate, NoRoute, WhenMissing},
};

impl<'a> Planner<'a> {
    /// The provider for a call that no `custom` endpoint serves.
    ///
    /// A model that no provider is known to have goes to a preferred or fixed provider as it is: the
    /// provider knows best what it serves.
    pub(super) fn choose_provider(&self) -> Result<Choice<'a>, NoRoute> {
        let request = self.request;
        let choice = |provider: &ProviderId, because| Choice {
            provider: provider.clone(),
            model: request.model,
            because,
        };
        if let Some(named) = request.named {
            if request.by_path {
                return Ok(choice(named, Because::NamedByPath));
            }
            return Ok(self
                .preferred_gateway(named)
                .unwrap_or_else(|| choice(named, Because::NamedInModel)));
        }
        match request.detected {
            Detection::One { provider, also } => {
                let held = also.iter().find(|also| self.holds_enabled(also));
                match held {
                    Some(also) if !self.holds(provider) => Ok(choice(also, Because::OnlyOneHeld)),
                    _ => Ok(choice(provider, Because::Detected)),
                }
            }
            Detection::Several(providers) => self.choose_among(providers),
            Detection::Unknown => {
                if let Some(preferred) = &self.policy.preferred {
                    return Ok(choice(preferred, Because::Preferred));
                }
                let enabled = |slug: &&str| {
                    let of = |one: &&Candidate| one.provider.as_str() == *slug && one.enabled;
                    self.own.iter().find(of).map(|one| &one.provider)
                };
                let first = FIXED_ORDER.iter().find_map(enabled);
                first.map(|first| choice(first, Because::FixedOrder)).ok_or(NoRoute::UnknownModel)
            }
        }
    }

    /// `openai/gpt-4o` names OpenAI; it is also a gateway's own name for that model. It is taken so
    /// only when the tenant has said that it prefers the gateway and has nothing at OpenAI.
    fn preferred_gateway(&self, named: &ProviderId) -> Option<Choice<'a>> {
        let preferred = self.policy.preferred.as_ref()?;
        let Detection::Several(gateways) = self.request.detected else { return None };
        let fits = preferred != named
            && gateways.contains(preferred)
            && !self.holds(named)
            && self.holds_enabled(preferred);
        fits.then(|| Choice {
            provider: preferred.clone(),
            model: self.request.written,
            because: Because::Preferred,
        })
    }

    fn choose_among(&self, providers: &[ProviderId]) -> Result<Choice<'a>, NoRoute> {
        let choice = |provider: &ProviderId, because| {
            let (provider, model) = (provider.clone(), self.request.model);
            Ok(Choice { provider, model, because })
        };
        let held = providers.iter().filter(|one| self.holds_enabled(one)).collect::<Vec<_>>();
        let preferred = self.policy.preferred.as_ref().filter(|one| providers.contains(one));
        match (&*held, preferred) {
            (_, Some(preferred)) if held.contains(&preferred) || held.is_empty() => {
                choice(preferred, Because::Preferred)
            }
            ([only], _) => choice(only, Because::OnlyOneHeld),
            ([], _) => {
                if let Some(disabled) = providers.iter().find(|one| self.holds(one)) {
                    return Err(NoRoute::AllDisabled(disabled.clone()));
                }
                // Without a credential the policy for that decides, of which provider it may be.
                let at_platform = |one: &&ProviderId| {
                    self.platform.iter().any(|held| held.provider == **one && held.enabled)
                };
                match providers.iter().find(at_platform) {
                    Some(managed) if self.policy.on_missing == WhenMissing::Managed => {
                        choice(managed, Because::Detected)
                    }
                    _ => Err(NoRoute::NoCredentialOfAny(providers.to_vec())),
                }
            }
            _ => Err(NoRoute::Ambiguous(held.into_iter().cloned().collect())),
        }
    }

    fn holds(&self, provider: &ProviderId) -> bool {
        self.own.iter().any(|candidate| candidate.provider == *provider)
    }

    fn holds_enabled(&self, provider: &ProviderId) -> bool {
        self.own.iter().any(|candidate| candidate.provider == *provider && candidate.enabled)
    }
}

const FIXED_ORDER: [&str; 3] = ["anthropic", "openai", "openrouter"];
