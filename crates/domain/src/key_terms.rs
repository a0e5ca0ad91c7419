use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use thiserror::Error;

use crate::{ProviderId, Scope, Timestamp};

/// What a virtual key is for, where it may be used from and until when, and whose it is. An empty list
/// means no limit of that kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyTerms {
    /// The providers and models.
    pub scope: Scope,
    /// The kinds of calls.
    pub endpoints: Vec<EndpointKind>,
    /// The networks that applications call from.
    pub networks: Vec<IpNet>,
    /// The first moment at which the key is not served any more.
    pub expires_at: Option<Timestamp>,
    /// What people sort keys by.
    pub labels: BTreeMap<LabelName, LabelText>,
    /// Who answers for the key.
    pub owner: Option<LabelText>,
}

/// A use of a virtual key, as far as its terms say anything about it.
#[derive(Clone, Copy, Debug)]
pub struct KeyUse<'a> {
    /// The kind of call.
    pub endpoint: EndpointKind,
    /// The provider that would serve it, as soon as that is known.
    pub provider: Option<&'a ProviderId>,
    /// The model without a `provider/` in front; empty when the call names none.
    pub model: &'a str,
    /// Where the call comes from, when that is known.
    pub source: Option<IpAddr>,
    /// When.
    pub at: Timestamp,
}

/// What kind of call it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EndpointKind {
    /// OpenAI's chat completions.
    ChatCompletions,
    /// OpenAI's older completions.
    Completions,
    /// OpenAI's embeddings.
    Embeddings,
    /// OpenAI's responses.
    Responses,
    /// OpenAI's moderations.
    Moderations,
    /// Anthropic's messages.
    Messages,
    /// Anthropic's counting of tokens.
    CountTokens,
    /// The list of models.
    Models,
    /// A provider's own API.
    Native,
}

/// Which of a key's terms a call does not meet. It names what the caller asked for, never what else
/// the key could do.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ScopeRefusal {
    /// The key's time is up.
    #[error("the virtual key has expired; ask its owner for a new one")]
    Expired,
    /// The call comes from elsewhere.
    #[error("the virtual key is not for use from this network; its owner can add the network")]
    Network,
    /// The key is not for this kind of call.
    #[error("the virtual key is not for this kind of call; its owner can add the endpoint")]
    Endpoint,
    /// The key is not for this provider.
    #[error("the virtual key is not for this provider; its owner can add the provider")]
    Provider,
    /// The key is not for this model.
    #[error("the virtual key is not for this model; its owner can add the model")]
    Model,
}

/// A label's name: 1 to 63 of `[a-z0-9._-]`, starting with a letter.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LabelName(String);

/// A label's value, or an owner: 1 to 128 characters without control characters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LabelText(String);

/// A text that cannot stand on a virtual key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct InvalidLabel(&'static str);

impl KeyTerms {
    /// The terms that a lease repeats: the kinds of calls, and the networks.
    pub fn of_places(endpoints: &[String], networks: &[String]) -> Result<Self, InvalidLabel> {
        Ok(Self {
            endpoints: endpoints.iter().map(|kind| kind.parse()).collect::<Result<_, _>>()?,
            networks: networks.iter().map(|net| parse_network(net)).collect::<Result<_, _>>()?,
            ..Self::default()
        })
    }

    /// Whether the key may be used so; if not, the first term that says otherwise.
    pub fn permits(&self, usage: &KeyUse<'_>) -> Result<(), ScopeRefusal> {
        if self.expires_at.is_some_and(|expires_at| usage.at >= expires_at) {
            return Err(ScopeRefusal::Expired);
        }
        if !self.permits_source(usage.source) {
            return Err(ScopeRefusal::Network);
        }
        if !self.endpoints.is_empty() && !self.endpoints.contains(&usage.endpoint) {
            return Err(ScopeRefusal::Endpoint);
        }
        if usage.provider.is_some_and(|provider| !self.scope.allows_provider(provider)) {
            return Err(ScopeRefusal::Provider);
        }
        // A pattern may name the model alone or with its provider in front.
        let qualified = usage.provider.map(|provider| format!("{provider}/{}", usage.model));
        if !self.scope.allows_model(usage.model)
            && (usage.model.is_empty()
                || !qualified.is_some_and(|model| self.scope.allows_model(&model)))
        {
            return Err(ScopeRefusal::Model);
        }
        Ok(())
    }

    /// Whether the key may be used from there. A caller whose address is not known is on none of the
    /// networks.
    pub fn permits_source(&self, source: Option<IpAddr>) -> bool {
        // Listeners on `::` see IPv4 callers as mapped addresses.
        let source = source.map(|source| source.to_canonical());
        self.networks.is_empty()
            || source.is_some_and(|source| self.networks.iter().any(|net| net.contains(&source)))
    }
}

