use anyhow::Context as _;
use domain::Origin;
use egress::{AddressRules, EgressError};

use crate::{config::CustomEndpoints, refused::Why};

/// Which addresses a tenant's own endpoint may have. What a name leads to is checked again with each
/// connection; what can never be called is refused when it is stored, where somebody reads why.
#[derive(Debug, Default)]
pub(crate) struct EndpointRules {
    addresses: AddressRules,
    /// None: every origin that the rules of the way out allow.
    origins: Option<Vec<Origin>>,
    plain_http: Vec<Origin>,
}

impl EndpointRules {
    /// What the operator has laid down, behind these rules of the way out.
    pub(crate) fn new(config: CustomEndpoints, addresses: AddressRules) -> anyhow::Result<Self> {
        let read = |all: Vec<String>| {
            let origins = all.iter().map(|text| {
                let origin = Origin::of_url(text);
                origin.with_context(|| format!("[custom_endpoints]: `{text}` is no origin"))
            });
            origins.collect::<anyhow::Result<Vec<_>>>()
        };
        Ok(Self {
            addresses,
            origins: config.origins.map(read).transpose()?,
            plain_http: read(config.plain_http_origins)?,
        })
    }

    /// An address as it is stored.
    pub(crate) fn checked(&self, url: &str) -> Result<String, Why> {
        let invalid = |text: String| Err(Why::InvalidField(format!("base_url: {text}")));
        let origin = match Origin::of_url(url) {
            Ok(origin) => origin,
            Err(error) => return invalid(error.to_string()),
        };
        let tidy = !url.contains(['?', '#', '%', '\\']) && !url.contains("/.");
        if url.len() > 1024 || !tidy || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return invalid("it must be a plain address of 1024 bytes at most".into());
        }
        let plain = origin.as_str().starts_with("http://");
        if plain && !self.plain_http.contains(&origin) {
            return invalid("it must be https".into());
        }
        if self.origins.as_ref().is_some_and(|allowed| !allowed.contains(&origin)) {
            return invalid(format!(
                "{origin} is not one of the endpoints that this deployment allows; an operator adds it to \
                 custom_endpoints.origins of broker.toml"
            ));
        }
        match self.addresses.check_origin(&origin) {
            Ok(()) => Ok(url.trim_end_matches('/').to_owned()),
            Err(error @ EgressError::BlockedAddress) => invalid(format!(
                "{error}: write a name, or have an operator name the network in egress.allow of \
                 broker.toml and of proxy.toml"
            )),
            Err(error) => invalid(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(origins: Option<&[&str]>, plain: &[&str], allow: &[&str]) -> EndpointRules {
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let config =
            CustomEndpoints { origins: origins.map(texts), plain_http_origins: texts(plain) };
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        let addresses = AddressRules::new(allow).with_danger_plain_http_to_loopback(true);
        EndpointRules::new(config, addresses).unwrap()
    }

    #[track_caller]
    fn refused(rules: &EndpointRules, url: &str, says: &str) {
        match rules.checked(url) {
            Err(Why::InvalidField(text)) => {
                assert!(text.starts_with("base_url: ") && text.contains(says), "{url}: {text}");
            }
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn what_can_never_be_called_is_not_stored() {
        let open = EndpointRules::default();
        let good = "https://llm.acme.example:8443/v1";
        assert_eq!(open.checked(&format!("{good}/")).unwrap(), good);
        for private in ["https://10.0.0.1", "https://127.0.0.1:8443/v1", "https://169.254.169.254"]
        {
            refused(&open, private, "egress.allow");
        }
        refused(&open, "https://[::1]/v1", "egress.allow");
        refused(&open, "https://8.8.8.8", "write a name");
        for odd in ["https://127.1", "https://2130706433", "https://0x7f000001"] {
            refused(&open, odd, "the host is a number");
        }
        refused(&open, "https://llm.acme.example./v1", "the host ends with a dot");
        refused(&open, "https://llm.acme.example:0", "the port");
        refused(&open, "https://user@llm.acme.example", "");
        refused(&open, "https://llm.acme.example/v1?x=1", "plain address");
        refused(&open, "http://llm.acme.example", "https");
    }

    #[test]
    fn a_network_that_an_operator_names_can_be_an_endpoint() {
        let rules = rules(None, &["http://127.0.0.1:8080"], &["10.1.0.0/16", "127.0.0.0/8"]);
        for good in ["https://10.1.2.3/v1", "http://127.0.0.1:8080/v1", "https://127.0.0.1"] {
            assert_eq!(rules.checked(good).unwrap(), good);
        }
        refused(&rules, "https://10.2.0.1", "egress.allow");
        refused(&rules, "http://127.0.0.1:8081", "https");
        // Not even an operator's list opens a cloud's metadata.
        let wide = self::rules(None, &[], &["0.0.0.0/0"]);
        refused(&wide, "https://169.254.169.254", "no address that may be called");
    }

    #[test]
    fn with_a_list_of_origins_nothing_else_is_an_endpoint() {
        let rules = rules(Some(&["https://llm.acme.example:8443"]), &[], &[]);
        assert!(rules.checked("https://llm.acme.example:8443/v1").is_ok());
        for other in [
            "https://llm.acme.example/v1",
            "https://llm.acme.example:8444",
            "https://evil.llm.acme.example:8443",
        ] {
            refused(&rules, other, "custom_endpoints.origins");
        }
        assert!(self::rules(None, &[], &[]).checked("https://llm.acme.example/v1").is_ok());
        refused(&self::rules(Some(&[]), &[], &[]), "https://llm.acme.example", "custom_endpoints");
    }

    #[test]
    fn a_list_with_something_that_is_no_origin_stops_the_start() {
        let config = CustomEndpoints {
            origins: Some(vec!["llm.acme.example".to_owned()]),
            ..CustomEndpoints::default()
        };
        let error = EndpointRules::new(config, AddressRules::default()).unwrap_err();
        assert!(error.to_string().contains("llm.acme.example"), "{error}");
    }
}
