# The words of Capistrano that the example uses, on this machine in place of one behind ssh. As there, a
# command that fails raises, and what is raised ends the deploy.
require 'rake'
extend Rake::DSL

def fetch(name, default = nil) = { application: 'shop' }.fetch(name, default)
def roles(*) = ['this machine']
def on(hosts, **) = hosts.each { yield }

def execute(command, *words)
  raise 'another command' unless command == :heeler

  system(ENV.fetch('HEELER'), *words.map(&:to_s)) or raise "heeler exit status: #{$?.exitstatus}"
end

def after(task, other)
  Rake::Task.define_task(task).enhance { Rake::Task[other].invoke }
end

$stdout.sync = true
load ARGV.fetch(0)
Rake::Task['deploy:published'].invoke
puts 'deployed'
