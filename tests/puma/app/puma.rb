# A Puma cluster as Capistrano lays it out: APP/current -> releases/N, APP/shared/{pids,log}.
app = File.expand_path('~/apps/shop')
directory "#{app}/current"
environment 'production'
bind 'tcp://127.0.0.1:9292'
workers 2
threads 1, 4
pidfile "#{app}/shared/pids/puma.pid"
state_path "#{app}/shared/pids/puma.state"
# Puma 5.6.5 takes no notice of state_permission, and keeps the mode of a file that is there.
File.open("#{app}/shared/pids/puma.state", 'a', 0o600) {}
tag 'shop'
# Asked for by a file: others do without.
activate_control_app "unix://#{app}/shared/pumactl.sock" if File.exist?("#{app}/shared/control")

# What Puma 7 does unless it is told otherwise: a phased restart becomes a full one.
preload_app! if File.exist?("#{app}/shared/preload")
# What a test wants otherwise.
extra = "#{app}/shared/extra.rb"
instance_eval File.read(extra) if File.exist?(extra)

# The master's own leak: workers say how much.
taken, $leak = IO.pipe
Thread.new do
  ballast = []
  while (mb = taken.gets)
    ballast << Random.new.bytes(mb.to_i * 1_048_576)
  end
end
