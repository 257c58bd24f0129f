# Capistrano 3: a deploy that counts as done when heeler has seen every worker run the new release and answer well.
# Copy it to lib/capistrano/tasks/heeler.rake; take `puma:restart` and the like out of your own tasks.
#
#   set :heeler_service, 'shop'      in config/deploy.rb, where it is not called like the :application
#   set :heeler_timeout, '10m'       after which a release that is not verified is taken back
#
# Over ssh as the deploy user, without sudo: a service's own user may reload it. For another user say
# `allow = { deploy = ["status", "reload"] }` in the service's file. There [puma] has to say `current`, and
# rollback = "symlink" if heeler may point it back: then keep_releases is 2 or more.

namespace :heeler do
  desc 'Have Puma take up the release that was published, and fail unless it is verified'
  task :reload do
    # One host after the other: what the first one takes back, the others never see.
    on roles(:app), in: :sequence do
      # Exits with 0 only if it is verified; anything else raises here, and ends the deploy.
      execute :heeler, :reload, fetch(:heeler_service, fetch(:application)), '--verified',
              '--timeout', fetch(:heeler_timeout, '10m')
    end
  end
end

after 'deploy:published', 'heeler:reload'
