use super::*;

const OPENAI_USAGE: &str = r#"{"object": "page", "data": [{"object": "bucket",
    "start_time": 1730419200, "end_time": 1730505600, "results": [
    {"object": "organization.usage.completions.result", "input_tokens": 1000, "output_tokens": 500,
     "input_cached_tokens": 800, "num_model_requests": 5, "project_id": null,
     "api_key_id": "key_1", "model": "gpt-4o-2024-08-06", "batch": null},
    {"object": "organization.usage.embeddings.result", "input_tokens": 16,
     "num_model_requests": 2, "model": "text-embedding-3-small"}]}],
    "has_more": false, "next_page": null}"#;

const OPENAI_COSTS: &str = r#"{"object": "page", "data": [{"object": "bucket",
    "start_time": 1730419200, "end_time": 1730505600, "results": [
    {"object": "organization.costs.result", "amount": {"value": 0.06, "currency": "usd"},
     "line_item": "gpt-4o-2024-08-06, input", "project_id": null}]}],
    "has_more": false, "next_page": null}"#;

const ANTHROPIC_USAGE: &str = r#"{"data": [{"starting_at": "2025-08-01T00:00:00Z",
    "ending_at": "2025-08-02T00:00:00Z", "results": [{"uncached_input_tokens": 1500,
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "cache_read_input_tokens": 200, "output_tokens": 500, "api_key_id": "apikey_1",
    "model": "claude-sonnet-4-20250514"}]}], "has_more": false, "next_page": null}"#;

const ANTHROPIC_COSTS: &str = r#"{"data": [{"starting_at": "2025-08-01T00:00:00Z",
    "ending_at": "2025-08-02T00:00:00Z", "results": [{"currency": "USD", "amount": "123.78912",
    "model": "claude-sonnet-4-20250514", "cost_type": "tokens"}]}], "has_more": false}"#;

fn parse(account: Account, text: &str) -> Vec<Line> {
    Export::parse(account, text).unwrap().lines
}

fn line(day: &str, model: &str, figures: (Option<u64>, Option<u64>), cost: Option<&str>) -> Line {
    Line {
        day: day.parse().unwrap(),
        model: model.to_owned(),
        api_key: None,
        input: figures.0,
        output: figures.1,
        cost: cost.map(|usd| Cost::from_usd(usd).unwrap()),
    }
}

#[test]
fn openais_input_includes_what_is_cached() {
    let lines = parse(Account::Openai, OPENAI_USAGE);
    let first = line("2024-11-01", "gpt-4o-2024-08-06", (Some(1000), Some(500)), None);
    assert_eq!(lines[0], Line { api_key: Some("key_1".to_owned()), ..first });
    let embeddings = line("2024-11-01", "text-embedding-3-small", (Some(16), Some(0)), None);
    assert_eq!(lines[1], embeddings);
    // Pages saved together.
    assert_eq!(parse(Account::Openai, &format!("[{OPENAI_USAGE}, {OPENAI_USAGE}]")).len(), 4);
}

#[test]
fn a_cost_is_of_the_model_in_its_line_item() {
    let lines = parse(Account::Openai, OPENAI_COSTS);
    assert_eq!(lines, [line("2024-11-01", "gpt-4o-2024-08-06", (None, None), Some("0.06"))]);
}

#[test]
fn anthropics_kinds_of_input_do_not_overlap_and_costs_are_in_cents() {
    let model = "claude-sonnet-4-20250514";
    let usage = line("2025-08-01", model, (Some(3200), Some(500)), None);
    let usage = Line { api_key: Some("apikey_1".to_owned()), ..usage };
    assert_eq!(parse(Account::Anthropic, ANTHROPIC_USAGE), [usage]);
    let cost = line("2025-08-01", model, (None, None), Some("1.2378912"));
    assert_eq!(parse(Account::Anthropic, ANTHROPIC_COSTS), [cost]);
}

#[test]
fn exports_of_the_consoles_are_read() {
    let costs = "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,\
                 line_item,api_key_id\n\
                 1730419200,1730505600,2024-11-01T00:00:00+00:00,x,0.0123,usd,\"o3, output\",k\n";
    let cost = line("2024-11-01", "o3", (None, None), Some("0.0123"));
    let cost = Line { api_key: Some("k".to_owned()), ..cost };
    assert_eq!(parse(Account::Openai, costs), [cost]);
    let usage = "start_time,end_time,num_model_requests,model,input_tokens,output_tokens\n\
                 1730419200,1730505600,3,o3,10,20\n";
    let expected = line("2024-11-01", "o3", (Some(10), Some(20)), None);
    assert_eq!(parse(Account::Openai, usage), [expected]);
    let usage = "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,\
                 usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,\
                 usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,\
                 usage_output_tokens,web_search_count\n\
                 2026-03-22,claude-x,main,Default,standard,≤ 200k,100000,1,2,3,50,0\n";
    let expected = line("2026-03-22", "claude-x", (Some(100_006), Some(50)), None);
    let expected = Line { api_key: Some("main".to_owned()), ..expected };
    assert_eq!(parse(Account::Anthropic, usage), [expected]);
}

#[test]
fn an_export_that_could_hide_something_is_refused() {
    let why = |account: Account, text: &str| Export::parse(account, text).unwrap_err().to_string();
    let more = OPENAI_USAGE.replace("\"has_more\": false", "\"has_more\": true");
    assert!(why(Account::Openai, &more).contains("one page of several"));
    let no_model = OPENAI_USAGE.replace("\"model\": \"gpt-4o-2024-08-06\"", "\"model\": null");
    assert!(why(Account::Openai, &no_model).contains("model"));
    let euros = OPENAI_COSTS.replace("usd", "eur");
    assert!(why(Account::Openai, &euros).contains("eur"));
    assert!(why(Account::Anthropic, "a,b\n1,2\n").contains("usage_date_utc"));
    assert!(why(Account::Anthropic, "{\"x\": 1}").contains("data"));
    let wrong = ANTHROPIC_USAGE.replace("1500", "\"many\"");
    assert!(why(Account::Anthropic, &wrong).contains("uncached_input_tokens"));
}
