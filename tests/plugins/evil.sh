#!/bin/sh
# Programs of checks as they should not be: evil.sh MODE [FILE]. Pids go to FILE, one a line.
note() { echo "$1" >>"$FILE"; }
FILE=$2
case $1 in
  spew) note $$; exec yes "$(head -c 200 /dev/zero | tr '\0' x)" ;;
  big) head -c 3000000000 /dev/zero; exit 0 ;;
  hang) note $$; exec sleep 1000 ;;
  holdpipe) sleep 1000 & note $!; echo started; exit 0 ;;
  silent-rest) sleep 1000 >/dev/null 2>&1 & note $!; echo started; exit 0 ;;
  noterm) note $$; trap '' TERM HUP INT; while :; do sleep 0.1; done ;;
  stop) note $$; kill -STOP $$; exit 0 ;;
  setsid) echo out; setsid sh -c 'echo $$ >>"$0"; exec sleep 1001' "$FILE" >/dev/null 2>&1 &
    while [ ! -s "$FILE" ]; do sleep 0.02; done; exit 0 ;;
  daemonize) exec perl -MPOSIX -e '
    if (!fork) { setsid; if (!fork) { open F, ">>", $ARGV[0]; print F "$$\n"; close F; exec "sleep", "1002" } _exit(0) }
    wait; select undef, undef, undef, 0.02 until -s $ARGV[0]; exit 0' "$FILE" ;;
  code) echo "code it is"; exit "$FILE" ;;
  suicide) kill -"$FILE" $$; sleep 5 ;;
  slow) exec 9>>"$FILE.lock"; flock -n 9 || echo "two at once" >>"$FILE.double"
    echo $$ >>"$FILE"; sleep 1; exit 0 ;;
  esc) printf '\033]0;pwn\007\033[2J\r\nBcc: x@evil\r\n\000\377\376%s\n' '%s%n'; exit 1 ;;
  stdin) cat; echo "stdin is at its end"; exit 4 ;;
  closeout) exec >&- 2>&-; sleep 0.5; exit 5 ;;
esac
