//! Whether credentials work, found out at the stand-ins of all providers: each says so in its own way, on
//! a path of its own, and what it says of a key that it does not know is read as it is meant.

use domain::{CredentialName, Secret};
use e2e::{Backing, Deployment};
use strongroom_proto::v1::{self, credential_test::Verdict};
use testkit::StandIn;

#[tokio::test(flavor = "multi_thread")]
async fn each_providers_key_is_known_from_one_that_is_not() {
    let mut stand_ins = Vec::new();
    for slug in StandIn::slugs() {
        stand_ins.push(StandIn::start(slug).await.unwrap());
    }
    let deployment = Deployment::before(Backing::Embedded, &stand_ins).await;
    deployment.create_tenant("acme").await;
    let admin = deployment.admin();
    for stand_in in &stand_ins {
        let (slug, stored) = (stand_in.slug(), deployment.store_for("acme", stand_in).await);
        let name: CredentialName = stored.name.parse().unwrap();
        let tested = admin.test_credential(&name).await.unwrap();
        assert_eq!(tested.test.unwrap().verdict(), Verdict::Valid, "{slug}");

        let wrong = stand_in.key().replace(['Q', '5'], "x");
        admin.rotate_credential(&name, &Secret::new(wrong.into()), None, "").await.unwrap();
        let tested = admin.test_credential(&name).await.unwrap().test.unwrap();
        let expected = match slug {
            // They say less than others of a key that they do not know.
            "cloudflare" => Verdict::RegionOrPermission,
            "perplexity" => Verdict::Unverifiable,
            _ => Verdict::Invalid,
        };
        assert_eq!((tested.verdict(), tested.version), (expected, 2), "{slug}");
        // Both went to one path, proven in the provider's way.
        let calls = stand_in.calls();
        assert_eq!(calls.len(), 2, "{slug}");
        assert_eq!((calls[0].status, &calls[0].wrong), (200, &None), "{slug}");
        assert_eq!(calls[0].path, calls[1].path, "{slug}");
    }
    deployment.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_tried_out_at_its_provider_first() {
    let stand_ins = [StandIn::start("openai").await.unwrap()];
    let deployment = Deployment::before(Backing::Embedded, &stand_ins).await;
    deployment.create_tenant("acme").await;
    let (tenant, id) = ("acme".parse().unwrap(), "openai".parse().unwrap());
    let spec = v1::Credential { provider: "openai".to_owned(), ..v1::Credential::default() };
    let secret = Secret::new(stand_ins[0].key().as_bytes().to_vec());
    let admin = deployment.admin();
    let stored = admin.create_tested_credential(&tenant, &id, spec, &secret, "").await.unwrap();
    assert_eq!(stored.test.as_ref().unwrap().verdict(), Verdict::Valid, "{stored:?}");

    // The provider withdraws it: a test on demand tells, and the credential stays as it is.
    let name: CredentialName = stored.name.parse().unwrap();
    let gone = Secret::new(b"sk-proj-gone0123456789abcdefghij".to_vec());
    let refused = admin.rotate_tested_credential(&name, &gone, None, "").await.unwrap_err();
    assert!(format!("{refused:?}").contains("SECRET_REFUSED"), "{refused:?}");
    admin.rotate_credential(&name, &gone, None, "").await.unwrap();
    let tested = admin.test_credential(&name).await.unwrap();
    assert_eq!(tested.test.as_ref().unwrap().verdict(), Verdict::Invalid);
    assert_eq!(tested.state(), v1::credential::State::Enabled);
    deployment.end().await;
}
