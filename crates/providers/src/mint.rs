use serde::Deserialize;

use crate::{CredentialKind, NoTarget, Provider, Settings, target::Place};

/// A way to make a short-lived or limited secret of a stored one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "snake_case")]
pub enum Mint {
    /// AWS STS `AssumeRole`, then a short-term key of Bedrock.
    AwsAssumeRole,
    /// A short-term key of Bedrock, computed without a call.
    BedrockShortTermKey,
    /// The grant of RFC 7523 with a signed assertion of a Google service account.
    GoogleJwtGrant,
    /// OAuth client credentials at Entra.
    EntraClientCredentials,
    /// A service-account key of `OpenAI` that ends.
    OpenAiServiceAccountKey,
    /// A key of `OpenRouter` that ends and has a limit.
    OpenRouterKey,
    /// A team's key at `xAI` that ends.
    XaiTeamKey,
    /// A key of Vercel's gateway that ends and has a budget.
    VercelKey,
    /// A token of Cloudflare that ends.
    CloudflareToken,
    /// A further key of Perplexity, which does not end and must be revoked.
    PerplexityKey,
}

/// What can be minted at a provider, and where.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MintFacts {
    /// Which way.
    pub how: Mint,
    /// The kind of credential that it is made of.
    pub from: CredentialKind,
    /// Where it is asked for; a template, and never taken from the credential. `None` when it is
    /// computed here.
    #[serde(default)]
    pub url: Option<String>,
    /// The shortest life that the provider gives.
    #[serde(default)]
    pub shortest_seconds: Option<u64>,
    /// The longest one; `None` when it does not end by itself.
    #[serde(default)]
    pub longest_seconds: Option<u64>,
    /// Whether it can be revoked before it ends.
    #[serde(default)]
    pub revocable: bool,
    /// Where one that was made is deleted, when its name is appended; a template.
    #[serde(default)]
    pub delete_url: Option<String>,
}

/// What must be made of a stored secret before a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Minting {
    /// Which way.
    pub how: Mint,
    /// Where to ask; `None` when it is computed here.
    pub url: Option<String>,
    /// The same as the provider calls it, which is elsewhere than `url` in a deployment that reaches it
    /// by another address.
    pub public_url: Option<String>,
    /// The shortest life that the provider gives, in seconds.
    pub shortest_seconds: Option<u64>,
    /// The longest one; `None` when it does not end by itself.
    pub longest_seconds: Option<u64>,
    /// Where one that was made is deleted with DELETE, when its name is appended; `None` when it only
    /// ends.
    pub delete_url: Option<String>,
}

impl Mint {
    /// The word in metrics and traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwsAssumeRole => "aws_assume_role",
            Self::BedrockShortTermKey => "bedrock_short_term_key",
            Self::GoogleJwtGrant => "google_jwt_grant",
            Self::EntraClientCredentials => "entra_client_credentials",
            Self::OpenAiServiceAccountKey => "open_ai_service_account_key",
            Self::OpenRouterKey => "open_router_key",
            Self::XaiTeamKey => "xai_team_key",
            Self::VercelKey => "vercel_key",
            Self::CloudflareToken => "cloudflare_token",
            Self::PerplexityKey => "perplexity_key",
        }
    }
}

impl Provider {
    /// What must be made of a credential of this kind before a call, and where to ask for it: an
    /// address of the provider's, whatever the credential's secret says. `None` when the secret
    /// itself goes on the call.
    pub fn minting(
        &self,
        kind: CredentialKind,
        settings: &Settings,
    ) -> Result<Option<Minting>, NoTarget> {
        let form = self.credential_form(kind)?;
        let Some(how) = form.mint else { return Ok(None) };
        let settings = self.checked_settings(form, settings)?;
        let place = Place { provider: self, form, settings: &settings, base_url: None, model: "" };
        let facts = self.mints().iter().find(|facts| facts.how == how && facts.from == kind);
        let url = facts.and_then(|facts| facts.url.as_deref());
        let public_url = url.map(|url| place.fill(url)).transpose()?;
        let delete_url = facts.and_then(|facts| facts.delete_url.as_deref());
        let delete_url = delete_url.map(|url| place.fill(url)).transpose()?;
        Ok(Some(Minting {
            how,
            url: public_url.clone().map(|url| self.token_url(url)),
            public_url,
            shortest_seconds: facts.and_then(|facts| facts.shortest_seconds),
            longest_seconds: facts.and_then(|facts| facts.longest_seconds),
            delete_url: delete_url.map(|url| self.token_url(url)),
        }))
    }
}
