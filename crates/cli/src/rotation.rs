use std::time::Duration;

use clap::Args;
use domain::{Clock as _, CredentialName, SystemClock, Timestamp};
use strongroom_client::Broker;
use strongroom_proto::v1::{
    CancelRotationRequest, Credential, GetCredentialRequest, PromoteRotationRequest, RotationPlan,
};
use tokio::{
    signal::unix::{self, SignalKind},
    time,
};

use crate::{
    context::Context,
    credentials::{Named, human, request_id, warned},
    expiry,
    failure::Failure,
    output::list,
    secret_input,
    views::{CountsView, CredentialView, RotationView},
};

#[derive(Args, Debug)]
pub(crate) struct Rotate {
    #[command(flatten)]
    named: Named,
    /// Begin with this share of the leases, 1% to 99%, then 25%, then all; the old key serves on where
    /// the new one is refused, and if it is refused the rotation is set back.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    canary: Option<u32>,
    /// How long each share lasts; 2m when absent.
    #[arg(long, requires = "canary", value_parser = expiry::parse)]
    hold: Option<Duration>,
    /// How long the old key's leases go on once all new ones are of the new key; 5m when absent.
    #[arg(long, requires = "canary", value_parser = expiry::parse)]
    overlap: Option<Duration>,
    /// Keep the old key's ciphertext when all is done. It is never lent again.
    #[arg(long, requires = "canary")]
    keep_previous: bool,
    /// Do not wait until it is done.
    #[arg(long, requires = "canary")]
    detach: bool,
    /// Store the secret without trying it out at its provider first.
    #[arg(long)]
    no_test: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    #[command(flatten)]
    named: Named,
    /// Go on without waiting: to the new key for all, and then to the old one's end.
    #[arg(long, conflicts_with_all = ["cancel", "watch"])]
    promote: bool,
    /// Go back to the old key.
    #[arg(long, conflicts_with = "watch")]
    cancel: bool,
    /// Show each step until it is done; with `--json`, one on each line.
    #[arg(long)]
    watch: bool,
}

/// How often the broker is asked. Each time is on record.
const LOOK: Duration = Duration::from_secs(3);

impl Rotate {
    pub(crate) async fn run(self, context: &Context, broker: &Broker) -> Result<(), Failure> {
        let (name, etag) = (self.named.name(), self.named.etag());
        let secret = secret_input::read(&format!("The new secret of {name} (not shown): "))?;
        let id = request_id()?;
        let Some(canary_percent) = self.canary else {
            let rotated = if self.no_test {
                broker.rotate_credential(name, &secret, etag, &id).await?
            } else {
                broker.rotate_tested_credential(name, &secret, etag, &id).await?
            };
            return context.output.show(&CredentialView::from(warned(context, rotated)), human);
        };
        let plan = RotationPlan {
            canary_percent,
            hold: self.hold.and_then(|hold| hold.try_into().ok()),
            overlap: self.overlap.and_then(|overlap| overlap.try_into().ok()),
            keep_previous: self.keep_previous,
        };
        let test = !self.no_test;
        let started = broker.start_rotation(name, &secret, plan, etag, &id, test).await?;
        drop(secret);
        let started = warned(context, started);
        if self.detach {
            context.output.note(&how_to_watch(name));
            return show(context, name, started);
        }
        watch(context, broker, name, started).await
    }
}

impl Show {
    pub(crate) async fn run(self, context: &Context, broker: &Broker) -> Result<(), Failure> {
        let name = self.named.name();
        let etag = self.named.etag().unwrap_or_default().to_owned();
        let resource = name.to_string();
        let credential = if self.promote {
            let request = PromoteRotationRequest { name: resource, etag };
            broker.credentials().promote_rotation(request).await?.into_inner()
        } else if self.cancel {
            let request = CancelRotationRequest { name: resource, etag };
            broker.credentials().cancel_rotation(request).await?.into_inner()
        } else {
            get(broker, name).await?
        };
        if self.watch {
            return watch(context, broker, name, credential).await;
        }
        show(context, name, credential)
    }
}

async fn get(broker: &Broker, name: &CredentialName) -> Result<Credential, Failure> {
    let request = GetCredentialRequest { name: name.to_string() };
    Ok(broker.credentials().get_credential(request).await?.into_inner())
}

fn show(context: &Context, name: &CredentialName, credential: Credential) -> Result<(), Failure> {
    context.output.show(&rotation_of(name, credential)?, details)
}

fn rotation_of(name: &CredentialName, credential: Credential) -> Result<RotationView, Failure> {
    let none = || Failure::NothingFound { what: format!("{name} was never rotated in steps") };
    credential.rotation.map(RotationView::from).ok_or_else(none)
}

