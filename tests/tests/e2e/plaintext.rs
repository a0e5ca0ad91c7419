use std::fs;

use e2e::{Deployment, Forms, PROMPT, SAID, Sdk, files_with};

use crate::{ANTHROPIC_KEY, OPENAI_KEY, furnish, on_both_stacks};

on_both_stacks![no_file_ever_holds_a_key_or_what_was_said];

async fn no_file_ever_holds_a_key_or_what_was_said(deployment: Deployment) {
    const ROTATED: &str = "sk-proj-rotatedB8nWq3ZxYt6LkVc92MfRh07PdGsJ4";
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    Sdk::OpenAi.call(&deployment, &key, "every").await;
    Sdk::Anthropic.call(&deployment, &key, "every").await;
    deployment.rotate("tenants/acme/credentials/openai-prod", ROTATED).await;
    Sdk::OpenAi.call(&deployment, &key, "once").await;

    // The database, its journal, the log, keys and configuration of broker and proxy; what all of them
    // logged; and, where the database is a server, everything that the server keeps.
    let mut folders = vec![deployment.folder().to_owned(), e2e::logs()];
    folders.extend(e2e::server_files());
    for secret in [OPENAI_KEY, ANTHROPIC_KEY, ROTATED, &key, PROMPT, &SAID.concat()] {
        let forms = Forms::of(secret);
        for folder in &folders {
            let (found, read) = files_with(&forms, folder);
            assert_eq!(found, [], "{secret}");
            assert!(read > 0, "no files in {}", folder.display());
        }
    }

    // The search is worth something only if it finds what is there.
    let forms = Forms::of(OPENAI_KEY);
    for (at, (_, form)) in forms.iter().enumerate() {
        let planted = deployment.layout().data.join(format!("planted-{at}"));
        fs::write(planted, [b"before", form, b"after"].concat()).unwrap();
    }
    let (found, _) = files_with(&forms, deployment.folder());
    assert_eq!(found.len(), forms.iter().count(), "{found:?}");
    deployment.end().await;
}
