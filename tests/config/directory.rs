//! Directories of real files with real owners: whose word counts, and that one bad file never
//! prevents the others.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use heeler::config::error::render;
use heeler::config::{LoadAs, Loaded, Role, load};
use heeler::model::process::Uid;
use heeler::tools::validate::{Form, validate};

use crate::root;
use crate::support::{Need, can_run};

const NOBODY: u32 = 65534;

/// A directory that goes away, under /tmp: sticky, root's.
struct Conf(tempfile::TempDir);

impl Conf {
    fn new(files: &[(&str, &str)]) -> Self {
        let conf = Self(tempfile::tempdir_in("/tmp").expect("a directory"));
        mode(conf.dir(), 0o755);
        for (name, text) in files {
            conf.file(name, text);
        }
        conf
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, text).expect("writable");
        mode(&path, 0o644);
        path
    }

    /// Loads as root; hanging for ever is a failure like any other.
    fn load(&self) -> Loaded {
        load_in_time(self.dir()).unwrap_or_else(|refusal| panic!("{refusal}"))
    }
}

fn load_in_time(dir: &Path) -> Result<Loaded, String> {
    let (tell, told) = mpsc::channel();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        let loaded = load(&dir, &root(), None).map_err(|refusal| refusal.to_string());
        // Nobody listens any more when it took too long; that is told there.
        drop(tell.send(loaded));
    });
    told.recv_timeout(Duration::from_secs(10)).expect("loading does not hang")
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("allowed");
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.services.iter().map(|loaded| loaded.definition.service.name.as_str()).collect()
}

fn told(loaded: &Loaded) -> String {
    loaded.bad.iter().map(|bad| render(&bad.diagnostics)).collect()
}

const GOOD: &str = "run = \"sleep 9\"\n";

#[test]
fn cfg_01_files_that_others_can_change_are_refused() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let conf = Conf::new(&[("good.toml", GOOD)]);
    mode(&conf.file("everybody.toml", GOOD), 0o666);
    mode(&conf.file("group.toml", GOOD), 0o664);
    chown(conf.file("owner.toml", GOOD), Some(NOBODY), None).expect("root may");
    let loaded = conf.load();
    assert_eq!(names(&loaded), ["good"]);
    let (told, dir) = (told(&loaded), conf.dir().display());
    for line in [
        format!("{dir}/everybody.toml is writable by everybody (owner root, mode 0666)"),
        format!("chmod go-w {dir}/everybody.toml"),
        format!("{dir}/group.toml is writable by group 0 (owner root, mode 0664)"),
        format!("{dir}/owner.toml is owned by uid {NOBODY} (mode 0644)"),
        format!("chown 0 {dir}/owner.toml"),
    ] {
        assert!(told.contains(&line), "{line}\n{told}");
    }
    assert_eq!(loaded.bad.len(), 3);
}

#[test]
fn cfg_01_a_directory_that_others_can_change_is_refused() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let conf = Conf::new(&[]);
    let below = conf.dir().join("conf.d");
    fs::create_dir(&below).expect("root may");
    fs::write(below.join("x.toml"), GOOD).expect("root may");
    assert!(load_in_time(&below).is_ok());
    mode(conf.dir(), 0o777);
    let refusal = load_in_time(&below).expect_err("the directory above is everybody's");
    assert!(refusal.contains(&format!("chmod go-w {}", conf.dir().display())), "{refusal}");
    mode(conf.dir(), 0o1777);
    assert!(load_in_time(&below).is_ok(), "a sticky directory is fine");
    chown(&below, Some(NOBODY), None).expect("root may");
    assert!(load_in_time(&below).is_err(), "nobody's directory");
}

