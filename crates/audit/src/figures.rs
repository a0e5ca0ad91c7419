use domain::{Amounts, Cost, Spending, Unit};
use strongroom_proto::v1;

/// The protobuf form of what was spent, exactly.
pub fn proto_spent(spending: &Spending) -> v1::Spent {
    let (micro_usd, micro_usd_millionths) = spending.of(Unit::Money).parts();
    v1::Spent {
        micro_usd,
        micro_usd_millionths,
        requests: spending.requests,
        input_tokens: spending.input_tokens,
        output_tokens: spending.output_tokens,
    }
}

/// What was spent, of its protobuf form; `None` when the millionths are a whole one or more.
pub fn spending(spent: &v1::Spent) -> Option<Spending> {
    let picos = u64::from(spent.micro_usd_millionths);
    (picos < MILLION).then(|| Spending {
        cost: Cost::of(spent.micro_usd, MILLION).plus(Cost::from_picos(picos.into())),
        requests: spent.requests,
        input_tokens: spent.input_tokens,
        output_tokens: spent.output_tokens,
    })
}

/// The protobuf form of amounts.
pub fn proto_amounts(amounts: &Amounts) -> v1::Amounts {
    v1::Amounts {
        micro_usd: amounts.of(Unit::Money),
        requests: amounts.of(Unit::Requests),
        input_tokens: amounts.of(Unit::InputTokens),
        output_tokens: amounts.of(Unit::OutputTokens),
        tokens: amounts.of(Unit::Tokens),
        concurrent: amounts.of(Unit::Concurrent),
    }
}

/// Amounts of their protobuf form.
pub fn amounts(amounts: &v1::Amounts) -> Amounts {
    Amounts::default()
        .with(Unit::Money, amounts.micro_usd)
        .with(Unit::Requests, amounts.requests)
        .with(Unit::InputTokens, amounts.input_tokens)
        .with(Unit::OutputTokens, amounts.output_tokens)
        .with(Unit::Tokens, amounts.tokens)
        .with(Unit::Concurrent, amounts.concurrent)
}

/// The protobuf form of a unit.
pub const fn proto_unit(unit: Unit) -> v1::Unit {
    match unit {
        Unit::Money => v1::Unit::MicroUsd,
        Unit::Requests => v1::Unit::Requests,
        Unit::InputTokens => v1::Unit::InputTokens,
        Unit::OutputTokens => v1::Unit::OutputTokens,
        Unit::Tokens => v1::Unit::Tokens,
        Unit::Concurrent => v1::Unit::Concurrent,
    }
}

/// The unit of its protobuf form.
pub const fn unit(unit: v1::Unit) -> Option<Unit> {
    match unit {
        v1::Unit::Unspecified => None,
        v1::Unit::MicroUsd => Some(Unit::Money),
        v1::Unit::Requests => Some(Unit::Requests),
        v1::Unit::InputTokens => Some(Unit::InputTokens),
        v1::Unit::OutputTokens => Some(Unit::OutputTokens),
        v1::Unit::Tokens => Some(Unit::Tokens),
        v1::Unit::Concurrent => Some(Unit::Concurrent),
    }
}

const MILLION: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_back_as_they_were_told() {
        let told = Spending {
            cost: Cost::from_picos(7_000_000_000_123_456_789),
            requests: 3,
            input_tokens: 5,
            output_tokens: 7,
        };
        assert_eq!(spending(&proto_spent(&told)), Some(told));
        let wrong = v1::Spent { micro_usd_millionths: 1_000_000, ..proto_spent(&told) };
        assert_eq!(spending(&wrong), None);
        let mut all = Amounts::default();
        for (amount, it) in (1..).zip(Unit::ALL) {
            all = all.with(it, amount);
            assert_eq!(unit(proto_unit(it)), Some(it));
        }
        assert_eq!(amounts(&proto_amounts(&all)), all);
    }
}
