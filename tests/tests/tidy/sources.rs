use std::{
    fs,
    path::{Path, PathBuf},
};

/// A text file of the repository.
pub(crate) struct Source {
    /// Its path from the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file of the repository that people wrote.
pub(crate) fn all() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root(), &root(), &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 100, "the walk lost its way");
    found
}

/// The Rust sources of our crates, tests and vectors apart.
pub(crate) fn of_crates() -> Vec<Source> {
    all()
        .into_iter()
        .filter(|source| source.path.starts_with("crates/") && source.path.contains("/src/"))
        .filter(|source| Path::new(&source.path).extension().is_some_and(|end| end == "rs"))
        .filter(|source| !TESTS.iter().any(|part| source.path.contains(part)))
        .map(|source| Source { text: without_tests(&source.text).to_owned(), ..source })
        .collect()
}

fn without_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod tests {").map_or(text, |(code, _)| code)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !SKIPPED.contains(&name) {
            walk(root, &path, found);
        } else if kind.is_file()
            && name != "Cargo.lock"
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path, text });
        }
    }
}

const SKIPPED: [&str; 5] = [".git", ".strongroom", "__pycache__", "node_modules", "target"];

/// Modules that are compiled for tests only.
const TESTS: [&str; 4] = ["/tests.rs", "/tests/", "/vectors.rs", "/vectors/"];
