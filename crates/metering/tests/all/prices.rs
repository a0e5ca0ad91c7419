//! Prices: the table of this build, what calls cost by it, and before.

use domain::{Cost, Timestamp};
use metering::{
    BUILTIN_VERSION, Basis, Bound, CacheUse, Discount, ModelPrice, NoBound, NoPrice, PriceBook,
    PriceDocument, PriceTable, Priced, Prices, TenantPrices, Term, Terms, WorstCase, diff,
    diff_terms,
};

use super::*;

#[test]
fn the_table_of_this_build_has_the_version_that_leases_name() {
    assert_eq!(PriceTable::builtin().unwrap().version, BUILTIN_VERSION);
}

fn book() -> PriceBook {
    PriceBook::new(PriceTable::builtin().unwrap())
}

fn table(version: u32, models: &str) -> PriceTable {
    PriceTable::parse(&format!(
        r#"{{"version":{version},"date":"2026-01-01","providers":{{"openai":{{{models}}}}}}}"#
    ))
    .unwrap()
}

const EARLY: Timestamp = Timestamp::from_millis(0);

#[track_caller]
fn check(slug: &str, model: &str, of: Tokens, picos: u128) {
    let book = book();
    let priced = book.at(EARLY, None).price(&provider(slug), model, &usage(of));
    let expected = Priced::Known { cost: Cost::from_picos(picos), basis: Basis::Table(1) };
    assert_eq!(priced, expected, "{slug} {model}");
}

#[test]
fn the_table_of_this_build_is_whole() {
    let table = PriceTable::builtin().unwrap();
    let models: usize = table.providers.values().map(std::collections::BTreeMap::len).sum();
    assert_eq!((table.providers.len(), models), (14, 1743));
    assert_eq!((table.version, table.date.to_string()), (1, "2026-11-21".to_owned()));
    assert!(["default", "openrouter"].iter().all(|it| table.sources.contains_key(*it)));
    // Whatever is written is read back, so that tables can be stored and sent.
    let text = serde_json::to_string(&table).unwrap();
    assert_eq!(PriceTable::parse(&text).unwrap(), table);
}

#[test]
fn each_kind_of_token_has_its_price() {
    check("openai", "gpt-4o", tokens(1000, 100), 1000 * 2_500_000 + 100 * 10_000_000);
    let cached = Tokens { cache_read: 500, ..tokens(500, 0) };
    check("openai", "gpt-4o", cached, 500 * 2_500_000 + 500 * 1_250_000);
    let written = Tokens {
        cache_read: 10,
        cache_write_5m: 20,
        cache_write_1h: 30,
        reasoning: 5,
        ..tokens(1, 2)
    };
    let expected = 3_000_000 + 10 * 300_000 + 20 * 3_750_000 + 30 * 6_000_000 + 7 * 15_000_000;
    check("anthropic", "claude-sonnet-4-5", written, expected);
    check("openai", "ft:gpt-4.1-2025-04-14:acme::x", tokens(1, 0), 3_000_000);
    check("google", "models/gemini-2.5-pro", tokens(1, 0), 1_250_000);
}

#[test]
fn a_tier_is_for_the_whole_call_and_by_all_input() {
    let just = Tokens { cache_read: 100_000, ..tokens(100_000, 1) };
    check("google", "gemini-2.5-pro", just, 100_000 * (125_000 + 1_250_000) + 10_000_000);
    let over = Tokens { cache_read: 100_000, ..tokens(100_001, 1) };
    let expected = 100_000 * 250_000 + 100_001 * 2_500_000 + 15_000_000;
    check("google", "gemini-2.5-pro", over, expected);
}

