# The application of one release; `STATUS` is what it answers.
run(lambda do |env|
  asked = Rack::Utils.parse_query(env['QUERY_STRING'].to_s)
  case env['PATH_INFO']
  when '/hang'
    # As a C extension that hangs: nothing of this worker runs any more, no signal handler either.
    NIGHT.say('hangs')
    SLEEP.call(3600)
  when '/grow'
    NIGHT.say('grows')
    Thread.new { ($ballast ||= []) << ('x' * (asked['mb'].to_i * 1_048_576)) }
  end
  [STATUS, { 'content-type' => 'text/plain' }, ['ok']]
end)
NIGHT.say('ready')
