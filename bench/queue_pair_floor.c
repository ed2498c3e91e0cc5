// queue_pair_floor [OPTION…] --listen PORT TARGET
// queue_pair_floor [OPTION…] --to ADDRESS:PORT SOURCE
//
// The least that moving a file over queue pairs takes: pread, ibv_post_send, a receive, pwrite and
// nothing else, one thread a side, which sleeps when it has nothing to do. No order across queue
// pairs, no checks, no receipts: a receive queue twice as long as the send queue, and a queue
// pair's own way of sending again what found it empty (IBV_WC_RNR_RETRY_EXC_ERR's timer), are all
// that keeps the source from running ahead.
//
//   --ib-dev NAME        the RDMA device (rxe0)
//   --gid-index N        of its address (0)
//   --queue-pairs N      4
//   --packet-bytes N     1048576
//   --depth N            packets under way on each queue pair (8)
//
// The source prints one line of JSON: bytes, seconds (from the first pread until the target says
// that its last pwrite is done, the queue pairs being there). Exit code: 0 moved, 1 not, 2 wrong
// usage.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { kQueuePairsMax = 64, kDepthMax = 128, kPacketBytesMax = 64 << 20, kCompletionsAtOnce = 16 };

// What a side tells the other of itself over a TCP connection; both are this program.
struct Address {
  union ibv_gid gid;
  uint32_t queue_pairs[kQueuePairsMax];
  uint64_t file_bytes;  // the source's
  uint64_t packet_bytes;
  uint64_t count;  // of queue pairs
};

struct Side {
  int queue_pairs;
  int depth;  // of this side's queues
  size_t packet_bytes;
  int gid_index;
  int socket;
  int file;
  uint64_t file_bytes;

  struct ibv_context* context;
  struct ibv_comp_channel* channel;
  struct ibv_cq* completions;
  struct ibv_qp* queue_pair[kQueuePairsMax];
  struct ibv_mr* memory;
  char* buffers;  // of queue pair q: q * depth, …, packet_bytes each
};

