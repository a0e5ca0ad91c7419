use std::{borrow::Cow, collections::BTreeMap};

use domain::Dialect;
use http::{HeaderName, HeaderValue};

use super::{dialect, header_name};
use crate::{
    CatalogueError, Operation, Rewrite, UsageShape,
    facts::{DialectFacts, VariantFacts},
};

/// One dialect that a provider serves.
#[derive(Clone, Debug)]
pub(crate) struct Surface {
    pub(crate) dialect: Dialect,
    pub(crate) base_url: Option<String>,
    pub(crate) path: String,
    pub(crate) cut: String,
    pub(crate) header_name: HeaderName,
    pub(crate) header_prefix: String,
    pub(crate) extra: Vec<(HeaderName, HeaderValue)>,
    pub(crate) operations: BTreeMap<Operation, String>,
    pub(crate) stream_operations: BTreeMap<Operation, String>,
    pub(crate) variant: Option<VariantFacts>,
    model_prefix: String,
    pub(crate) rewrites: Vec<Rewrite>,
    pub(crate) usage: BTreeMap<Operation, UsageShape>,
    pub(crate) native_usage: Vec<UsageShape>,
    pub(crate) gaps: Vec<String>,
}

impl Surface {
    pub(super) fn new(
        word: &str,
        facts: DialectFacts,
        shapes: &BTreeMap<String, UsageShape>,
    ) -> Result<Self, CatalogueError> {
        let dialect = dialect(word)?;
        let all = facts.operations.keys().chain(facts.stream_operations.keys());
        if let Some(stray) = all.chain(facts.usage.keys()).find(|one| one.dialect() != dialect) {
            return Err(CatalogueError::invalid(word, &stray.as_str()));
        }
        let extra = facts.extra.iter().map(|(name, value)| {
            let invalid = CatalogueError::invalid("extra", name);
            let value = HeaderValue::from_str(value).map_err(|_| invalid)?;
            Ok::<_, CatalogueError>((header_name(name)?, value))
        });
        let shape = |name: &String| {
            let shape = shapes.get(name).cloned();
            shape.ok_or_else(|| CatalogueError::invalid("usage", name))
        };
        let usage = facts.usage.iter().map(|(operation, name)| Ok((*operation, shape(name)?)));
        Ok(Self {
            dialect,
            header_name: header_name(&facts.header_name)?,
            extra: extra.collect::<Result<_, _>>()?,
            usage: usage.collect::<Result<_, CatalogueError>>()?,
            native_usage: facts.native_usage.iter().map(shape).collect::<Result<_, _>>()?,
            base_url: facts.base_url,
            path: facts.path,
            cut: facts.cut,
            header_prefix: facts.header_prefix,
            operations: facts.operations,
            stream_operations: facts.stream_operations,
            variant: facts.variant,
            model_prefix: facts.model_prefix,
            rewrites: facts.rewrites,
            gaps: facts.gaps,
        })
    }

    /// The model as this dialect of the provider calls it: without the folders of a resource name, and
    /// with the vendor in front where one is needed.
    pub(crate) fn model<'a>(&self, model: &'a str) -> Cow<'a, str> {
        let is_resource = ["models/", "publishers/", "projects/"].iter();
        let is_resource = is_resource.clone().any(|start| model.starts_with(start));
        let bare = if is_resource { model.rsplit('/').next().unwrap_or(model) } else { model };
        if bare.is_empty() || self.model_prefix.is_empty() || bare.contains('/') {
            return Cow::Borrowed(bare);
        }
        Cow::Owned(format!("{}{bare}", self.model_prefix))
    }

    /// Whether a stream of this operation says what was used only when asked.
    pub(crate) fn asks_for_usage(&self, operation: Operation) -> bool {
        let stream = self.usage.get(&operation).and_then(|shape| shape.stream.as_ref());
        stream.is_some_and(|stream| stream.on_request)
    }
}
