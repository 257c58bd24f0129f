//! What Pumas of every version say, over every kind of socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use heeler::model::puma::{
    Ask, Boot, Control, ControlUrl, Exposed, Form, Question, Said, Secret, Token, TroubleKind,
    Version,
};

use crate::support::fake_puma::{FakePuma, NEED, ask_by};
use crate::support::house::PATIENCE;
use crate::support::{HEELER, can_run, wait_for};

#[test]
fn of_every_version() {
    if !can_run(&[NEED]) {
        return;
    }
    for (version, told) in [
        ("3.12.6", None),
        ("4.3.12", None),
        ("5.6.5", None),
        ("6.6.0", Some(Version { major: 6, minor: 6, patch: 0 })),
        ("7.2.0", Some(Version { major: 7, minor: 2, patch: 0 })),
        ("8.0.2", Some(Version { major: 8, minor: 0, patch: 2 })),
    ] {
        let option = format!("version={version}");
        let puma = FakePuma::start(&[&option, "ping=0.1", "workers=2"]);
        puma.wait_cluster("all to have pinged", |cluster| {
            cluster.each.len() == 2
                && cluster
                    .each
                    .iter()
                    .all(|it| it.boot == Boot::Booted && it.threads.most == Some(3))
        });
        let answer = puma.ask(Ask::Stats);
        let stats = answer.stats().expect("stats");
        let Form::Cluster(cluster) = &stats.form else { panic!("{version} is a cluster") };
        assert_eq!(stats.version, told, "{version}");
        assert_eq!(stats.started_wall_ms.is_some(), !version.starts_with('3'), "{version}");
        let numbers = (cluster.workers, cluster.booted, cluster.old, cluster.phase);
        assert_eq!(numbers, (Some(2), Some(2), Some(0), Some(0)), "{version}");
        let mut pids: Vec<_> = cluster.each.iter().map(|it| it.pid.expect("a pid").0).collect();
        pids.sort_unstable();
        let mut own: Vec<_> =
            puma.workers().iter().map(|pid| i32::try_from(*pid).expect("a pid")).collect();
        own.sort_unstable();
        assert_eq!(pids, own, "{version}");
        assert!(cluster.each.iter().all(|it| it.checkin_wall_ms.is_some()), "{version}");
        assert_eq!((stats.backlog(), stats.busy_milli_percent()), (Some(0), Some(0)), "{version}");
        let state = answer.state.expect("a state file");
        assert_eq!(state.master.map(|pid| pid.0), i32::try_from(puma.master()).ok());
        let from = state.running_from.expect("said");
        assert_eq!(from.raw(), puma.path("current").to_str().expect("text"));
    }
}

#[test]
fn of_a_single_one_and_what_that_cannot_do() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&["workers=0"]);
    let answer = puma.ask(Ask::Stats);
    let Form::Single(threads) = &answer.stats().expect("stats").form else { panic!("is single") };
    assert_eq!((threads.running, threads.most), (Some(3), Some(3)));
    let kind = |ask| puma.ask(ask).said.expect_err("cannot").kind;
    assert_eq!(kind(Ask::ReloadWorkerDirectory), TroubleKind::Unavailable);
    assert_eq!(kind(Ask::PhasedRestart), TroubleKind::Unavailable);
}

#[test]
fn over_every_kind_of_socket() {
    if !can_run(&[NEED]) {
        return;
    }
    for control in ["unix", "relative", "abstract", "tcp"] {
        let option = format!("control={control}");
        let puma = FakePuma::start(&[&option, "workers=1"]);
        puma.wait_up(1);
        let by_all = [Exposed::StateReadable, Exposed::ControlReachable];
        assert_eq!(puma.ask(Ask::Stats).exposed, by_all, "{control}");
    }
}

#[test]
fn by_its_address_and_a_token_said_or_in_a_file() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&["workers=1"]);
    puma.wait_up(1);
    let url = ControlUrl::Unix(puma.path("ctl.sock"));
    let asked = |token| {
        let control = Control::Url { url: url.clone(), token };
        ask_by(HEELER, &Question { control, ask: Ask::Stats })
    };
    let said = Token::Said(Secret::token("sekret").expect("a token"));
    let answer = asked(said);
    assert!(answer.stats().is_some() && answer.state.is_none(), "{answer:?}");
    let file = puma.path("token");
    fs::write(&file, "sekret\n").expect("write");
    assert!(asked(Token::File(file.clone())).stats().is_some());
    let kind = |token| asked(token).said.expect_err("is refused").kind;
    assert_eq!(kind(Token::None), TroubleKind::Forbidden);
    assert_eq!(kind(Token::Said(Secret::token("wrong").expect("a token"))), TroubleKind::Forbidden);
    fs::write(&file, "two words\n").expect("write");
    assert_eq!(kind(Token::File(file)), TroubleKind::State);
    assert_eq!(kind(Token::File(puma.path("absent"))), TroubleKind::Absent);
}

#[test]
fn what_everybody_can_use_is_named() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&["workers=1", "token=none", "state-mode=0666"]);
    puma.wait_up(1);
    let all = [Exposed::StateReadable, Exposed::StateWritable, Exposed::ControlOpen];
    assert_eq!(puma.ask(Ask::Stats).exposed, all);
    let chmod = |name: &str, mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(puma.path(name), mode).expect("chmod");
    };
    chmod("puma.state", 0o640);
    chmod("ctl.sock", 0o660);
    assert_eq!(puma.ask(Ask::Stats).exposed, []);
}

#[test]
fn a_command_is_heard_and_that_is_all() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&["workers=1"]);
    puma.wait_up(1);
    for ask in [Ask::ReloadWorkerDirectory, Ask::PhasedRestart, Ask::Restart] {
        assert_eq!(puma.ask(ask).said, Ok(Said::Accepted), "{ask:?}");
        wait_for("it to be written down", PATIENCE, || {
            puma.log().contains(&format!("control {}", ask.word())).then_some(())
        });
    }
}
