// floor [--connections N] [--packet-bytes N] [--processors any|apart|paired] SOURCE TARGET
//
// The least that moving a file over TCP can cost with blocking calls: pread, send, recv, pwrite and
// nothing else. One process a side, one thread a connection and side, no order across connections,
// no checks. What is measured beside it in bench/ moves the same bytes between the same files.
//
// The kernel puts its threads where it likes; with `apart` the source's stay on one processor and
// the target's on another, as an engine has them that moves all bytes of a side on one thread. With
// `paired` both ends of a connection stay on one processor, where what is sent is still in the
// cache when it is received, if it is no larger: each connection on the next one in turn.
//
// Prints one line of JSON: bytes, seconds (from the first pread to the last pwrite, the connections
// being there) and the CPU seconds of each process. Exit code: 0 moved, 1 not, 2 wrong usage.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kConnectionsMax = 64, kPacketBytesMax = 64 << 20 };

struct Job {
  int connection;
  int connections;
  int socket;
  int file;
  size_t packet_bytes;
  off_t file_bytes;
  enum { kAny, kApart, kPaired } processors;
  void (*move)(const struct Job* job, char* packet, off_t at, size_t bytes);
};

// Between the two processes.
struct Times {
  double began;
  double ended;
};

static void Die(const char* what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double CpuSeconds(const struct rusage* usage) {
  return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
         (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

static void Send(const struct Job* job, char* packet, off_t at, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = pread(job->file, packet + done, bytes - done, at + (off_t)done);
    if (got <= 0) Die("reading the source file");
    done += (size_t)got;
  }
  for (size_t done = 0; done < bytes;) {
    const ssize_t sent = send(job->socket, packet + done, bytes - done, MSG_NOSIGNAL);
    if (sent <= 0) Die("sending");
    done += (size_t)sent;
  }
}

static void Receive(const struct Job* job, char* packet, off_t at, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = recv(job->socket, packet + done, bytes - done, MSG_WAITALL);
    if (got <= 0) Die("receiving");
    done += (size_t)got;
  }
  for (size_t done = 0; done < bytes;) {
    const ssize_t written = pwrite(job->file, packet + done, bytes - done, at + (off_t)done);
    if (written <= 0) Die("writing the target file");
    done += (size_t)written;
  }
}

// That one in turn of the processors that this thread may run on, which are all that the process
// may.
static void StayOnProcessor(int place) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) Die("sched_getaffinity");
  size_t at = 0;
  for (int left = place % CPU_COUNT(&allowed); !CPU_ISSET(at, &allowed) || left-- > 0; ++at) {
  }
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(at, &one);
  if (sched_setaffinity(0, sizeof(one), &one) != 0) Die("sched_setaffinity");
}

// Both sides take packets i, i + N, i + 2 N, … over connection i: so none needs a header.
static void* RunConnection(void* argument) {
  const struct Job* const job = argument;
  if (job->processors == kPaired) StayOnProcessor(job->connection);
  char* packet = NULL;
  if (posix_memalign((void**)&packet, 4096, job->packet_bytes) != 0) Die("memory for a packet");
  const off_t step = (off_t)job->packet_bytes * job->connections;
  for (off_t at = (off_t)job->packet_bytes * job->connection; at < job->file_bytes; at += step) {
    const off_t left = job->file_bytes - at;
    const size_t bytes = left < (off_t)job->packet_bytes ? (size_t)left : job->packet_bytes;
    job->move(job, packet, at, bytes);
  }
  free(packet);
  return NULL;
}

static void RunSide(const struct Job* job, const int* sockets) {
  pthread_t threads[kConnectionsMax];
  struct Job jobs[kConnectionsMax];
  for (int i = 0; i < job->connections; ++i) {
    jobs[i] = *job;
    jobs[i].connection = i;
    jobs[i].socket = sockets[i];
    errno = pthread_create(&threads[i], NULL, RunConnection, &jobs[i]);
    if (errno != 0) Die("a thread");
  }
  for (int i = 0; i < job->connections; ++i) pthread_join(threads[i], NULL);
}

// Congestion control as the engine's lanes have it on loopback, where one that paces by what it has
// measured, like bbr, is slow.
static void Tune(int socket) {
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, "cubic", strlen("cubic"));
}