static void Die(const char* what) {
  fprintf(stderr, "queue_pair_floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void Check(int error, const char* what) {  // libibverbs returns errno, or -1 and sets it
  if (error > 0) errno = error;
  if (error != 0) Die(what);
}

static double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static long Number(const char* text, long least, long most, const char* name) {
  char* end = NULL;
  errno = 0;
  const long value = strtol(text, &end, 10);
  if (errno == 0 && *text != '\0' && *end == '\0' && value >= least && value <= most) return value;
  fprintf(stderr, "queue_pair_floor: %s is a number from %ld to %ld, not '%s'\n", name, least, most,
          text);
  exit(2);
}

static void OpenDevice(struct Side* side, const char* name) {
  int count = 0;
  struct ibv_device** const devices = ibv_get_device_list(&count);
  for (int i = 0; devices != NULL && i < count && side->context == NULL; ++i) {
    if (strcmp(ibv_get_device_name(devices[i]), name) != 0) continue;
    side->context = ibv_open_device(devices[i]);
    if (side->context == NULL) Die("ibv_open_device");
  }
  if (side->context == NULL) {
    fprintf(stderr, "queue_pair_floor: no RDMA device '%s'; see: rdma link\n", name);
    exit(1);
  }
  ibv_free_device_list(devices);
}

static void MakeQueuePairs(struct Side* side) {
  struct ibv_pd* const domain = ibv_alloc_pd(side->context);
  if (domain == NULL) Die("ibv_alloc_pd");
  const int packets = side->queue_pairs * side->depth;
  const size_t bytes = (size_t)packets * side->packet_bytes;
  side->buffers =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (side->buffers == MAP_FAILED) Die("memory for packets");
  side->memory = ibv_reg_mr(domain, side->buffers, bytes, IBV_ACCESS_LOCAL_WRITE);
  if (side->memory == NULL) Die("ibv_reg_mr");
  side->channel = ibv_create_comp_channel(side->context);
  if (side->channel == NULL) Die("ibv_create_comp_channel");
  side->completions = ibv_create_cq(side->context, packets, NULL, side->channel, 0);
  if (side->completions == NULL) Die("ibv_create_cq");
  for (int i = 0; i < side->queue_pairs; ++i) {
    struct ibv_qp_init_attr wanted = {
        .send_cq = side->completions,
        .recv_cq = side->completions,
        .cap = {.max_send_wr = (uint32_t)side->depth,
                .max_recv_wr = (uint32_t)side->depth,
                .max_send_sge = 1,
                .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
        .sq_sig_all = 1,
    };
    side->queue_pair[i] = ibv_create_qp(domain, &wanted);
    if (side->queue_pair[i] == NULL) Die("ibv_create_qp");
    struct ibv_qp_attr to = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    Check(ibv_modify_qp(side->queue_pair[i], &to,
                        IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
          "queue pair to INIT");
  }
}

static void PostReceive(const struct Side* side, int queue_pair, uint64_t buffer) {
  struct ibv_sge where = {.addr = (uintptr_t)side->buffers + buffer * side->packet_bytes,
                          .length = (uint32_t)side->packet_bytes,
                          .lkey = side->memory->lkey};
  struct ibv_recv_wr receive = {.wr_id = buffer, .sg_list = &where, .num_sge = 1};
  struct ibv_recv_wr* bad = NULL;
  Check(ibv_post_recv(side->queue_pair[queue_pair], &receive, &bad), "ibv_post_recv");
}

static void Whole(ssize_t moved, size_t wanted, const char* what) {
  if (moved >= 0 && (size_t)moved != wanted) errno = EPIPE;
  if (moved < 0 || (size_t)moved != wanted) Die(what);
}

// Receives are there before the other side hears of this one.
static void Connect(struct Side* side) {
  struct ibv_port_attr port;
  Check(ibv_query_port(side->context, 1, &port), "ibv_query_port");
  struct Address mine = {.file_bytes = side->file_bytes,
                         .packet_bytes = side->packet_bytes,
                         .count = (uint64_t)side->queue_pairs},
                 others;
  Check(ibv_query_gid(side->context, 1, side->gid_index, &mine.gid), "ibv_query_gid");
  for (int i = 0; i < side->queue_pairs; ++i) mine.queue_pairs[i] = side->queue_pair[i]->qp_num;
  Whole(send(side->socket, &mine, sizeof(mine), MSG_NOSIGNAL), sizeof(mine),
        "telling the other side");
  Whole(recv(side->socket, &others, sizeof(others), MSG_WAITALL), sizeof(others),
        "hearing the other side");
  if (others.packet_bytes != mine.packet_bytes || others.count != mine.count) {
    fprintf(stderr,
            "queue_pair_floor: both sides want the same --queue-pairs and --packet-bytes\n");
    exit(2);
  }
  if (side->file_bytes == 0) side->file_bytes = others.file_bytes;

  for (int i = 0; i < side->queue_pairs; ++i) {
    struct ibv_qp_attr to = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = port.active_mtu,
        .dest_qp_num = others.queue_pairs[i],
        .max_dest_rd_atomic = 1,
        .min_rnr_timer = 1,  // 0.01 ms
        .ah_attr = {.is_global = 1,
                    .port_num = 1,
                    .grh = {.dgid = others.gid,
                            .sgid_index = (uint8_t)side->gid_index,
                            .hop_limit = 64}},
    };
    Check(ibv_modify_qp(side->queue_pair[i], &to,
                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                            IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
          "queue pair to RTR");
    to = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                              .timeout = 14,  // 67 ms
                              .retry_cnt = 7,
                              .rnr_retry = 7,  // for ever
                              .max_rd_atomic = 1};
    Check(ibv_modify_qp(side->queue_pair[i], &to,
                        IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                            IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
          "queue pair to RTS");
  }
  char ready = 1;
  Whole(send(side->socket, &ready, 1, MSG_NOSIGNAL), 1, "telling the other side");
  Whole(recv(side->socket, &ready, 1, MSG_WAITALL), 1, "hearing the other side");
}

// At least one completion; asleep until then. Returns how many.
static int Completions(const struct Side* side, struct ibv_wc* done) {
  for (;;) {
    const int count = ibv_poll_cq(side->completions, kCompletionsAtOnce, done);
    if (count < 0) Die("ibv_poll_cq");
    for (int i = 0; i < count; ++i) {
      if (done[i].status == IBV_WC_SUCCESS) continue;
      fprintf(stderr, "queue_pair_floor: a completion: %s\n", ibv_wc_status_str(done[i].status));
      exit(1);
    }
    if (count > 0) return count;
    Check(ibv_req_notify_cq(side->completions, 0), "ibv_req_notify_cq");
    // What came before the notice was asked for gives none.
    struct ibv_wc one;
    const int late = ibv_poll_cq(side->completions, 1, &one);
    if (late < 0) Die("ibv_poll_cq");
    if (late > 0) {
      done[0] = one;
      if (one.status == IBV_WC_SUCCESS) return 1;
      fprintf(stderr, "queue_pair_floor: a completion: %s\n", ibv_wc_status_str(one.status));
      exit(1);
    }
    struct ibv_cq* of = NULL;
    void* context = NULL;
    Check(ibv_get_cq_event(side->channel, &of, &context), "ibv_get_cq_event");
    ibv_ack_cq_events(of, 1);
  }
}

static size_t BytesOf(const struct Side* side, uint64_t packet) {
  const uint64_t at = packet * side->packet_bytes;
  const uint64_t left = side->file_bytes - at;
  return left < side->packet_bytes ? (size_t)left : side->packet_bytes;
}

// Reads packet number `packet` into the buffer and sends it on its queue pair, packet mod N.
static void SendPacket(const struct Side* side, uint64_t packet, uint64_t buffer) {
  char* const memory = side->buffers + buffer * side->packet_bytes;
  const size_t bytes = BytesOf(side, packet);
  const off_t at = (off_t)(packet * side->packet_bytes);
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = pread(side->file, memory + done, bytes - done, at + (off_t)done);
    if (got == 0) errno = EIO;  // it has become shorter
    if (got <= 0) Die("reading the source file");
    done += (size_t)got;
  }
  struct ibv_sge what = {
      .addr = (uintptr_t)memory, .length = (uint32_t)bytes, .lkey = side->memory->lkey};
  struct ibv_send_wr request = {
      .wr_id = buffer, .sg_list = &what, .num_sge = 1, .opcode = IBV_WR_SEND};
  struct ibv_send_wr* bad = NULL;
  const int queue_pair = (int)(packet % (uint64_t)side->queue_pairs);
  Check(ibv_post_send(side->queue_pair[queue_pair], &request, &bad), "ibv_post_send");
}

static void RunSource(const struct Side* side) {
  const uint64_t packets = (side->file_bytes + side->packet_bytes - 1) / side->packet_bytes;
  const uint64_t queue_pairs = (uint64_t)side->queue_pairs;
  uint64_t next[kQueuePairsMax], sent = 0;
  for (uint64_t q = 0; q < queue_pairs; ++q) next[q] = q;
  // All queue pairs' first packets, then all their second ones, …
  for (int slot = 0; slot < side->depth; ++slot) {
    for (uint64_t q = 0; q < queue_pairs && next[q] < packets; ++q) {
      SendPacket(side, next[q], q * (uint64_t)side->depth + (uint64_t)slot);
      next[q] += queue_pairs;
    }
  }
  while (sent < packets) {
    struct ibv_wc done[kCompletionsAtOnce];
    const int count = Completions(side, done);
    for (int i = 0; i < count; ++i) {
      ++sent;
      const uint64_t q = done[i].wr_id / (uint64_t)side->depth;
      if (next[q] >= packets) continue;
      SendPacket(side, next[q], done[i].wr_id);
      next[q] += queue_pairs;
    }
  }
}

static void RunTarget(const struct Side* side) {
  const uint64_t packets = (side->file_bytes + side->packet_bytes - 1) / side->packet_bytes;
  const uint64_t queue_pairs = (uint64_t)side->queue_pairs;
  uint64_t next[kQueuePairsMax];  // a queue pair keeps the order of what it was given
  for (uint64_t q = 0; q < queue_pairs; ++q) next[q] = q;
  for (uint64_t written = 0; written < packets;) {
    struct ibv_wc done[kCompletionsAtOnce];
    const int count = Completions(side, done);
    for (int i = 0; i < count; ++i, ++written) {
      const uint64_t buffer = done[i].wr_id, q = buffer / (uint64_t)side->depth;
      const size_t bytes = BytesOf(side, next[q]);
      if (done[i].byte_len != bytes) errno = EBADMSG, Die("a packet's length");
      const char* const memory = side->buffers + buffer * side->packet_bytes;
      for (size_t at = 0; at < bytes;) {
        const ssize_t wrote =
            pwrite(side->file, memory + at, bytes - at, (off_t)(next[q] * side->packet_bytes + at));
        if (wrote <= 0) Die("writing the target file");
        at += (size_t)wrote;
      }
      next[q] += queue_pairs;
      PostReceive(side, (int)q, buffer);
    }
  }
}

static int Listen(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(listener, (struct sockaddr*)&where, sizeof(where)) != 0 || listen(listener, 1) != 0) {
    Die("listening");
  }
  const int peer = accept(listener, NULL, NULL);
  if (peer < 0) Die("accepting");
  close(listener);
  return peer;
}

static int ConnectTo(char* peer) {
  char* const colon = strchr(peer, ':');
  if (colon == NULL) {
    fprintf(stderr, "queue_pair_floor: --to is ADDRESS:PORT, not '%s'\n", peer);
    exit(2);
  }
  *colon = '\0';
  struct sockaddr_in where = {
      .sin_family = AF_INET,
      .sin_port = htons((uint16_t)Number(colon + 1, 1, 65535, "--to's port"))};
  if (inet_pton(AF_INET, peer, &where.sin_addr) != 1) {
    fprintf(stderr, "queue_pair_floor: --to has no IPv4 address: '%s'\n", peer);
    exit(2);
  }
  // The target may not listen yet.
  for (const double until = Now() + 60;; usleep(50000)) {
    const int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (to < 0) Die("socket");
    if (connect(to, (struct sockaddr*)&where, sizeof(where)) == 0) return to;
    if (errno != ECONNREFUSED || Now() > until) Die("connecting");
    close(to);
  }
}

int main(int argc, char** argv) {
  struct Side side = {.queue_pairs = 4, .depth = 8, .packet_bytes = 1 << 20};
  const char* device = "rxe0";
  int port = 0;
  char* peer = NULL;
  int at = 1;
  for (; at + 1 < argc - 1; at += 2) {
    const char* const name = argv[at];
    char* const value = argv[at + 1];
    if (strcmp(name, "--ib-dev") == 0) {
      device = value;
    } else if (strcmp(name, "--gid-index") == 0) {
      side.gid_index = (int)Number(value, 0, 255, name);
    } else if (strcmp(name, "--queue-pairs") == 0) {
      side.queue_pairs = (int)Number(value, 1, kQueuePairsMax, name);
    } else if (strcmp(name, "--packet-bytes") == 0) {
      side.packet_bytes = (size_t)Number(value, 1, kPacketBytesMax, name);
    } else if (strcmp(name, "--depth") == 0) {
      side.depth = (int)Number(value, 1, kDepthMax, name);
    } else if (strcmp(name, "--listen") == 0) {
      port = (int)Number(value, 1, 65535, name);
    } else if (strcmp(name, "--to") == 0) {
      peer = value;
    } else {
      break;
    }
  }
  if (argc - at != 1 || (port == 0) == (peer == NULL)) {
    fprintf(stderr,
            "usage: queue_pair_floor [--ib-dev NAME] [--gid-index N] [--queue-pairs N] "
            "[--packet-bytes N] [--depth N] --listen PORT TARGET | --to ADDRESS:PORT SOURCE\n");
    return 2;
  }

  struct stat status;
  side.file = open(argv[at], (peer != NULL ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
  if (side.file < 0 || fstat(side.file, &status) != 0) Die(argv[at]);
  if (peer != NULL) side.file_bytes = (uint64_t)status.st_size;
  if (port != 0) side.depth *= 2;
  OpenDevice(&side, device);
  MakeQueuePairs(&side);
  if (port != 0) {
    for (int q = 0; q < side.queue_pairs; ++q) {
      for (int i = 0; i < side.depth; ++i) PostReceive(&side, q, (uint64_t)(q * side.depth + i));
    }
  }
  side.socket = peer != NULL ? ConnectTo(peer) : Listen(port);
  Connect(&side);

  char over = 1;
  if (peer == NULL) {
    RunTarget(&side);
    Whole(send(side.socket, &over, 1, MSG_NOSIGNAL), 1, "telling the source");
    recv(side.socket, &over, 1, MSG_WAITALL);  // until it has gone: its last acknowledgements
    return 0;
  }
  const double began = Now();
  RunSource(&side);
  Whole(recv(side.socket, &over, 1, MSG_WAITALL), 1, "hearing that all is written");
  const double seconds = Now() - began;
  printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", (unsigned long long)side.file_bytes, seconds);
  return 0;
}
