//! `docs/providers.md` says what the catalogue says: it is made from it.

use std::{env, fmt::Write as _, fs, path::Path};

use domain::Dialect;
use providers::{CredentialForm, Operation, Provider, Steer};

use crate::catalogue;

const INTRODUCTION: &str = "\
# Providers

What Strongroom knows of each provider: which credentials it takes and what they need beside the secret,
which formats it can be called in, and where it is different from what you would expect. Facts of
November 2026. Where a key looks unusual you are warned, and never refused, because vendors change the
form of their keys without notice.

A model may be written with its provider in front, `openai/gpt-4o`; without it the model's name says who
serves it. A provider's own API is reached behind its name, as in `/google/v1beta/models/…`.

Of these facts and of what a lease says (the kind of credential, its settings, an address of its own) the
inference proxy makes each call's address, headers, query and body. An address that is not one of the
lease's origins is not called. The model goes where the provider wants it, fields that it would refuse are
taken out, and everything else of a body goes on as the caller wrote it. Streams of chat completions are
asked for their figures of usage; a caller who did not ask for them does not see them. Of a provider's own
API the calls that its section lists are passed through, and no others. A model of the same provider that a
tenant's policy puts in the place of a call's own stands in such a path, too; only calls whose body repeats
the model in each item (`:batchEmbedContents`) are refused then, as `model_not_replaceable`.

The address of a tenant's own endpoint (`custom`) is looked at when its credential is stored. One that
could never be called is refused: a bare or private address whose network no operator has named in
`egress.allow`, a host written as a number or with a dot at its end, plain HTTP. With
`custom_endpoints.origins` in `broker.toml` only the origins of that list are taken.

Some providers pass calls on to others and let a body say to which, with which key, or which models to try
by turns. A virtual key's scope, the prices of a budget and the lease would then be about another call than
the one that is made. So each section lists what is refused in a body, in every format, as
`field_not_allowed`: the place, with `*` for each item of a list, and what may stand there all the same.

Answers are searched for the secret that the call went out with, unless that is shorter than 12 bytes: so short
a one would be found by chance. Give an endpoint of your own a longer one.

This page is made from `crates/providers/data` by the test `the_manual_says_what_the_catalogue_says`; to
write it anew after a change there: `PROVIDERS_MANUAL=write cargo test -p providers --test it manual`.
";

fn manual() -> String {
    let mut text = INTRODUCTION.to_owned();
    let catalogue = catalogue();
    let mut providers = catalogue.providers().iter().collect::<Vec<_>>();
    providers.sort_by_key(|provider| provider.id().clone());
    for provider in providers {
        section(&mut text, provider).unwrap();
    }
    text
}

fn section(text: &mut String, provider: &Provider) -> std::fmt::Result {
    writeln!(text, "\n## {} (`{}`)\n", provider.name(), provider.id())?;
    if !provider.aliases().is_empty() {
        writeln!(text, "Also written {}.\n", list(provider.aliases()))?;
    }
    writeln!(text, "| credential | secret | settings |\n| --- | --- | --- |")?;
    for form in provider.credential_forms() {
        writeln!(text, "| `{}` | {} | {} |", form.kind, form.secret, settings(form))?;
    }
    writeln!(text)?;
    for setting in provider.setting_forms() {
        writeln!(text, "- `{}`: {} (`{}`)", setting.name, setting.help, setting.looks_like)?;
    }
    if !provider.setting_forms().is_empty() {
        writeln!(text)?;
    }
    for (dialect, name) in [(Dialect::OpenAi, "OpenAI"), (Dialect::Anthropic, "Anthropic")] {
        let operations: Vec<_> = provider.operations(dialect).map(Operation::as_str).collect();
        if operations.is_empty() {
            writeln!(text, "- {name}'s format: not served.")?;
        } else {
            let gaps = provider.gaps(dialect).iter().map(|gap| format!(" {gap}"));
            let gaps = gaps.collect::<String>();
            writeln!(text, "- {name}'s format: {}.{gaps}", operations.join(", "))?;
        }
    }
    let paths = provider.native_paths().iter();
    let paths = paths.map(|path| format!("`{} {}`", path.method, path.template));
    writeln!(text, "- Its own API: {}.", paths.collect::<Vec<_>>().join(", "))?;
    for quirk in provider.quirks() {
        writeln!(text, "- {}", quirk.sentence())?;
    }
    if !provider.steers().is_empty() {
        let all = provider.steers().iter().map(steer).collect::<Vec<_>>();
        writeln!(text, "- Refused in a body: {}.", all.join("; "))?;
    }
    Ok(())
}

fn steer(steer: &Steer) -> String {
    let place = format!("`{}`", steer.at);
    if steer.allows.is_empty() { place } else { format!("{place} but for {}", list(&steer.allows)) }
}

fn settings(form: &CredentialForm) -> String {
    let required = form.requires.iter().map(|name| format!("`{name}`"));
    let optional = form.accepts.iter().map(|name| format!("`{name}` (optional)"));
    let all = required.chain(optional).collect::<Vec<_>>();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn list(all: &[String]) -> String {
    all.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "writing a page anew is asked for by a variable")]
fn the_manual_says_what_the_catalogue_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/providers.md");
    if env::var("PROVIDERS_MANUAL").is_ok_and(|word| word == "write") {
        fs::write(&path, manual()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, manual(), "docs/providers.md is not what the catalogue says");
}
