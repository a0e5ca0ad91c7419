use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use crate::failure::Failure;

pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure::File { path, source }
}

pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?)
        .map_err(|error| failed(path)(io::Error::new(io::ErrorKind::InvalidData, error)))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed(path))?;
    file.take(LONGEST).read_to_end(&mut bytes).map_err(failed(path))?;
    Ok(bytes)
}

/// The file is there whole or not at all, even if the machine stops in between.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new(""));
    if !folder.as_os_str().is_empty() {
        fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    let part = part_of(path);
    let mut file = fs::File::create(&part).map_err(failed(&part))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed(&part))?;
    fs::rename(&part, path).map_err(failed(path))
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// No file that is read here is longer: a full bundle has 256 entries of 64 KiB at most.
const LONGEST: u64 = 32 << 20;
