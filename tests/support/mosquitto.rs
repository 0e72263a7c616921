//! A real mosquitto as a child process on a free port, certificates for it, and a wire that can be cut.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use faceid_plus::system::stop;
use tempfile::TempDir;

/// Long enough for a loaded machine; nothing waits this long unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; panics with `what` when there is none in time.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let (_handle, stop) = stop::pair();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        stop.sleep(Duration::from_millis(10));
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Writes a file that only its owner may read.
pub(crate) fn secret(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What a test's broker wants to hear of a user.
pub(crate) fn password_of(user: &str) -> String {
    format!("the password of {user}")
}

/// The access rules that the project ships.
#[allow(dead_code, reason = "not every test target changes them")]
pub(crate) fn shipped_rules() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/config/mosquitto/faceid.acl")).unwrap()
}

pub(crate) struct Mosquitto {
    pub(crate) folder: TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// Everybody may do everything.
    pub(crate) fn open() -> Self {
        let mut broker = Self::prepared(|_| "allow_anonymous true\n".into());
        broker.start();
        broker
    }

    /// Only `user` with `password`.
    pub(crate) fn with_password(user: &str, password: &str) -> Self {
        let mut broker = Self::prepared(|folder| {
            let file = folder.join("passwords");
            let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args([user, password]).output();
            assert!(made.expect("mosquitto_passwd is missing: run `make deps`").status.success());
            format!("allow_anonymous false\npassword_file {}\n", file.display())
        });
        broker.start();
        broker
    }

    /// TLS with the certificate `server` of `certificates`; a client certificate is asked for if `both`.
    pub(crate) fn with_tls(certificates: &Certificates, both: bool) -> Self {
        let file = |name: &str| certificates.path(name).display().to_string();
        let mut broker = Self::prepared(|_| {
            format!(
                "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate {both}\n",
                file("ca.pem"),
                file("server.pem"),
                file("server.key")
            )
        });
        broker.start();
        broker
    }

    /// The config file `name` that the project ships and the access rules that it ships, as they are, with a test's port and paths in the
    /// place of theirs; `acl` are other rules. Where the config asks for passwords, each of `users` has `password_of` it.
    pub(crate) fn shipped(name: &str, certificates: &Certificates, users: &[&str], acl: Option<&str>) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/config/mosquitto");
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let mut broker = Self::prepared(|_| String::new());
        let passwords = broker.folder.path().join("passwords");
        for (number, user) in users.iter().enumerate() {
            let mut made = Command::new("mosquitto_passwd");
            made.args(if number == 0 { &["-b", "-c"][..] } else { &["-b"] }).arg(&passwords).args([user, &*password_of(user)]);
            assert!(made.output().expect("mosquitto_passwd is missing: run `make deps`").status.success());
        }
        let rules = broker.folder.path().join("acl");
        match acl {
            Some(acl) => std::fs::write(&rules, acl).unwrap(),
            None => drop(std::fs::copy(folder.join("faceid.acl"), &rules).unwrap()),
        }
        let mut config = String::from("user root\npersistence false\nlog_type none\n");
        for line in text.lines() {
            let value = match line.split(' ').next().unwrap() {
                "listener" => format!("listener {} 127.0.0.1", broker.port),
                "cafile" => format!("cafile {}", certificates.path("ca.pem").display()),
                "certfile" => format!("certfile {}", certificates.path("server.pem").display()),
                "keyfile" => format!("keyfile {}", certificates.path("server.key").display()),
                "acl_file" => format!("acl_file {}", rules.display()),
                "password_file" => format!("password_file {}", passwords.display()),
                _ => line.to_owned(),
            };
            config.push_str(&value);
            config.push('\n');
        }
        std::fs::write(broker.folder.path().join("mosquitto.conf"), config).unwrap();
        broker.start();
        broker
    }

    /// Other access rules than it was started with.
    #[allow(dead_code, reason = "not every test target mends rules")]
    pub(crate) fn mend(&self, acl: &str) {
        std::fs::write(self.folder.path().join("acl"), acl).unwrap();
        let id = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), rustix::process::Signal::HUP).unwrap();
    }

    /// A port and a config, but not running yet.
    pub(crate) fn prepared(more: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let more = more(folder.path());
        // As root, mosquitto would change to a user that may not read the temporary folder.
        let config = format!("user root\npersistence false\nlog_type none\nlistener {port} 127.0.0.1\n{more}");
        std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        Self { folder, port, child: None }
    }

    pub(crate) fn start(&mut self) {
        let config = self.folder.path().join("mosquitto.conf");
        let child = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().ok()
        });
        self.child = Some(child.expect("mosquitto is missing: run `make deps`"));
        wait_for("mosquitto to listen", || {
            let child = self.child.as_mut().unwrap();
            assert_eq!(child.try_wait().unwrap(), None, "mosquitto refused its config");
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()
        });
    }

    /// Kills it as a power cut would; it keeps nothing.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A TCP wire to a broker that can be cut and joined again.
