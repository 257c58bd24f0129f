//! What many units that go down together are as mails: heeler's own mail scout, a mail server in the host.

use std::time::{Duration, Instant};

use crate::host::{Host, can_boot};
use crate::shop::{lay_heeler, wait_held};
use crate::situations::manager;
use crate::support::house::PATIENCE;
use crate::support::wait_for;

/// Takes every mail, and keeps each as a file.
const SERVER: &str = r#"use IO::Socket::INET;
my $l = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 25, ReuseAddr => 1) or die $!;
while (my $c = $l->accept) {
  print $c "220 web1\r\n";
  while (<$c>) {
    if (/^QUIT/i) { print $c "221 bye\r\n"; last }
    if (!/^DATA/i) { print $c "250 web1\r\n"; next }
    print $c "354 go on\r\n"; my $mail = "";
    while (<$c>) { last if /^\.\r\n/; $mail .= $_ }
    my $name = sprintf "/var/mails/%03d", $n++;
    open my $f, ">", "$name.new" or die $!; print $f $mail; close $f; rename "$name.new", "$name.eml";
    print $c "250 taken\r\n";
  }
}
"#;
const UNITS: usize = 10;

/// A host with ten units of deploy's, each up so many milliseconds after the one before, and a mail server.
fn open(apart_ms: usize) -> (Host, Vec<String>) {
    let mut host = Host::new();
    let names: Vec<String> = (0..UNITS).map(|n| format!("kept{n}")).collect();
    let text =
        |name| format!("user = \"deploy\"\nunit = \"{name}\"\nalert = [\"ops@example.com\"]\n");
    let texts: Vec<String> = names.iter().map(text).collect();
    let services: Vec<_> =
        names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    lay_heeler(&host, &services);
    let server = "servers = [{ host = \"127.0.0.1\", port = 25, tls = \"none\" }]";
    let mail = format!("[mail]\nfrom = \"heeler@web1.example.com\"\n{server}\n");
    host.write("/etc/heeler/conf.d/heeler.toml", &mail);
    host.write("/var/mails/.keep", "");
    host.write("/opt/mails.pl", SERVER);
    let unit = "[Service]\nExecStart=/usr/bin/perl /opt/mails.pl\n";
    host.write("/etc/systemd/system/mails.service", unit);
    host.link("../mails.service", "/etc/systemd/system/multi-user.target.wants/mails.service");
    for (n, name) in names.iter().enumerate() {
        let wait = n * apart_ms;
        let unit = format!(
            "[Service]\nExecStartPre=/bin/sleep {}.{:03}\nExecStart=/bin/sleep 1000000\n",
            wait / 1000,
            wait % 1000
        );
        host.write_deploys(&format!("/home/deploy/.config/systemd/user/{name}.service"), &unit);
    }
    host.boot_as_if_up_for(Duration::from_secs(3600));
    (host, names)
}

/// The subjects of the mails, in their order.
fn subjects(host: &Host) -> Vec<String> {
    let script =
        "cd /var/mails && ls *.eml 2>/dev/null | while read f; do grep -m1 ^Subject: $f; done";
    host.shell(script).lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Whether the end of each has been told.
fn all_told(host: &Host, names: &[String]) -> bool {
    let all = host.shell("cat /var/mails/*.eml 2>/dev/null || true");
    let told = |name: &String| {
        ["brought back after", "up again after"]
            .iter()
            .any(|end| all.contains(&format!("{name}: {end}")))
    };
    names.iter().all(told)
}

/// They come back as the machine gets round to them: together, or one after the other.
#[test]
fn ten_units_of_a_manager_that_died_are_few_mails() {
    if !can_boot() {
        return;
    }
    for apart_ms in [0, 700] {
        let (host, names) = open(apart_ms);
        let before: Vec<u32> = names.iter().map(|name| wait_held(&host, name, None)).collect();
        host.shell(&format!("kill -9 {}", manager(&host)));
        let died = Instant::now();
        for (name, pid) in names.iter().zip(before) {
            wait_held(&host, name, Some(pid));
        }
        wait_for("all to be told", PATIENCE * 2, || all_told(&host, &names).then_some(()));
        let subjects = subjects(&host);
        println!(
            "MEASURED {apart_ms} ms apart: {} mails after {:?}\n{subjects:#?}",
            subjects.len(),
            died.elapsed()
        );
        for line in host.journal().lines().filter(|line| line.contains(": alert (")) {
            println!("{}", line.get(..90).unwrap_or(line));
        }
        // Those who take long are told of twice: that they are down, and that they are back. Up to three at
        // once are mails of their own.
        let few = if apart_ms == 0 { 3 } else { 6 };
        assert!(subjects.len() <= few, "{subjects:#?}");
    }
}
