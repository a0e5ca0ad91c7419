use domain::{CustomRule, FallbackRule, KeylessRule, RoutingRules};
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// The rules as they stand in their column.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    /// Models and credential.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    custom: Vec<(String, String)>,
    /// Models, provider and model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keyless: Vec<(String, String, String)>,
    /// Provider and what to try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fallbacks: Vec<(String, Vec<String>)>,
}

/// The one text for these rules; it is under the row's MAC.
pub fn write_rules(rules: &RoutingRules) -> String {
    let custom = rules.custom.iter();
    let keyless = rules.keyless.iter();
    let fallbacks = rules.fallbacks.iter();
    let written = Written {
        custom: custom.map(|rule| (rule.models.to_string(), rule.credential.to_string())).collect(),
        keyless: keyless
            .map(|rule| (rule.models.to_string(), rule.provider.to_string(), rule.model.clone()))
            .collect(),
        fallbacks: fallbacks
            .map(|rule| {
                (rule.provider.to_string(), rule.to.iter().map(ToString::to_string).collect())
            })
            .collect(),
    };
    serde_json::to_string(&written).unwrap_or_default()
}

pub(crate) fn read_rules(text: &str) -> Result<RoutingRules, StoreError> {
    let corrupt = || StoreError::Corrupt("tenant.rules".to_owned());
    let written: Written = serde_json::from_str(text).map_err(|_| corrupt())?;
    let rules = || {
        let custom = written.custom.into_iter().map(|(models, credential)| {
            Some(CustomRule { models: models.parse().ok()?, credential: credential.parse().ok()? })
        });
        let keyless = written.keyless.into_iter().map(|(models, provider, model)| {
            let (models, provider) = (models.parse().ok()?, provider.parse().ok()?);
            Some(KeylessRule { models, provider, model })
        });
        let fallbacks = written.fallbacks.into_iter().map(|(provider, to)| {
            let to = to.iter().map(|one| one.parse().ok()).collect::<Option<_>>()?;
            Some(FallbackRule { provider: provider.parse().ok()?, to })
        });
        Some(RoutingRules {
            custom: custom.collect::<Option<_>>()?,
            keyless: keyless.collect::<Option<_>>()?,
            fallbacks: fallbacks.collect::<Option<_>>()?,
        })
    };
    rules().ok_or_else(corrupt)
}
