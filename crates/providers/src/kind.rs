use std::{fmt, str::FromStr};

use http::{HeaderName, header::AUTHORIZATION};
use serde::Deserialize;

use crate::{CatalogueError, KeyHint, Mint, facts::CredentialFacts, key::KeyForm};

/// What kind of secret a credential holds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A key that goes on each call as it is.
    ApiKey,
    /// The secret access key of an AWS user.
    AwsAccessKey,
    /// A role in the customer's AWS account; the secret is its external id.
    AwsRole,
    /// A key of Amazon Bedrock.
    BedrockApiKey,
    /// The JSON file of a Google service account.
    GoogleServiceAccount,
    /// A token that ends by itself, as it is.
    AccessToken,
    /// The client secret of an application in Entra.
    EntraClient,
    /// A key that runs no model but makes keys that do.
    AdminKey,
    /// A secret for a header of the customer's choice.
    Header,
    /// Nothing: the endpoint asks for no secret.
    None,
}

impl CredentialKind {
    /// The word in configuration, API and store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::AwsAccessKey => "aws_access_key",
            Self::AwsRole => "aws_role",
            Self::BedrockApiKey => "bedrock_api_key",
            Self::GoogleServiceAccount => "google_service_account",
            Self::AccessToken => "access_token",
            Self::EntraClient => "entra_client",
            Self::AdminKey => "admin_key",
            Self::Header => "header",
            Self::None => "none",
        }
    }
}

impl FromStr for CredentialKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [
            Self::ApiKey,
            Self::AwsAccessKey,
            Self::AwsRole,
            Self::BedrockApiKey,
            Self::GoogleServiceAccount,
            Self::AccessToken,
            Self::EntraClient,
            Self::AdminKey,
            Self::Header,
            Self::None,
        ];
        all.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One kind of credential that a provider takes.
#[derive(Clone, Debug)]
pub struct CredentialForm {
    /// Which kind.
    pub kind: CredentialKind,
    /// What its secret is, for people.
    pub secret: String,
    /// The settings without which it cannot be used.
    pub requires: Vec<String>,
    /// The settings that it may have.
    pub accepts: Vec<String>,
    /// What is made of it before a call; `None` when it goes on the call itself.
    pub mint: Option<Mint>,
    pub(crate) sends: Sends,
    /// Headers whose value is a setting.
    pub(crate) setting_headers: Vec<(HeaderName, String)>,
    /// Values of settings that are not given.
    pub(crate) defaults: Vec<(String, String)>,
    /// A piece of every path that this kind does without.
    pub(crate) cut: Option<String>,
    form: KeyForm,
}

/// How a secret, or what is made of it, is put on a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Sends {
    /// As the dialect has it.
    Own,
    /// In this header, with this in front.
    Header(HeaderName, &'static str),
    /// In the header that a setting names.
    Setting,
    /// Not at all.
    Nothing,
}

impl CredentialForm {
    pub(crate) fn new(
        facts: CredentialFacts,
        wrong: &[(String, String)],
    ) -> Result<Self, CatalogueError> {
        let sends = match &*facts.sends {
            "own" => Sends::Own,
            "bearer" => Sends::Header(AUTHORIZATION, "Bearer "),
            "setting" => Sends::Setting,
            "nothing" => Sends::Nothing,
            name => Sends::Header(crate::provider::header_name(name)?, ""),
        };
        let begins = facts.begins.as_deref().unwrap_or_default();
        let wrong = wrong.iter().filter(|(prefix, _)| prefix != begins).cloned().collect();
        let setting_headers = facts.setting_headers.into_iter();
        let setting_headers = setting_headers
            .map(|(name, setting)| Ok((crate::provider::header_name(&name)?, setting)))
            .collect::<Result<_, CatalogueError>>()?;
        Ok(Self {
            kind: facts.kind,
            secret: facts.secret,
            requires: facts.requires,
            accepts: facts.accepts,
            mint: facts.mint,
            sends,
            setting_headers,
            defaults: facts.defaults.into_iter().collect(),
            cut: facts.cut,
            form: KeyForm::new(facts.pattern.as_deref(), facts.looks_like, wrong)?,
        })
    }

    /// What the form of a secret says about it. A hint for people, never a reason to refuse by itself.
    pub fn check(&self, secret: &[u8]) -> KeyHint<'_> {
        self.form.check(secret)
    }
}
