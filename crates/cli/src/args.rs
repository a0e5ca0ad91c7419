use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    audit_check_rows, audit_convert, audit_explain, audit_export, audit_list, audit_prove,
    audit_prune, audit_tail, audit_verify, audit_who_used, budgets,
    context::Context,
    credentials, erasure,
    failure::Failure,
    identities, init, keys, kms, leases,
    output::{self, Output},
    prices, route, tenants, usage, witness,
};

/// Strongroom lends keys, and can prove every loan.
///
/// Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 verification failed or a provider
/// counted more than passed through, 4 the broker is not reachable, 5 nothing was found, 6 what was asked for has been pruned from the log.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// The configuration. Without it: `./.strongroom/strongroom.toml`, then
    /// `~/.config/strongroom/strongroom.toml`.
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Prints one JSON document on stdout; errors as JSON on stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lays out a deployment: identities, keys and configuration.
    Init(init::Init),
    /// Customer accounts.
    #[command(subcommand)]
    Tenants(tenants::Verb),
    /// The provider keys that tenants own.
    #[command(subcommand)]
    Credentials(credentials::Verb),
    /// The virtual keys that applications hold.
    #[command(subcommand)]
    Keys(keys::Verb),
    /// What may be spent, and what is.
    #[command(subcommand)]
    Budgets(budgets::Verb),
    /// The keys above the credentials: root keys, and each tenant's key.
    #[command(subcommand)]
    Kms(kms::Verb),
    /// Who may not call any more.
    #[command(subcommand)]
    Identities(identities::Verb),
    /// What is lent at the moment.
    #[command(subcommand)]
    Leases(leases::Verb),
    /// Where a call would go, and why.
    #[command(subcommand)]
    Route(route::Verb),
    /// What calls took and cost.
    Usage(Box<usage::Usage>),
    /// What calls cost: list prices, and what tenants have negotiated.
    #[command(subcommand)]
    Prices(prices::Verb),
    /// The log: who used which key, and the proof of it.
    #[command(subcommand)]
    Audit(Box<Audit>),
    /// Cosigns a log's checkpoints, where the log's operators have no say.
    #[command(subcommand)]
    Witness(witness::Verb),
    /// Prints a shell's completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Who was lent a credential, by which virtual key, from when to when, and what ended it.
    WhoUsed(audit_who_used::WhoUsed),
    /// What an identity did, and what it was refused.
    WhatDid(audit_list::WhatDid),
    /// Tells one lease's story, in order.
    Explain(audit_explain::Explain),
    /// Lists records by what they say.
    List(audit_list::List),
    /// Prints records as they are written, until interrupted; with `--json`, one on each line.
    Tail(audit_tail::Tail),
    /// Saves the log and its signed checkpoint. Run again, it goes on where it stopped.
    Export(audit_export::Export),
    /// Verifies an export, without a network.
    Verify(audit_verify::Verify),
    /// Takes old records out of the broker's database, once an export covers them.
    Prune(audit_prune::Prune),
    /// Prints a verified export in a form that other systems read, without a network.
    Convert(audit_convert::Convert),
    /// Saves the proof that a record is in the log.
    Prove(audit_prove::Prove),
    /// Verifies a proof, without a network.
    VerifyProof(audit_prove::VerifyProof),
    /// Saves the receipt of an erasure, with the proof that it is in the log.
    Receipt(erasure::Receipt),
    /// Replays the log against the rows of the broker's database, and tells of each that is not as it was
    /// written. Exit code 3 if there is one.
    CheckRows,
}

impl Args {
    pub(crate) async fn run(self, output: Output) -> Result<(), Failure> {
        let context = Context::new(self.config, output);
        match self.command {
            Command::Init(init) => init.run(output),
            Command::Tenants(verb) => verb.run(&context).await,
            Command::Credentials(verb) => verb.run(&context).await,
            Command::Keys(verb) => verb.run(&context).await,
            Command::Budgets(verb) => verb.run(&context).await,
            Command::Kms(verb) => verb.run(&context).await,
            Command::Identities(verb) => verb.run(&context).await,
            Command::Leases(verb) => verb.run(&context).await,
            Command::Route(verb) => verb.run(&context).await,
            Command::Usage(usage) => usage.run(&context).await,
            Command::Prices(verb) => verb.run(&context).await,
            Command::Audit(verb) => verb.run(&context).await,
            Command::Witness(verb) => verb.run(output).await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "strongroom", &mut script);
                output::raw(&script)
            }
        }
    }
}

