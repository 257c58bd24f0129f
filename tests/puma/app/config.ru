# What a test can ask of a Puma worker.
require 'json'
require 'fiddle'

SLEEP = Fiddle::Function.new(Fiddle::Handle::DEFAULT['sleep'], [Fiddle::TYPE_INT], Fiddle::TYPE_INT,
                             need_gvl: true)

# A release that cannot boot.
raise 'boom' if File.exist?('BOOM')

STUCK = File.expand_path('~/apps/shop/shared/stuck')
BROKEN = File.expand_path('~/apps/shop/shared/broken')

run(lambda do |env|
  asked = Rack::Utils.parse_query(env['QUERY_STRING'].to_s)
  answer = { pid: Process.pid, master: Process.ppid, uid: Process.uid, euid: Process.euid,
             gid: Process.gid, groups: Process.groups, env: ENV.to_h }
  case env['PATH_INFO']
  when '/up'
    # Who serves, as whom, with which environment.
  when '/gvl'
    # As a C extension that hangs: nothing of this worker runs meanwhile, no signal handler either.
    SLEEP.call(asked['s'].to_i)
  when '/grow'
    # This worker takes so many MiB and keeps them.
    # Once it has answered: that takes a while, and nothing else runs meanwhile.
    Thread.new { sleep 0.2; ($ballast ||= []) << ('x' * (asked['mb'].to_i * 1_048_576)) }
  when '/slow'
    sleep asked['s'].to_f
  when '/ensure'
    # Whatever this thread is told, it never ends.
    File.write(STUCK, Process.pid.to_s)
    begin
      sleep
    ensure
      loop { sleep 1 }
    end
  when '/break'
    # From now on this master's workers answer wrongly; a new one's do not.
    File.write(BROKEN, Process.ppid.to_s)
  when '/page'
    broken = File.exist?(BROKEN) && File.read(BROKEN) == Process.ppid.to_s
    next [200, { 'content-type' => 'text/plain' }, [broken ? "out of order\r\n" : 'ok']]
  when '/leak'
    # The master takes so many MiB and keeps them.
    $leak.puts asked['mb']
  end
  [200, { 'content-type' => 'application/json' }, [JSON.generate(answer)]]
end)
