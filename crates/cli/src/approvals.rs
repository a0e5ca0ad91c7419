mod proposed;

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    str::FromStr,
};

use clap::Subcommand;
use serde::Serialize;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    Approval, ApproveRequest, DeclineRequest, GetApprovalRequest, ListApprovalsRequest, approval,
};

pub(crate) use self::proposed::admit;
use self::proposed::{Done, Proposed};
use crate::{
    context::Context,
    failure::Failure,
    output::{list, printable, table},
    views,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists what was proposed within the last day.
    List,
    /// Shows what was proposed, in full.
    Show {
        /// Its id, as `list` and the refused command show it.
        id: ApprovalArg,
    },
    /// Approves what somebody else has proposed, once it was shown.
    Approve {
        /// Its id.
        id: ApprovalArg,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Declines what was proposed, or takes it back.
    Decline {
        /// Its id.
        id: ApprovalArg,
    },
    /// Does what oneself has proposed and another has approved, just as it was.
    Run {
        /// Its id.
        id: ApprovalArg,
    },
}

/// An approval as people write it: `{id}` or `approvals/{id}`.
#[derive(Clone, Debug)]
pub(crate) struct ApprovalArg(String);

impl FromStr for ApprovalArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let id = text.strip_prefix("approvals/").unwrap_or(text);
        if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(format!("approvals/{id}")))
        } else {
            Err("an approval's id has 32 hex digits")
        }
    }
}

#[derive(Serialize)]
struct ApprovalView {
    name: String,
    method: String,
    tenant: String,
    state: &'static str,
    proposer: String,
    decider: String,
    propose_time: String,
    expire_time: String,
    log_index: u64,
    request_sha256: String,
    /// What would be done; in a list, nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<String>,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let broker = context.broker()?;
        let mut client = broker.approvals();
        match self {
            Self::List => {
                let listed = client.list_approvals(ListApprovalsRequest {}).await?.into_inner();
                let views = listed.approvals.into_iter().map(|it| view(it, Vec::new()));
                let views: Vec<_> = views.collect();
                context.output.show(&serde_json::json!({ "approvals": views }), |_| rows(&views))
            }
            Self::Show { id } => {
                let (approval, proposed) = seen(&broker, &id).await?;
                let what = proposed.describe(&broker).await;
                context.output.show(&view(approval, what), human)
            }
            Self::Approve { id, yes } => {
                let (approval, proposed) = seen(&broker, &id).await?;
                let request_sha256 = approval.request_sha256.clone();
                let shown = view(approval, proposed.describe(&broker).await);
                if !yes {
                    confirm(&human(&shown))?;
                }
                let request = ApproveRequest { name: id.0, request_sha256 };
                let approved = client.approve(request).await?.into_inner();
                let next = format!(
                    "approved; {} can do it now: strongroom approvals run {}",
                    shown.proposer,
                    short(&shown.name)
                );
                context.output.show(&view(approved, shown.what), |_| next)
            }
            Self::Decline { id } => {
                let declined = client.decline(DeclineRequest { name: id.0 }).await?.into_inner();
                context.output.show(&view(declined, Vec::new()), |it| {
                    format!("{} is declined", short(&it.name))
                })
            }
            Self::Run { id } => {
                let (approval, proposed) = seen(&broker, &id).await?;
                // How an erasure stands is asked by the same call, and needs nobody else.
                let is_over = approval.state() == approval::State::Used && !proposed.is_erasure();
                let done = if is_over {
                    Done::before()
                } else {
                    may_run(&broker, &approval)?;
                    proposed.run(&broker).await?
                };
                context.output.show(&done, |done| done.text.clone())
            }
        }
    }
}

/// What was proposed; what is shown must be what the digest is of, whatever the broker says.
async fn seen(broker: &Broker, id: &ApprovalArg) -> Result<(Approval, Proposed), Failure> {
    let request = GetApprovalRequest { name: id.0.clone() };
    let approval = broker.approvals().get_approval(request).await?.into_inner();
    let proposed = Proposed::read(&approval)?;
    Ok((approval, proposed))
}

/// Whether the call would be what was proposed, and not another proposal.
fn may_run(broker: &Broker, approval: &Approval) -> Result<(), Failure> {
    let over = match approval.state() {
        approval::State::Declined => "it was declined: propose it anew, by the command itself",
        approval::State::Expired => "its day is over: propose it anew, by the command itself",
        approval::State::Unspecified
        | approval::State::Proposed
        | approval::State::Approved
        | approval::State::Used => {
            let own = broker.own_identity().map(|own| own.to_string());
            return match own {
                Some(own) if own != approval.proposer => {
                    Err(Failure::NotProposer { proposer: approval.proposer.clone() })
                }
                Some(_) | None => Ok(()),
            };
        }
    };
    Err(Failure::Over(over))
}

fn view(approval: Approval, what: Vec<String>) -> ApprovalView {
    let state = match approval.state() {
        approval::State::Unspecified => "unknown",
        approval::State::Proposed => "proposed",
        approval::State::Approved => "approved",
        approval::State::Declined => "declined",
        approval::State::Used => "used",
        approval::State::Expired => "expired",
    };
    ApprovalView {
        state,
        what,
        name: approval.name,
        method: approval.method,
        tenant: approval.tenant,
        proposer: approval.proposer,
        decider: approval.decider,
        propose_time: views::time(approval.propose_time),
        expire_time: views::time(approval.expire_time),
        log_index: approval.log_index,
        request_sha256: hex::encode(&approval.request_sha256),
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("approvals/").unwrap_or(name)
}

fn rows(views: &[ApprovalView]) -> String {
    let row = |it: &ApprovalView| {
        [
            short(&it.name).to_owned(),
            it.method.clone(),
            it.tenant.clone(),
            it.state.to_owned(),
            it.proposer.clone(),
            it.expire_time.clone(),
        ]
    };
    let header = ["ID", "METHOD", "TENANT", "STATE", "PROPOSED BY", "ENDS"];
    table(header, views.iter().map(row).collect())
}

fn human(view: &ApprovalView) -> String {
    let mut text = list([
        ("approval", short(&view.name).to_owned()),
        ("method", view.method.clone()),
        ("tenant", view.tenant.clone()),
        ("state", view.state.to_owned()),
        ("proposed by", view.proposer.clone()),
        ("decided by", view.decider.clone()),
        ("proposed", view.propose_time.clone()),
        ("ends", view.expire_time.clone()),
        ("request", view.request_sha256.clone()),
    ]);
    for line in &view.what {
        text.push_str(&printable(line));
        text.push('\n');
    }
    text
}

fn confirm(shown: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::NotConfirmed);
    }
    let mut asked = io::stderr().lock();
    write!(asked, "{shown}\nType `approve` to approve exactly this: ")
        .and_then(|()| asked.flush())
        .map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Failure::Input)?;
    if answer.trim() == "approve" { Ok(()) } else { Err(Failure::NotConfirmed) }
}
