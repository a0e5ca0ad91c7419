use super::{
    Attempt, Because, CUSTOM, Candidate, Decision, NoRoute, PassedOver, Plan, RouteRequest,
    RoutingPolicy, Step, WhenMissing,
};
use crate::{CredentialId, Failure, ProviderId, Readiness, Source, Timestamp};

mod choice;
mod elsewhere;

/// Plans a call: which credentials it may go out with, in which order, and why.
///
/// A `custom` endpoint of the tenant for the model comes before everything. Else one provider is
/// chosen: named by the call, detected from the model's name, preferred by the tenant, or first of
/// the fixed order anthropic, openai, openrouter. Of its credentials the tenant's own are taken:
/// enabled, not resting, lowest priority first. Only the first is tried; others follow only where
/// the tenant's policy lists them for falling back. The platform's credentials are taken only where
/// that policy says so.
///
/// `own` and `platform` are the tenant's and the platform's credentials.
pub fn plan(
    request: &RouteRequest<'_>,
    policy: &RoutingPolicy,
    own: &[Candidate],
    platform: &[Candidate],
) -> Decision {
    let mut planner = Planner { request, policy, own, platform, steps: Vec::new() };
    let outcome = planner.plan();
    let mut steps = planner.steps;
    if let Err(none) = &outcome {
        steps.push(Step::Refused(none.clone()));
    }
    Decision { steps, outcome }
}

struct Planner<'a> {
    request: &'a RouteRequest<'a>,
    policy: &'a RoutingPolicy,
    own: &'a [Candidate],
    platform: &'a [Candidate],
    steps: Vec<Step>,
}

/// A provider for a call, and what it is asked for.
struct Choice<'a> {
    provider: ProviderId,
    model: &'a str,
    because: Because,
}

impl<'a> Planner<'a> {
    fn plan(&mut self) -> Result<Plan, NoRoute> {
        if let Some(first) = self.custom_endpoints()? {
            return Ok(self.with_fallbacks(first));
        }
        let choice = match self.choose_provider() {
            Ok(choice) => choice,
            Err(none @ NoRoute::AllDisabled(_)) => return Err(none),
            Err(none) => return self.keyless(&none),
        };
        self.steps
            .push(Step::Provider { provider: choice.provider.clone(), because: choice.because });
        self.of_provider(&choice)
    }

    /// The tenant's own endpoint for the model, if one is set. One that rests is not replaced by a
    /// provider: what was meant for the tenant's own machines must not go elsewhere unsaid.
    fn custom_endpoints(&mut self) -> Result<Option<Attempt>, NoRoute> {
        let other = |named: &ProviderId| named.as_str() != CUSTOM;
        if self.request.model.is_empty()
            || (self.request.by_path && self.request.named.is_some_and(other))
        {
            return Ok(None);
        }
        let mut serving = self.own.iter().enumerate().collect::<Vec<_>>();
        serving.retain(|(_, candidate)| {
            candidate.provider.as_str() == CUSTOM && self.serves_model(candidate)
        });
        serving
            .sort_by_key(|(_, candidate)| (self.custom_rank(&candidate.name), candidate.priority));
        let Some(&(_, candidate)) = serving.first() else { return Ok(None) };
        let provider = candidate.provider.clone();
        if serving.iter().all(|(_, candidate)| !candidate.enabled) {
            for (_, candidate) in serving {
                self.pass_over(&candidate.name, Source::Custom, PassedOver::Disabled);
            }
            return Ok(None);
        }
        let model = self.request.model;
        let choice = Choice { provider, model, because: Because::CustomEndpoint };
        self.first_of(&choice, &serving, Source::Custom).map(Some)
    }

    fn custom_rank(&self, name: &CredentialId) -> usize {
        let fits = |rule: &super::CustomRule| {
            rule.credential == *name && rule.models.matches(self.request.model)
        };
        self.policy.custom.iter().position(fits).unwrap_or(usize::MAX)
    }

