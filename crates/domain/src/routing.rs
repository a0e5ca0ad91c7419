use crate::{ProviderId, Source};

/// What a call asks for.
#[derive(Clone, Debug)]
pub struct RouteRequest<'a> {
    /// The model without a `provider/` in front; empty when the call names none.
    pub model: &'a str,
    /// The provider that the call names itself, by its path or in front of the model.
    pub named: Option<&'a ProviderId>,
    /// Whether it is named by the path: then the call is in that provider's own format.
    pub by_path: bool,
    /// The provider whose models look like this one.
    pub detected: Option<&'a ProviderId>,
    /// The tenant's preference.
    pub preferred: Option<&'a ProviderId>,
    /// What to do when the tenant has no credential.
    pub on_missing: OnMissing,
}

/// What a tenant's policy says about a route without a credential of its own.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnMissing {
    /// Refuse the call.
    #[default]
    Refuse,
    /// Use a managed credential.
    Managed,
}

impl OnMissing {
    /// The word in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Managed => "managed",
        }
    }
}

/// A credential as routing sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its provider.
    pub provider: ProviderId,
    /// Whether it may be leased.
    pub enabled: bool,
    /// Lower numbers are tried first.
    pub priority: i32,
    /// The models of a `custom` endpoint.
    pub models: Vec<String>,
}

/// The decision: which credential of which list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route {
    /// Whose list it is in.
    pub source: Source,
    /// Its place in that list.
    pub index: usize,
}

/// Why there is no route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoRoute {
    /// Neither the request nor the model's name nor the tenant says which provider.
    UnknownModel,
    /// The tenant has no credential for this provider, and its policy allows no other.
    NoCredential(ProviderId),
    /// There are credentials, but none of them is enabled.
    AllDisabled(ProviderId),
}

/// Chooses a credential for a call: a `custom` endpoint that serves the model first, then the
/// provider of [`choose_provider`], the tenant's own credentials before managed ones, and those only
/// when the tenant's policy says so.
///
/// `own` and `managed` are the tenant's and the platform's credentials.
pub fn route(
    request: &RouteRequest<'_>,
    own: &[Candidate],
    managed: &[Candidate],
) -> Result<Route, NoRoute> {
    if !request.by_path || request.named.is_none_or(|named| named.as_str() == CUSTOM) {
        let serves = |candidate: &Candidate| {
            candidate.provider.as_str() == CUSTOM
                && candidate.models.iter().any(|model| model == request.model)
        };
        if let Some(index) = first(own, serves) {
            return Ok(Route { source: Source::Custom, index });
        }
    }
    let provider = choose_provider(request, own).ok_or(NoRoute::UnknownModel)?;
    let of_provider = |candidate: &Candidate| {
        candidate.provider == provider && (provider.as_str() != CUSTOM || request.model.is_empty())
    };
    if let Some(index) = first(own, of_provider) {
        let source = if provider.as_str() == CUSTOM { Source::Custom } else { Source::Byok };
        return Ok(Route { source, index });
    }
    // A tenant that has switched its own credential off has not asked for another's.
    if own.iter().any(of_provider) {
        return Err(NoRoute::AllDisabled(provider));
    }
    if request.on_missing == OnMissing::Managed
        && provider.as_str() != CUSTOM
        && let Some(index) = first(managed, of_provider)
    {
        return Ok(Route { source: Source::Managed, index });
    }
    Err(NoRoute::NoCredential(provider))
}

/// The provider for a call that no `custom` endpoint serves: named, detected, preferred, or the
/// first of anthropic, openai, openrouter for which there is a credential.
///
/// A model that no provider is known to have goes to a preferred or fixed provider as it is: the
/// provider knows best what it serves.
pub fn choose_provider(request: &RouteRequest<'_>, own: &[Candidate]) -> Option<ProviderId> {
    let stated = request.named.or(request.detected).or(request.preferred);
    if let Some(provider) = stated {
        return Some(provider.clone());
    }
    FIXED_ORDER
        .iter()
        .find_map(|slug| {
            own.iter().find(|candidate| candidate.provider.as_str() == *slug && candidate.enabled)
        })
        .map(|candidate| candidate.provider.clone())
}

const CUSTOM: &str = "custom";
const FIXED_ORDER: [&str; 3] = ["anthropic", "openai", "openrouter"];

