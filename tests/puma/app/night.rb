# A Puma of the night: APP/puma.rb, APP/port, APP/current -> releases/N. What it does it says in APP/run/log, a
# line each: when (CLOCK_MONOTONIC, ms), what, who.
app = File.expand_path(__dir__)
directory "#{app}/current"
environment 'production'
bind "tcp://127.0.0.1:#{File.read("#{app}/port").strip}"
workers 4
threads 1, 4
tag File.basename(app)
pidfile "#{app}/run/puma.pid"
state_path "#{app}/run/puma.state"
File.open("#{app}/run/puma.state", 'a', 0o600) {}
activate_control_app "unix://#{app}/run/control.sock", { auth_token: 'sekret' }
worker_check_interval 1
# Whoever hangs is heeler's to find, and whoever does not go is heeler's to force out.
worker_timeout 3600
worker_shutdown_timeout 3600

require 'fiddle'
::NIGHT = File.open("#{app}/run/log", 'a')
def NIGHT.say(what, who = Process.pid)
  # One write, and no lock: it is called by signal handlers too.
  syswrite(format("%d %s %d\n", Process.clock_gettime(Process::CLOCK_MONOTONIC, :millisecond), what, who))
end

# Held by the master alone: two at a time are told by the second.
::LOCK = File.open("#{app}/run/lock", 'w')
NIGHT.say(LOCK.flock(File::LOCK_EX | File::LOCK_NB) ? 'master' : 'double')
on_worker_boot { LOCK.close }

::SLEEP = Fiddle::Function.new(Fiddle::Handle::DEFAULT['sleep'], [Fiddle::TYPE_INT], Fiddle::TYPE_INT,
                             need_gvl: true)

require 'puma/cluster'
# Its master means it to go, so heeler does not.
Puma::Cluster::WorkerHandle.prepend(Module.new do
  def term
    NIGHT.say('asked', pid) if pid
    super
  end
end)
# It was told to go, by whomever.
Puma::Server.prepend(Module.new do
  def stop(sync = false)
    NIGHT.say('told')
    super
  end
end)
