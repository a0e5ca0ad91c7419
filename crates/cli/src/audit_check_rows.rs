use serde::Serialize;
use strongroom_proto::v1::{CheckRowsRequest, CheckRowsResponse, RowFinding};

use crate::{
    context::Context,
    failure::Failure,
    output::{printable, table},
};

/// What a check has found.
#[derive(Debug, Serialize)]
struct Checked {
    rows: u64,
    records: u64,
    tenants: u64,
    findings: Vec<FindingView>,
    /// Tenants whose rows were not checked.
    unchecked_tenants: Vec<String>,
}

#[derive(Debug, Serialize)]
struct FindingView {
    reason: &'static str,
    table: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tenant: String,
    what: String,
}

/// Has the broker replay the log against every row of its database.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let mut client = context.broker()?.audit();
    let mut stream = client.check_rows(CheckRowsRequest {}).await?.into_inner();
    let mut last = CheckRowsResponse::default();
    while let Some(message) = stream.message().await? {
        let CheckRowsResponse { records, tree_size, tenants_checked, tenants, .. } = &message;
        context.output.progress(&format!(
            "{records} of {tree_size} records, {tenants_checked} of {tenants} tenants"
        ));
        last = message;
    }
    context.output.progress("");
    if !last.done {
        return Err(Failure::BadAnswer("the check has ended before its end"));
    }
    let checked = Checked {
        rows: last.rows,
        records: last.records,
        tenants: last.tenants_checked,
        findings: last.findings.into_iter().map(FindingView::from).collect(),
        unchecked_tenants: last.unchecked_tenants,
    };
    context.output.show(&checked, human)?;
    match (checked.findings.len(), checked.unchecked_tenants.len()) {
        (0, 0) => Ok(()),
        (0, tenants) => Err(Failure::RowsUnchecked { tenants }),
        (count, _) => Err(Failure::RowsChanged { count }),
    }
}

impl From<RowFinding> for FindingView {
    fn from(finding: RowFinding) -> Self {
        let reason = finding.reason().as_str_name();
        let RowFinding { table, name, tenant, what, .. } = finding;
        Self { reason, table, name, tenant, what }
    }
}

fn human(checked: &Checked) -> String {
    let Checked { rows, records, tenants, findings, unchecked_tenants } = checked;
    let looked = format!("{rows} rows of {tenants} tenants and {records} records were checked");
    if findings.is_empty() && !unchecked_tenants.is_empty() {
        return format!("{looked}\nnot checked: {}", unchecked_tenants.join(", "));
    }
    if findings.is_empty() {
        return format!("{looked}: all are as they were written");
    }
    let rows = findings.iter().map(|it| {
        [it.reason.to_owned(), it.table.clone(), printable(&it.name), printable(&it.what)]
    });
    format!("{looked}\n{}", table(["FOUND", "TABLE", "WHAT", "WHY"], rows.collect()))
}
