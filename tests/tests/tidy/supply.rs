use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use regex::Regex;
use serde_json::Value;

use crate::sources;

/// What is shipped.
const SHIPPED: &[&str] = &["broker", "inference-proxy", "strongroom-cli"];

/// Our crates that see a plaintext secret, or are on its way in or out.
const SECRET_PATH: &[&str] = &[
    "domain",
    "hardening",
    "sealing",
    "envelope",
    "exchange",
    "egress",
    "mtls",
    "strongroom-client",
];

const TARGETS: &[&str] = &["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

#[test]
fn code_that_runs_when_we_build_is_listed() {
    let listed: BTreeMap<String, BTreeMap<String, String>> = read("build-scripts.toml");
    let linked = linked(SHIPPED, "normal,build");
    for (table, kind) in [("scripts", "custom-build"), ("macros", "proc-macro")] {
        let real = linked.iter().filter(|one| one.kinds.contains(kind));
        let listed = listed[table].iter().map(|(name, why)| (name.as_str(), why.as_str()));
        check("build-scripts.toml", listed, real);
    }
}

#[test]
fn unsafe_code_in_the_secret_path_is_listed() {
    #[derive(serde::Deserialize)]
    struct Groups {
        group: Vec<Group>,
    }
    #[derive(serde::Deserialize)]
    struct Group {
        why: String,
        crates: Vec<String>,
    }

    let groups: Groups = read("unsafe.toml");
    let listed = groups
        .group
        .iter()
        .flat_map(|group| group.crates.iter().map(|name| (name.as_str(), group.why.as_str())));
    let mark = Regex::new(r"\bunsafe\s*(\{|fn\b|impl\b|extern\b|trait\b)").unwrap();
    let linked = linked(SECRET_PATH, "normal,no-proc-macro");
    let real = linked.iter().filter(|one| has(&one.folder.join("src"), &mark));
    check("unsafe.toml", listed, real);
}

#[test]
fn the_mark_of_unsafe_code_is_found_where_it_is_and_not_in_comments() {
    let folder = tempfile::tempdir().unwrap();
    let mark = Regex::new(r"\bunsafe\s*\{").unwrap();
    fs::write(folder.path().join("a.rs"), "// unsafe { }\nlet unsafety = 1;\n").unwrap();
    assert!(!has(folder.path(), &mark));
    fs::create_dir(folder.path().join("b")).unwrap();
    fs::write(folder.path().join("b/c.rs"), "let x = unsafe { y() };\n").unwrap();
    assert!(has(folder.path(), &mark));
}

#[test]
fn the_bill_of_materials_is_valid_and_repeats_itself() {
    #[expect(clippy::disallowed_methods, reason = "the test run names the interpreter")]
    let Ok(python) = std::env::var("TEST_PYTHON") else { return };
    for package in SHIPPED {
        let bill = run(Command::new(&python).arg("supply-chain/sbom").arg(package), "").unwrap();
        let again = run(Command::new(&python).arg("supply-chain/sbom").arg(package), "").unwrap();
        assert_eq!(bill, again);
        let validate = |bill: &str| {
            run(Command::new(&python).args(["-B", "tests/clients/bill_of_materials.py"]), bill)
        };
        validate(&bill).unwrap();
        // It must be able to find something.
        assert!(validate(&bill.replace("\"library\"", "\"something\"")).is_err());

        let parsed: Value = serde_json::from_str(&bill).unwrap();
        let listed = parsed["components"].as_array().unwrap().iter();
        let listed: BTreeSet<_> = listed
            .filter(|one| one["scope"] == "required" && one["hashes"][0]["alg"] == "SHA-256")
            .map(|one| (text(&one["name"]), text(&one["version"])))
            .collect();
        for one in linked(&[package], "normal,no-proc-macro") {
            assert!(listed.contains(&(&*one.name, &*one.version)), "{} is not in it", one.name);
        }
    }
}

/// What a program says that ends well, or what it complains of.
fn run(command: &mut Command, input: &str) -> Result<String, String> {
    let mut command = command.current_dir(sources::root());
    command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let mut stdin = program.stdin.take().unwrap();
    // One that does not want all of it has its reasons in what it says.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = program.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[track_caller]
fn check<'a>(
    file: &str,
    listed: impl Iterator<Item = (&'a str, &'a str)>,
    real: impl Iterator<Item = &'a Crate>,
) {
    let mut names = BTreeSet::new();
    for (name, why) in listed {
        assert!(names.insert(name), "supply-chain/{file}: {name} is listed twice");
        assert!(why.len() > 10, "supply-chain/{file}: {name} has no reason");
    }
    let real: BTreeSet<&str> = real.map(|one| one.name.as_str()).collect();
    let new: Vec<_> = real.difference(&names).collect();
    let gone: Vec<_> = names.difference(&real).collect();
    assert!(new.is_empty(), "supply-chain/{file}: read these, and list them: {new:?}");
    assert!(gone.is_empty(), "supply-chain/{file}: these are no longer linked: {gone:?}");
}

/// A crate of others.
struct Crate {
    name: String,
    version: String,
    kinds: BTreeSet<String>,
    folder: PathBuf,
}

/// The crates of others that Cargo links into some of ours, on the targets that are shipped. The tree
/// says which, without what tests switch on; the metadata says where they are.
fn linked(packages: &[&str], edges: &str) -> Vec<Crate> {
    let mut arguments = vec!["tree", "--offline", "--locked", "--prefix=none", "--format={p}"];
    arguments.extend(["--edges", edges]);
    arguments.extend(packages.iter().flat_map(|package| ["--package", package]));
    arguments.extend(TARGETS.iter().flat_map(|target| ["--target", target]));
    let tree = cargo(&arguments);
    let tree: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let metadata = cargo(&["metadata", "--format-version=1", "--offline", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .filter(|package| package["source"].is_string())
        .filter(|package| tree.contains(&(text(&package["name"]), text(&package["version"]))))
        .map(|package| Crate {
            name: text(&package["name"]).to_owned(),
            version: text(&package["version"]).to_owned(),
            kinds: package["targets"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|target| target["kind"].as_array().unwrap())
                .map(|kind| text(kind).to_owned())
                .collect(),
            folder: Path::new(text(&package["manifest_path"])).parent().unwrap().to_owned(),
        })
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO")).args(arguments).current_dir(sources::root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let text = fs::read_to_string(sources::root().join("supply-chain").join(file)).unwrap();
    toml::from_str(&text).unwrap()
}

/// Whether a folder's Rust sources have the mark outside comments that begin with two slashes.
fn has(folder: &Path, mark: &Regex) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return has(&path, mark);
        }
        let is_rust = path.extension().is_some_and(|ending| ending == "rs");
        let text = if is_rust { fs::read(&path).unwrap() } else { Vec::new() };
        let text = String::from_utf8_lossy(&text);
        text.lines().any(|line| mark.is_match(line.split("//").next().unwrap_or_default()))
    })
}
