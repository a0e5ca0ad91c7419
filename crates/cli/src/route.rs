use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use strongroom_proto::v1::{
    Dialect, ExplainRouteRequest, ExplainRouteResponse, TenantModel, explain_route_request::Target,
};

use crate::{context::Context, failure::Failure, names::TenantArg, output::table, views};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Says which credentials a call would go out with, in which order, and why. Nobody is called.
    Explain(Explain),
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The model as an application would name it, with or without `provider/` in front.
    model: String,
    /// Whose call it would be.
    #[arg(long)]
    tenant: TenantArg,
    /// The provider of a native path.
    #[arg(long)]
    provider: Option<String>,
    /// The format of the call.
    #[arg(long, default_value = "openai")]
    dialect: DialectArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectArg {
    Openai,
    Anthropic,
    Native,
}

#[derive(Serialize)]
struct Explanation {
    steps: Vec<String>,
    attempts: Vec<Attempt>,
    /// The reason of the refusal; empty when there is none.
    refusal: String,
}

#[derive(Serialize)]
struct Attempt {
    credential: String,
    provider: String,
    source: &'static str,
    model: String,
    because: String,
    origin: String,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::Explain(explain) = self;
        let dialect = match explain.dialect {
            DialectArg::Openai => Dialect::Openai,
            DialectArg::Anthropic => Dialect::Anthropic,
            DialectArg::Native => Dialect::Native,
        };
        let target = TenantModel {
            tenant: explain.tenant.0.resource(),
            model: explain.model,
            provider: explain.provider.unwrap_or_default(),
        };
        let request =
            ExplainRouteRequest { target: Some(Target::Tenant(target)), dialect: dialect.into() };
        let answer = context.broker()?.leases().explain_route(request).await?.into_inner();
        context.output.show(&Explanation::from(answer), human)
    }
}

impl From<ExplainRouteResponse> for Explanation {
    fn from(answer: ExplainRouteResponse) -> Self {
        let attempts = answer.attempts.into_iter().map(|it| Attempt {
            source: views::source_name(it.source()),
            credential: it.credential,
            provider: it.provider,
            model: it.model,
            because: it.because,
            origin: it.origin,
        });
        Self { attempts: attempts.collect(), steps: answer.steps, refusal: answer.refusal }
    }
}

fn human(explanation: &Explanation) -> String {
    let mut text = String::new();
    for step in &explanation.steps {
        text.extend(["- ", step, "\n"]);
    }
    let row = |it: &Attempt| {
        [
            it.credential.clone(),
            it.source.to_owned(),
            it.model.clone(),
            it.origin.clone(),
            it.because.clone(),
        ]
    };
    if !explanation.attempts.is_empty() {
        let header = ["CREDENTIAL", "SOURCE", "MODEL", "ORIGIN", "BECAUSE"];
        text.push('\n');
        text.push_str(&table(header, explanation.attempts.iter().map(row).collect()));
    }
    text
}