/// Shows each step until the rotation is over, or until the user has seen enough: it goes on without
/// anybody who watches.
async fn watch(
    context: &Context,
    broker: &Broker,
    name: &CredentialName,
    first: Credential,
) -> Result<(), Failure> {
    let mut rotation = rotation_of(name, first)?;
    let operation = rotation.operation_id.clone();
    let mut shown = None;
    // Listens from here on, so that no interrupt after the first line ends this without a word.
    let mut interrupt = unix::signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
    loop {
        if shown.as_ref() != Some(&rotation) {
            context.output.show(&rotation, told)?;
        }
        if rotation.operation_id != operation || rotation.state == "done" {
            return Ok(());
        }
        if rotation.state == "rolled_back" {
            let because = rotation.because.clone();
            return Err(Failure::SetBack { name: name.to_string(), because });
        }
        context.output.progress(&remaining(&rotation, SystemClock.now()));
        shown = Some(rotation);
        tokio::select! {
            _ = interrupt.recv() => {
                context.output.note(&format!("\n{}", how_to_watch(name)));
                return Ok(());
            }
            () = time::sleep(LOOK) => {}
        }
        rotation = match get(broker, name).await {
            Ok(credential) => rotation_of(name, credential)?,
            // The rotation does not need this program, and the broker may come back.
            Err(failure) if failure.is_unreachable() => {
                context.output.note(&format!("{}; it goes on", failure.message()));
                shown.take().ok_or(failure)?
            }
            Err(failure) => return Err(failure),
        };
    }
}

fn how_to_watch(name: &CredentialName) -> String {
    let name = format!("{}/{}", name.tenant, name.credential);
    let show = format!("strongroom credentials rotation {name}");
    format!(
        "the rotation goes on by itself.\n  watch:   {show} --watch\n  promote: {show} --promote\n  \
         cancel:  {show} --cancel"
    )
}

/// A rotation on one line.
pub(crate) fn told(rotation: &RotationView) -> String {
    let (new, old) = (rotation.candidate_version, rotation.previous_version);
    let step = match rotation.state {
        "canary" => format!("canary: version {new} serves {} % of new leases", rotation.percent),
        "overlap" => format!("overlap: version {new} serves all new leases, {old} ends"),
        "done" => format!("done: version {new} serves alone"),
        "rolled_back" => {
            format!("set back ({}): version {old} serves alone", rotation.because)
        }
        other => other.to_owned(),
    };
    let seen = [(new, &rotation.candidate), (old, &rotation.previous)];
    let seen = seen.map(|(version, counts)| counted(version, counts));
    let waits = if rotation.waits {
        "; waits until a call is answered with the new key: `--promote` goes on without"
    } else {
        ""
    };
    format!("{step}; {}{waits}", seen.join(", "))
}

fn counted(version: u64, counts: &CountsView) -> String {
    let failures = counts.refused + counts.no_quota + counts.not_allowed;
    format!("version {version}: {} leases, {failures} refusals", counts.leases)
}

fn details(rotation: &RotationView) -> String {
    list([
        ("rotation", told(rotation)),
        ("operation", rotation.operation_id.clone()),
        ("began", rotation.start_time.clone()),
        ("this step", rotation.step_time.clone()),
        ("next step", rotation.next_step_time.clone()),
        ("time left", remaining(rotation, SystemClock.now())),
    ])
}

/// How long until the next step.
fn remaining(rotation: &RotationView, now: Timestamp) -> String {
    let Ok(next) = rotation.next_step_time.parse::<jiff::Timestamp>() else {
        return String::new();
    };
    let seconds = Timestamp::from_millis(next.as_millisecond()).since(now).as_secs();
    format!("{} min {} s until the next step", seconds / 60, seconds % 60)
}

/// Reads `5%` or `5`.
fn percent(text: &str) -> Result<u32, &'static str> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    match number {
        Ok(percent @ 1..=99) => Ok(percent),
        Ok(_) | Err(_) => Err("a share is 1% to 99%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(state: &'static str) -> RotationView {
        RotationView {
            operation_id: "op-1".to_owned(),
            state,
            percent: 5,
            candidate_version: 4,
            previous_version: 3,
            canary_percent: 5,
            hold_seconds: 120,
            overlap_seconds: 300,
            keep_previous: false,
            start_time: "2023-11-14T22:13:20Z".to_owned(),
            step_time: "2023-11-14T22:13:20Z".to_owned(),
            next_step_time: "2023-11-14T22:15:20Z".to_owned(),
            waits: false,
            because: "credential_refused".to_owned(),
            candidate: CountsView { leases: 2, refused: 1, no_quota: 0, not_allowed: 1 },
            previous: CountsView { leases: 30, ..CountsView::default() },
        }
    }

    #[test]
    fn a_rotation_is_told_on_one_line() {
        let told = told(&rotation("canary"));
        let expected = "canary: version 4 serves 5 % of new leases; \
                        version 4: 2 leases, 2 refusals, version 3: 30 leases, 0 refusals";
        assert_eq!(told, expected);
        let waiting = super::told(&RotationView { waits: true, ..rotation("canary") });
        assert!(waiting.starts_with(expected) && waiting.contains("`--promote`"), "{waiting}");
        let back = super::told(&rotation("rolled_back"));
        assert!(
            back.starts_with("set back (credential_refused): version 3 serves alone"),
            "{back}"
        );
    }

    #[test]
    fn the_time_that_is_left_is_told() {
        let at = |seconds: i64| Timestamp::from_millis(1000 * (1_700_000_000 + seconds));
        let left = |seconds| remaining(&rotation("canary"), at(seconds));
        assert_eq!(left(15), "1 min 45 s until the next step");
        assert_eq!(left(500), "0 min 0 s until the next step");
        let over = RotationView { next_step_time: String::new(), ..rotation("done") };
        assert_eq!(remaining(&over, at(0)), "");
    }

    #[test]
    fn a_share_is_a_number_with_or_without_its_sign() {
        assert_eq!((percent("5%"), percent("99")), (Ok(5), Ok(99)));
        for wrong in ["0", "100%", "x", "-5%", "5%%", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
