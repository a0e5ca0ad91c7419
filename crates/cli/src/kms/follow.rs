use std::time::Duration;

use serde::Serialize;
use strongroom_client::Transport;
use strongroom_proto::v1::{
    GetKmsStatusRequest, KmsStatus, TenantKek, key_work, kms_client::KmsClient,
};
use tokio::{select, signal::ctrl_c, time::sleep};

use crate::{context::Context, failure::Failure, output::printable};

/// What is waited for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Goal {
    /// A tenant's rows are under the newest version.
    Rotate(String),
    /// Every tenant has a new version, and all rows are under the newest.
    RotateAll,
    /// Every key of a root is under its current key.
    Rewrap(String),
}

/// What is told of it in the end.
#[derive(Debug, Serialize)]
pub(super) struct Followed {
    /// The record of its beginning; none if that was another call's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log_index: Option<u64>,
    pub(super) done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Share {
    done: u64,
    of: u64,
    reached: bool,
}

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// The bar's width on a terminal.
const WIDTH: usize = 30;

/// Shows how far it is until it is done. Who interrupts this interrupts nothing else.
pub(super) async fn follow(
    context: &Context,
    client: &mut KmsClient<Transport>,
    goal: &Goal,
    log_index: Option<u64>,
) -> Result<(), Failure> {
    let (mut told, mut hindered) = (None, String::new());
    loop {
        let tenant = if let Goal::Rotate(tenant) = goal { tenant.clone() } else { String::new() };
        let status = client.get_status(GetKmsStatusRequest { tenant }).await?.into_inner();
        let share = share(goal, &status);
        context.output.progress(&bar(share));
        let percent = share.done.saturating_mul(100).checked_div(share.of).unwrap_or(100);
        // For who keeps what is printed: a line for each tenth.
        if told != Some(percent / 10) && !context.output.shows_progress() {
            context.output.note(&format!("{} of {}", share.done, share.of));
            told = Some(percent / 10);
        }
        if share.reached {
            context.output.progress("");
            let result = Followed { log_index, done: true, count: Some(share.of) };
            return context.output.show(&result, |_| done(goal, share));
        }
        if status.last_error != hindered {
            hindered = status.last_error;
            context.output.progress("");
            context.output.note(&format!("hindered: {}", printable(&hindered)));
        }
        select! {
            () = sleep(LOOK) => {}
            interrupted = ctrl_c() => {
                interrupted.map_err(Failure::Runtime)?;
                context.output.progress("");
                let result = Followed { log_index, done: false, count: None };
                return context.output.show(&result, |_| {
                    "the broker goes on with it; `strongroom kms status` says how far it is"
                        .to_owned()
                });
            }
        }
    }
}

fn share(goal: &Goal, status: &KmsStatus) -> Share {
    let work = |kind: key_work::Kind, root: &str| {
        status.work.iter().any(|work| work.kind() == kind && work.root == root && work.done)
    };
    match goal {
        Goal::Rotate(_) => {
            let (done, of) = rows(&status.tenants);
            Share { done, of, reached: done == of }
        }
        Goal::RotateAll => {
            let (done, of) = rows(&status.tenants);
            let reached = done == of && work(key_work::Kind::RotateAll, "");
            Share { done, of, reached }
        }
        Goal::Rewrap(root) => {
            let found = status.roots.iter().find(|it| it.name == *root);
            let (done, outdated) = found.map_or((0, 0), |root| (root.keys, root.outdated_keys));
            Share { done, of: done + outdated, reached: work(key_work::Kind::Rewrap, root) }
        }
    }
}

/// Rows under the newest versions, and all.
fn rows(tenants: &[TenantKek]) -> (u64, u64) {
    let newest = tenants.iter().filter_map(|kek| kek.versions.first());
    let all = tenants.iter().flat_map(|kek| &kek.versions);
    (newest.map(|it| it.references).sum(), all.map(|it| it.references).sum())
}

fn bar(share: Share) -> String {
    let Share { done, of, .. } = share;
    let width = u64::try_from(WIDTH).unwrap_or_default();
    let filled = done.saturating_mul(width).checked_div(of).unwrap_or_default().min(width);
    let filled = usize::try_from(filled).unwrap_or_default();
    format!("[{}{}] {done} of {of}", "#".repeat(filled), "-".repeat(WIDTH - filled))
}

fn done(goal: &Goal, share: Share) -> String {
    match goal {
        Goal::Rotate(_) | Goal::RotateAll => {
            "done: everything is under the newest version. Older ones are deleted once they have \
             had nothing under them for `limits.kek_ttl`"
                .to_owned()
        }
        Goal::Rewrap(_) => format!("done: {} keys are under the current root key", share.done),
    }
}

#[cfg(test)]
mod tests {
    use strongroom_proto::v1::{KekVersion, KeyWork, RootKey};

    use super::*;

    fn kek(references: &[u64]) -> TenantKek {
        let version =
            |references: &u64| KekVersion { references: *references, ..Default::default() };
        TenantKek { versions: references.iter().map(version).collect(), ..Default::default() }
    }

    #[test]
    fn a_rotation_is_done_when_all_rows_are_under_the_newest_version() {
        let goal = Goal::Rotate("tenants/acme".to_owned());
        let status = |tenants| KmsStatus { tenants, ..Default::default() };
        let share = |tenants| share(&goal, &status(tenants));
        let part = share(vec![kek(&[5, 15])]);
        assert_eq!(part, Share { done: 5, of: 20, reached: false });
        assert_eq!(bar(part), format!("[#######{}] 5 of 20", "-".repeat(23)));
        assert!(share(vec![kek(&[20, 0])]).reached);
        assert!(share(vec![kek(&[20])]).reached);
    }

    #[test]
    fn what_is_done_to_all_is_done_when_the_broker_says_so() {
        let work = |kind: key_work::Kind, done| KeyWork {
            kind: kind.into(),
            root: "hsm".to_owned(),
            done,
            begin_time: None,
        };
        let root = RootKey { name: "hsm".into(), keys: 3, outdated_keys: 1, ..Default::default() };
        let mut status = KmsStatus {
            roots: vec![root],
            work: vec![work(key_work::Kind::Rewrap, false)],
            ..Default::default()
        };
        let goal = Goal::Rewrap("hsm".to_owned());
        assert_eq!(share(&goal, &status), Share { done: 3, of: 4, reached: false });
        status.work = vec![work(key_work::Kind::Rewrap, true)];
        assert!(share(&goal, &status).reached);
        assert!(!share(&Goal::Rewrap(String::new()), &status).reached, "another root");
        assert!(!share(&Goal::RotateAll, &status).reached);
        assert_eq!(
            bar(Share { done: 0, of: 0, reached: false }),
            format!("[{}] 0 of 0", "-".repeat(30))
        );
    }
}
