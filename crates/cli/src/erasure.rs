use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use audit::{Kind, Record};
use clap::Args;
use domain::CredentialName;
use serde::Serialize;
use serde_json::json;
use strongroom_client::Transport;
use strongroom_proto::v1::{
    Erasure, ListRecordsRequest, RecordFilter, ShredCredentialRequest, ShredTenantRequest,
    audit_client::AuditClient,
};
use tokio::time::sleep;

use crate::{
    audit_prove,
    context::Context,
    failure::Failure,
    names::{CredentialArg, TenantArg},
    output::list,
    views::{RecordView, time},
};

#[derive(Args, Debug)]
pub(crate) struct ShredTenant {
    /// The tenant, such as `acme`.
    tenant: TenantArg,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
pub(crate) struct ShredCredential {
    /// The credential, such as `acme/openai-prod`.
    credential: CredentialArg,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct How {
    /// Erase it only if it is still as it was when this was read.
    #[arg(long)]
    etag: Option<String>,
    /// Erase without being asked.
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Receipt {
    /// What was erased: a tenant, such as `acme`, or a credential, such as `acme/openai-prod`.
    erased: Erased,
    /// Where the proof is written; the receipt goes beside it, into `FILE.record`.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone, Debug)]
enum Erased {
    Tenant(TenantArg),
    Credential(CredentialArg),
}

impl FromStr for Erased {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let credential = CredentialArg::from_str(text).map(Self::Credential);
        credential.or_else(|_| TenantArg::from_str(text).map(Self::Tenant)).map_err(|_| {
            "name a tenant, such as `acme`, or a credential, such as `acme/openai-prod`".to_owned()
        })
    }
}

/// What became of an erasure.
#[derive(Debug, Serialize)]
struct ErasureView {
    erased: String,
    log_index: u64,
    receipt_index: u64,
    destroy_time: String,
    copies_until_time: String,
}

impl ShredTenant {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = self.tenant.0.resource();
        let what = "with all its credentials, virtual keys and budgets";
        self.how.confirm(&name, what)?;
        let request = ShredTenantRequest { name, etag: self.how.etag.unwrap_or_default() };
        let erasure = context.broker()?.tenants().shred_tenant(request).await?.into_inner();
        show(context, erasure)
    }
}

impl ShredCredential {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let name = self.credential.0.to_string();
        self.how.confirm(&name, "with all its versions")?;
        let request = ShredCredentialRequest { name, etag: self.how.etag.unwrap_or_default() };
        let erasure = context.broker()?.credentials().shred_credential(request).await?;
        show(context, erasure.into_inner())
    }
}

impl How {
    /// Asks on a terminal. Without one there is nobody to ask, and nothing is erased.
    fn confirm(&self, name: &str, with: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::NotConfirmed);
        }
        let mut asked = io::stderr().lock();
        write!(
            asked,
            "Erase {name} {with}? Its leases end now. No backup of the database brings it back, and \
             nobody can undo this. Type `shred` to confirm: "
        )
        .and_then(|()| asked.flush())
        .map_err(Failure::Output)?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(Failure::Input)?;
        if answer.trim() == "shred" { Ok(()) } else { Err(Failure::NotConfirmed) }
    }
}

fn show(context: &Context, erasure: Erasure) -> Result<(), Failure> {
    let Some(receipt_index) = erasure.receipt_index else {
        return Err(Failure::SharesStand { name: erasure.name });
    };
    let view = ErasureView {
        erased: erasure.name,
        log_index: erasure.log_index,
        receipt_index,
        destroy_time: time(erasure.destroy_time),
        copies_until_time: time(erasure.copies_until_time),
    };
    context.output.show(&view, |view| {
        let rows = list([
            ("erased", view.erased.clone()),
            ("on record", view.log_index.to_string()),
            ("receipt", view.receipt_index.to_string()),
            ("shares destroyed", view.destroy_time.clone()),
        ]);
        format!("{rows}\n{}", window(&view.copies_until_time))
    })
}

/// What a receipt does not claim.
fn window(until: &str) -> String {
    format!(
        "Backups of the store of shares may have the shares until {until}, as its operator has \
         configured. Until then, whoever has one of these, a backup of the database and the KMS can \
         open what was erased."
    )
}