// Pairs of connected sockets: senders[i] with receivers[i].
static void Connect(int connections, int* senders, int* receivers) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (listener < 0 || bind(listener, (struct sockaddr*)&address, length) != 0 ||
      listen(listener, kConnectionsMax) != 0 ||
      getsockname(listener, (struct sockaddr*)&address, &length) != 0) {
    Die("listening");
  }
  for (int i = 0; i < connections; ++i) {
    senders[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (senders[i] < 0 || connect(senders[i], (struct sockaddr*)&address, length) != 0) {
      Die("connecting");
    }
    receivers[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (receivers[i] < 0) Die("accepting");
    Tune(senders[i]);
    Tune(receivers[i]);
  }
  close(listener);
}

static pid_t StartSide(const struct Job* job, const int* sockets, const int* others, double* began,
                       double* ended) {
  const pid_t child = fork();
  if (child < 0) Die("fork");
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (job->processors == kApart) StayOnProcessor(job->move == Send ? 0 : 1);
  for (int i = 0; i < job->connections; ++i) close(others[i]);
  if (began != NULL) *began = Now();
  RunSide(job, sockets);
  if (ended != NULL) *ended = Now();
  exit(0);
}

// The CPU seconds of a side that has ended well. REQUIRES: it is a child
static double Await(pid_t side) {
  int status = 0;
  struct rusage usage;
  if (wait4(side, &status, 0, &usage) != side) Die("wait4");
  if (status != 0) exit(1);  // it has said why
  return CpuSeconds(&usage);
}

static long Number(const char* text, long min, long max, const char* what) {
  char* end = NULL;
  const long number = strtol(text, &end, 10);
  if (*text != '\0' && *end == '\0' && number >= min && number <= max) return number;
  fprintf(stderr, "floor: %s is '%s', not a number from %ld to %ld\n", what, text, min, max);
  exit(2);
}

int main(int argc, char** argv) {
  struct Job job = {.connections = 1, .packet_bytes = 1 << 20};
  int at = 1;
  for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
    if (strcmp(argv[at], "--connections") == 0) {
      job.connections = (int)Number(argv[at + 1], 1, kConnectionsMax, argv[at]);
    } else if (strcmp(argv[at], "--packet-bytes") == 0) {
      job.packet_bytes = (size_t)Number(argv[at + 1], 1, kPacketBytesMax, argv[at]);
    } else if (strcmp(argv[at], "--processors") == 0 && strcmp(argv[at + 1], "apart") == 0) {
      job.processors = kApart;
    } else if (strcmp(argv[at], "--processors") == 0 && strcmp(argv[at + 1], "paired") == 0) {
      job.processors = kPaired;
    } else if (strcmp(argv[at], "--processors") != 0 || strcmp(argv[at + 1], "any") != 0) {
      break;
    } else {
      job.processors = kAny;
    }
  }
  if (argc - at != 2 || argv[at][0] == '-') {
    fprintf(stderr,
            "usage: floor [--connections N] [--packet-bytes N] [--processors any|apart|paired] "
            "SOURCE TARGET\n");
    return 2;
  }
  struct stat source_info;
  struct stat target_info;
  const int source = open(argv[at], O_RDONLY | O_CLOEXEC);
  if (source < 0 || fstat(source, &source_info) != 0) Die(argv[at]);
  const int target = open(argv[at + 1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (target < 0 || fstat(target, &target_info) != 0) Die(argv[at + 1]);
  job.file_bytes = source_info.st_size;

  struct Times* const times =
      mmap(NULL, sizeof(*times), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (times == MAP_FAILED) Die("mmap");
  int senders[kConnectionsMax];
  int receivers[kConnectionsMax];
  Connect(job.connections, senders, receivers);
  struct Job receiving = job;
  receiving.file = target;
  receiving.move = Receive;
  const pid_t target_side = StartSide(&receiving, receivers, senders, NULL, &times->ended);
  struct Job sending = job;
  sending.file = source;
  sending.move = Send;
  const pid_t source_side = StartSide(&sending, senders, receivers, &times->began, NULL);
  for (int i = 0; i < job.connections; ++i) {
    close(senders[i]);
    close(receivers[i]);
  }
  const double source_cpu = Await(source_side);
  const double target_cpu = Await(target_side);
  printf(
      "{\"bytes\": %jd, \"seconds\": %.6f, \"source_cpu_seconds\": %.6f, "
      "\"target_cpu_seconds\": %.6f}\n",
      (intmax_t)job.file_bytes, times->ended - times->began, source_cpu, target_cpu);
  return 0;
}
