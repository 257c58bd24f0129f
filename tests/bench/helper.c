/* The small static program that the benchmark starts.
 *
 *   helper svc LOG PIDFILE ID          start command: notes the instant, daemonises a pausing child,
 *                                      writes its pidfile, exits 0
 *   helper run LOG PIDFILE ID          foreground service: notes the instant, writes its pidfile, pauses
 *   helper init DIR N EACH UID GID CMD..  parent of one watchdog: N pausing services of UID, each with
 *                                      EACH workers, with pidfiles DIR/s<ID>.pid, then CMD, whose pid it
 *                                      prints, with the instant before its fork. When stdin closes,
 *                                      nothing that began below it is left.
 *   helper pause                       a worker
 *   helper read DIR N MS               what reading costs: all MS finds the workers of the services of
 *                                      DIR and reads of each the files that tell who it is, what it calls
 *                                      itself, and its age and memory
 *   helper crowd N UID GID             N strangers that sleep, until stdin closes
 *   helper limit LOG DIR N UID GID     what the machine allows: keeps the services of DIR alive by
 *                                      pidfd, epoll, vfork and exec, and does nothing else
 *   helper serve LOG                   a web server: /ID notes the instant and has 1000 bytes; its second
 *                                      port accepts and never answers. Prints both ports.
 *   helper nice PID                    raises a process to nice -15
 *
 * LOG is a file of records {u64 CLOCK_MONOTONIC ns, u64 id}, each appended by one write.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) { perror(what); _exit(111); }

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void note(uint64_t ns, const char *path, const char *id)
{
    uint64_t record[2] = { ns, strtoull(id, 0, 10) };
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0 || write(fd, record, sizeof record) != sizeof record) die(path);
    close(fd);
}

/* By a rename: a reader never sees half a pidfile. */
static void write_pidfile(const char *path, pid_t pid)
{
    char other[4096];
    snprintf(other, sizeof other, "%s.%d", path, (int)getpid());
    FILE *f = fopen(other, "we");
    if (!f || fprintf(f, "%d\n", (int)pid) < 0 || fclose(f) || rename(other, path)) die(path);
}

static void idle(void) { for (;;) pause(); }

static pid_t background(void)
{
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        signal(SIGCHLD, SIG_DFL);
        setsid();
        close(0); close(1); close(2);
    }
    return pid;
}

static pid_t sleeper(int each, uid_t uid, gid_t gid)
{
    pid_t pid = background();
    if (pid == 0) {
        if (getuid() == 0 && (setgroups(0, 0) || setgid(gid) || setuid(uid))) _exit(113);
        while (each-- > 0) {
            if (fork() == 0) {
                execl("/proc/self/exe", "bench worker", "pause", (char *)0);
                _exit(111);
            }
        }
        idle();
    }
    return pid;
}

static void herd(const char *dir, int n, int each, uid_t uid, gid_t gid)
{
    char path[4096];
    for (int id = 0; id < n; id++) {
        pid_t pid = sleeper(each, uid, gid);
        snprintf(path, sizeof path, "%s/s%d.pid", dir, id);
        write_pidfile(path, pid);
        if (chown(path, uid, gid)) die("chown");
    }
}

/* Orphans come to this process, so whoever is killed hands its children over to the next look. */
static void kill_all_below(void)
{
    char path[64];
    for (int found = 1; found; usleep(2000)) {
        snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
        FILE *f = fopen(path, "re");
        if (!f) die(path);
        found = 0;
        for (int pid; fscanf(f, "%d", &pid) == 1; found = 1) kill(pid, SIGKILL);
        fclose(f);
    }
}

static void until_stdin_closes(void)
{
    char byte;
    while (read(0, &byte, 1) > 0) ;
}

static int init(char **a)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGCHLD, SIG_IGN);                   /* the kernel reaps: no zombie looks alive to a watchdog */
    herd(a[0], atoi(a[1]), atoi(a[2]), atoi(a[3]), atoi(a[4]));
    uint64_t began = now();
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        signal(SIGCHLD, SIG_DFL);
        int null = open("/dev/null", O_RDONLY);
        if (null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0) die("dup2");
        execv(a[5], a + 5);
        die(a[5]);
    }
    printf("%d %llu\n", (int)pid, (unsigned long long)began);
    fflush(stdout);
    until_stdin_closes();
    kill(pid, SIGKILL);                         /* first, so that it starts nothing more */
    kill_all_below();
    return 0;
}

