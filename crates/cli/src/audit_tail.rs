use clap::Args;
use strongroom_proto::v1::{LogEntry, TailRecordsRequest};

use crate::{
    context::Context, failure::Failure, names::TenantArg, output::printable, views::RecordView,
};

#[derive(Args, Debug)]
pub(crate) struct Tail {
    /// Begin at this index; absent: with what is written from now on.
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Only records of this tenant.
    #[arg(long)]
    tenant: Option<TenantArg>,
}

impl Tail {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tenant = self.tenant.map(|tenant| tenant.0.resource()).unwrap_or_default();
        let request = TailRecordsRequest { from_index: self.from, tenant, filter: None };
        let mut stream = context.broker()?.audit().tail_records(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            for entry in message.entries {
                context.output.show(&read(&entry)?, human)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn read(entry: &LogEntry) -> Result<RecordView, Failure> {
    let record = audit::decode_record(&entry.body)
        .map_err(|_| Failure::BadAnswer("an entry is not a record of the log"))?;
    Ok(RecordView::from(record))
}

pub(crate) fn human(record: &RecordView) -> String {
    let version = match record.credential_version {
        0 => String::new(),
        version => format!("@{version}"),
    };
    let words = [
        format!("{} {} {}", record.index, record.time, record.kind),
        record.reason.to_owned(),
        record.actor.clone(),
        record.method.clone(),
        if record.credential.is_empty() { record.tenant.clone() } else { String::new() },
        format!("{}{version}", record.credential),
        record.source.to_owned(),
        named("key", &record.virtual_key),
        named("lease", record.lease_hash.get(..16).unwrap_or_default()),
    ];
    let words: Vec<String> =
        words.iter().filter(|word| !word.is_empty()).map(|word| printable(word)).collect();
    words.join("  ")
}

fn named(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("{name}={value}") }
}
