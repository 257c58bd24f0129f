#!/usr/bin/perl
# A service for tests: counts its own copies by a flock, so nobody has to be believed.
#   service.pl DIR NAME [OPTION..]
# Options: foreground      do not daemonise (for `run =`)
#          term=ignore     ignore TERM        term=SECONDS   take that long to go after TERM
#          delay=SECONDS   the pidfile comes that late
#          keep-pidfile    leave the pidfile behind on TERM
#          children=N      N children that end with it          orphan        a child that stays, holding
#                                                              a listening socket and ignoring its parent
#          mb=N            touch N MiB
#          swarm=N         N children that stay, at its first start only
#          stay            a child that stays and ignores TERM        escape   the same, in a session of its own
#          dies=SECONDS    gone that long after it is up, unless NAME.mended is there
#          term=respawn    answer TERM with a new copy                stick=FILE   on USR1 write to FILE
# Files in DIR: NAME.pid, NAME.lock, NAME.starts (a line per start: pid, time), NAME.doubles (a line per
# copy that found another one), NAME.env (its environment), NAME.fail (if there: exit 1 at once),
# NAME.terms (a line per TERM: pid, time), NAME.stops (a line per orderly end: pid, time).
use strict; use warnings;
use Fcntl qw(:flock); use POSIX (); use Time::HiRes (); use IO::Socket::INET;
my ($script, $old) = ($0, 0);
my ($dir, $name, @options) = @ARGV;
my %o = map { my ($k, $v) = split /=/, $_, 2; $k => $v // 1 } @options;
my $base = "$dir/$name";
sub note { my ($file, $text) = @_; open my $f, '>>', "$base.$file" or die "$base.$file: $!"; syswrite $f, "$text\n"; close $f }
if (-e "$base.fail") { print "asked to fail\n"; exit 1 }
unless ($o{foreground}) {
  my $pid = fork() // die "fork: $!";
  if ($pid) {
    # As a daemon should: return when the service is up, or failed.
    for (1 .. 400) {
      exit 0 if $o{delay} || -e "$base.up.$pid";
      my $gone = waitpid($pid, POSIX::WNOHANG());
      exit 1 if $gone == $pid;
      Time::HiRes::sleep(0.01);
    }
    exit 1;
  }
  POSIX::setsid();
  open STDIN, '<', '/dev/null'; open STDOUT, '>>', '/dev/null'; open STDERR, '>>', '/dev/null';
}
$0 = "service $name";
open my $lock, '>>', "$base.lock" or die "$base.lock: $!";
unless (flock $lock, LOCK_EX | LOCK_NB) { note('doubles', "$$ " . Time::HiRes::time()); exit 1 }
my $stop = sub {
  note('terms', "$$ " . Time::HiRes::time());
  return if ($o{term} // '') eq 'ignore';
  if (($o{term} // '') eq 'respawn' && !fork()) {
    # The lock goes with the one that leaves: the new copy waits for that.
    close $lock; Time::HiRes::sleep(0.01) while getppid() == $old;
    exec $^X, $script, @ARGV or POSIX::_exit(1);
  }
  Time::HiRes::sleep($o{term}) if ($o{term} // '') =~ /^[\d.]+$/;
  unless ($o{'keep-pidfile'}) { open my $f, '<', "$base.pid"; my $is = $f ? <$f> : ''; unlink "$base.pid" if ($is // '') =~ /^$$\b/ }
  unlink "$base.up.$$"; note('stops', "$$ " . Time::HiRes::time()); POSIX::_exit(0);
};
$old = $$;
# From before it is known by a line in `starts`, so that every end of a known copy has its reason.
$SIG{TERM} = $stop;
note('starts', "$$ " . Time::HiRes::time());
{ open my $f, '>', "$base.env"; print $f "$_=$ENV{$_}\n" for sort keys %ENV }
my $ballast = 'x' x (($o{mb} // 0) * 1048576);
my @children;
for (1 .. ($o{children} // 0)) {
  my $parent = $$;
  my $pid = fork(); if (!$pid) { close $lock; $SIG{TERM} = 'DEFAULT'; $0 = "service $name child"; Time::HiRes::sleep(0.05) while getppid() == $parent; exit 0 }
  push @children, $pid;
}
if ($o{swarm} && !-e "$base.swarmed") {
  note('swarmed', $$);
  for (1 .. $o{swarm}) { if (!fork()) { close $lock; $SIG{TERM} = 'DEFAULT'; sleep 1000 while 1 } }
}
if ($o{stay} || $o{escape}) {
  my $pid = fork();
  if (!$pid) {
    close $lock; POSIX::setsid() if $o{escape};
    $SIG{TERM} = 'IGNORE'; $0 = "service $name rest"; note('rests', $$);
    sleep 1000 while 1;
  }
}
$SIG{USR1} = sub { open my $f, '>', $o{stick} or die; syswrite $f, 'x' } if $o{stick};
if ($o{orphan}) {
  my $pid = fork();
  if (!$pid) {
    $SIG{TERM} = 'DEFAULT';
    my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
    $0 = "service $name orphan"; note('orphans', $$);
    sleep 1000 while 1;
  }
}
Time::HiRes::sleep($o{delay}) if $o{delay};
{ open my $f, '>', "$base.pid.new" or die; print $f "$$\n"; close $f; rename "$base.pid.new", "$base.pid" or die }
{ open my $f, '>', "$base.up.$$"; close $f }
END { unlink "$base.up.$$" if $base }
$SIG{CHLD} = 'IGNORE';
if ($o{dies} && !-e "$base.mended") { Time::HiRes::sleep($o{dies}); exit 1 }
sleep 1000 while 1;
