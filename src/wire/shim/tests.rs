use std::time::Duration;

use super::*;
use crate::model::job::{Ended, Ladder, Outcome, Output};
use crate::model::process::Exit;

fn identity(pid: i32) -> ProcessIdentity {
    ProcessIdentity { pid: Pid(pid), started_ticks: u64::MAX }
}

fn plan() -> Plan {
    Plan {
        boot: "0f0e-boot".into(),
        records: "/run/heeler/svc/shop".into(),
        cgroup: Some("/system.slice/heeler.service/svc-shop".into()),
        job: Job {
            action: ActionId(u64::MAX),
            service: ServiceName::parse("shop").expect("a name"),
            kind: JobKind::Restart,
            command: Command {
                systemctl: None,
                argv: vec!["sh".into(), "-c".into(), "echo \"ü\n\"".into()],
                timeout: None,
                env: vec![("B".into(), "2".into())],
                cwd: Some("/srv/it".into()),
            },
            user: Some("deploy".into()),
            group: None,
            env: vec![("A".into(), "1".into())],
            env_file: Some("/etc/default/shop".into()),
            cwd: Some("/srv".into()),
            deadline: Mono::from_nanos(7),
            reason: "memory (2710 MiB) > 2600 MiB".into(),
            main: Some(identity(42)),
            at_deadline: AtDeadline::Group,
            input: None,
        },
    }
}

#[test]
fn a_plan_comes_back_as_it_was() {
    let mut plan = plan();
    assert_eq!(Plan::decode(&plan.encode().expect("encode")), Ok(plan.clone()));
    plan.job.kind = JobKind::Instance;
    plan.job.deadline = Mono::NEVER;
    plan.job.main = None;
    assert_eq!(Plan::decode(&plan.encode().expect("encode")), Ok(plan));
}

#[test]
fn a_plan_that_is_cut_changed_or_lengthened_anywhere_is_none() {
    let frame = plan().encode().expect("encode");
    for cut in 0..frame.len() {
        assert!(Plan::decode(&frame[..cut]).is_err(), "cut at {cut}");
        let mut changed = frame.clone();
        changed[cut] ^= 0x20;
        assert!(Plan::decode(&changed).is_err(), "changed at {cut}");
    }
    let longer = [&frame[..], b"x"].concat();
    assert_eq!(Plan::decode(&longer), Err(RecordError::Incomplete));
}

fn back<R: Record + PartialEq + fmt::Debug>(record: &R) {
    let bytes = record.encode();
    assert_eq!(R::decode(&bytes).as_ref(), Ok(record));
    // A later heeler added a field.
    let text = String::from_utf8(bytes.clone()).expect("JSON is UTF-8");
    let more = text.replacen('{', "{\"added_later\":[1,{\"x\":null}],", 1);
    assert_eq!(R::decode(more.as_bytes()).as_ref(), Ok(record), "{more}");
    let newer = text.replacen("\"v\":1", "\"v\":2", 1);
    assert_eq!(R::decode(newer.as_bytes()), Err(RecordError::Version(2)));
    for cut in 0..bytes.len() {
        assert!(R::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for garbage in [&b"null"[..], b"[]", b"{\"v\":1}", b"{\"v\":\"1\"}", b"\xff\xfe", b"{\"v\":-1}"]
    {
        assert!(R::decode(garbage).is_err());
    }
    let long = vec![b' '; limits::RECORD_BYTES_MAX + 1];
    assert_eq!(R::decode(&long), Err(RecordError::TooLong));
}

#[test]
fn records_come_back_whole_or_with_an_error() {
    back(&JobRecord {
        boot: "b".into(),
        action: ActionId(u64::MAX),
        kind: JobKind::Stop,
        cause: "asked by root".into(),
        before: Some(identity(1)),
        deadline: Mono::NEVER,
    });
    back(&ChildRecord {
        action: ActionId(0),
        shim: identity(2),
        child: identity(3),
        cgroup: "/system.slice/heeler.service".into(),
    });
    back(&LadderRecord(Ladder { identity: identity(5), kill_at: Mono::NEVER }));
    back(&MainRecord {
        identity: identity(6),
        session: Pid(6),
        group: Pid(7),
        claim: Some([i64::MIN, -1, 0, 1, 2, i64::MAX]),
        sockets: vec![0, u64::MAX],
    });
    for ended in [
        Ended::Exited(Exit::Code(0)),
        Ended::Exited(Exit::Signal(64)),
        Ended::TimedOut,
        Ended::NotExecuted { stage: "find the user".into(), error: "none".into() },
        Ended::Lost,
    ] {
        let output = Output { head: "a\n\u{1b}".into(), tail: "z".into(), dropped_bytes: 9 };
        let outcome = Outcome { ended, output, took: Duration::from_nanos(1) };
        back(&OutcomeRecord { action: ActionId(4), outcome });
    }
}

#[test]
fn a_number_that_means_a_group_to_kill_is_never_an_identity() {
    for pid in [0, -1, -7, i32::MIN] {
        let text =
            format!(r#"{{"v":1,"identity":{{"pid":{pid},"started_ticks":1}},"kill_at_ns":1}}"#);
        assert!(LadderRecord::decode(text.as_bytes()).is_err(), "{pid}");
    }
}