#[test]
fn what_has_no_price_is_unknown_and_never_nothing() {
    let book = book();
    let priced = |slug: &str, model: &str, of: Usage| {
        book.at(EARLY, None).price(&provider(slug), model, &of)
    };
    let unknown = Priced::Unknown { why: NoPrice::UnknownModel, at_least: Cost::ZERO };
    assert_eq!(priced("openai", "gpt-99", usage(tokens(1, 1))), unknown);
    assert_eq!(priced("custom", "gpt-4o", usage(tokens(1, 1))), unknown);
    let sound = usage(Tokens { audio_input: 5, ..tokens(1, 0) });
    let (why, at_least) = (NoPrice::NoRate("audio input"), Cost::from_picos(2_500_000));
    assert_eq!(priced("openai", "gpt-4o", sound), Priced::Unknown { why, at_least });
    let searched = Usage { searches: 1, ..usage(tokens(1, 0)) };
    assert!(matches!(
        priced("anthropic", "claude-sonnet-4-5", searched),
        Priced::Unknown { why: NoPrice::NoRate("searches"), .. }
    ));
    let ranked = Usage { searches: 2, ..Usage::default() };
    let (cost, basis) = (Cost::from_picos(4_000_000_000), Basis::Table(1));
    assert_eq!(priced("cohere", "rerank-v3.5", ranked), Priced::Known { cost, basis });
}

#[test]
fn a_stated_cost_wins_over_the_table() {
    let cost = Cost::from_picos(77);
    let stated = Usage { stated: Some(cost), ..usage(tokens(1000, 1000)) };
    let book = book();
    for model in ["openai/gpt-4o", "nobody/knows"] {
        let priced = book.at(EARLY, None).price(&provider("openrouter"), model, &stated);
        assert_eq!(priced, Priced::Known { cost, basis: Basis::Stated });
    }
}

