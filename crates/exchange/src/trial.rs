use std::time::Duration;

use bytes::Bytes;
use domain::{Origin, Secret};
use egress::EgressError;
use http::{HeaderName, HeaderValue, Request, Response, header::CONTENT_TYPE};
use providers::{
    Answer, CredentialKind, KeyTest, Mint, Minting, Proof, Provider, Settings, Verdict,
};
use tokio::time::timeout;

use crate::{AwsKeys, ExchangeError, Minter, Order, aws};

/// A credential that is to show whether it works.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// Whose it is.
    pub provider: &'a Provider,
    /// What kind of credential.
    pub kind: CredentialKind,
    /// What it says beside its secret.
    pub settings: &'a Settings,
    /// Its own address, if it has one.
    pub base_url: Option<&'a str>,
    /// The secret.
    pub secret: &'a Secret,
}

/// What trying a credential out has shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What is known of the credential.
    pub verdict: Verdict,
    /// Why nothing could be known of it, where that is this side's to change.
    pub obstacle: Option<Obstacle>,
}

/// What kept a credential from being tried out, and is no matter of the credential.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Obstacle {
    /// The rules of the way out do not allow the address.
    Blocked,
    /// The provider's clock and this machine's are apart.
    Clock,
}

impl Obstacle {
    /// What to change, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Blocked => {
                "the address leads to a network that the broker does not call: if it should, an \
                 operator names the network in `egress.allow` of broker.toml, and of proxy.toml"
            }
            Self::Clock => {
                "the provider's clock and the broker's are minutes apart, so nothing is known of the \
                 credential: an operator sets the broker's clock"
            }
        }
    }
}

impl From<Verdict> for Finding {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, obstacle: None }
    }
}

impl Minter {
    /// Finds out whether a provider takes a credential, within fifteen seconds. No model runs for it
    /// and it costs nothing: what kinds of credentials are exchanged for is asked for, and a request
    /// that answers nobody without a key is sent.
    pub async fn try_out(&self, trial: &Trial<'_>) -> Finding {
        let found = timeout(WITHIN, self.tried(trial)).await;
        match found {
            Ok(Ok(verdict)) => verdict.into(),
            Ok(Err(Shown(finding))) => finding,
            Err(_) => Verdict::Unreachable.into(),
        }
    }

    async fn tried(&self, trial: &Trial<'_>) -> Result<Verdict, Shown> {
        let Some(minting) = trial.provider.minting(trial.kind, trial.settings)? else {
            return self.by_request(trial, trial.secret).await;
        };
        match minting.how {
            // That the role can be taken is the proof; what it may do was narrowed to calling models.
            Mint::AwsAssumeRole => self.made(trial, minting).await.map(|_| Verdict::Valid),
            Mint::BedrockShortTermKey => {
                let verdict = self.by_request(trial, trial.secret).await?;
                let takes_a_role = trial.settings.get("role_arn").is_some();
                if verdict == Verdict::Valid && takes_a_role {
                    self.made(trial, minting).await?;
                }
                Ok(verdict)
            }
            Mint::GoogleJwtGrant | Mint::EntraClientCredentials => {
                let token = self.made(trial, minting).await?;
                self.by_request(trial, token.secret()).await
            }
            Mint::OpenRouterKey
            | Mint::OpenAiServiceAccountKey
            | Mint::XaiTeamKey
            | Mint::VercelKey
            | Mint::CloudflareToken
            | Mint::PerplexityKey => {
                if request(trial)?.is_some() {
                    return self.by_request(trial, trial.secret).await;
                }
                self.made_and_deleted(trial, minting).await
            }
        }
    }

    async fn made(&self, trial: &Trial<'_>, minting: Minting) -> Result<crate::Token, Shown> {
        Ok(self.mint(&order(trial, minting)).await?)
    }

    /// Some admin keys can be asked nothing but to make a key.
    async fn made_and_deleted(
        &self,
        trial: &Trial<'_>,
        minting: Minting,
    ) -> Result<Verdict, Shown> {
        let order = order(trial, minting);
        let token = self.mint(&order).await?;
        if let Some(id) = token.key_id()
            && let Err(error) = self.delete(id, &order).await
        {
            tracing::warn!(%error, "the key of a test was not deleted, and ends by itself");
        }
        Ok(Verdict::Valid)
    }

