use super::{Choice, Planner, attempt};
use crate::{
    CredentialId, ProviderId, Source,
    routing::{
        Attempt, Because, CUSTOM, Fallback, KeylessRule, NoRoute, PassedOver, Plan, Step,
        WhenMissing,
    },
};

/// What only the tenant's policy can name: other credentials than the first, and other models.
impl Planner<'_> {
    pub(super) fn with_fallbacks(&mut self, first: Attempt) -> Plan {
        let rest = self.fallbacks(&first.provider, &first.model, Some(&first));
        Plan { first, rest }
    }

    /// What the tenant's policy lists for when a credential of this provider fails.
    pub(super) fn fallbacks(
        &mut self,
        provider: &ProviderId,
        model: &str,
        before: Option<&Attempt>,
    ) -> Vec<Attempt> {
        let mut listed: Vec<Attempt> = Vec::new();
        for fallback in self.policy.fallbacks_of(provider) {
            let found = match fallback {
                Fallback::Credential(name) => self.listed_credential(provider, model, name),
                Fallback::Managed => self.managed(provider, model),
            };
            for one in found {
                let same = |other: &Attempt| {
                    other.source.is_platforms() == one.source.is_platforms()
                        && other.index == one.index
                };
                if !before.into_iter().chain(&listed).any(same) {
                    self.take(&one);
                    listed.push(one);
                }
            }
        }
        listed
    }

    fn listed_credential(
        &mut self,
        provider: &ProviderId,
        model: &str,
        name: &CredentialId,
    ) -> Vec<Attempt> {
        let is_custom = provider.as_str() == CUSTOM;
        let source = if is_custom { Source::Custom } else { Source::Byok };
        let Some((index, candidate)) =
            self.own.iter().enumerate().find(|(_, candidate)| candidate.name == *name)
        else {
            self.pass_over(name, source, PassedOver::Unknown);
            return Vec::new();
        };
        let obstacle = if candidate.provider != *provider {
            Some(PassedOver::OtherProvider)
        } else if is_custom && !model.is_empty() && !self.serves_model(candidate) {
            Some(PassedOver::ModelNotServed)
        } else {
            self.obstacle(candidate, model)
        };
        if let Some(why) = obstacle {
            self.pass_over(name, source, why);
            return Vec::new();
        }
        vec![attempt(index, candidate, source, model, Because::Fallback)]
    }

    fn managed(&mut self, provider: &ProviderId, model: &str) -> Vec<Attempt> {
        if provider.as_str() == CUSTOM {
            return Vec::new();
        }
        let all = self.platform.iter().enumerate();
        let mut of = all.filter(|(_, one)| one.provider == *provider).collect::<Vec<_>>();
        of.sort_by_key(|(_, candidate)| candidate.priority);
        let mut found = Vec::new();
        for (index, candidate) in of {
            match self.obstacle(candidate, model) {
                Some(why) => self.pass_over(&candidate.name, Source::Managed, why),
                None => {
                    found.push(attempt(
                        index,
                        candidate,
                        Source::Managed,
                        model,
                        Because::Fallback,
                    ));
                }
            }
        }
        found
    }

    /// Another model in the place of this one, when the tenant's policy says so.
    pub(super) fn keyless(&mut self, none: &NoRoute) -> Result<Plan, NoRoute> {
        self.steps.push(Step::Missing { policy: self.policy.on_missing.as_str() });
        let WhenMissing::Keyless(rules) = &self.policy.on_missing else {
            return Err(none.clone());
        };
        let request = self.request;
        let fits = |rule: &&KeylessRule| {
            // A native call is in its own provider's format: only a model of that one may stand in.
            (!request.by_path || request.named == Some(&rule.provider))
                && (rule.models.matches(request.model) || rule.models.matches(request.written))
        };
        let Some(rule) = rules.iter().find(fits) else { return Err(none.clone()) };
        let all = self.platform.iter().enumerate();
        let of = all.filter(|(_, one)| one.provider == rule.provider).collect::<Vec<_>>();
        // The key's scope says which models may be asked for, in either way to write them, and who
        // may serve them; which one stands in their place is the tenant's policy.
        let bare = request.scope.allows_model(request.model);
        let model = if bare { request.model } else { request.written };
        let choice = Choice { provider: rule.provider.clone(), model, because: Because::Keyless };
        match self.first_of(&choice, &of, Source::Keyless) {
            Ok(mut first) => {
                first.model.clone_from(&rule.model);
                Ok(Plan { first, rest: Vec::new() })
            }
            Err(NoRoute::AllDisabled(_)) => Err(none.clone()),
            Err(other) => Err(other),
        }
    }
}