impl Audit {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::WhoUsed(question) => question.run(context).await,
            Self::WhatDid(question) => question.run(context).await,
            Self::Explain(question) => question.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Tail(tail) => tail.run(context).await,
            Self::Export(export) => export.run(context).await,
            Self::Verify(verify) => verify.run(context.output),
            Self::Prune(prune) => prune.run(context).await,
            Self::Convert(convert) => convert.run(context.output),
            Self::Prove(prove) => prove.run(context).await,
            Self::VerifyProof(verify) => verify.run(context.output),
            Self::Receipt(receipt) => receipt.run(context).await,
            Self::CheckRows => audit_check_rows::run(context).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, valid: bool) {
        let parsed = Args::try_parse_from(line.split(' '));
        assert_eq!(parsed.is_ok(), valid, "{line}: {:?}", parsed.err());
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_verb_parses() {
        check("strongroom init here", true);
        check("strongroom init here --production --trust-domain acme.internal", true);
        check("strongroom tenants create acme --on-missing managed", true);
        check("strongroom tenants list --json", true);
        check("strongroom tenants update acme --display-name Acme", true);
        check("strongroom credentials put acme/openai --provider openai --priority 5", true);
        check("strongroom credentials get tenants/acme/credentials/openai", true);
        check("strongroom credentials delete acme/openai --yes", true);
        check("strongroom credentials shred acme/openai --yes --etag r3", true);
        check("strongroom tenants shred acme --yes", true);
        check("strongroom audit receipt acme -o receipt", true);
        check("strongroom audit receipt acme/openai -o receipt --json", true);
        check("strongroom audit check-rows --json", true);
        check("strongroom credentials rotate acme/openai", true);
        check("strongroom credentials rotate acme/openai --canary 5%", true);
        check("strongroom credentials rotate acme/openai --canary 50 --hold 1h --detach", true);
        check("strongroom credentials rotate acme/openai --canary 5% --overlap 5m", true);
        check("strongroom credentials rotation acme/openai", true);
        check("strongroom credentials rotation acme/openai --watch --json", true);
        check("strongroom credentials rotation acme/openai --promote", true);
        check("strongroom credentials rotation acme/openai --cancel --etag r3", true);
        check("strongroom keys create acme --expires 30d --models gpt-4o,claude-*", true);
        check("strongroom keys revoke acme/aaaaaaaaaaaaaaaa", true);
        check("strongroom tenants suspend acme", true);
        check("strongroom identities block spiffe://a.b/c", true);
        check("strongroom identities revoke-session 00ff", true);
        check("strongroom kms status", true);
        check("strongroom kms status acme --json", true);
        check("strongroom kms rotate acme --detach", true);
        check("strongroom kms rotate --all --request-id r-1", true);
        check("strongroom kms rewrap --root acme-hsm", true);
        check("strongroom leases revoke 00ff", true);
        check("strongroom route explain gpt-4o --tenant acme --dialect anthropic", true);
        check("strongroom tenants update acme --keyless gpt-4*=openai/gpt-4o-mini", true);
        check("strongroom tenants update acme --fallback openai=second,platform/*", true);
        check("strongroom tenants update acme --clear fallbacks", true);
        check("strongroom credentials put acme/b --provider bedrock --set region=eu-west-1", true);
        check("strongroom audit tail --from 7", true);
        check("strongroom audit who-used acme/openai --since 24h --until 2026-11-01", true);
        check("strongroom audit who-used acme/openai --from dir --vkey-file f --tz UTC", true);
        check("strongroom audit what-did spiffe://a.b/c --csv", true);
        check("strongroom audit explain 00ff --json", true);
        check("strongroom audit list --kind lease-granted --reason NOT_PERMITTED", true);
        check("strongroom audit verify export --vkey-file log.pub", true);
        check("strongroom audit convert export --vkey-file log.pub --format ocsf", true);
        check("strongroom audit prove 7 -o proof", true);
        check("strongroom audit prove --lease 00ff -o proof", true);
        check("strongroom audit prune export --before 400d --vkey-file log.pub --yes", true);
        check(
            "strongroom audit prune export --before 512 --vkey-file l --archive a --archive b",
            true,
        );
        check("strongroom usage --by model,provider --since 30d --per day --json", true);
        check("strongroom usage --tenant acme --by source --chart --tz Europe/Berlin", true);
        check("strongroom usage --key acme/aaaaaaaaaaaaaaaa --source managed --csv", true);
        check("strongroom usage reconcile --provider openai --file export.json", true);
        check(
            "strongroom usage reconcile --provider anthropic --file e.csv --credential acme/a",
            true,
        );
        check("strongroom prices diff table.json", true);
        check("strongroom prices import table.json --effective 2027-01-01", true);
        check("strongroom prices set acme terms.json", true);
        check("strongroom prices show --tenant acme --provider openai", true);
        check("strongroom budgets create acme monthly --limit 500usd --limit 9000tokens", true);
        check("strongroom budgets create acme d --limit 5usd --per day --zone Europe/Berlin", true);
        check("strongroom budgets create acme r --limit 9requests --rolling 24h --shadow", true);
        check("strongroom budgets create acme k --limit 5usd --group team --alert 50,80", true);
        check("strongroom budgets update acme/monthly --limit 800usd --mode shadow", true);
        check("strongroom budgets reconcile acme --allowance 00ff --cost 1.25", true);
        check("strongroom completions bash", true);
    }

    #[test]
    fn wrong_input_is_refused_before_anyone_is_asked() {
        check("strongroom init here --production", false);
        check("strongroom tenants create Acme", false);
        check("strongroom tenants update acme --fallback openai", false);
        check("strongroom budgets create acme monthly", false);
        check("strongroom budgets create acme m --limit 5usd --zone Nowhere", false);
        check("strongroom budgets reconcile acme --cost 1.25", false);
        check("strongroom route explain gpt-4o", false);
        check("strongroom credentials put acme --provider openai", false);
        check("strongroom credentials rotate acme/openai --canary 0%", false);
        check("strongroom credentials rotate acme/openai --canary 100%", false);
        check("strongroom credentials rotate acme/openai --hold 2m", false);
        check("strongroom credentials rotation acme/openai --promote --cancel", false);
        check("strongroom credentials put acme/openai", false);
        check("strongroom credentials put acme/openai --provider openai --no-test", true);
        check("strongroom credentials rotate acme/openai --no-test", true);
        check("strongroom credentials test acme/openai", true);
        check("strongroom credentials test acme", false);
        check("strongroom credentials put acme/openai sk-123 --provider openai", false);
        check("strongroom keys create acme --expires never", false);
        check("strongroom keys create acme --models *x", false);
        check("strongroom identities block acme", false);
        check("strongroom kms rotate", false);
        check("strongroom kms rotate acme --all", false);
        check("strongroom leases revoke xyz", false);
        check("strongroom audit verify export", false);
        check("strongroom audit verify export --vkey k --vkey-file f", false);
        check("strongroom audit who-used acme/openai --since yesterday", false);
        check("strongroom audit who-used acme/openai --vkey-file f", false);
        check("strongroom audit list --csv --json", false);
        check("strongroom audit list --tz Mars/Olympus", false);
        check("strongroom audit list --kind borrowed", false);
        check("strongroom audit prune export --vkey-file log.pub", false);
        check("strongroom audit prune export --before x --vkey-file log.pub", false);
        check("strongroom audit convert export --vkey-file log.pub --format xml", false);
        check("strongroom audit convert export --format cef", false);
        check("strongroom usage --by moods", false);
        check("strongroom usage --chart --csv", false);
        check("strongroom usage reconcile --provider cohere --file x", false);
        check("strongroom usage reconcile --provider openai --file x --tolerance -1", false);
        check("strongroom prices set terms.json", false);
        check("strongroom audit prove -o proof", false);
        check("strongroom audit receipt acme", false);
        check("strongroom tenants shred acme/openai", false);
        check("strongroom audit prove 7 --lease 00ff -o proof", false);
    }
}
