use std::collections::BTreeMap;

use domain::Detection;

use crate::catalogue;

/// Each provider's models, and how many of them are told by their names to be its own. The rest have
/// names that belong to other vendors (`claude-…` on Vertex AI) or to nobody in particular (`glm-5-2`).
const RECOGNIZED: [(&str, usize, usize); 14] = [
    ("anthropic", 22, 22),
    ("azure", 0, 226),
    ("bedrock", 337, 338),
    ("cloudflare", 30, 30),
    ("cohere", 21, 21),
    ("deepseek", 10, 10),
    ("google", 43, 43),
    ("mistral", 50, 57),
    ("openai", 134, 136),
    ("openrouter", 490, 490),
    ("perplexity", 17, 80),
    ("vercel", 99, 99),
    ("vertex", 63, 148),
    ("xai", 43, 43),
];

#[test]
fn models_of_every_provider_are_recognized_as_far_as_their_names_allow() {
    let catalogue = catalogue();
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let lines = include_str!("../data/models.txt").lines().filter(|line| !line.starts_with('#'));
    for (slug, model) in lines.map(|line| line.split_once(' ').unwrap()) {
        let id = slug.parse().unwrap();
        let is_its = match catalogue.recognize(model) {
            Detection::One { provider, .. } => provider == id,
            Detection::Several(all) => all.contains(&id),
            Detection::Unknown => false,
        };
        let (recognized, all) = counts.entry(slug).or_default();
        *recognized += usize::from(is_its);
        *all += 1;
    }
    let counts: Vec<_> = counts.into_iter().map(|(slug, (its, all))| (slug, its, all)).collect();
    assert_eq!(counts, RECOGNIZED);
}

#[track_caller]
fn check(model: &str, expected: &str) {
    let found = match catalogue().recognize(model) {
        Detection::Unknown => "unknown".to_owned(),
        Detection::One { provider, also } if also.is_empty() => provider.to_string(),
        Detection::One { provider, also } => {
            format!("{provider}, also {}", also.iter().map(ToString::to_string).collect::<String>())
        }
        Detection::Several(all) => {
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
        }
    };
    assert_eq!(found, expected, "{model}");
}

#[test]
fn each_rule_tells_its_models_from_the_others() {
    check("@cf/meta/llama-3.2-1b-instruct", "cloudflare");
    check("@hf/thebloke/codellama-7b-instruct-awq", "cloudflare");
    check("anthropic.claude-opus-5-v1:0", "bedrock");
    check("eu.anthropic.claude-opus-5-v1:0", "bedrock");
    check("global.amazon.nova-2-lite-v1:0", "bedrock");
    check(
        "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite",
        "bedrock",
    );
    check("claude-3-5-sonnet@20240620", "vertex");
    check("llama-3.3-70b-instruct-maas", "vertex");
    check("publishers/google/models/gemini-2.5-flash", "vertex");
    check("projects/p/locations/eu/publishers/google/models/gemini-2.5-flash", "vertex");
    check("claude-opus-5", "anthropic, also vertex");
    check("gemini-2.5-flash", "google, also vertex");
    check("models/gemini-2.5-flash", "google, also vertex");
    check("text-embedding-004", "google, also vertex");
    check("text-embedding-3-small", "openai");
    check("gpt-4o", "openai");
    check("grok-4.5", "xai");
    check("open-mixtral-8x7b", "mistral");
    check("deepseek-chat", "deepseek");
    check("sonar-pro", "perplexity");
    check("command-a-03-2025", "cohere");
    check("rerank-v4.0-pro", "cohere");
    check("meta-llama/llama-4-maverick", "openrouter or vercel");
    check("~openai/gpt-latest", "openrouter or vercel");
    check("Cohere-command-a-plus-05-2026", "unknown");
    check("my-deployment", "unknown");
    check("", "unknown");
    check("/", "unknown");
}