static int crowd(int n, uid_t uid, gid_t gid)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGCHLD, SIG_IGN);
    while (n-- > 0) sleeper(0, uid, gid);
    puts("ready");
    fflush(stdout);
    until_stdin_closes();
    kill_all_below();
    return 0;
}

static void most_descriptors(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void add(int epoll, int fd, uint64_t data)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = data };
    if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

/* ---- what the machine allows: no checks, no log, no policy ---- */

struct kept { char pidfile[256], id[16]; int pidfd, starting; };

/* The process that the pidfile names; one that is dead already is noticed by its pidfd or not opened. */
static int adopt(struct kept *one, int epoll, uint64_t at)
{
    int pid = 0;
    FILE *f = fopen(one->pidfile, "re");
    if (f) {
        if (fscanf(f, "%d", &pid) != 1) pid = 0;
        fclose(f);
    }
    one->starting = 0;
    one->pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (one->pidfd >= 0) add(epoll, one->pidfd, at);
    return one->pidfd;
}

static int limit(char **a)
{
    int n = atoi(a[2]), epoll = epoll_create1(EPOLL_CLOEXEC);
    uid_t uid = atoi(a[3]);
    gid_t gid = atoi(a[4]);
    struct kept *all = calloc(n + 1, sizeof *all);
    char *environment[] = { "PATH=/usr/bin:/bin", 0 };
    if (!all || epoll < 0) die("limit");
    most_descriptors();
    for (int id = 0; id < n; id++) {
        snprintf(all[id].pidfile, sizeof all[id].pidfile, "%s/s%d.pid", a[1], id);
        snprintf(all[id].id, sizeof all[id].id, "%d", id);
        if (adopt(&all[id], epoll, id) < 0) die(all[id].pidfile);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            uint64_t at = events[i].data.u64;
            struct kept *one = &all[at];
            int was = one->starting;
            if (was) waitid(P_PIDFD, one->pidfd, &(siginfo_t){ 0 }, WEXITED);
            close(one->pidfd);
            /* A start program that has ended brought a new process, or is started again. */
            if (was && adopt(one, epoll, at) >= 0) continue;
            char *argv[] = { "/proc/self/exe", "svc", a[0], one->pidfile, one->id, 0 };
            int root = getuid() == 0;
            pid_t pid = vfork();
            if (pid == 0) {
                if (root && (syscall(SYS_setgroups, 0, 0) || syscall(SYS_setgid, gid)
                             || syscall(SYS_setuid, uid))) _exit(113);
                setsid();
                execve(argv[0], argv, environment);
                _exit(111);
            }
            one->starting = 1;
            one->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
            add(epoll, one->pidfd, at);
        }
    }
}

/* ---- what reading costs: no title is compared, nothing is judged, nobody is held ---- */

static size_t slurp(int pid, const char *file, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, size - 1);
    if (fd >= 0) close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? got : 0;
}

static void read_all(char **a)
{
    static const char *const FILES[] = { "status", "stat", "cmdline", "statm" };
    int n = atoi(a[1]), ms = atoi(a[2]), ready = 0;
    char path[4096], text[4096];
    int *masters = calloc(n + 1, sizeof *masters);
    if (!masters) die("read");
    for (int id = 0; id < n; id++) {
        snprintf(path, sizeof path, "%s/s%d.pid", a[0], id);
        FILE *f = fopen(path, "re");
        if (!f || fscanf(f, "%d", &masters[id]) != 1) die(path);
        fclose(f);
    }
    for (;;) {
        for (int id = 0; id < n; id++) {
            char children[4096];
            slurp(masters[id], "stat", text, sizeof text);
            snprintf(path, sizeof path, "task/%d/children", masters[id]);
            slurp(masters[id], path, children, sizeof children);
            char *at = children, *next;
            for (int pid; (pid = strtol(at, &next, 10)) > 0; at = next) {
                for (size_t file = 0; file < sizeof FILES / sizeof *FILES; file++) {
                    slurp(pid, FILES[file], text, sizeof text);
                }
            }
        }
        if (!ready++) fputs("ready\n", stdout), fflush(stdout);
        usleep(ms * 1000);
    }
}