/// The enabled candidate of the lowest priority that fits; the first of equals.
fn first(candidates: &[Candidate], fits: impl Fn(&Candidate) -> bool) -> Option<usize> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.enabled && fits(candidate))
        .min_by_key(|(_, candidate)| candidate.priority)
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(provider: &str, priority: i32) -> Candidate {
        Candidate { provider: provider.parse().unwrap(), enabled: true, priority, models: vec![] }
    }

    struct Case<'a> {
        model: &'a str,
        named: Option<&'a str>,
        by_path: bool,
        detected: Option<&'a str>,
        preferred: Option<&'a str>,
        on_missing: OnMissing,
    }

    const PLAIN: Case<'static> = Case {
        model: "m",
        named: None,
        by_path: false,
        detected: None,
        preferred: None,
        on_missing: OnMissing::Refuse,
    };

    #[track_caller]
    fn check(
        case: &Case<'_>,
        own: &[Candidate],
        managed: &[Candidate],
        expected: &Result<(Source, usize), NoRoute>,
    ) {
        let id = |slug: Option<&str>| slug.map(|slug| slug.parse::<ProviderId>().unwrap());
        let (named, detected, preferred) = (id(case.named), id(case.detected), id(case.preferred));
        let request = RouteRequest {
            model: case.model,
            named: named.as_ref(),
            by_path: case.by_path,
            detected: detected.as_ref(),
            preferred: preferred.as_ref(),
            on_missing: case.on_missing,
        };
        let found = route(&request, own, managed).map(|route| (route.source, route.index));
        assert_eq!(&found, expected);
    }

    #[test]
    fn a_custom_endpoint_for_the_model_wins_over_everything() {
        let mut custom = candidate("custom", 500);
        custom.models = vec!["m".into()];
        let own = [candidate("openai", 1), custom];
        let case = Case { detected: Some("openai"), ..PLAIN };
        check(&case, &own, &[], &Ok((Source::Custom, 1)));
        let case = Case { named: Some("openai"), ..PLAIN };
        check(&case, &own, &[], &Ok((Source::Custom, 1)));
        check(&Case { by_path: true, ..case }, &own, &[], &Ok((Source::Byok, 0)));
        let other = Case { model: "n", detected: Some("openai"), ..PLAIN };
        check(&other, &own, &[], &Ok((Source::Byok, 0)));
    }

    #[test]
    fn the_named_provider_wins_over_the_detected_one() {
        let own = [candidate("openai", 1), candidate("anthropic", 1)];
        let case = Case { named: Some("anthropic"), detected: Some("openai"), ..PLAIN };
        check(&case, &own, &[], &Ok((Source::Byok, 1)));
    }

    #[test]
    fn the_lowest_priority_number_is_first() {
        let own = [candidate("openai", 9), candidate("openai", 2), candidate("openai", 2)];
        check(&Case { detected: Some("openai"), ..PLAIN }, &own, &[], &Ok((Source::Byok, 1)));
    }

    #[test]
    fn a_managed_credential_is_used_only_when_policy_says_so() {
        let managed = [candidate("openai", 1)];
        let refused = Err(NoRoute::NoCredential("openai".parse().unwrap()));
        let case = Case { detected: Some("openai"), ..PLAIN };
        check(&case, &[], &managed, &refused);
        let case = Case { on_missing: OnMissing::Managed, ..case };
        check(&case, &[], &managed, &Ok((Source::Managed, 0)));
    }

    #[test]
    fn a_disabled_credential_is_not_replaced_by_a_managed_one() {
        let mut own = candidate("openai", 1);
        own.enabled = false;
        let case = Case { detected: Some("openai"), on_missing: OnMissing::Managed, ..PLAIN };
        let expected = Err(NoRoute::AllDisabled("openai".parse().unwrap()));
        check(&case, &[own], &[candidate("openai", 1)], &expected);
    }

    #[test]
    fn an_unknown_model_goes_by_preference_then_by_the_fixed_order() {
        let own = [candidate("openai", 1), candidate("anthropic", 1)];
        check(&PLAIN, &own, &[], &Ok((Source::Byok, 1)));
        check(&Case { preferred: Some("openai"), ..PLAIN }, &own, &[], &Ok((Source::Byok, 0)));
        check(&PLAIN, &[candidate("mistral", 1)], &[], &Err(NoRoute::UnknownModel));
    }
}
