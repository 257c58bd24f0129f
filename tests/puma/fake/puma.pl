#!/usr/bin/perl
# A Puma for tests: one that can be made to misbehave on order. Same titles, same signals, same control server,
# same phase machine (cluster.rb, condensed in reference/puma.md 1.7).
#   puma.pl DIR [OPTION..]      runs in the foreground
# DIR/current is the link to the release (a directory with config.ru in it). Files it makes in DIR: puma.pid,
# puma.state, app.sock (answers "RELEASE PID"), log (a line per event).
# Options: workers=N (3; 0: single mode)   version=8.0.2   tag=shop   token=sekret (none: no token)
#          control=unix|abstract|tcp|relative|none (unix)   state-mode=0644   ping=SECONDS (5)
#          shutdown-timeout=SECONDS (30)   check=SECONDS (0.05; Puma's is 5)   first-data-timeout=SECONDS (30)
#          preload          phased restarts become hot ones, silently
# Knobs, files DIR/knob/NAME that may come and go at any time:
#   boot-loop   (text: indexes) a worker at that place dies while it boots
#   boot        (text: seconds) how long a boot takes
#   drain       (text: seconds) how long a worker takes to go after TERM
#   ignore-term (text: indexes) a worker forked while it is there ignores TERM
#   orphan      (text: indexes) a worker forked while it is there outlives its master, holding the listeners
#   stats       (text) after:SECONDS | half | half-head | garbage | silent | null-pid | close | huge | endless
#   stats.json  served in place of its own stats
# A release without config.ru, or with BOOM in it, cannot boot; so can none that was deleted.
use strict; use warnings;
use Cwd (); use Fcntl; use IO::Socket::INET; use IO::Socket::UNIX; use POSIX (); use Socket; use Time::HiRes qw(time sleep);
my $script = Cwd::abs_path($0);
my ($dir, @options) = @ARGV;
my %o = (workers => 3, version => '8.0.2', tag => 'shop', token => 'sekret', control => 'unix', 'state-mode' => '0644',
  ping => 5, 'shutdown-timeout' => 30, check => 0.05, 'first-data-timeout' => 30);
