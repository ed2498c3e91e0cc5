// TCP between the two hosts of a simulated run: what the sockets of a fiber are.
#ifndef GODWIT_TESTS_SIMULATION_NETWORK_H_
#define GODWIT_TESTS_SIMULATION_NETWORK_H_

#include <netinet/in.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/scheduler.h"
#include "transport/control_channel.h"

namespace godwit::simulation {

// What happens to a frame on a lane.
enum class FrameFault { kNone, kDuplicated, kDamaged };

struct NetworkPlan {
  Duration latency_min{0};  // each connection has its own between these
  Duration latency_max{0};
  Duration jitter_max{0};  // of each segment; within a connection the order stays
  uint64_t bytes_per_second_min = 0;
  uint64_t bytes_per_second_max = 0;
  // Of the link that all connections share, a direction; 0: each has only its own.
  uint64_t link_bytes_per_second = 0;
  size_t buffer_bytes = 0;  // on the way and unread, a direction
  size_t segment_bytes_max = size_t{16} << 10;
  // A send on a lane takes all that there is room for, and of a long one only the first bytes are
  // carried: of the rest, only how many they are. What reads them writes nothing for them.
  bool hollow = false;
  struct Partition {
    Duration from{0};
    Duration to{0};
  };
  std::vector<Partition> partitions;  // nothing arrives meanwhile; nothing is lost
  FrameFault frame_fault = FrameFault::kNone;
  uint64_t faulty_frame = 0;    // counted over all lanes
  size_t lane_proof_bytes = 0;  // what a lane has to say between its preface and its frames
};

// Sockets have the numbers of real file descriptors (of eventfds), so that closing and fcntl(2)
// work on them. Every call is the system call of its name, and sets errno; blocking is the
// caller's business, which asks Poll() first.
//
// Ownership: the fds are their owner's; Close() before closing one.
// Threads:   one. Blocking: never. Errors: errno.
class Network {
 public:
  Network(Scheduler& scheduler, NetworkPlan plan);

  bool Has(int fd) const { return sockets_.count(fd) > 0; }
  int Socket(int host, int fd);
  int Bind(int fd, uint16_t port);
  int Listen(int fd);
  int Connect(int fd, uint16_t port);
  // The fd of the next connection that has come, made with `make_fd`.
  int Accept(int fd, int host, int (*make_fd)());
  ssize_t Send(int fd, const void* bytes, size_t count);
  ssize_t Receive(int fd, void* bytes, size_t count, bool peek);
  int Shutdown(int fd, bool reading, bool writing);
  void Close(int fd);
  void ResetOnClose(int fd);
  short Poll(int fd, short events) const;
  int TakeError(int fd);
  Duration RoundTrip(int fd) const;
  sockaddr_in Address(int fd, bool of_peer) const;

  // Breaks the connection of that number, counted from the first (the control channel): both ends
  // are reset, as by a router, and some of what is on the way is lost. Does nothing if it is over.
  void Break(int number);
  // A host's kernel closes all that its processes had, or falls silent with them.
  void KillProcesses(int host);
  void KillHost(int host);

  Duration NextArrival() const;
  // With `hollow` and without TLS: what the control channel has carried from that side, 0 for who
  // connected.
  uint64_t control_messages(int side) const { return control_[side].messages; }
  uint64_t control_bytes(int side) const { return control_[side].bytes; }

  bool fault_happened() const { return fault_happened_; }
  int breaks_happened() const { return breaks_happened_; }

 private:
  enum class Mark { kBytes, kEnd, kReset };
  struct Segment {
    Duration arrives{0};
    Mark mark = Mark::kBytes;
    std::string bytes;
    size_t hole_bytes = 0;  // behind them

    size_t size() const { return bytes.size() + hole_bytes; }
  };
  // One direction of a connection.
  struct Pipe {
    std::deque<Segment> segments;
    size_t bytes = 0;  // in segments
    Duration last_arrival{0};
    bool reader_gone = false;
    // Of a lane: where in its frames the sender is.
    std::string frame;
    size_t frame_bytes = 0;  // 0: in the preface
  };
  struct Connection {
    int number = 0;
    Duration latency{0};
    uint64_t bytes_per_second = 1;
    Pipe pipes[2];  // from the side of that number
    bool broken = false;
    bool silent = false;  // a host of it is dead
    // Where it was looked at, for a fault.
    bool is_announced = false;  // as a lane that has to prove itself
    bool is_lane = false;
    bool is_control = false;
  };
  // Follows the control channel's framing: a preface, then each message behind its length.
  struct MessageCount {
    void Take(const unsigned char* data, size_t count);

    uint64_t messages = 0;
    uint64_t bytes = 0;
    uint64_t left = kControlPrefaceBytes;  // of the preface or the message
    uint32_t length = 0;                   // so far
    int length_bytes = 0;
  };
  struct Endpoint {
    int host = 0;
    uint16_t port = 0;
    bool listens = false;
    bool silent = false;  // its host is dead
    struct Caller {
      Duration arrives{0};
      std::shared_ptr<Connection> connection;
      uint16_t port = 0;
    };
    std::deque<Caller> callers;
    std::shared_ptr<Connection> connection;
    int side = 0;
    uint16_t peer_port = 0;
    int peer_host = 0;
    Duration connected_at{0};
    int error = 0;  // of connect(2), once connected_at has come
    bool reads_ended = false;
    bool writes_ended = false;
    bool reset_on_close = false;
    bool reset_seen = false;
  };

  Endpoint* Find(int fd);
  const Endpoint* Find(int fd) const;
  Duration ArrivalAfter(Connection& connection, Pipe& pipe, size_t bytes);
  Duration LeaveLinkAfter(int direction, size_t bytes);
  void Push(Connection& connection, Pipe& pipe, Mark mark, std::string bytes,
            size_t hole_bytes = 0);
  void PassThroughFaults(Connection& connection, Pipe& pipe, std::string bytes);
  size_t Room(const Endpoint& endpoint) const;
  const Segment* Front(const Endpoint& endpoint) const;
  void Leave(Endpoint& endpoint);

  Scheduler& scheduler_;
  const NetworkPlan plan_;
  std::map<int, Endpoint> sockets_;
  std::vector<std::weak_ptr<Connection>> connections_;  // by number
  Duration link_free_[2] = {Duration(0), Duration(0)};  // by direction
  MessageCount control_[2];                             // by side
  uint64_t frames_ = 0;
  uint16_t next_port_ = 40000;
  bool fault_happened_ = false;
  int breaks_happened_ = 0;
};

}  // namespace godwit::simulation

#endif  // GODWIT_TESTS_SIMULATION_NETWORK_H_
