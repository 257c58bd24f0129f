//! It is asked as the service's user, by heeler's own program, wherever that lies.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use heeler::config::settings::Settings;
use heeler::config::{LoadAs, parse_service};
use heeler::model::ids::{ActionId, ServiceName};
use heeler::model::process::Uid;
use heeler::model::puma::{Answer, Ask, TroubleKind};
use heeler::model::service::Service;
use heeler::model::time::Mono;
use heeler::sys::clock;
use heeler::sys::lock::{TryLock, try_lock};
use heeler::sys::selfexe::SelfExe;
use heeler::sys::spawn::{Shim, spawn_shim};
use heeler::wire;
use heeler::wire::shim::{ChildRecord, OutcomeRecord, Plan, Record};

use crate::support::fake_puma::{FakePuma, NEED, title};
use crate::support::house::PATIENCE;
use crate::support::{HEELER, Need, can_run, wait_for};

fn service(puma: &FakePuma) -> Service {
    let text = format!(
        "user = \"www-data\"\npidfile = {:?}\nenv = {{ SHOP = \"x\" }}\n[puma]\nstate = {:?}\n",
        puma.path("puma.pid"),
        puma.path("puma.state")
    );
    let who = LoadAs::new(Uid(0), Some("root".into()), |_| None);
    let name = ServiceName::parse("shop").expect("a name");
    let parsed = parse_service(&name, "shop.toml", &text, &Settings::of(&who), &who);
    parsed.unwrap_or_else(|found| panic!("{found:?}")).0.service
}

/// Has a shim of this program ask; what it is to write, it writes into `records`.
fn spawn(heeler: &Path, records: &Path, puma: &FakePuma) -> Shim {
    let deadline = Mono::from_nanos(clock::now().mono.as_nanos()) + Duration::from_secs(20);
    let job =
        wire::puma::job(&service(puma), Ask::Stats, ActionId(7), deadline).expect("is a Puma");
    let plan = Plan { boot: "test".into(), records: records.to_owned(), cgroup: None, job };
    let TryLock::Taken(lock) = try_lock(&records.join("ask.lock")).expect("a lock") else {
        panic!("the lock is busy")
    };
    let exe = SelfExe::open_path(heeler).expect("heeler");
    spawn_shim(&exe, ["shop", "ask"], &plan.encode().expect("a plan"), lock).expect("spawned")
}

fn answer(shim: &Shim, records: &Path) -> Answer {
    let mut pipe = fs::File::from(shim.status.try_clone().expect("clone"));
    wait_for("the shim's end", PATIENCE, || match pipe.read(&mut [0]) {
        Ok(0) => Some(()),
        Ok(_) | Err(_) => None,
    });
    let record = fs::read(records.join("ask.outcome")).expect("an outcome");
    Answer::of(&OutcomeRecord::decode(&record).expect("a record").outcome)
}

#[test]
fn by_a_program_in_a_directory_that_the_user_cannot_enter() {
    if !can_run(&[NEED, Need::Root]) {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let chmod = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    chmod(place.path(), 0o700);
    let (heeler, records) = (place.path().join("heeler"), place.path().join("records"));
    fs::copy(HEELER, &heeler).expect("copied");
    chmod(&heeler, 0o755);
    fs::create_dir(&records).expect("mkdir");
    let puma = FakePuma::start(&["workers=1", "token=t0psekret"]);
    wait_for("the Puma to answer", PATIENCE, || puma.ask(Ask::Stats).stats().map(|_| ()));
    let first = answer(&spawn(&heeler, &records, &puma), &records);
    assert!(first.stats().is_some(), "{first:?}");

    // Seen while it waits: who it is, what it calls itself, what it was given.
    puma.set("stats", "after:1.5");
    let asked = puma.log().matches("control stats").count();
    let shim = spawn(&heeler, &records, &puma);
    wait_for("it to wait", PATIENCE, || {
        (puma.log().matches("control stats").count() > asked).then_some(())
    });
    let record = fs::read(records.join("ask.child")).expect("a record");
    let child = ChildRecord::decode(&record).expect("a record").child.pid;
    let pid = u32::try_from(child.0).expect("a pid");
    assert_eq!(title(pid), "/proc/self/exe ask");
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("readable");
    let status = read("status");
    assert!(status.contains("Uid:\t33\t33\t33\t33"), "{status}");
    let environ = read("environ");
    assert!(environ.contains("HEELER_SERVICE=shop") && environ.contains("USER=www-data"));
    assert!(!environ.contains("CARGO") && !environ.contains("t0psekret"), "{environ}");
    let exe = fs::read_link(format!("/proc/{pid}/exe")).expect("readable");
    assert_eq!(exe, fs::canonicalize(&heeler).expect("is there"));
    assert!(answer(&shim, &records).stats().is_some());
    for file in fs::read_dir(&records).expect("records").flatten() {
        let text = fs::read(file.path()).expect("readable");
        assert!(!String::from_utf8_lossy(&text).contains("t0psekret"), "{:?}", file.path());
    }

    // What only root may read is not read.
    chmod(&puma.path("puma.state"), 0o600);
    let trouble = answer(&spawn(&heeler, &records, &puma), &records).said.expect_err("denied");
    assert_eq!(trouble.kind, TroubleKind::State, "{trouble}");
    chmod(&puma.path("puma.state"), 0o644);
    chmod(&puma.path("ctl.sock"), 0o600);
    let trouble = answer(&spawn(&heeler, &records, &puma), &records).said.expect_err("denied");
    assert_eq!(trouble.kind, TroubleKind::Denied, "{trouble}");
}