pub(crate) struct Wire {
    pub(crate) port: u16,
    joined: Arc<AtomicBool>,
    broker: Arc<AtomicU16>,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    pub(crate) fn to(broker_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Self {
            port,
            joined: Arc::new(AtomicBool::new(true)),
            broker: Arc::new(AtomicU16::new(broker_port)),
            ends: Arc::default(),
        };
        let (joined, broker, ends) = (wire.joined.clone(), wire.broker.clone(), wire.ends.clone());
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let port = broker.load(Ordering::SeqCst);
                if port == 0 {
                    return;
                }
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let mut ends = ends.lock().unwrap();
                // Asked under the lock, so that a cut leaves nobody behind.
                if joined.load(Ordering::SeqCst) {
                    copy(&near, &far);
                    copy(&far, &near);
                    ends.extend([near, far]);
                }
            }
        });
        wire
    }

    /// Ends every connection, and refuses new ones until joined.
    pub(crate) fn cut(&self) {
        let mut ends = self.ends.lock().unwrap();
        self.joined.store(false, Ordering::SeqCst);
        for end in ends.drain(..) {
            // It may be gone already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn join(&self) {
        self.joined.store(true, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
        self.broker.store(0, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn copy(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

/// `ca`, `server` (for localhost) and `client` (signed by that authority), and another authority `other`.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    pub(crate) fn make() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        made.authority("ca");
        made.authority("other");
        made.leaf("server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
        made.leaf("client", "subjectAltName=DNS:gate\nextendedKeyUsage=clientAuth\n");
        made
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An authority, the broker's certificate as `server` and one for each of these users, by the script that is shipped for a site.
    pub(crate) fn by_script(&self, users: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/config/mosquitto/make-certificates.sh");
        let folder = self.path("site");
        // Twice: what is there is kept.
        for clients in [&users[..1], users] {
            let output = Command::new("sh").arg(&script).arg(&folder).arg("localhost,127.0.0.1").args(clients).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        for (made, named) in [("broker", "server"), ("ca", "ca")].into_iter().chain(users.iter().map(|user| (*user, *user))) {
            for end in ["pem", "key"] {
                std::fs::rename(folder.join(format!("{made}.{end}")), self.path(&format!("{named}.{end}"))).unwrap();
            }
        }
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(self.0.path()).output();
        let output = output.expect("openssl is missing: run `make deps`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn authority(&self, name: &str) {
        self.openssl(&format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"));
        self.openssl(&format!("req -x509 -new -key {name}.key -subj /CN={name} -days 2 -out {name}.pem"));
    }

    pub(crate) fn leaf(&self, name: &str, extensions: &str) {
        std::fs::write(self.path(&format!("{name}.ext")), extensions).unwrap();
        self.openssl(&format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"));
        self.openssl(&format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
        ));
        std::fs::set_permissions(self.path(&format!("{name}.key")), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}
