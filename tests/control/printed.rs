//! Completions and the manual page: what the shells and man(1) make of them.

use std::process::{Command, Stdio};

use crate::harness::Server;
use crate::support::{HEELER, Need, can_run};

fn printed(args: &[&str]) -> String {
    let output = Command::new(HEELER).args(args).output().expect("it runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What bash would offer for this line, with a heeler on the PATH that asks this server.
fn offered(server: &Server, line: &str) -> Vec<String> {
    let bin = server.dir.path().join("bin");
    std::fs::create_dir_all(&bin).expect("a directory");
    if !bin.join("heeler").exists() {
        std::os::unix::fs::symlink(HEELER, bin.join("heeler")).expect("links");
    }
    let script = format!(
        "source <(heeler completions bash); COMP_WORDS=({line}); [[ '{line}' == *' ' ]] && COMP_WORDS+=(''); \
         COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _heeler; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a PATH"));
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .env("PATH", path)
        .env("HEELER_SOCKET", &server.socket)
        .output()
        .expect("bash runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.is_empty(), "{line}: {said}");
    let offered = String::from_utf8(output.stdout).expect("text");
    offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_the_names_of_services() {
    let server = Server::start();
    assert_eq!(offered(&server, "heeler rest"), ["restart"]);
    assert_eq!(offered(&server, "heeler mo"), ["monitor"]);
    assert_eq!(offered(&server, "heeler restart s"), ["shop", "slow"]);
    assert_eq!(offered(&server, "heeler --socket x why th"), ["theirs"]);
    assert_eq!(offered(&server, "heeler events --f"), ["--follow"]);
    assert_eq!(offered(&server, "heeler mail "), ["test"]);
    assert_eq!(offered(&server, "heeler completions f"), ["fish"]);
    assert_eq!(offered(&server, "heeler run-as roo"), ["root"]);
    assert!(offered(&server, "heeler ").contains(&"doctor".to_owned()));
    // A file, by the default of bash.
    assert!(offered(&server, "heeler validate x").is_empty());
}

#[test]
fn every_shell_reads_its_script() {
    for (shell, program, package) in [
        ("bash", "/bin/bash", "bash"),
        ("zsh", "/usr/bin/zsh", "zsh"),
        ("fish", "/usr/bin/fish", "fish"),
    ] {
        let script = printed(&["completions", shell]);
        for word in ["unmonitor", "--no-wait", "run-as"] {
            assert!(script.contains(word.trim_start_matches("--")), "{shell} misses {word}");
        }
        assert!(!script.chars().any(|c| c.is_control() && c != '\n'), "{shell}");
        // The others are read where they are installed; nobody needs them for heeler.
        if !std::path::Path::new(program).exists() {
            eprintln!("{shell} is not here (Debian package {package}): its script is not read");
            continue;
        }
        let mut child =
            Command::new(program).arg("-n").stdin(Stdio::piped()).spawn().expect("it runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, script.as_bytes()).expect("it is read");
        drop(stdin);
        assert!(child.wait().expect("it ends").success(), "{shell}");
    }
}

#[test]
fn the_manual_page_has_every_command_and_no_mistake() {
    let page = printed(&["man"]);
    assert!(page.starts_with(".TH HEELER 8 "), "{page}");
    let help = printed(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| line.starts_with("  "));
    let names: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 15, "{help}");
    for name in names {
        let name = name.replace('-', "\\-");
        assert!(page.contains(&format!(".SS \"heeler {name} ")), "{name} is not in it");
    }
    for line in page.lines().filter(|line| line.starts_with('.')) {
        let macros = [".TH ", ".SH ", ".SS ", ".PP", ".TP", ".B ", ".I "];
        assert!(macros.iter().any(|word| line.starts_with(word)), "{line}");
    }
    if !can_run(&[Need::Program("/usr/bin/groff", "groff")]) {
        return;
    }
    let mut groff = Command::new("groff")
        .args(["-man", "-ww", "-Tascii"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("groff runs");
    let mut stdin = groff.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, page.as_bytes()).expect("it is read");
    drop(stdin);
    let output = groff.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