/// Reads a network, or one address as the network of itself. Bits behind the prefix are dropped.
pub fn parse_network(text: &str) -> Result<IpNet, InvalidLabel> {
    let wrong = InvalidLabel("a network is an address, or one with a prefix such as 10.0.0.0/8");
    let address = || text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    let network = text.parse::<IpNet>().or_else(|_| address()).map_err(|_| wrong)?;
    match network {
        // Callers at such addresses are taken for what they are, so it would match nobody.
        IpNet::V6(mapped) if mapped.addr().to_ipv4_mapped().is_some() => {
            Err(InvalidLabel("an IPv4 network is written as such, without ::ffff: in front"))
        }
        IpNet::V4(_) | IpNet::V6(_) => Ok(network.trunc()),
    }
}

impl EndpointKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Embeddings,
        Self::Responses,
        Self::Moderations,
        Self::Messages,
        Self::CountTokens,
        Self::Models,
        Self::Native,
    ];

    /// The word in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Moderations => "moderations",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Native => "native",
        }
    }
}

impl FromStr for EndpointKind {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(InvalidLabel(
            "an endpoint is one of chat_completions, completions, embeddings, responses, \
             moderations, messages, count_tokens, models, native",
        ))
    }
}

impl LabelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelName {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let fits = (1..=63).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        let wrong =
            InvalidLabel("a label's name is 1 to 63 of [a-z0-9._-], starting with a letter");
        if fits { Ok(Self(text.to_owned())) } else { Err(wrong) }
    }
}

impl LabelText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelText {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let fits = (1..=128).contains(&text.chars().count()) && !text.contains(char::is_control);
        let wrong = InvalidLabel("a label is 1 to 128 characters without control characters");
        if fits { Ok(Self(text.to_owned())) } else { Err(wrong) }
    }
}

impl fmt::Display for LabelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openai() -> ProviderId {
        "openai".parse().unwrap()
    }

    fn terms(change: impl FnOnce(&mut KeyTerms)) -> KeyTerms {
        let mut terms = KeyTerms::default();
        change(&mut terms);
        terms
    }

    #[track_caller]
    fn check(terms: &KeyTerms, source: &str, at: i64, expected: Result<(), ScopeRefusal>) {
        let provider = openai();
        let usage = KeyUse {
            endpoint: EndpointKind::ChatCompletions,
            provider: Some(&provider),
            model: "gpt-4o",
            source: source.parse().ok(),
            at: Timestamp::from_millis(at),
        };
        assert_eq!(terms.permits(&usage), expected);
    }

    #[test]
    fn a_key_without_terms_is_for_everything() {
        check(&KeyTerms::default(), "192.0.2.1", 0, Ok(()));
        check(&KeyTerms::default(), "nobody knows", i64::MAX, Ok(()));
    }

    #[test]
    fn each_term_refuses_by_itself() {
        let expires = terms(|it| it.expires_at = Some(Timestamp::from_millis(100)));
        check(&expires, "192.0.2.1", 99, Ok(()));
        check(&expires, "192.0.2.1", 100, Err(ScopeRefusal::Expired));
        let endpoint = terms(|it| it.endpoints = vec![EndpointKind::Embeddings]);
        check(&endpoint, "192.0.2.1", 0, Err(ScopeRefusal::Endpoint));
        let provider = terms(|it| it.scope.providers = vec!["anthropic".parse().unwrap()]);
        check(&provider, "192.0.2.1", 0, Err(ScopeRefusal::Provider));
        let model = terms(|it| it.scope.models = vec!["gpt-4o-mini".parse().unwrap()]);
        check(&model, "192.0.2.1", 0, Err(ScopeRefusal::Model));
        let model = terms(|it| it.scope.models = vec!["openai/gpt-*".parse().unwrap()]);
        check(&model, "192.0.2.1", 0, Ok(()));
    }

    #[test]
    fn a_key_of_a_network_is_of_no_use_elsewhere() {
        let nets = ["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().unwrap());
        let terms = terms(|it| it.networks = nets.to_vec());
        check(&terms, "10.1.2.3", 0, Ok(()));
        check(&terms, "::ffff:10.1.2.3", 0, Ok(()));
        check(&terms, "2001:db8::1", 0, Ok(()));
        check(&terms, "11.1.2.3", 0, Err(ScopeRefusal::Network));
        check(&terms, "::1", 0, Err(ScopeRefusal::Network));
        check(&terms, "nobody knows", 0, Err(ScopeRefusal::Network));
    }

    #[test]
    fn a_network_is_read_as_callers_are() {
        let read = |text: &str| parse_network(text).map(|network| network.to_string());
        assert_eq!(read("10.1.2.3/8").unwrap(), "10.0.0.0/8");
        assert_eq!(read("192.0.2.1").unwrap(), "192.0.2.1/32");
        assert_eq!(read("::ffff:192.0.2.1").unwrap(), "192.0.2.1/32");
        assert_eq!(read("2001:db8::1").unwrap(), "2001:db8::1/128");
        for wrong in ["", "office", "10.0.0.0/33", "::ffff:10.0.0.0/104"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_and_endpoints_are_checked_when_they_are_read() {
        assert!("cost-center".parse::<LabelName>().is_ok());
        assert!("Cost".parse::<LabelName>().is_err());
        assert_eq!("Zoë's team".parse::<LabelText>().unwrap().to_string(), "Zoë's team");
        assert!("a\nb".parse::<LabelText>().is_err());
        for kind in EndpointKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("files".parse::<EndpointKind>().is_err());
    }
}
