use strongroom_proto::v1::{Amounts, Spent, Unit};

/// The word for a unit, as people write it.
pub(crate) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Unspecified => "",
        Unit::MicroUsd => "usd",
        Unit::Requests => "requests",
        Unit::InputTokens => "input-tokens",
        Unit::OutputTokens => "output-tokens",
        Unit::Tokens => "tokens",
        Unit::Concurrent => "concurrent",
    }
}

/// What was spent, in one line: what is 0 is left out.
pub(crate) fn spent(spent: Spent) -> String {
    let usd = spent.micro_usd > 0 || spent.micro_usd_millionths > 0;
    let money = usd.then(|| format!("{} usd", money(spent.micro_usd, spent.micro_usd_millionths)));
    let counts = [
        (spent.requests, Unit::Requests),
        (spent.input_tokens, Unit::InputTokens),
        (spent.output_tokens, Unit::OutputTokens),
    ];
    money.into_iter().chain(listed(counts)).collect::<Vec<_>>().join(", ")
}

/// Amounts, in one line: what is 0 is left out.
pub(crate) fn amounts(amounts: Amounts) -> String {
    let usd = (amounts.micro_usd > 0).then(|| format!("{} usd", money(amounts.micro_usd, 0)));
    let counts = [
        (amounts.requests, Unit::Requests),
        (amounts.input_tokens, Unit::InputTokens),
        (amounts.output_tokens, Unit::OutputTokens),
        (amounts.tokens, Unit::Tokens),
        (amounts.concurrent, Unit::Concurrent),
    ];
    usd.into_iter().chain(listed(counts)).collect::<Vec<_>>().join(", ")
}

fn listed<const N: usize>(counts: [(u64, Unit); N]) -> impl Iterator<Item = String> {
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    counts.map(|(count, unit)| format!("{count} {}", unit_name(unit)))
}

/// An amount of one unit, as people read it: of money in USD.
pub(crate) fn amount(unit: Unit, amount: u64, millionths: u32) -> String {
    if unit == Unit::MicroUsd { money(amount, millionths) } else { amount.to_string() }
}

/// Micro-USD and their millionths in USD: exactly, with two digits behind the point at the least.
pub(crate) fn money(micro_usd: u64, millionths: u32) -> String {
    const MICROS: u64 = 1_000_000;
    let digits = format!("{:06}{millionths:06}", micro_usd % MICROS);
    let shown = digits.trim_end_matches('0').len().max(2);
    format!("{}.{}", micro_usd / MICROS, digits.get(..shown).unwrap_or(&digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_exactly() {
        assert_eq!(money(12_500_000, 0), "12.50");
        assert_eq!(money(0, 0), "0.00");
        assert_eq!(money(1, 500_000), "0.0000015");
        assert_eq!(money(u64::MAX, 1), "18446744073709.551615000001");
    }

    #[test]
    fn what_is_nothing_is_left_out() {
        let told = Spent { micro_usd: 1_500_000, requests: 2, ..Spent::default() };
        assert_eq!(spent(told), "1.50 usd, 2 requests");
        assert_eq!(amounts(Amounts::default()), "");
    }
}