#[test]
fn cfg_02_links_pipes_and_leftovers_of_editors() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let conf = Conf::new(&[
        ("good.toml", GOOD),
        ("good.toml~", "x"),
        (".good.toml.swp", "x"),
        (".hidden.toml", "x"),
    ]);
    conf.file("README.md", "x");
    conf.file("good.toml.swp", "x");
    let elsewhere = Conf::new(&[("roots", GOOD), ("theirs", GOOD)]);
    chown(elsewhere.dir().join("theirs"), Some(NOBODY), None).expect("root may");
    symlink(elsewhere.dir().join("roots"), conf.dir().join("linked.toml")).expect("root may");
    symlink(elsewhere.dir().join("theirs"), conf.dir().join("stolen.toml")).expect("root may");
    symlink("loop.toml", conf.dir().join("loop.toml")).expect("root may");
    symlink("/dev/zero", conf.dir().join("device.toml")).expect("root may");
    symlink("nowhere", conf.dir().join("dangling.toml")).expect("root may");
    fs::create_dir(conf.dir().join("below.toml")).expect("root may");
    fs::create_dir(conf.dir().join("examples")).expect("root may");
    fs::write(conf.dir().join("examples/x.toml"), "x").expect("root may");
    nix::unistd::mkfifo(&conf.dir().join("pipe.toml"), nix::sys::stat::Mode::S_IRUSR)
        .expect("root may");
    let _socket =
        std::os::unix::net::UnixListener::bind(conf.dir().join("socket.toml")).expect("root may");
    let loaded = conf.load();
    assert_eq!(names(&loaded), ["good", "linked"]);
    let bad: Vec<_> = loaded.bad.iter().map(|bad| bad.role.clone()).collect();
    let named = |name| Role::Service(heeler::model::ids::ServiceName::parse(name).expect("a name"));
    assert_eq!(bad, ["below", "dangling", "device", "loop", "pipe", "socket", "stolen"].map(named));
    let told = told(&loaded);
    for words in [
        "is a directory, not",
        "device or a pipe, not",
        "is a socket, not",
        "No such file",
        "Too many levels",
    ] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    assert!(told.contains(&format!("theirs is owned by uid {NOBODY}")), "{told}");
}

#[test]
fn cfg_02_the_directory_may_be_a_link_when_every_step_is_safe() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let (conf, links) = (Conf::new(&[("good.toml", GOOD)]), Conf::new(&[]));
    let link = links.dir().join("conf.d");
    symlink(conf.dir(), &link).expect("root may");
    assert_eq!(names(&load_in_time(&link).expect("safe")), ["good"]);
    std::os::unix::fs::lchown(&link, Some(NOBODY), None).expect("root may");
    assert!(load_in_time(&link).is_err(), "who owns the link decides where it leads");
}

#[test]
fn cfg_03_one_run_tells_everything_and_keeps_the_good() {
    let conf = Conf::new(&[
        ("a.toml", "pidfle = 1\nevery = \"0s\"\n"),
        ("b.toml", "= = ="),
        ("good.toml", GOOD),
        ("heeler.toml", "[defaults]\nevery = \"1s\"\nquux = 1\n"),
    ]);
    conf.file("latin1.toml", b"run = \"sleep 9\"\n# caf\xe9\n");
    let (report, code) = validate(conf.dir(), &who(), Form::Text);
    let places = [
        "a.toml:1:1",
        "a.toml:2:9",
        "b.toml:1:3",
        "heeler.toml:3:1",
        "latin1.toml:2:6",
        "1 service, 5 errors",
    ];
    assert!(code == 1 && places.iter().all(|place| report.contains(place)), "{report}");
}

/// Root when the tests are, else the user who runs them.
fn who() -> LoadAs {
    let uid = nix::unistd::geteuid().as_raw();
    LoadAs { uid: Uid(uid), ..root() }
}

#[test]
fn cfg_03_a_bad_settings_file_leaves_the_last_good_one_in_force() {
    let conf = Conf::new(&[("good.toml", GOOD), ("heeler.toml", "quux = 1")]);
    let every = |last| {
        let loaded = load(conf.dir(), &who(), last).expect("usable");
        assert_eq!(loaded.bad.first().map(|bad| bad.role.clone()), Some(Role::Settings));
        (
            loaded.services[0].definition.service.every,
            loaded.settings_text.as_deref().map(str::to_owned),
        )
    };
    let last = "[defaults]\nevery = \"3s\"\n";
    assert_eq!(every(Some(last)), (Duration::from_secs(3), Some(last.to_owned())));
    assert_eq!(every(None), (Duration::from_secs(10), None));
    assert_eq!(every(Some("also = bad")), (Duration::from_secs(10), None));
}

