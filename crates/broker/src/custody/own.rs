use domain::{CredentialName, Fields, RequestId};
use envelope::RowKey;
use store::{ErasureRow, KeyWork, SinkRow};

/// A row of the deployment's own, no tenant's. Brokers do what such a row says, so whoever can write to the
/// database must not be able to make one.
pub(crate) trait OwnRow: Sized {
    /// The columns, but for the MAC.
    fn columns(&self) -> Vec<u8>;

    /// The MAC column.
    fn mac(&self) -> &[u8; 32];

    /// The same row with another MAC.
    fn with_mac(self, mac: [u8; 32]) -> Self;

    /// The same row with the MAC that belongs to it.
    fn sealed(self, key: &RowKey) -> Self {
        let mac = key.mac(&self.columns());
        self.with_mac(mac)
    }

    /// Whether a broker of this deployment has written the row, and it is as it was then.
    fn is_genuine(&self, key: &RowKey) -> bool {
        key.is_genuine(&self.columns(), self.mac())
    }
}

impl OwnRow for ErasureRow {
    fn columns(&self) -> Vec<u8> {
        let credential = self.credential.as_ref().map(CredentialName::to_string);
        let shares: Vec<u8> = self.shares.iter().flat_map(|id| *id.as_bytes()).collect();
        Fields::new("strongroom erasure row v1")
            .field(1, self.id)
            .field(2, self.tenant.as_str())
            .field(3, credential.unwrap_or_default())
            .field(4, shares)
            .field(5, self.begun_at.as_millis().to_be_bytes())
            .finish()
    }

    fn mac(&self) -> &[u8; 32] {
        &self.row_mac
    }

    fn with_mac(self, row_mac: [u8; 32]) -> Self {
        Self { row_mac, ..self }
    }
}

impl OwnRow for KeyWork {
    fn columns(&self) -> Vec<u8> {
        Fields::new("strongroom key work row v1")
            .field(1, &self.name)
            .field(2, self.request_id.as_ref().map_or("", RequestId::as_str))
            .field(3, self.begun_at.as_millis().to_be_bytes())
            .field(4, [u8::from(self.done)])
            .finish()
    }

    fn mac(&self) -> &[u8; 32] {
        &self.row_mac
    }

    fn with_mac(self, row_mac: [u8; 32]) -> Self {
        Self { row_mac, ..self }
    }
}

impl OwnRow for SinkRow {
    fn columns(&self) -> Vec<u8> {
        Fields::new("strongroom sink row v1")
            .field(1, &self.name)
            .number(2, self.next_index)
            .finish()
    }

    fn mac(&self) -> &[u8; 32] {
        &self.row_mac
    }

    fn with_mac(self, row_mac: [u8; 32]) -> Self {
        Self { row_mac, ..self }
    }
}
