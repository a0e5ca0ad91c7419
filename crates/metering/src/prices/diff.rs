use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use crate::{ModelPrice, PriceTable};

/// How a table's price for a model differs from another's.
#[derive(Clone, Debug, PartialEq)]
pub enum PriceChange {
    /// The model is new.
    Added {
        /// The provider.
        provider: String,
        /// The model.
        model: String,
    },
    /// The model is gone: its cost will be unknown.
    Removed {
        /// The provider.
        provider: String,
        /// The model.
        model: String,
    },
    /// A figure is another one.
    Changed {
        /// The provider.
        provider: String,
        /// The model.
        model: String,
        /// Which figure, such as `rates.input`.
        figure: String,
        /// What it was, if it was stated.
        from: Option<Value>,
        /// What it is, if it is stated.
        to: Option<Value>,
    },
}

/// All that differs between two tables, by provider, model and figure.
pub fn diff(old: &PriceTable, new: &PriceTable) -> Vec<PriceChange> {
    let models = |table: &PriceTable| -> BTreeSet<(String, String)> {
        let providers = table.providers.iter();
        let names = providers.flat_map(|(provider, models)| {
            models.keys().map(|model| (provider.clone(), model.clone()))
        });
        names.collect()
    };
    let find = |table: &PriceTable, provider: &str, model: &str| -> Option<ModelPrice> {
        table.providers.get(provider)?.get(model).cloned()
    };
    let mut changes = Vec::new();
    for (provider, model) in models(old).union(&models(new)) {
        let (provider, model) = (provider.clone(), model.clone());
        match (find(old, &provider, &model), find(new, &provider, &model)) {
            (None, _) => changes.push(PriceChange::Added { provider, model }),
            (_, None) => changes.push(PriceChange::Removed { provider, model }),
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => {
                let mut figures = Vec::new();
                compare("", figures_of(&old), figures_of(&new), &mut figures);
                changes.extend(figures.into_iter().map(|(figure, from, to)| {
                    let (provider, model) = (provider.clone(), model.clone());
                    PriceChange::Changed { provider, model, figure, from, to }
                }));
            }
        }
    }
    changes
}

type Figures = Vec<(String, Option<Value>, Option<Value>)>;

fn figures_of(price: &ModelPrice) -> Option<Value> {
    // Numbers and names only: this cannot fail.
    serde_json::to_value(price).ok()
}

fn compare(name: &str, old: Option<Value>, new: Option<Value>, into: &mut Figures) {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for member in names {
                let name =
                    if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                compare(&name, old.get(member).cloned(), new.get(member).cloned(), into);
            }
        }
        (old, new) if old != new => into.push((name.to_owned(), old, new)),
        _ => {}
    }
}

impl fmt::Display for PriceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<Value>| {
            value.as_ref().map_or_else(|| "not stated".to_owned(), Value::to_string)
        };
        match self {
            Self::Added { provider, model } => write!(f, "+ {provider} {model}"),
            Self::Removed { provider, model } => write!(f, "- {provider} {model}"),
            Self::Changed { provider, model, figure, from, to } => {
                write!(f, "~ {provider} {model} {figure}: {} → {}", text(from), text(to))
            }
        }
    }
}