/* ---- the web server ---- */

enum { BODY = 1000, REQUEST = 4096, PAGES, SILENT, STDIN };
struct peer { int silent; size_t length; char text[REQUEST + 1]; };

static int listening(int *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (void *)&at, sizeof at) || listen(fd, 4096)) die("listen");
    if (getsockname(fd, (void *)&at, &length)) die("getsockname");
    *port = ntohs(at.sin_port);
    return fd;
}

/* Takes what came; whether the connection goes on. */
static int serve_one(int fd, struct peer *peer, const char *log)
{
    static char answer[BODY + 128];
    static int answer_length;
    if (!answer_length) {
        answer_length = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                                 "Content-Length: %d\r\n\r\n%0*d", BODY, BODY, 0);
    }
    ssize_t got = recv(fd, peer->text + peer->length, REQUEST - peer->length, MSG_DONTWAIT);
    if (got <= 0) return 0;
    if (peer->silent) return 1;                 /* read, so that its end is seen; never answered */
    peer->length += got;
    peer->text[peer->length] = 0;
    if (!strstr(peer->text, "\r\n\r\n")) return peer->length < REQUEST;
    char *path = strchr(peer->text, '/');
    note(now(), log, path ? path + 1 : "0");
    peer->length = 0;
    if (send(fd, answer, answer_length, MSG_NOSIGNAL) != answer_length) return 0;
    return !strcasestr(peer->text, "connection: close");
}

static int serve(const char *log)
{
    int pages, silent, epoll = epoll_create1(EPOLL_CLOEXEC), fds = 1 << 16;
    int listeners[2] = { listening(&pages), listening(&silent) };
    struct peer **peers = calloc(fds, sizeof *peers);
    if (epoll < 0 || !peers) die("serve");
    most_descriptors();
    add(epoll, listeners[0], (uint64_t)PAGES << 32);
    add(epoll, listeners[1], (uint64_t)SILENT << 32);
    add(epoll, 0, (uint64_t)STDIN << 32);
    printf("%d %d\n", pages, silent);
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int kind = events[i].data.u64 >> 32, fd = (int)(uint32_t)events[i].data.u64;
            if (kind == STDIN) return 0;        /* nothing is ever said there: it was closed */
            if (kind == 0) {
                if (!serve_one(fd, peers[fd], log)) {
                    free(peers[fd]);
                    close(fd);
                }
                continue;
            }
            int one = 1, next = accept4(listeners[kind == SILENT], 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (next < 0) continue;
            if (next >= fds || !(peers[next] = malloc(sizeof **peers))) die("too many connections");
            peers[next]->silent = kind == SILENT;
            peers[next]->length = 0;
            setsockopt(next, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            add(epoll, next, (uint32_t)next);
        }
    }
}

int main(int c, char **a)
{
    uint64_t began = now();
    if (c == 5 && !strcmp(a[1], "svc")) {
        note(began, a[2], a[4]);
        pid_t pid = background();
        if (pid == 0) idle();
        write_pidfile(a[3], pid);
        return 0;
    }
    if (c == 5 && !strcmp(a[1], "run")) {
        note(began, a[2], a[4]);
        write_pidfile(a[3], getpid());
        idle();
    }
    if (c >= 8 && !strcmp(a[1], "init")) return init(a + 2);
    if (c == 5 && !strcmp(a[1], "crowd")) return crowd(atoi(a[2]), atoi(a[3]), atoi(a[4]));
    if (c == 7 && !strcmp(a[1], "limit")) return limit(a + 2);
    if (c == 2 && !strcmp(a[1], "pause")) idle();
    if (c == 5 && !strcmp(a[1], "read")) read_all(a + 2);
    if (c == 3 && !strcmp(a[1], "serve")) return serve(a[2]);
    if (c == 3 && !strcmp(a[1], "nice")) return setpriority(PRIO_PROCESS, atoi(a[2]), -15) ? 1 : 0;
    fputs("usage: see the head of helper.c\n", stderr);
    return 100;
}