    async fn by_request(&self, trial: &Trial<'_>, proof: &Secret) -> Result<Verdict, Shown> {
        let Some(test) = request(trial)? else { return Ok(Verdict::Unverifiable) };
        let origin = Origin::of_url(&test.url).map_err(|_| Verdict::Unverifiable)?;
        let request = self.built(trial, &test, proof)?;
        let answer = self.call(request, origin).await.map_err(|error| not_answered(&error))?;
        if matches!(test.proof, Proof::AwsSignature { .. }) && aws::blames_the_clock(&answer) {
            return Err(ExchangeError::Clock.into());
        }
        Ok(verdict(trial, &answer))
    }

    fn built(
        &self,
        trial: &Trial<'_>,
        test: &KeyTest,
        proof: &Secret,
    ) -> Result<Request<Bytes>, Shown> {
        let mut request = Request::builder().method(test.method.clone()).uri(&test.url);
        for (name, value) in &test.headers {
            request = request.header(name, value);
        }
        let body = match &test.body {
            Some((content, kind)) => {
                request = request.header(CONTENT_TYPE, kind);
                Bytes::from(content.clone())
            }
            None => Bytes::new(),
        };
        for (name, value) in self.proven(trial, test, proof)? {
            request = request.header(name, value);
        }
        Ok(request.body(body).map_err(|_| Verdict::Unverifiable)?)
    }

    fn proven(
        &self,
        trial: &Trial<'_>,
        test: &KeyTest,
        proof: &Secret,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Shown> {
        match &test.proof {
            Proof::Nothing => Ok(Vec::new()),
            Proof::Header { name, prefix } => {
                let value = [prefix.as_bytes(), proof.expose()].concat();
                let value = HeaderValue::from_bytes(&value);
                let mut value = value.map_err(|_| Verdict::Invalid)?;
                value.set_sensitive(true);
                Ok(vec![(name.clone(), value)])
            }
            Proof::AwsSignature { service, region } => {
                let id = trial.settings.get("access_key_id").unwrap_or_default();
                let keys = AwsKeys {
                    access_key_id: id.to_owned(),
                    secret_access_key: Secret::new(proof.expose().to_vec()),
                    session_token: None,
                };
                let body = test.body.as_ref();
                let (content, kind) = body.map_or(("", ""), |(body, kind)| (&**body, &**kind));
                let at = self.clock().now();
                let place = (&*test.url, &**region, &**service);
                Ok(aws::signature(&keys, place, kind, content.as_bytes(), at)?)
            }
        }
    }
}

fn request(trial: &Trial<'_>) -> Result<Option<KeyTest>, Shown> {
    let Trial { provider, kind, settings, base_url, secret } = trial;
    Ok(provider.key_test(*kind, secret.expose(), settings, *base_url)?)
}

/// What is known of the credential without a whole answer.
struct Shown(Finding);

impl From<Verdict> for Shown {
    fn from(verdict: Verdict) -> Self {
        Self(verdict.into())
    }
}

impl From<ExchangeError> for Shown {
    fn from(error: ExchangeError) -> Self {
        if let ExchangeError::Unreachable(error) = &error {
            return not_answered(error);
        }
        let obstacle = matches!(error, ExchangeError::Clock).then_some(Obstacle::Clock);
        Self(Finding { verdict: error.verdict(), obstacle })
    }
}

impl From<providers::NoTarget> for Shown {
    fn from(_: providers::NoTarget) -> Self {
        Verdict::Unverifiable.into()
    }
}

fn order(trial: &Trial<'_>, minting: Minting) -> Order {
    Order {
        minting,
        settings: trial.settings.clone(),
        secret: Secret::new(trial.secret.expose().to_vec()),
        lifetime: SHORT,
    }
}

fn verdict(trial: &Trial<'_>, answer: &Response<Bytes>) -> Verdict {
    let told =
        Answer { status: answer.status().as_u16(), headers: answer.headers(), body: answer.body() };
    trial.provider.verdict(trial.kind, trial.secret.expose(), told)
}

/// A provider that cannot be asked, or one that said something which is no answer.
fn not_answered(error: &EgressError) -> Shown {
    let answered = matches!(error, EgressError::Redirected | EgressError::TooLong(_));
    let unasked = answered || error.is_refusal();
    let verdict = if unasked { Verdict::Unverifiable } else { Verdict::Unreachable };
    let blocked = matches!(error, EgressError::BlockedAddress).then_some(Obstacle::Blocked);
    Shown(Finding { verdict, obstacle: blocked })
}

const WITHIN: Duration = Duration::from_secs(15);
/// What is made for a test ends soon, where the provider lets it.
const SHORT: Duration = Duration::from_mins(1);
