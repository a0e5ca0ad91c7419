//! The calls that are refused: each method, with a request that says nothing.

use strongroom_proto::v1;

use super::Calls;
use crate::harness::Running;

pub(super) async fn refuse_budgets(calls: &mut Calls, running: &Running) {
    refused!(calls, running.proxy, budgets:
        create_budget CreateBudgetRequest "Budgets/CreateBudget",
        delete_budget DeleteBudgetRequest "Budgets/DeleteBudget",
        get_budget GetBudgetRequest "Budgets/GetBudget",
        list_budgets ListBudgetsRequest "Budgets/ListBudgets",
        list_unknown_allowances ListUnknownAllowancesRequest "Budgets/ListUnknownAllowances",
        reconcile_allowances ReconcileAllowancesRequest "Budgets/ReconcileAllowances",
        update_budget UpdateBudgetRequest "Budgets/UpdateBudget",
    );
}

pub(super) async fn refuse_credentials(calls: &mut Calls, running: &Running) {
    refused!(calls, running.proxy, credentials:
        create_credential CreateCredentialRequest "Credentials/CreateCredential",
        delete_credential DeleteCredentialRequest "Credentials/DeleteCredential",
        disable_credential DisableCredentialRequest "Credentials/DisableCredential",
        enable_credential EnableCredentialRequest "Credentials/EnableCredential",
        shred_credential ShredCredentialRequest "Credentials/ShredCredential",
        get_credential GetCredentialRequest "Credentials/GetCredential",
        list_credentials ListCredentialsRequest "Credentials/ListCredentials",
        rotate_credential RotateCredentialRequest "Credentials/RotateCredential",
        start_rotation StartRotationRequest "Credentials/StartRotation",
        promote_rotation PromoteRotationRequest "Credentials/PromoteRotation",
        cancel_rotation CancelRotationRequest "Credentials/CancelRotation",
        test_credential TestCredentialRequest "Credentials/TestCredential",
    );
}

pub(super) async fn refuse_the_rest(calls: &mut Calls, running: &Running) {
    refused!(calls, running.proxy, identities:
        block_identity BlockIdentityRequest "Identities/BlockIdentity",
        list_blocked_identities ListBlockedIdentitiesRequest "Identities/ListBlockedIdentities",
        revoke_session RevokeSessionRequest "Identities/RevokeSession",
        unblock_identity UnblockIdentityRequest "Identities/UnblockIdentity",
    );
    refused!(calls, running.proxy, usage:
        query_usage QueryUsageRequest "Usage/QueryUsage",
        list_calls ListCallsRequest "Usage/ListCalls",
    );
    refused!(calls, running.proxy, prices:
        import_prices ImportPricesRequest "Prices/ImportPrices",
        set_tenant_prices SetTenantPricesRequest "Prices/SetTenantPrices",
    );
    let nobody =
        v1::GetPricesRequest { tenant: "tenants/nobody".into(), known_version: String::new() };
    let mut prices = running.proxy.prices();
    calls.refused("Prices/GetPrices", prices.get_prices(nobody)).await;
}

/// By one who may not call it, or else with a request that says nothing.
pub(super) async fn refuse_administration(calls: &mut Calls, running: &Running) {
    refused!(calls, running.proxy, tenants:
        create_tenant CreateTenantRequest "Tenants/CreateTenant",
        get_tenant GetTenantRequest "Tenants/GetTenant",
        list_tenants ListTenantsRequest "Tenants/ListTenants",
        resume_tenant ResumeTenantRequest "Tenants/ResumeTenant",
        shred_tenant ShredTenantRequest "Tenants/ShredTenant",
        suspend_tenant SuspendTenantRequest "Tenants/SuspendTenant",
        update_tenant UpdateTenantRequest "Tenants/UpdateTenant",
    );
    refused!(calls, running.proxy, virtual_keys:
        block_virtual_key BlockVirtualKeyRequest "VirtualKeys/BlockVirtualKey",
        retire_virtual_key_values RetireVirtualKeyValuesRequest "VirtualKeys/RetireVirtualKeyValues",
        rotate_virtual_key RotateVirtualKeyRequest "VirtualKeys/RotateVirtualKey",
        unblock_virtual_key UnblockVirtualKeyRequest "VirtualKeys/UnblockVirtualKey",
        update_virtual_key UpdateVirtualKeyRequest "VirtualKeys/UpdateVirtualKey",
        create_virtual_key CreateVirtualKeyRequest "VirtualKeys/CreateVirtualKey",
        get_virtual_key GetVirtualKeyRequest "VirtualKeys/GetVirtualKey",
        list_virtual_keys ListVirtualKeysRequest "VirtualKeys/ListVirtualKeys",
        revoke_virtual_key RevokeVirtualKeyRequest "VirtualKeys/RevokeVirtualKey",
    );
}
