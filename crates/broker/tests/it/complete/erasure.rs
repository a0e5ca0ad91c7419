use strongroom_proto::v1;

use super::Calls;
use crate::{harness::Running, lending::with_credential};

/// What ends for good, and that everything else is as it was written.
pub(super) async fn erase(calls: &mut Calls, running: &Running) {
    let admin = &running.admin;
    let (tenant, credential) = with_credential(running, "globex").await;
    let request = v1::ShredCredentialRequest { name: credential.to_string(), etag: String::new() };
    let method = "Credentials/ShredCredential";
    let erased = answered!(calls, admin, credentials.shred_credential, method, request.clone());
    let again = answered!(calls, admin, credentials.shred_credential, method, request);
    assert!(erased.receipt_index.is_some_and(|index| index > erased.log_index), "{erased:?}");
    assert_eq!(again, erased);
    let request = v1::ShredTenantRequest { name: tenant.resource(), etag: String::new() };
    let method = "Tenants/ShredTenant";
    let erased = answered!(calls, admin, tenants.shred_tenant, method, request.clone());
    let again = answered!(calls, admin, tenants.shred_tenant, method, request);
    assert_eq!((again.name.as_str(), &again), ("tenants/globex", &erased));

    let request = v1::CheckRowsRequest {};
    let mut seen = answered!(calls, admin, audit.check_rows, "Audit/CheckRows", request);
    let mut last = v1::CheckRowsResponse::default();
    while let Some(message) = seen.message().await.unwrap() {
        last = message;
    }
    assert!(last.done && last.tenants_checked == 2 && last.rows > 0, "{last:?}");
    assert_eq!((&*last.findings, &*last.unchecked_tenants), (&[][..], &[][..]));
}