#[test]
fn a_call_is_priced_by_the_table_in_force_when_it_started() {
    let price = |input: u64| format!(r#""m":{{"kind":"chat","rates":{{"input":{input}}}}}"#);
    let mut book = PriceBook::new(table(1, &price(10)));
    book.add(Timestamp::from_millis(100), table(2, &price(20)));
    for (at, picos, version) in [(0, 10, 1), (99, 10, 1), (100, 20, 2), (500, 20, 2)] {
        let view = book.at(Timestamp::from_millis(at), None);
        let priced = view.price(&provider("openai"), "m", &usage(tokens(1, 0)));
        let (cost, basis) = (Cost::from_picos(picos), Basis::Table(version));
        assert_eq!(priced, Priced::Known { cost, basis }, "{at}");
    }
}

#[test]
fn a_tenants_own_prices_and_discounts_count() {
    let discount = Discount {
        provider: provider("openai"),
        models: "gpt-4o*".parse().unwrap(),
        parts_of_ten_thousand: 8_500,
    };
    let own: ModelPrice =
        serde_json::from_str(r#"{"kind":"chat","rates":{"input":3,"output":4}}"#).unwrap();
    let overrides = [((provider("openai"), "gpt-4.1".to_owned()), own)].into();
    let tenant = TenantPrices { overrides, discounts: vec![discount] };
    let book = book();
    let view = book.at(EARLY, Some(&tenant));
    let price = |model: &str| view.price(&provider("openai"), model, &usage(tokens(100, 0)));
    let known = |picos, basis| Priced::Known { cost: Cost::from_picos(picos), basis };
    assert_eq!(price("gpt-4o"), known(212_500_000, Basis::Table(1)));
    assert_eq!(price("gpt-4.1"), known(300, Basis::Tenant));
    assert_eq!(price("gpt-4.1-mini"), known(40_000_000, Basis::Table(1)));
}

#[track_caller]
fn worst(slug: &str, model: &str, bound: Bound) -> Result<WorstCase, NoBound> {
    book().at(EARLY, None).worst_case(&provider(slug), model, &bound)
}

const BOUND: Bound = Bound {
    body_bytes: 976,
    has_more: false,
    named_tools: 0,
    output_maximum: 100,
    answers: 1,
    cache: CacheUse::None,
};

#[test]
fn the_worst_case_is_the_dearest_that_can_be() {
    let plain = worst("anthropic", "claude-sonnet-4-5", BOUND).unwrap();
    let cost = Cost::from_picos(2000 * 3_000_000 + 100 * 15_000_000);
    assert_eq!(plain, WorstCase { cost, input_tokens: 2000, output_tokens: 100 });
    let long = Bound { cache: CacheUse::Long, answers: 3, ..BOUND };
    let cost = Cost::from_picos(2000 * 6_000_000 + 300 * 15_000_000);
    assert_eq!(worst("anthropic", "claude-sonnet-4-5", long).unwrap().cost, cost);
    // A picture: the whole context, and so the tier above 200,000.
    let picture = worst("google", "gemini-2.5-pro", Bound { has_more: true, ..BOUND }).unwrap();
    assert_eq!(picture.input_tokens, 1_048_576);
    assert_eq!(picture.cost, Cost::from_picos(1_048_576 * 2_500_000 + 100 * 15_000_000));
    let tools = worst("openai", "gpt-4o", Bound { named_tools: 2, ..BOUND }).unwrap();
    assert_eq!(tools.input_tokens, 976 + 3 * 1024);
    // A body larger than the context costs no more than the context.
    let large = worst("openai", "gpt-4o", Bound { body_bytes: 10_000_000, ..BOUND }).unwrap();
    assert_eq!(large.input_tokens, 128_000);
    // xAI's models think beside their output.
    let thinks = worst("xai", "grok-4", BOUND);
    assert!(thinks.is_err() || thinks.unwrap().output_tokens > 100);
}

#[test]
fn without_a_price_or_a_context_there_is_no_bound() {
    let no_price = NoBound::NoPrice { input_tokens: 2000, output_tokens: 100 };
    assert_eq!(worst("openai", "gpt-99", BOUND), Err(no_price));
    assert_eq!(worst("openai", "gpt-99", Bound { has_more: true, ..BOUND }), Err(NoBound::Input));
}

#[test]
fn no_call_costs_more_than_its_worst_case() {
    let table = PriceTable::builtin().unwrap();
    let book = book();
    let mut compared = 0;
    for (slug, models) in &table.providers {
        for (model, price) in models {
            let slug = provider(slug);
            for body_bytes in [10, 5_000, 300_000, 5_000_000] {
                let bound = Bound { body_bytes, cache: CacheUse::Long, ..BOUND };
                let view = book.at(EARLY, None);
                let Ok(worst) = view.worst_case(&slug, model, &bound) else { continue };
                let (input, output) = (worst.input_tokens, worst.output_tokens);
                let tiers = price.tiers.iter().map(|tier| tier.above + 1).filter(|it| *it <= input);
                for input in tiers.chain([0, 1, input / 2, input]) {
                    for of in [
                        tokens(input, output),
                        Tokens { cache_read: input, reasoning: output, ..Tokens::default() },
                        Tokens { cache_write_5m: input, ..tokens(0, output) },
                        Tokens { cache_write_1h: input / 2, cache_read: input / 2, ..tokens(0, 1) },
                    ] {
                        match view.price(&slug, model, &usage(of)) {
                            Priced::Known { cost, .. } => assert!(cost <= worst.cost, "{model}"),
                            Priced::Unknown { at_least, .. } => assert!(at_least <= worst.cost),
                        }
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 100_000, "{compared}");
}

#[test]
fn tables_are_compared_figure_by_figure() {
    let old = table(
        1,
        r#""a":{"kind":"chat","rates":{"input":1,"output":2}},"b":{"kind":"chat","rates":{}}"#,
    );
    let new = table(
        2,
        r#""a":{"kind":"chat","rates":{"input":1,"output":3},"max_output":9},"c":{"kind":"chat","rates":{}}"#,
    );
    let changes: Vec<_> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "~ openai a max_output: not stated → 9",
            "~ openai a rates.output: 2 → 3",
            "- openai b",
            "+ openai c",
        ]
    );
    assert_eq!(diff(&old, &old), []);
}

#[test]
fn a_table_that_cannot_be_meant_is_refused() {
    let parse = |models: &str| {
        let text =
            format!(r#"{{"version":1,"date":"2026-01-01","providers":{{"p":{{{models}}}}}}}"#);
        PriceTable::parse(&text)
    };
    assert!(parse(r#""m":{"kind":"chat","rates":{"inptu":1}}"#).is_err());
    assert!(parse(r#""m":{"kind":"chat","rates":{"input":-1}}"#).is_err());
    assert!(parse(r#""m":{"kind":"chat","rates":{"input":0.5}}"#).is_err());
    let tiers =
        r#""m":{"kind":"chat","rates":{},"tiers":[{"above":9,"rates":{}},{"above":9,"rates":{}}]}"#;
    assert!(parse(tiers).unwrap_err().to_string().contains("ascending"));
    assert!(PriceTable::parse(r#"{"version":1,"date":"01.02.2026","providers":{}}"#).is_err());
}

#[test]
fn a_document_prices_each_call_by_what_was_in_force_when_it_started() {
    let table = |version: u32, input: u64| {
        format!(
            r#"{{"version": {version}, "date": "2026-11-21", "providers": {{"openai": {{
                "gpt-x": {{"kind": "chat", "rates": {{"input": {input}, "output": 0}}}}}}}}}}"#
        )
    };
    let own = r#"{"openai": {"gpt-x": {"kind": "chat", "rates": {"input": 5, "output": 0}}}}"#;
    let document = format!(
        r#"{{"version": "1-2", "tables": [{{"table": {}}},
            {{"effective_time": "2026-12-01T00:00:00Z", "table": {}}}],
            "terms": [
                {{"effective_time": "2026-12-02T00:00:00Z", "discounts":
                    [{{"provider": "openai", "models": "gpt-*", "parts_of_ten_thousand": 5000}}]}},
                {{"effective_time": "2026-12-03T00:00:00Z", "overrides": {own}}},
                {{"effective_time": "2026-12-04T00:00:00Z"}}]}}"#,
        table(1, 10),
        table(2, 20)
    );
    let prices = Prices::parse(document.as_bytes()).unwrap();
    assert_eq!(prices.version(), "1-2");
    let usage = usage(Tokens { input: 1, ..Tokens::default() });
    let cost = |day: &str| {
        let at: jiff::Timestamp = day.parse().unwrap();
        let at = Timestamp::from_millis(at.as_millisecond());
        match prices.at(at).price(&"openai".parse().unwrap(), "gpt-x", &usage) {
            Priced::Known { cost, .. } => cost.picos(),
            Priced::Unknown { .. } => 0,
        }
    };
    assert_eq!(cost("2026-11-30T23:59:59.999Z"), 10);
    assert_eq!(cost("2026-12-01T00:00:00Z"), 20);
    assert_eq!(cost("2026-12-02T00:00:00Z"), 10);
    assert_eq!(cost("2026-12-03T12:00:00Z"), 5);
    assert_eq!(cost("2026-12-04T00:00:00Z"), 20);
    // It reads back as it was written.
    let read = PriceDocument::parse(document.as_bytes()).unwrap();
    assert_eq!(PriceDocument::parse(&read.to_bytes().unwrap()).unwrap(), read);
}

#[test]
fn terms_that_cannot_be_used_are_refused_with_what_is_wrong() {
    let parse = |text: &str| Terms::parse(text.as_bytes()).map_err(|error| error.to_string());
    assert!(parse("{}").is_ok());
    let discount = |provider: &str, models: &str, parts: u32| {
        parse(&format!(
            r#"{{"discounts": [{{"provider": "{provider}", "models": "{models}",
                "parts_of_ten_thousand": {parts}}}]}}"#
        ))
    };
    assert!(discount("openai", "*", 10_000).is_ok());
    assert!(discount("openai", "*", 10_001).unwrap_err().contains("10001"));
    assert!(discount("Open AI", "*", 1).unwrap_err().contains("Open AI"));
    assert!(discount("openai", "gpt-*-x", 1).unwrap_err().contains("gpt-*-x"));
    assert!(parse(r#"{"discount": []}"#).unwrap_err().contains("unreadable"));
}

#[test]
fn a_changed_discount_is_a_difference() {
    let terms = |models: &str, parts: u32| Terms {
        discounts: vec![Term {
            provider: "openai".to_owned(),
            models: models.to_owned(),
            parts_of_ten_thousand: parts,
        }],
        ..Terms::default()
    };
    let changes = diff_terms(&terms("*", 9000), &terms("*", 8500));
    assert_eq!(changes[0].to_string(), "~ openai * discount: 9000 → 8500");
    assert_eq!(diff_terms(&terms("*", 9000), &terms("gpt-*", 9000)).len(), 2);
    assert_eq!(diff_terms(&Terms::default(), &Terms::default()), []);
}
