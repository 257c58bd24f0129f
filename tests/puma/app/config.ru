# What a test can ask of a Puma worker.
require 'json'
require 'fiddle'

SLEEP = Fiddle::Function.new(Fiddle::Handle::DEFAULT['sleep'], [Fiddle::TYPE_INT], Fiddle::TYPE_INT,
                             need_gvl: true)

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
  when '/leak'
    # The master takes so many MiB and keeps them.
    $leak.puts asked['mb']
  end
  [200, { 'content-type' => 'application/json' }, [JSON.generate(answer)]]
end)
