use strongroom_proto::v1;

use super::Calls;
use crate::harness::Running;

/// What is done to a virtual key, until it is revoked.
pub(super) async fn change_key(calls: &mut Calls, running: &Running, name: &str) {
    let (admin, name) = (&running.admin, || name.to_owned());
    let key = v1::VirtualKey { name: name(), ..Default::default() };
    let request = v1::UpdateVirtualKeyRequest { virtual_key: Some(key), update_mask: None };
    let method = "VirtualKeys/UpdateVirtualKey";
    answered!(calls, admin, virtual_keys.update_virtual_key, method, request);
    let key_sha256 = vec![1; 32].into();
    let request = v1::RotateVirtualKeyRequest { name: name(), key_sha256, ..Default::default() };
    let method = "VirtualKeys/RotateVirtualKey";
    answered!(calls, admin, virtual_keys.rotate_virtual_key, method, request);
    let request = v1::RetireVirtualKeyValuesRequest { name: name() };
    let method = "VirtualKeys/RetireVirtualKeyValues";
    answered!(calls, admin, virtual_keys.retire_virtual_key_values, method, request);
    let request = v1::BlockVirtualKeyRequest { name: name() };
    let method = "VirtualKeys/BlockVirtualKey";
    answered!(calls, admin, virtual_keys.block_virtual_key, method, request);
    let request = v1::UnblockVirtualKeyRequest { name: name() };
    let method = "VirtualKeys/UnblockVirtualKey";
    answered!(calls, admin, virtual_keys.unblock_virtual_key, method, request);
    let request = v1::RevokeVirtualKeyRequest { name: name() };
    let method = "VirtualKeys/RevokeVirtualKey";
    answered!(calls, admin, virtual_keys.revoke_virtual_key, method, request);
}

/// What is done to a tenant's key and to the root key, until it is done.
pub(super) async fn rotate_keys(calls: &mut Calls, running: &Running) {
    let admin = &running.admin;
    let rotate = || v1::RotateKekRequest { tenant: "tenants/acme".into(), request_id: "r".into() };
    answered!(calls, admin, kms.rotate_kek, "Kms/RotateKek", rotate());
    let again = answered!(calls, admin, kms.rotate_kek, "Kms/RotateKek", rotate());
    assert_eq!(again.log_index, 0);
    let request = v1::RewrapKeysRequest::default();
    answered!(calls, admin, kms.rewrap_keys, "Kms/RewrapKeys", request);
    loop {
        let request = v1::GetKmsStatusRequest::default();
        let status = answered!(calls, admin, kms.get_status, "Kms/GetStatus", request);
        let [root] = &*status.roots else { panic!("{status:?}") };
        assert!(root.healthy && root.outdated_keys == 0 && root.keys >= 4, "{root:?}");
        assert_eq!(status.last_error, "");
        let stale = status.tenants.iter().flat_map(|kek| kek.versions.iter().skip(1));
        if stale.map(|version| version.references).sum::<u64>() == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
}