impl Receipt {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (tenant, credential) = match &self.erased {
            Erased::Tenant(tenant) => (tenant.0.resource(), None),
            Erased::Credential(credential) => {
                (credential.0.tenant.resource(), Some(credential.0.clone()))
            }
        };
        let mut client = context.broker()?.audit();
        let kinds = [Kind::SharesDestroyed, Kind::CredentialShredded, Kind::TenantShredded];
        let filter =
            RecordFilter { kinds: kinds.map(i32::from).to_vec(), ..RecordFilter::default() };
        let mut from_index = 0;
        let mut receipts = Vec::new();
        let receipt = loop {
            let request = ListRecordsRequest {
                from_index,
                tenant: tenant.clone(),
                filter: Some(filter.clone()),
                newest_first: true,
                ..ListRecordsRequest::default()
            };
            let page = client.list_records(request).await?.into_inner();
            let records = page.entries.iter().filter_map(|it| audit::decode_record(&it.body).ok());
            let records = records.filter(|it| is_of(it, credential.as_ref()));
            if let Some(found) = founded(&mut receipts, records) {
                break found;
            }
            if page.next_index == 0 {
                return Err(Failure::NothingFound { what: none(&receipts) });
            }
            from_index = page.next_index;
        };
        let record = self.save(context, &mut client, receipt.index).await?;
        let until = record.copies_until_time.clone();
        let statement = window(&until);
        let result = json!({
            "index": receipt.index,
            "file": self.output,
            "record": record,
            "statement": statement,
        });
        context.output.show(&result, |_| {
            format!(
                "the receipt is entry {} of the log: {}\nverify it without a network: strongroom \
                 audit verify-proof {} --vkey-file FILE\n{statement}",
                receipt.index,
                self.output.display(),
                self.output.display(),
            )
        })
    }
}

impl Receipt {
    /// Saves the proof, once a checkpoint covers it: what was erased just now is not signed yet.
    async fn save(
        &self,
        context: &Context,
        client: &mut AuditClient<Transport>,
        index: u64,
    ) -> Result<RecordView, Failure> {
        for _ in 0..LOOKS {
            match audit_prove::save(client, index, &self.output).await {
                Err(failure) if failure.is_unsigned() => {}
                saved => {
                    context.output.progress("");
                    return saved;
                }
            }
            context.output.progress("waiting for the next checkpoint");
            sleep(LOOK).await;
        }
        context.output.progress("");
        Err(Failure::NotSigned { index })
    }
}

/// How often it is looked whether a checkpoint was signed: brokers sign one within seconds.
const LOOKS: u32 = 30;
const LOOK: Duration = Duration::from_secs(1);

/// The newest receipt that has the erasure which it is for before it, of records from the newest to the
/// oldest; `receipts` are those met so far.
fn founded(
    receipts: &mut Vec<Record>,
    records: impl IntoIterator<Item = Record>,
) -> Option<Record> {
    for record in records {
        if record.kind() == Kind::SharesDestroyed {
            receipts.push(record);
        } else if let Some(found) = receipts.iter().find(|it| it.erasure_id == record.erasure_id) {
            return Some(found.clone());
        }
    }
    None
}

fn none(receipts: &[Record]) -> String {
    match receipts.first() {
        Some(receipt) => format!(
            "entry {} says that shares of this name were destroyed, and no entry before it that they were to \
             be: it is no receipt; `strongroom audit verify` the log",
            receipt.index
        ),
        None => "no receipt of an erasure of this name is in the log".to_owned(),
    }
}

fn is_of(record: &Record, credential: Option<&CredentialName>) -> bool {
    record.credential == credential.map(CredentialName::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_has_its_erasure_before_it() {
        let record = |index, kind: Kind, id: u8| Record {
            index,
            kind: kind.into(),
            erasure_id: vec![id; 16].into(),
            ..Record::default()
        };
        let (destroyed, shredded) = (Kind::SharesDestroyed, Kind::CredentialShredded);
        let found = |records: Vec<Record>| {
            let mut receipts = Vec::new();
            let found = founded(&mut receipts, records).map(|it| it.index);
            found.ok_or_else(|| none(&receipts))
        };
        assert_eq!(found(vec![record(5, destroyed, 1), record(4, shredded, 1)]), Ok(5));
        // One that nobody asked for does not stand before one that somebody did.
        let foreign = record(7, destroyed, 2);
        let records = vec![foreign.clone(), record(5, destroyed, 1), record(4, shredded, 1)];
        assert_eq!(found(records), Ok(5));
        let refused = found(vec![record(8, shredded, 2), foreign]).unwrap_err();
        assert!(refused.contains("entry 7"), "{refused}");
        assert!(found(vec![]).unwrap_err().contains("no receipt"));
    }
}