    fn serves_model(&self, candidate: &Candidate) -> bool {
        candidate.models.iter().any(|model| model == self.request.model)
            || self.custom_rank(&candidate.name) != usize::MAX
    }

    fn of_provider(&mut self, choice: &Choice<'a>) -> Result<Plan, NoRoute> {
        let all = self.own.iter().enumerate();
        let of = all.filter(|(_, one)| one.provider == choice.provider).collect::<Vec<_>>();
        let is_custom = choice.provider.as_str() == CUSTOM;
        let (of, others): (Vec<_>, Vec<_>) =
            of.into_iter().partition(|_| !is_custom || choice.model.is_empty());
        for (_, candidate) in others {
            self.pass_over(&candidate.name, Source::Custom, PassedOver::ModelNotServed);
        }
        if of.is_empty() {
            return self.missing(choice);
        }
        let source = if is_custom { Source::Custom } else { Source::Byok };
        match self.first_of(choice, &of, source) {
            Ok(first) => Ok(self.with_fallbacks(first)),
            // The credentials have failed, so what the policy lists for that case comes next.
            Err(resting @ NoRoute::AllResting { .. }) => {
                let listed = self.fallbacks(&choice.provider, choice.model, None);
                into_plan(listed).ok_or(resting)
            }
            Err(none) => Err(none),
        }
    }

    /// The first of these that a call may go out with.
    fn first_of(
        &mut self,
        choice: &Choice<'_>,
        of: &[(usize, &Candidate)],
        source: Source,
    ) -> Result<Attempt, NoRoute> {
        let provider = &choice.provider;
        let mut ordered = of.to_vec();
        if source != Source::Custom {
            ordered.sort_by_key(|(_, candidate)| candidate.priority);
        }
        let mut taken = None;
        let mut resting: Option<(Timestamp, Failure)> = None;
        let mut none = NoRoute::AllDisabled(provider.clone());
        for &(index, candidate) in &ordered {
            let why = match self.obstacle(candidate, choice.model) {
                None if taken.is_none() => {
                    taken = Some(attempt(index, candidate, source, choice.model, choice.because));
                    continue;
                }
                None => PassedOver::NotListed,
                Some(why) => why,
            };
            match why {
                PassedOver::Resting { until, why } => {
                    if resting.is_none_or(|(other, _)| until < other) {
                        resting = Some((until, why));
                    }
                }
                PassedOver::DialectNotServed => none = NoRoute::DialectNotServed(provider.clone()),
                PassedOver::NotInScope => none = self.out_of_scope(provider, choice.model),
                PassedOver::Disabled
                | PassedOver::NotListed
                | PassedOver::OtherProvider
                | PassedOver::ModelNotServed
                | PassedOver::Unknown => {}
            }
            self.pass_over(&candidate.name, source, why);
        }
        let resting = resting.map(|(until, why)| {
            let provider = provider.clone();
            NoRoute::AllResting { provider, until, why }
        });
        let taken = match (taken, resting) {
            (Some(taken), _) => taken,
            (None, Some(_)) if self.policy.fallbacks_of(provider).is_empty() => {
                self.last_resort(choice, &ordered, source)?
            }
            (None, resting) => return Err(resting.unwrap_or(none)),
        };
        self.take(&taken);
        Ok(taken)
    }

    /// Of credentials that all rest and that no other is listed for, the first that may be asked
    /// nevertheless.
    fn last_resort(
        &self,
        choice: &Choice<'_>,
        ordered: &[(usize, &Candidate)],
        source: Source,
    ) -> Result<Attempt, NoRoute> {
        let provider = &choice.provider;
        let mut resting = NoRoute::AllDisabled(provider.clone());
        let mut soonest = None;
        for &(index, candidate) in ordered {
            let obstacle = self.obstacle(candidate, choice.model);
            if !matches!(obstacle, Some(PassedOver::Resting { .. })) {
                continue;
            }
            match candidate.alone {
                Readiness::Ready | Readiness::Probe => {
                    let because = Because::LastResort;
                    let attempt = attempt(index, candidate, source, choice.model, because);
                    return Ok(Attempt { is_probe: false, ..attempt });
                }
                Readiness::Resting { until, why } if soonest.is_none_or(|other| until < other) => {
                    soonest = Some(until);
                    resting = NoRoute::AllResting { provider: provider.clone(), until, why };
                }
                Readiness::Resting { .. } => {}
            }
        }
        Err(resting)
    }

