//! What the store keeps of suppressions: a table of its own, which a store of an earlier version
//! gets with the first of them.

use redb::{Database, ReadTransaction, ReadableTable, TableDefinition, TableError};

use super::StoreError;
use super::database::Failure;
use crate::incident::Suppression;

/// Origin and name to JSON.
const SUPPRESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("suppressions");

pub(super) fn encode(all: &[&Suppression]) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let encoded = all.iter().map(|one| {
        let json = serde_json::to_vec(one)
            .map_err(|source| StoreError::Serialise { id: one.name.clone(), source })?;
        Ok((one.label(), json))
    });
    encoded.collect()
}

pub(super) fn write(database: &Database, all: &[(String, Vec<u8>)]) -> Result<(), Failure> {
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(SUPPRESSIONS)?;
        table.retain(|label, _| all.iter().any(|(known, _)| known == label))?;
        for (label, json) in all {
            table.insert(label.as_str(), json.as_slice())?;
        }
    }
    write.commit()?;
    Ok(())
}

/// One that cannot be read is left out: it suppresses nothing then, which is seen.
pub(super) fn read(read: &ReadTransaction) -> Result<Vec<Suppression>, Failure> {
    let table = match read.open_table(SUPPRESSIONS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for row in table.iter()? {
        all.extend(serde_json::from_slice::<Suppression>(row?.1.value()));
    }
    Ok(all)
}
