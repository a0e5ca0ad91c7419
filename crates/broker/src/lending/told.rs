use domain::Source;
use store::CredentialRow;
use strongroom_proto::v1;

/// What a credential says beside its secret.
pub(crate) fn settings(row: &CredentialRow) -> Vec<v1::Setting> {
    let setting =
        |(name, value): &(String, String)| v1::Setting { name: name.clone(), value: value.clone() };
    row.settings.iter().map(setting).collect()
}

pub(crate) fn proto_source(source: Source) -> v1::Source {
    match source {
        Source::Byok => v1::Source::Byok,
        Source::Managed => v1::Source::Managed,
        Source::Custom => v1::Source::Custom,
        Source::Keyless => v1::Source::Keyless,
    }
}