#[test]
fn cfg_03_validate_names_users_that_are_not_there() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let conf = Conf::new(&[("a.toml", "user = \"no-such-user\"\nrun = \"sleep 9\"\n")]);
    let (report, code) = validate(conf.dir(), &root(), Form::Text);
    assert_eq!(code, 0);
    assert!(report.contains("there is no user `no-such-user` on this machine"), "{report}");
    assert!(report.ends_with("1 service, no errors, 1 warning\n"), "{report}");
}

#[test]
fn cfg_06_root_runs_only_what_root_alone_can_change() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let bin = Conf::new(&[]);
    let program = bin.file("tool", "#!/bin/sh\n");
    mode(&program, 0o755);
    let shown = program.display();
    let start = format!("pidfile = \"/run/x.pid\"\nstart = \"{shown} --now\"\n");
    let exec = format!("{GOOD}[[check]]\nif = \"age > 5h\"\nthen = {{ exec = \"{shown}\" }}\n");
    let conf = Conf::new(&[
        ("as-nobody.toml", &format!("user = \"nobody\"\n{start}")),
        ("as-root.toml", &format!("user = \"root\"\n{start}")),
        ("exec.toml", &exec),
        ("missing.toml", &start.replace("/tool", "/missing")),
        ("start.toml", &start.replace("x.pid", "y.pid")),
    ]);
    assert_eq!(names(&conf.load()), ["as-nobody", "as-root", "exec", "missing", "start"]);

    chown(bin.dir(), Some(NOBODY), None).expect("root may");
    let loaded = conf.load();
    assert_eq!(names(&loaded), ["as-nobody"], "even what is missing could be put there by nobody");
    let told = told(&loaded);
    let named =
        format!("root would run this, but {} is owned by uid {NOBODY}", bin.dir().display());
    assert_eq!(told.matches(&named).count(), 4, "{told}");
    assert!(told.contains("start.toml:2:9"), "{told}");

    chown(bin.dir(), Some(0), None).expect("root may");
    mode(&program, 0o775);
    assert_eq!(names(&conf.load()), ["as-nobody", "missing"]);
}

#[test]
fn cfg_08_a_file_of_ten_megabytes_is_refused() {
    let conf = Conf::new(&[("good.toml", GOOD)]);
    conf.file("huge.toml", format!("match = '{}'", "x".repeat(10 << 20)));
    let loaded = load(conf.dir(), &who(), None).expect("usable");
    assert_eq!(names(&loaded), ["good"]);
    assert!(told(&loaded).contains("it has more than 1048576 bytes"), "{}", told(&loaded));
}

#[test]
fn cfg_09_names_that_are_no_names_of_services() {
    let conf = Conf::new(&[("good.toml", GOOD), ("web@1.a-b_c.toml", GOOD)]);
    let bad = ["a b", "a\nb", "a\"b", "..", "all", "-x", "ѕhop", "a\u{1b}[2J", &"x".repeat(65)];
    let bad = bad.iter().filter(|name| !name.starts_with('.'));
    for name in bad.clone() {
        conf.file(&format!("{name}.toml"), GOOD);
    }
    let loaded = load(conf.dir(), &who(), None).expect("usable");
    assert_eq!(names(&loaded), ["good", "web@1.a-b_c"]);
    assert_eq!(loaded.bad.len(), bad.count());
    assert!(loaded.bad.iter().all(|bad| bad.role == Role::Nameless));
    let told = told(&loaded);
    assert!(!told.contains(|c: char| c != '\n' && c.is_control()), "{told:?}");
}

