use std::{fs, time::Duration};

use domain::SystemClock;
use e2e::Deployment;
use setup::Pki;
use strongroom_proto::v1::{GetTenantRequest, ListTenantsRequest};
use tonic::Code;

use crate::{furnish, on_both_stacks};

on_both_stacks![
    a_certificate_decides_what_its_holder_may_call,
    a_foreign_or_expired_certificate_reaches_nothing,
];

async fn a_foreign_or_expired_certificate_reaches_nothing(deployment: Deployment) {
    furnish(&deployment).await;
    let pki = &deployment.layout().pki;
    // The same names, from an authority that nobody trusts.
    let foreign = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(SystemClock);
    let authority = Pki::create(foreign.path(), "strongroom.local", clock).unwrap();
    authority.issue(foreign.path(), "foreign", "admin/local", DAY).unwrap();
    for file in ["foreign.pem", "foreign.key"] {
        fs::copy(foreign.path().join(file), pki.join(file)).unwrap();
    }
    // Certificates begin five minutes early, so that one without a lifetime ended just now.
    deployment.pki().issue(pki, "expired", "admin/local", Duration::ZERO).unwrap();

    let caller = deployment.connect("foreign");
    let refused = caller.tenants().list_tenants(ListTenantsRequest::default()).await;
    // The connection ends before anyone has answered; in which way depends on the moment.
    let code = refused.unwrap_err().code();
    assert!(matches!(code, Code::Cancelled | Code::Unavailable | Code::Unknown), "{code:?}");
    // Our own client would not even try with an expired certificate.
    let (address, pki) = (deployment.broker().to_string(), pki.to_str().unwrap());
    for name in ["foreign", "expired"] {
        let said = e2e::fails("grpc_lease.py", &[&address, pki, name, "acme", "openai"]).await;
        // Either the handshake fails or, for a certificate that ends just after it, the call.
        let refused = ["StatusCode.UNAVAILABLE", "StatusCode.UNAUTHENTICATED"];
        assert!(refused.iter().any(|status| said.contains(status)), "{name}: {said}");
    }
    let log = deployment.end().await;
    let actors = log.records().into_iter().map(|record| record.actor).collect::<Vec<_>>();
    assert!(actors.iter().all(|actor| {
        ["", "spiffe://strongroom.local/admin/local", "spiffe://strongroom.local/inference-proxy"]
            .contains(&&**actor)
    }));
}

async fn a_certificate_decides_what_its_holder_may_call(deployment: Deployment) {
    furnish(&deployment).await;
    deployment.pki().issue(&deployment.layout().pki, "nobody", "nobody", DAY).unwrap();

    for name in ["nobody", "service", "inference-proxy"] {
        let caller = deployment.connect(name);
        let request = GetTenantRequest { name: "tenants/acme".to_owned() };
        let refused = caller.tenants().get_tenant(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{name}");
    }
    let log = deployment.end().await;
    let refused = log.records().into_iter().filter(|record| record.reason() == NOT_PERMITTED);
    let actors = refused.map(|record| record.actor).collect::<Vec<_>>();
    assert_eq!(
        actors,
        [
            "spiffe://strongroom.local/nobody",
            "spiffe://strongroom.local/service",
            "spiffe://strongroom.local/inference-proxy",
        ]
    );
}

const DAY: Duration = Duration::from_hours(24);
const NOT_PERMITTED: audit::Reason = audit::Reason::NotPermitted;
