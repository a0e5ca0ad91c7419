use std::time::Duration;

use audit::Names;
use clap::Args;
use strongroom_proto::v1::{LogEntry, TailRecordsRequest, TailRecordsResponse};
use tonic::Streaming;

use crate::{
    audit_search::Seen, context::Context, failure::Failure, names::TenantArg, output::printable,
    views::RecordView,
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
        let mut request = TailRecordsRequest { from_index: self.from, tenant, filter: None };
        let broker = context.broker()?;
        // Who mistyped an address is told so at once; later the broker may come back.
        let mut stream = broker.audit().tail_records(request.clone()).await?.into_inner();
        loop {
            let lost = follow(&mut stream, &mut request.from_index, context).await?;
            let from = request.from_index.unwrap_or_default();
            context.output.note(&format!("{}; resuming at {from}", lost.message()));
            stream = loop {
                tokio::time::sleep(RETRY).await;
                match broker.audit().tail_records(request.clone()).await.map_err(Failure::from) {
                    Ok(stream) => break stream.into_inner(),
                    Err(failure) if failure.is_unreachable() => {}
                    Err(failure) => return Err(failure),
                }
            };
        }
    }
}

/// Between two tries to reach the broker again.
const RETRY: Duration = Duration::from_secs(1);

/// Prints records until the stream is lost, and keeps where to resume. An error is one that another
/// try does not mend.
async fn follow(
    stream: &mut Streaming<TailRecordsResponse>,
    next: &mut Option<u64>,
    context: &Context,
) -> Result<Failure, Failure> {
    loop {
        let message = match stream.message().await.map_err(Failure::from) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Failure::BadAnswer("the broker ended the stream")),
            Err(failure) if failure.is_unreachable() => return Ok(failure),
            Err(failure) => return Err(failure),
        };
        let names = Names::told(&message.disclosures);
        for entry in message.entries {
            context.output.show(&read(&entry, &names)?, human)?;
        }
        *next = Some(message.next_index);
    }
}

pub(crate) fn read(entry: &LogEntry, names: &Names) -> Result<RecordView, Failure> {
    let record = audit::decode_record(&entry.body)
        .map_err(|_| Failure::BadAnswer("an entry is not a record of the log"))?;
    Ok(Seen::new(record, names).view())
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
        record.verdict.clone(),
        named("key", &record.virtual_key),
        named("lease", record.lease_hash.get(..16).unwrap_or_default()),
        named("about", &record.subject),
        if record.count > 1 { format!("count={}", record.count) } else { String::new() },
    ];
    let words: Vec<String> =
        words.iter().filter(|word| !word.is_empty()).map(|word| printable(word)).collect();
    words.join("  ")
}

fn named(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("{name}={value}") }
}
