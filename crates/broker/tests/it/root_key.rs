//! The root key is changed, as the operations guide says.

use audit::Kind;
use strongroom_proto::v1;

use crate::{
    harness::{Running, layout},
    lending::with_credential,
    process::command,
};

async fn status(running: &Running) -> v1::KmsStatus {
    let request = v1::GetKmsStatusRequest::default();
    running.admin.kms().get_status(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn keys_are_wrapped_under_an_added_root_key_and_lend_as_before() {
    let (folder, layout) = layout();
    let running = Running::start_in(folder, layout).await;
    with_credential(&running, "acme").await;
    let (_, folder, layout) = running.end_and_keep().await;
    for (arguments, added) in
        [(&["add-root-key"][..], true), (&["add-root-key", "--root", "x"], false)]
    {
        let status = command(&layout).args(arguments).status().unwrap();
        assert_eq!(status.success(), added);
    }

    let running = Running::start_in(folder, layout).await;
    let before = status(&running).await.roots;
    assert_eq!((before[0].keys, before[0].outdated_keys), (0, 3));
    let request = v1::RewrapKeysRequest { request_id: "r-1".into(), ..Default::default() };
    running.admin.kms().rewrap_keys(request).await.unwrap();
    let after = loop {
        let status = status(&running).await;
        if status.work.iter().all(|work| work.done) {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((after.roots[0].keys, after.roots[0].outdated_keys), (3, 0));
    assert_eq!((after.rewrapped, &*after.last_error), (3, ""));
    assert_eq!(after.roots[0].current_key, before[0].current_key);

    // With nothing in memory.
    let (records, folder, layout) = running.end_and_keep().await;
    let rewrapped = records.iter().filter(|record| record.kind() == Kind::KeyRewrapped);
    assert_eq!(rewrapped.count(), 3);
    let running = Running::start_in(folder, layout).await;
    let (name, etag) = ("tenants/acme/credentials/openai".to_owned(), String::new());
    let request = v1::DisableCredentialRequest { name, etag };
    running.admin.credentials().disable_credential(request).await.unwrap();
    running.end().await;
}