for (@options) { my ($k, $v) = split /=/, $_, 2; $o{$k} = $v // 1 }
my ($major, $minor) = $o{version} =~ /^(\d+)\.(\d+)/;
my $current = "$dir/current";
sub say_ { open my $f, '>>', "$dir/log"; syswrite $f, "$_[0]\n"; close $f }
sub knob { open my $f, '<', "$dir/knob/$_[0]" or return undef; local $/; my $text = <$f> // ''; chomp $text; $text }
sub knob_has { my ($name, $index) = @_; my $text = knob($name); defined $text && grep { $_ eq $index } split ' ', $text }
sub iso { POSIX::strftime('%Y-%m-%dT%H:%M:%SZ', gmtime $_[0]) }
sub put { my ($name, $text, $mode) = @_; open my $f, '>', "$dir/$name.new" or die "$name: $!"; print $f $text; close $f; chmod $mode, "$dir/$name.new"; rename "$dir/$name.new", "$dir/$name" }

chdir $current or die "$current: $!";
$^F = 1000;    # listeners pass an exec, as Puma's do
my ($app, $ctl);
my $restarted = $ENV{FAKE_PUMA_FDS};
my $control_url = { unix => "unix://$dir/ctl.sock", relative => 'unix://ctl.sock', abstract => '', tcp => '', none => '' }->{$o{control}};
if ($restarted) {
  my ($a, $c) = split /,/, $restarted;
  $app = IO::Socket::UNIX->new_from_fd($a, 'r+') or die "app: $!";
  $ctl = IO::Socket->new_from_fd($c, 'r+') if $c;
} else {
  # As Puma does: a socket that somebody answers on is somebody's.
  die "There is already a server bound to: $dir/app.sock (RuntimeError)\n" if IO::Socket::UNIX->new(Peer => "$dir/app.sock");
  unlink "$dir/app.sock";
  $app = IO::Socket::UNIX->new(Local => "$dir/app.sock", Listen => 64) or die "app: $!";
  # Running from "current", a relative address is one below it.
  my $path = $o{control} eq 'relative' ? "$current/ctl.sock" : "$dir/ctl.sock";
  unlink $path;
  $ctl = IO::Socket::UNIX->new(Local => $path, Listen => 64) if $o{control} =~ /unix|relative/;
  $ctl = IO::Socket::UNIX->new(Local => "\0fake-puma-$$", Listen => 64) if $o{control} eq 'abstract';
  $ctl = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64) if $o{control} eq 'tcp';
  die "control: $!" if !$ctl && $o{control} ne 'none';
  chmod 0777, $path if -S $path;
}
$control_url = "unix://\@fake-puma-$$" if $o{control} eq 'abstract';
$control_url = 'tcp://127.0.0.1:' . $ctl->sockport if $o{control} eq 'tcp';
my ($started, $phase, %w, $client, $stopping, $restarting) = (time, 0);
sub title { my $tag = $o{tag} eq '' ? '' : " [$o{tag}]"; $0 = $_[0] . $tag }
title("puma $o{version} (unix://$dir/app.sock)");
put('puma.pid', $$, 0644);
my $state = "---\npid: $$\n";
$state .= "control_url: $control_url\ncontrol_auth_token: $o{token}\n" if $control_url;
put('puma.state', "${state}running_from: \"$current\"\n", oct $o{'state-mode'});
pipe my $said, my $say or die "pipe: $!";
fcntl $said, F_SETFL, O_NONBLOCK;
my %flag;
for my $name (qw(TERM INT USR1 USR2)) { $SIG{$name} = sub { $flag{$name} = 1 } }
$SIG{CHLD} = sub { }; $SIG{PIPE} = 'IGNORE';

sub serve { my ($c) = @_; my $got = ''; while ($got !~ /\r?\n\r?\n/ && sysread $c, my $b, 4096) { $got .= $b }
  my $release = Cwd::getcwd() // 'gone'; syswrite $c, "HTTP/1.0 200 OK\r\n\r\n$release $$\n"; close $c }

sub worker { my ($index, $master) = @_;
  my ($term, $serving) = (0, 0);
  $SIG{$_} = 'DEFAULT' for qw(USR1 USR2 CHLD); $SIG{INT} = 'IGNORE';
  my $deaf = knob_has('ignore-term', $index); my $orphan = knob_has('orphan', $index);
  $SIG{TERM} = $deaf ? 'IGNORE' : sub { $term = 1 };
  close $said; close $ctl if $ctl && !$orphan; close $client->{c} if $client;
  title("puma: cluster worker $index: $master");
  sleep(knob('boot') || 0) if !$term;
  if (knob_has('boot-loop', $index) || -e 'BOOM' || !-e 'config.ru') { say_("! Unable to start worker $index"); POSIX::_exit(1) }
  fcntl $app, F_SETFL, O_NONBLOCK;
  syswrite $say, "b $index $$ 0\n";
  my ($next, $count) = (time + $o{ping}, 0);
  while (!$term) {
    my $r = ''; vec($r, fileno $app, 1) = 1;
    if (select($r, undef, undef, 0.05) > 0 && (my $c = $app->accept)) { serve($c); $count++ }
    if (time >= $next) { syswrite $say, "p $index $$ $count\n"; $next = time + $o{ping} }
    # "! Detected parent died, dying"
    if (getppid() != $master && !$orphan) { POSIX::_exit(1) }
  }
  my $gone = time + (knob('drain') || 0); sleep(0.01) while time < $gone;    # it is told again and again
  POSIX::_exit(0);
}

sub spawn_workers {
  for my $index (0 .. $o{workers} - 1) {
    next if grep { $_->{index} == $index } values %w;
    my $master = $$;
    my $pid = fork // next;
    if (!$pid) { worker($index, $master) }
    $w{$pid} = { index => $index, pid => $pid, phase => $phase, booted => 0, at => time, checkin => time, count => 0 };
  }
}

sub wait_workers {
  while ((my $pid = waitpid -1, POSIX::WNOHANG()) > 0) { delete $w{$pid} }
  for my $it (grep { $_->{term} } values %w) {
    # Told again at each check, and killed when its time is over.
    my $late = time - $it->{term} > $o{'shutdown-timeout'};
    next if !$late && time < $it->{again};
    kill $late ? 'KILL' : 'TERM', $it->{pid}; $it->{again} = time + $o{check};
  }
}

sub terminate { my ($it) = @_; $it->{term} //= time; $it->{again} = time + $o{check}; kill 'TERM', $it->{pid} }

sub phased { if ($o{preload}) { say_('* phased-restart called but not available, restarting normally.'); $restarting = 1; return }
  chdir $current or die "$current: $!"; $phase++; say_("- Starting phased worker restart, phase: $phase") }

sub check_workers {
  wait_workers();
  return if $stopping || $restarting;
  spawn_workers();
  my @all = sort { $a->{index} <=> $b->{index} } values %w;
  return if grep { !$_->{booted} } @all;
  my ($old) = grep { $_->{phase} != $phase } @all;
  if ($old && !$old->{term}) { say_("- Stopping $old->{pid} for phased upgrade..."); terminate($old) }
}

sub stats_text {
  my $own = knob('stats.json'); return $own if defined $own;
  my $how = knob('stats') // '';
  my $threads = sub { my ($count) = @_; my $t = '"backlog":0,"running":3,"pool_capacity":3,"max_threads":3';
    $t .= ",\"requests_count\":$count" if $major >= 5;
    $t .= ',"busy_threads":0' if $major > 6 || $major == 6 && $minor >= 6;
    $t .= ',"backlog_max":0,"reactor_max":0' if $major >= 7; $t .= ',"io_threads":0' if $major >= 8; "{$t}" };
  my $versions = $major >= 6 ? ",\"versions\":{\"puma\":\"$o{version}\",\"ruby\":{\"engine\":\"ruby\",\"version\":\"3.1.2\"}}" : '';
  my $at = $major >= 4 ? '"started_at":"' . iso($started) . '",' : '';
  if (!$o{workers}) { my $t = $threads->(0); $t =~ s/^\{/{$at/; $t =~ s/\}$/$versions}/; return $t }
  my @each = map { my $it = $_;
    my $pid = $how eq 'null-pid' && !$it->{index} ? 'null' : $it->{pid};
    my $begun = $major >= 4 ? '"started_at":"' . iso($it->{at}) . '",' : '';
    "{$begun\"pid\":$pid,\"index\":$it->{index},\"phase\":$it->{phase},\"booted\":" . ($it->{booted} ? 'true' : 'false') .
      ',"last_checkin":"' . iso($it->{checkin}) . '","last_status":' . ($it->{pinged} ? $threads->($it->{count}) : '{}') . '}'
  } sort { $a->{index} <=> $b->{index} } values %w;
  my ($n, $booted) = (scalar(values %w), scalar grep { $_->{booted} } values %w);
  my $old = grep { $_->{phase} != $phase } values %w;
  "{$at\"workers\":$n,\"phase\":$phase,\"booted_workers\":$booted,\"old_workers\":$old,\"worker_status\":[" . join(',', @each) . "]$versions}";
}

sub answer { my ($line) = @_;
  my ($path, $query) = $line =~ m{^GET /([^ ?]*)\??(\S*)} or return (400, 'Bad request');
  return (403, 'Invalid auth token') if $o{token} ne 'none' && !grep { $_ eq "token=$o{token}" } split /[&;]/, $query;
  say_("control $path");
  my $ok = '{ "status": "ok" }';
  if ($path eq 'stats') { return (200, stats_text()) }
  if ($path eq 'phased-restart' && $o{workers}) { $flag{USR1} = 1; return (200, $ok) }
  if ($path eq 'restart') { $flag{USR2} = 1; return (200, $ok) }
  if ($path eq 'reload-worker-directory' && $o{workers}) { chdir $current or return (500, "$!"); return (200, $ok) }
  (404, 'Unsupported action');
}

# One client at a time, and one that says nothing keeps the others out: Puma's control server has one thread.
sub control {
  if (!$client) { my $r = ''; vec($r, fileno $ctl, 1) = 1; return unless select($r, undef, undef, 0) > 0;
    my $c = $ctl->accept or return; fcntl $c, F_SETFL, O_NONBLOCK; $client = { c => $c, got => '', until => time + $o{'first-data-timeout'} } }
  my $c = $client->{c};
  if (!defined $client->{due}) {
    my $length = sysread $c, my $b, 4096;
    if (defined $length && !$length || time > $client->{until}) { close $c; $client = undef; return }
    $client->{got} .= $b if $length;
    return unless $client->{got} =~ /\r?\n\r?\n/;
    my ($line) = $client->{got} =~ /^([^\r\n]*)/;
    my $how = $line =~ m{^GET /stats} ? knob('stats') // '' : '';
    my ($code, $body) = answer($line);
    my $head = "HTTP/1.0 $code X\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n";
    my $text = "$head$body";
    $text = $head . substr $body, 0, length($body) / 2 if $how eq 'half';
    $text = substr $head, 0, 20 if $how eq 'half-head';
    $text = "\x80\x00garbage\r\n\r\n\x1b[2J{" if $how eq 'garbage';
    $text = '' if $how eq 'close';
    $text = "HTTP/1.0 200 OK\r\n\r\n" . ('x' x (2 << 20)) if $how eq 'huge' || $how eq 'endless';
    my $after = $how =~ /^after:([\d.]+)/ ? $1 : 0;
    @$client{qw(text due)} = ($text, $how eq 'silent' ? time + 1e9 : time + $after);
    $client->{endless} = $how eq 'endless';
  }
  return if time < $client->{due};
  my $sent = syswrite $c, $client->{text};
  if (!defined $sent) { return if $!{EAGAIN}; close $c; $client = undef; return }
  substr($client->{text}, 0, $sent) = '';
  if ($client->{text} eq '') { if ($client->{endless}) { $client->{text} = 'x' x 65536 } else { close $c; $client = undef } }
}

say_("* Puma $o{version} starting in " . ($o{workers} ? 'cluster' : 'single') . " mode, pid $$");
while (1) {
  my $r = ''; vec($r, fileno $said, 1) = 1;
  vec($r, fileno $ctl, 1) = 1 if $ctl && !$client;
  vec($r, fileno $app, 1) = 1 if !$o{workers};
  select $r, undef, undef, $client ? 0.01 : 0.05;
  while (sysread $said, my $b, 4096) { for (split /\n/, $b) {
    my ($what, $index, $pid, $count) = split / /; my $it = $w{$pid} or next;
    $it->{booted} = 1; $it->{checkin} = time; if ($what eq 'p') { $it->{pinged} = 1; $it->{count} = $count } } }
  if (!$o{workers}) { fcntl $app, F_SETFL, O_NONBLOCK; if (my $c = $app->accept) { fcntl $c, F_SETFL, 0; serve($c) } }
  if (delete $flag{USR1}) { phased() }
  if (delete $flag{USR2}) { $restarting = 1 }
  if ((delete $flag{TERM} || delete $flag{INT}) && !$stopping) { $stopping = 1; close $app; unlink "$dir/app.sock" }
  if ($stopping || $restarting) { terminate($_) for grep { !$_->{term} } values %w }
  check_workers();
  # While it shuts down its control server takes connections and says nothing.
  control() if $ctl && !$stopping;
  if ($stopping && !%w) { unlink "$dir/puma.pid"; say_('- Goodbye!'); exit 0 }
  if ($restarting && !%w) {
    chdir $current;
    # What cannot boot takes the whole master with it where it is loaded before the fork.
    if ($o{preload} && (-e 'BOOM' || !-e 'config.ru')) { say_('! Unable to load application'); exit 1 }
    $ENV{FAKE_PUMA_FDS} = join ',', fileno $app, $ctl ? fileno $ctl : '';
    exec $^X, $script, @ARGV or die "exec: $!";
  }
}
