use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use audit::Checkpoint;
use tokio::{fs, io::AsyncWriteExt as _};

/// The file that holds the newest checkpoint, apart from the database: a database that was restored
/// from a backup or rewritten cannot bring its own excuse along.
#[derive(Debug)]
pub(crate) struct CheckpointFile(PathBuf);

impl CheckpointFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The note in the file, if there is one.
    pub(crate) async fn read(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(&self.0).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a note in the place of one of a smaller tree. On `Ok` this or a larger one is durable.
    pub(crate) async fn replace(&self, size: u64, note: &str) -> io::Result<()> {
        let held = self.read().await?;
        if held.as_deref().and_then(Checkpoint::claimed_size) >= Some(size) {
            return Ok(());
        }
        let new = self.beside("new");
        let mut file = fs::File::create(&new).await?;
        file.write_all(note.as_bytes()).await?;
        file.sync_all().await?;
        fs::rename(&new, &self.0).await?;
        self.sync_folder().await
    }

    /// Moves the note to a file beside, as evidence; gives that file's path.
    pub(crate) async fn set_aside(&self, size: u64) -> io::Result<PathBuf> {
        let aside = self.beside(&format!("given-up-{size}"));
        fs::rename(&self.0, &aside).await?;
        self.sync_folder().await?;
        Ok(aside)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(".");
        name.push(ending);
        PathBuf::from(name)
    }

    /// A rename is durable once its folder is.
    async fn sync_folder(&self) -> io::Result<()> {
        let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new("."))).await?.sync_all().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(size: u64) -> String {
        format!("log\n{size}\nroot\n")
    }

    #[tokio::test]
    async fn only_a_larger_checkpoint_takes_the_place_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(folder.path().join("last"));
        assert_eq!(file.read().await.unwrap(), None);
        for (size, kept) in [(5, 5), (4, 5), (6, 6), (6, 6)] {
            file.replace(size, &note(size)).await.unwrap();
            assert_eq!(file.read().await.unwrap(), Some(note(kept)));
        }
        let aside = file.set_aside(6).await.unwrap();
        assert_eq!(fs::read_to_string(aside).await.unwrap(), note(6));
        assert_eq!(file.read().await.unwrap(), None);
        file.replace(1, &note(1)).await.unwrap();
    }
}