#[test]
fn cfg_11_a_missing_directory_an_empty_one_and_one_unreadable_of_fifty() {
    let conf = Conf::new(&[]);
    let (report, code) = validate(&conf.dir().join("nowhere"), &who(), Form::Text);
    assert_eq!(code, 1);
    assert!(
        report.contains("failed to open the configuration directory: No such file"),
        "{report}"
    );
    let (report, code) = validate(&conf.file("file", ""), &who(), Form::Text);
    assert_eq!(code, 1, "{report}");
    fs::remove_file(conf.dir().join("file")).expect("mine");

    let (report, code) = validate(conf.dir(), &who(), Form::Text);
    assert_eq!(
        (code, report.ends_with("no services, no errors, 1 warning\n")),
        (0, true),
        "{report}"
    );

    for n in 0..49 {
        conf.file(&format!("s{n:02}.toml"), GOOD);
    }
    symlink("nowhere", conf.dir().join("broken.toml")).expect("mine");
    let loaded = load(conf.dir(), &who(), None).expect("usable");
    assert_eq!((loaded.services.len(), loaded.bad.len()), (49, 1));
}

#[test]
fn cfg_13_two_services_with_one_pidfile_or_one_start_are_warned_about() {
    let service = "pidfile = \"/run/x.pid\"\nstart = \"start-x\"\n";
    let conf = Conf::new(&[("a.toml", service), ("b.toml", service)]);
    let loaded = load(conf.dir(), &who(), None).expect("usable");
    assert_eq!(names(&loaded), ["a", "b"]);
    let warnings = render(&loaded.warnings);
    assert!(warnings.contains("service `a` has the same `pidfile`"), "{warnings}");
    assert!(warnings.contains("service `a` has the same `start`"), "{warnings}");
    assert_eq!(loaded.warnings.len(), 2);
}

#[test]
fn a_users_own_tree_serves_the_user_and_with_a_warning_roots_demo() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let conf = Conf::new(&[]);
    let file = conf.file("x.toml", GOOD);
    for path in [conf.dir(), &file] {
        chown(path, Some(1234), Some(1234)).expect("root may");
    }
    mode(conf.dir(), 0o775);
    mode(&file, 0o664);
    let load = |who: &LoadAs| load(conf.dir(), who, None);
    let own = LoadAs { uid: Uid(1234), ..root() };
    let loaded = load(&own).expect("their own, and a group of one's own is no other");
    assert_eq!((loaded.services.len(), loaded.warnings.len()), (1, 0));
    assert!(load(&root()).is_err());
    let demo = LoadAs { demo_owner: Some(Uid(1234)), ..root() };
    let loaded = load(&demo).expect("for a demonstration");
    assert_eq!((loaded.services.len(), loaded.warnings.len()), (1, 1));
    assert!(load(&LoadAs { demo_owner: Some(Uid(1235)), ..root() }).is_err());
    chown(&file, None, Some(100)).expect("root may");
    assert_eq!(load(&own).expect("usable").bad.len(), 1, "a group with others in it");
}

#[test]
fn json_has_a_stable_shape() {
    let conf = Conf::new(&[("a.toml", "run = \"sleep 9\"\nevrey = \"1s\"\n")]);
    let (report, code) = validate(conf.dir(), &who(), Form::Json);
    assert_eq!(code, 1);
    let file = conf.dir().join("a.toml");
    let expected = serde_json::json!([{
        "file": file, "line": 2, "column": 1, "severity": "error",
        "message": "unknown key `evrey`", "hint": "did you mean `every`?",
    }]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&report).expect("JSON"), expected);
}

#[test]
fn the_shipped_configuration_is_right() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf.d");
    let conf = Conf::new(&[]);
    for name in ["heeler.toml", "demo.toml"] {
        conf.file(name, fs::read(shipped.join(name)).expect("shipped"));
    }
    let (report, code) = validate(conf.dir(), &who(), Form::Text);
    assert_eq!((report.as_str(), code), ("1 service, no errors\n", 0));
}
