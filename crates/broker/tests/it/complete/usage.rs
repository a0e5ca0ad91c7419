use std::time::Duration;

use domain::{Clock as _, SystemClock};
use strongroom_proto::v1;

use super::Calls;
use crate::harness::Running;

/// What calls took and cost.
pub(super) async fn usage_and_prices(calls: &mut Calls, running: &Running) {
    let admin = &running.admin;
    let request = v1::QueryUsageRequest {
        start_time: Some(audit::proto_time(SystemClock.now())),
        end_time: Some(audit::proto_time(SystemClock.now() + Duration::from_hours(1))),
        ..Default::default()
    };
    answered!(calls, admin, usage.query_usage, "Usage/QueryUsage", request);
    answered!(calls, admin, usage.list_calls, "Usage/ListCalls", v1::ListCallsRequest::default());
    let request = v1::GetPricesRequest::default();
    answered!(calls, running.proxy, prices.get_prices, "Prices/GetPrices", request);
    let table = r#"{"version": 1000, "date": "2026-11-21", "providers": {}}"#;
    let request = v1::ImportPricesRequest { table: table.into(), ..Default::default() };
    answered!(calls, admin, prices.import_prices, "Prices/ImportPrices", request.clone());
    // Again: nothing changes, and that is on record.
    answered!(calls, admin, prices.import_prices, "Prices/ImportPrices", request);
    let request = v1::SetTenantPricesRequest {
        tenant: "tenants/acme".into(),
        terms: "{}".into(),
        ..Default::default()
    };
    answered!(calls, admin, prices.set_tenant_prices, "Prices/SetTenantPrices", request);
}
