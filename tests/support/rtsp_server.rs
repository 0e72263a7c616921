//! A real RTSP server (gst-rtsp-server) as a child process, so that it can be killed and frozen like a camera that loses its power or
//! its mind. The child is this same test binary, run again with one test named and an environment variable set: no other target has
//! to be built first. Include this file with `#[path]` and everything is there.

#![allow(dead_code, reason = "each test target uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::gst;
use gstreamer_rtsp_server::gst::glib;
use gstreamer_rtsp_server::gst::glib::translate::ToGlibPtr;
use gstreamer_rtsp_server::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

const PLAN: &str = "FACEID_TEST_RTSP_SERVER";
const READY: &str = "RTSP-SERVER-READY ";

/// A moving test picture of 320 x 240 at 15 frames a second. `Server::set("size", "caps", …)` changes its size.
pub(crate) const TEST_PICTURE: &str = "( videotestsrc name=src is-live=true ! capsfilter name=size \
    caps=video/x-raw,format=I420,width=320,height=240,framerate=15/1 ! openh264enc gop-size=15 ! h264parse ! \
    rtph264pay name=pay0 pt=96 config-interval=-1 )";

/// What a server shall serve at `/test`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// 0 takes a free port.
    pub(crate) port: u16,
    pub(crate) launch: String,
    /// User and password.
    pub(crate) login: Option<(String, String)>,
    /// Digest instead of basic authentication.
    pub(crate) digest: bool,
    /// Certificate and key in one PEM file: the server speaks TLS.
    pub(crate) tls: Option<PathBuf>,
}

impl Plan {
    pub(crate) fn test_picture() -> Self {
        Self { port: 0, launch: TEST_PICTURE.to_owned(), login: None, digest: false, tls: None }
    }

    /// An H.264 file in MKV or MP4, played once per connection at its own speed.
    pub(crate) fn file(path: &Path) -> Self {
        let demuxer = if path.extension().is_some_and(|end| end == "mp4") { "qtdemux" } else { "matroskademux" };
        let launch = format!(
            "( filesrc location=\"{}\" ! {demuxer} ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
            path.display()
        );
        Self { launch, ..Self::test_picture() }
    }

    pub(crate) fn login(mut self, user: &str, password: &str, digest: bool) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self.digest = digest;
        self
    }
}

/// A running server; it is killed when this goes.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    pub(crate) port: u16,
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) fn start(plan: &Plan) -> Self {
        let module = module_path!().split_once("::").expect("a module of a test binary").1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::rtsp_server_child"), "--nocapture", "--test-threads=1"])
            .env(PLAN, serde_json::to_string(plan).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("the server ended before it was ready").unwrap();
            if let Some((_, port)) = line.split_once(READY) {
                break port.trim().parse().unwrap();
            }
        };
        // Nobody reads on; the child writes nothing more.
        Self { child, input, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/test", self.port)
    }

    /// Sets a property of a named element of the pipeline that is being served.
    pub(crate) fn set(&mut self, element: &str, property: &str, value: &str) {
        writeln!(self.input, "{element} {property} {value}").unwrap();
        self.input.flush().unwrap();
    }

    /// Pulls the plug.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Keeps every connection and does nothing any more.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Goes on after [`Server::freeze`].
    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn end(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// No test of its own: the server's process. Without its variable it does nothing.
#[test]
fn rtsp_server_child() {
    if let Ok(plan) = std::env::var(PLAN) {
        serve(&serde_json::from_str(&plan).unwrap());
    }
}

fn serve(plan: &Plan) {
    gst::init().unwrap();
    let main_loop = glib::MainLoop::new(None, false);
    let server = rtsp::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&plan.port.to_string());
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_launch(&plan.launch);
    if plan.login.is_some() || plan.tls.is_some() {
        protect(&server, &factory, plan);
    }
    let served: Arc<Mutex<Option<gst::Bin>>> = Arc::default();
    let newest = served.clone();
    factory.connect_media_configure(move |_, media| {
        *newest.lock().unwrap() = media.element().downcast().ok();
    });
    server.mount_points().unwrap().add_factory("/test", factory);
    let _source = server.attach(None).unwrap();
    println!("\n{READY}{}", server.bound_port());
    let quit = main_loop.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let mut words = line.splitn(3, ' ');
            let (Some(element), Some(property), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
            if let Some(element) = served.lock().unwrap().as_ref().and_then(|bin| bin.by_name(element)) {
                element.set_property_from_str(property, value);
            }
        }
        // The parent is gone.
        quit.quit();
    });
    main_loop.run();
}

#[expect(unsafe_code, reason = "the bindings have no RTSPPermissions, without which nobody is let in")]
fn protect(server: &rtsp::RTSPServer, factory: &rtsp::RTSPMediaFactory, plan: &Plan) {
    let auth = rtsp::RTSPAuth::new();
    let mut token = rtsp::RTSPToken::builder().field("media.factory.role", "user").build();
    match &plan.login {
        Some((user, password)) if plan.digest => {
            auth.set_supported_methods(rtsp::gst_rtsp::RTSPAuthMethod::Digest);
            auth.add_digest(user, password, &token);
        }
        Some((user, password)) => auth.add_basic(&rtsp::RTSPAuth::make_basic(user, password), &token),
        None => auth.set_default_token(Some(&mut token)),
    }
    if let Some(path) = &plan.tls {
        auth.set_tls_certificate(Some(&gio::TlsCertificate::from_file(path).unwrap()));
    }
    server.set_auth(Some(&auth));
    // SAFETY: the permissions are made here, filled through the functions that are meant for it, and taken over by no one: the factory
    // keeps a reference of its own, and ours is leaked with the process.
    unsafe {
        let permissions = rtsp::ffi::gst_rtsp_permissions_new();
        for right in [c"media.factory.access", c"media.factory.construct"] {
            rtsp::ffi::gst_rtsp_permissions_add_permission_for_role(permissions, c"user".as_ptr(), right.as_ptr(), 1);
        }
        rtsp::ffi::gst_rtsp_media_factory_set_permissions(factory.to_glib_none().0, permissions);
    }
}
