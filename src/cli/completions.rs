//! `heeler completions SHELL`: what a shell completes, made from the very definition of the command line.
//! The names of services are asked of the daemon when they are wanted.
#![forbid(unsafe_code)]

use clap::{Arg, Command, ValueEnum};

/// A shell that can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The script for a shell; it is read by `source`.
#[must_use]
pub(super) fn script(command: &Command, shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(command),
        // zsh understands what bash is told.
        Shell::Zsh => format!("autoload -U +X bashcompinit && bashcompinit\n{}", bash(command)),
        Shell::Fish => fish(command),
    }
}

/// Asks the daemon for the names of services. There is no need of a JSON parser for names like these.
const NAMES: &str =
    r#"heeler status --json 2>/dev/null | grep -o '"service":"[^"]*"' | cut -d'"' -f4"#;

/// What a positional argument is completed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Services,
    ServicesAndUsers,
    Users,
    Other,
}

fn kind(command: &Command) -> Kind {
    let names = command.get_positionals().flat_map(|arg| arg.get_value_names().unwrap_or_default());
    let names: Vec<&str> = names.map(clap::builder::Str::as_str).collect();
    let has = |word: &str| names.iter().any(|name| name.split('|').any(|part| part == word));
    match (has("NAME"), has("USER")) {
        (true, true) => Kind::ServicesAndUsers,
        (true, false) => Kind::Services,
        (false, true) => Kind::Users,
        (false, false) => Kind::Other,
    }
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|word| !word.is_hide_set())
}

fn takes_value(arg: &&Arg) -> bool {
    arg.get_action().takes_values()
}

/// `--long` and `-s` of every option.
fn options(command: &Command) -> Vec<String> {
    let long = |arg: &Arg| arg.get_long().map(|long| format!("--{long}"));
    let short = |arg: &Arg| arg.get_short().map(|short| format!("-{short}"));
    command
        .get_opts()
        .chain(command.get_arguments().filter(|arg| !takes_value(arg)))
        .flat_map(|arg| [long(arg), short(arg)])
        .flatten()
        .collect()
}

/// The fixed words of a command: its own commands, and what its argument may be.
fn words(command: &Command) -> Vec<String> {
    let own = shown(command).map(|word| word.get_name().to_owned());
    let values = command.get_positionals().flat_map(Arg::get_possible_values);
    own.chain(values.map(|value| value.get_name().to_owned())).collect()
}

fn bash(command: &Command) -> String {
    let all = || shown(command).chain([command]);
    let mut valued: Vec<_> = all()
        .flat_map(|command| command.get_opts())
        .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
        .collect();
    valued.sort();
    valued.dedup();
    let mut cases = String::new();
    for word in shown(command) {
        let (name, options) = (word.get_name(), options(word).join(" "));
        let fixed = words(word).join(" ");
        let ask = match kind(word) {
            Kind::Services => " ask=_heeler_names",
            Kind::ServicesAndUsers => " ask='_heeler_names; compgen -u'",
            Kind::Users => " ask='compgen -u'",
            Kind::Other => "",
        };
        cases.push_str(&format!("        {name}) options+=' {options}' fixed='{fixed}'{ask} ;;\n"));
    }
    let (valued, commands) = (valued.join("|"), words(command).join(" "));
    let options = options(command).join(" ");
    format!(
        r#"_heeler_names() {{
    {NAMES}
}}
_heeler() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} word='' fixed='' ask='' options='{options}' i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {valued}) ((i++)) ;;
        -*) ;;
        *) word=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    ((i > COMP_CWORD)) && return
    case $word in
        '') fixed='{commands}' ;;
{cases}    esac
    if [[ $cur == -* ]]; then
        fixed=$options
    elif [[ $ask ]]; then
        fixed+=" $(eval "$ask")"
    fi
    COMPREPLY=($(compgen -W "$fixed" -- "$cur"))
}}
complete -o default -F _heeler heeler
"#
    )
}

fn fish(command: &Command) -> String {
    let mut out = String::from("complete -c heeler -e\n");
    let names = "(heeler status --json 2>/dev/null | string match -arg '\"service\":\"([^\"]*)\"')";
    let mut option = |arg: &Arg, when: &str| {
        let Some(long) = arg.get_long() else { return };
        let short = arg.get_short().map(|short| format!(" -s {short}")).unwrap_or_default();
        let value = if takes_value(&arg) { " -r" } else { "" };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        out.push_str(&format!(
            "complete -c heeler{when} -l {long}{short}{value} -d {}\n",
            quote(&help)
        ));
    };
    command.get_arguments().for_each(|arg| option(arg, ""));
    for word in shown(command) {
        let when = format!(" -n '__fish_seen_subcommand_from {}'", word.get_name());
        word.get_arguments().for_each(|arg| option(arg, &when));
    }
    for word in shown(command) {
        let name = word.get_name();
        let about = word.get_about().map(ToString::to_string).unwrap_or_default();
        out.push_str(&format!(
            "complete -c heeler -f -n __fish_use_subcommand -a {name} -d {}\n",
            quote(&about)
        ));
        let mut values = words(word).join(" ");
        values.push_str(&match kind(word) {
            Kind::Services => format!(" {names}"),
            Kind::ServicesAndUsers => format!(" {names} (__fish_complete_users)"),
            Kind::Users => " (__fish_complete_users)".to_owned(),
            Kind::Other => String::new(),
        });
        if !values.trim().is_empty() {
            out.push_str(&format!(
                "complete -c heeler -f -n '__fish_seen_subcommand_from {name}' -a {}\n",
                quote(values.trim())
            ));
        }
    }
    out
}

/// One word for fish, whatever is in it.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