    /// What stands against a credential of the right provider.
    fn obstacle(&self, candidate: &Candidate, model: &str) -> Option<PassedOver> {
        if !candidate.enabled {
            return Some(PassedOver::Disabled);
        }
        if !self.in_scope(&candidate.provider, model) {
            return Some(PassedOver::NotInScope);
        }
        if !candidate.serves_dialect {
            return Some(PassedOver::DialectNotServed);
        }
        match candidate.readiness {
            Readiness::Ready | Readiness::Probe => None,
            Readiness::Resting { until, why } => Some(PassedOver::Resting { until, why }),
        }
    }

    /// A scope may name a model with its provider in front: that of the decision, not the one that the
    /// caller wrote.
    fn in_scope(&self, provider: &ProviderId, model: &str) -> bool {
        let scope = self.request.scope;
        scope.allows_provider(provider)
            && (scope.allows_model(model)
                || (!model.is_empty() && scope.allows_model(&format!("{provider}/{model}"))))
    }

    fn out_of_scope(&self, provider: &ProviderId, model: &str) -> NoRoute {
        if self.request.scope.allows_provider(provider) {
            NoRoute::ModelNotInScope(model.to_owned())
        } else {
            NoRoute::ProviderNotInScope(provider.clone())
        }
    }

    /// The tenant has no credential for the provider.
    fn missing(&mut self, choice: &Choice<'a>) -> Result<Plan, NoRoute> {
        let none = NoRoute::NoCredential(choice.provider.clone());
        match &self.policy.on_missing {
            WhenMissing::Managed if choice.provider.as_str() != CUSTOM => {
                self.steps.push(Step::Missing { policy: self.policy.on_missing.as_str() });
                let all = self.platform.iter().enumerate();
                let of = all.filter(|(_, one)| one.provider == choice.provider);
                let of = of.collect::<Vec<_>>();
                let choice = Choice {
                    provider: choice.provider.clone(),
                    because: Because::Managed,
                    ..*choice
                };
                match self.first_of(&choice, &of, Source::Managed) {
                    Ok(first) => Ok(self.with_fallbacks(first)),
                    // That the platform has one, but disabled, is not the tenant's business.
                    Err(NoRoute::AllDisabled(_)) => Err(none),
                    Err(other) => Err(other),
                }
            }
            WhenMissing::Refuse | WhenMissing::Managed | WhenMissing::Keyless(_) => {
                self.keyless(&none)
            }
        }
    }

    fn take(&mut self, attempt: &Attempt) {
        self.steps.push(Step::Taken {
            credential: attempt.credential.clone(),
            source: attempt.source,
            because: attempt.because,
        });
    }

    fn pass_over(&mut self, name: &CredentialId, source: Source, why: PassedOver) {
        self.steps.push(Step::PassedOver { credential: name.clone(), source, why });
    }
}

fn attempt(
    index: usize,
    candidate: &Candidate,
    source: Source,
    model: &str,
    because: Because,
) -> Attempt {
    Attempt {
        source,
        index,
        credential: candidate.name.clone(),
        provider: candidate.provider.clone(),
        model: model.to_owned(),
        because,
        is_probe: candidate.readiness == Readiness::Probe,
    }
}

fn into_plan(attempts: Vec<Attempt>) -> Option<Plan> {
    let mut attempts = attempts.into_iter();
    attempts.next().map(|first| Plan { first, rest: attempts.collect() })
}
