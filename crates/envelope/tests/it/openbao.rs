use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use tempfile::TempDir;

const ROOT_TOKEN: &str = "root";

/// A server of OpenBao on loopback, in memory, and the rights of its root. It ends with this.
pub(crate) struct OpenBao {
    binary: String,
    pub(crate) folder: TempDir,
    pub(crate) address: String,
    /// What vouches for the server, if it speaks TLS.
    pub(crate) ca: Option<PathBuf>,
    server: Child,
}

impl OpenBao {
    pub(crate) fn start(binary: &str, tls: bool) -> Self {
        // Between finding a free port and taking it, another may.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(binary, tls) {
                return server;
            }
        }
        panic!("{binary} server -dev does not start");
    }

    fn try_start(binary: &str, tls: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(binary);
        command
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={ROOT_TOKEN}"))
            .arg(format!("-dev-listen-address={listen}"))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut ca = None;
        if tls {
            let certificates = folder.path().join("tls");
            fs::create_dir(&certificates).unwrap();
            command.arg("-dev-tls").arg(format!("-dev-tls-cert-dir={}", certificates.display()));
            ca = Some(certificates.join("vault-ca.pem"));
        }
        let mut server = command.spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        let started = loop {
            line.clear();
            // The end of its output is the end of the server.
            if said.read_line(&mut line).unwrap_or(0) == 0 {
                break false;
            }
            if line.starts_with("Root Token:") {
                break true;
            }
        };
        if !started {
            let _ = server.wait();
            return None;
        }
        // Or else it would stop when the pipe is full.
        thread::spawn(move || said.read_to_end(&mut Vec::new()));
        let scheme = if tls { "https" } else { "http" };
        let address = format!("{scheme}://{listen}");
        Some(Self { binary: binary.to_owned(), folder, address, ca, server })
    }

    /// Runs a command as root, and gives what it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("BAO_ADDR", &self.address)
            .env("BAO_TOKEN", ROOT_TOKEN)
            .stdin(Stdio::null());
        if let Some(ca) = &self.ca {
            command.env("BAO_CACERT", ca);
        }
        let output = command.output().unwrap();
        let (said, wrong) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "bao {arguments:?}: {said}{wrong}");
        said.trim_end().to_owned()
    }

    /// The tokens that there are, by their accessors.
    pub(crate) fn accessors(&self) -> Vec<String> {
        let listed = self.run(&["list", "-format=json", "auth/token/accessors"]);
        serde_json::from_str(&listed).unwrap()
    }

    /// A token with the policies, of so many seconds.
    pub(crate) fn token(&self, policy: &str, ttl: &str) -> String {
        let policy = format!("-policy={policy}");
        self.run(&["token", "create", &policy, &format!("-ttl={ttl}"), "-field=token"])
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
