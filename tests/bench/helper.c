/* The small static program that the benchmark starts.
 *
 *   helper svc LOG PIDFILE ID          start command: notes the instant, daemonises a pausing child,
 *                                      writes its pidfile, exits 0
 *   helper run LOG ID                  foreground service: notes the instant, pauses
 *   helper init DIR N UID GID CMD...   parent of one watchdog: N pausing services of UID with pidfiles
 *                                      DIR/s<ID>.pid, then CMD, whose pid it prints. When stdin closes,
 *                                      nothing that began below it is left.
 *   helper nice PID                    raises a process to nice -15
 *
 * LOG is a file of records {u64 CLOCK_MONOTONIC ns, u64 id}, each appended by one write.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
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

static void herd(const char *dir, int n, uid_t uid, gid_t gid)
{
    char path[4096];
    for (int id = 0; id < n; id++) {
        pid_t pid = background();
        if (pid == 0) {
            if (getuid() == 0 && (setgroups(0, 0) || setgid(gid) || setuid(uid))) _exit(113);
            idle();
        }
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

static int init(char **a)
{
    char byte;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGCHLD, SIG_IGN);                   /* the kernel reaps: no zombie looks alive to a watchdog */
    herd(a[0], atoi(a[1]), atoi(a[2]), atoi(a[3]));
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        signal(SIGCHLD, SIG_DFL);
        int null = open("/dev/null", O_RDONLY);
        if (null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0) die("dup2");
        execv(a[4], a + 4);
        die(a[4]);
    }
    printf("%d\n", (int)pid);
    fflush(stdout);
    while (read(0, &byte, 1) > 0) ;
    kill(pid, SIGKILL);                         /* first, so that it starts nothing more */
    kill_all_below();
    return 0;
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
    if (c == 4 && !strcmp(a[1], "run")) { note(began, a[2], a[3]); idle(); }
    if (c >= 7 && !strcmp(a[1], "init")) return init(a + 2);
    if (c == 3 && !strcmp(a[1], "nice")) return setpriority(PRIO_PROCESS, atoi(a[2]), -15) ? 1 : 0;
    fputs("usage: see the head of helper.c\n", stderr);
    return 100;
}
