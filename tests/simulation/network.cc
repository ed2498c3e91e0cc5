#include "tests/simulation/network.h"

#include <arpa/inet.h>
#include <endian.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace godwit::simulation {
namespace {

constexpr Duration kTick{1};
// A hollow network carries what is no longer than that, and the first bytes of what is: frames'
// headers are among them, wherever a send stopped before.
constexpr size_t kCarriedWholeBytes = 4096;
constexpr size_t kCarriedBytes = 256;

int Fail(int error) {
  errno = error;
  return -1;
}

}  // namespace

Network::Network(Scheduler& scheduler, NetworkPlan plan)
    : scheduler_(scheduler), plan_(std::move(plan)) {}

Network::Endpoint* Network::Find(int fd) {
  const auto found = sockets_.find(fd);
  return found == sockets_.end() ? nullptr : &found->second;
}

const Network::Endpoint* Network::Find(int fd) const {
  const auto found = sockets_.find(fd);
  return found == sockets_.end() ? nullptr : &found->second;
}

int Network::Socket(int host, int fd) {
  Endpoint endpoint;
  endpoint.host = host;
  sockets_[fd] = std::move(endpoint);
  return fd;
}

int Network::Bind(int fd, uint16_t port) {
  Endpoint& endpoint = *Find(fd);
  endpoint.port = port != 0 ? port : next_port_++;
  return 0;
}

int Network::Listen(int fd) {
  Find(fd)->listens = true;
  return 0;
}

// Always EINPROGRESS, as with a peer far away.
int Network::Connect(int fd, uint16_t port) {
  Endpoint& endpoint = *Find(fd);
  Random& random = scheduler_.random();
  auto connection = std::make_shared<Connection>();
  connection->number = static_cast<int>(connections_.size());
  connections_.push_back(connection);
  connection->latency = Duration(random.Between(static_cast<uint64_t>(plan_.latency_min.count()),
                                                static_cast<uint64_t>(plan_.latency_max.count())));
  connection->bytes_per_second =
      random.Between(plan_.bytes_per_second_min, plan_.bytes_per_second_max);
  endpoint.port = next_port_++;
  endpoint.peer_port = port;
  const Duration there = ArrivalAfter(*connection, connection->pipes[0], 0);
  const Duration back = ArrivalAfter(*connection, connection->pipes[1], 0);
  endpoint.connected_at = std::max(there, back) + connection->latency;
  for (auto& [listener_fd, listener] : sockets_) {
    if (!listener.listens || listener.port != port) continue;
    if (listener.silent) {
      endpoint.connected_at = kNever;
      return Fail(EINPROGRESS);
    }
    if (scheduler_.killed(listener.host)) continue;
    endpoint.connection = connection;
    endpoint.side = 0;
    endpoint.peer_host = listener.host;
    listener.callers.push_back({there, connection, endpoint.port});
    return Fail(EINPROGRESS);
  }
  endpoint.error = ECONNREFUSED;
  return Fail(EINPROGRESS);
}

int Network::Accept(int fd, int host, int (*make_fd)()) {
  Endpoint& listener = *Find(fd);
  if (listener.callers.empty() || listener.callers.front().arrives > scheduler_.now()) {
    return Fail(EAGAIN);
  }
  const Endpoint::Caller caller = listener.callers.front();
  listener.callers.pop_front();
  Endpoint endpoint;
  endpoint.host = host;
  endpoint.connection = caller.connection;
  endpoint.side = 1;
  endpoint.port = listener.port;
  endpoint.peer_port = caller.port;
  endpoint.peer_host = host == 1 ? 2 : 1;
  const int accepted = make_fd();
  if (accepted < 0) return accepted;
  sockets_[accepted] = std::move(endpoint);
  return accepted;
}

void Network::MessageCount::Take(const unsigned char* data, size_t count) {
  bytes += count;
  for (size_t at = 0; at < count;) {
    if (left > 0) {
      const size_t passed = std::min<size_t>(left, count - at);
      left -= passed;
      at += passed;
      continue;
    }
    length = length << 8 | data[at++];
    if (++length_bytes < 4) continue;
    ++messages;
    left = std::exchange(length, 0);
    length_bytes = 0;
  }
}

// When the last of what is sent now has left, behind all that was sent before it by anybody.
// Rounded up: a link is never faster than it is.
Duration Network::LeaveLinkAfter(int direction, size_t bytes) {
  const uint64_t rate = plan_.link_bytes_per_second;
  const Duration on_the_wire((bytes * 1'000'000'000 + rate - 1) / rate);
  link_free_[direction] = std::max(scheduler_.now(), link_free_[direction]) + on_the_wire;
  return link_free_[direction];
}

// When what is sent now comes, behind all that was sent before it on this connection.
Duration Network::ArrivalAfter(Connection& connection, Pipe& pipe, size_t bytes) {
  const Duration on_the_wire(bytes * 1'000'000'000 / connection.bytes_per_second);
  Duration arrives =
      std::max(scheduler_.now() + connection.latency, pipe.last_arrival) + on_the_wire + kTick;
  // (What lanes have sent too early waits in their own sockets, and not in the control channel's
  // way.)
  if (plan_.link_bytes_per_second > 0 && connection.number > 0) {
    const int direction = &pipe == &connection.pipes[0] ? 0 : 1;
    arrives = std::max(arrives, LeaveLinkAfter(direction, bytes) + connection.latency);
  }
  if (plan_.jitter_max.count() > 0) {
    arrives += Duration(scheduler_.random().Below(static_cast<uint64_t>(plan_.jitter_max.count())));
  }
  for (const NetworkPlan::Partition& partition : plan_.partitions) {
    if (arrives >= partition.from && arrives < partition.to) arrives = partition.to + on_the_wire;
  }
  pipe.last_arrival = arrives;
  return arrives;
}

void Network::Push(Connection& connection, Pipe& pipe, Mark mark, std::string bytes,
                   size_t hole_bytes) {
  if (connection.silent || (connection.broken && mark != Mark::kReset)) return;
  Segment segment = {Duration(0), mark, std::move(bytes), hole_bytes};
  segment.arrives = ArrivalAfter(connection, pipe, segment.size());
  pipe.bytes += segment.size();
  pipe.segments.push_back(std::move(segment));
}

// Follows a lane's framing (docs/wire-format.md: a preface, then each frame behind its length), so
// that a fault hits a whole frame.
void Network::PassThroughFaults(Connection& connection, Pipe& pipe, std::string bytes) {
  if (connection.is_control || plan_.frame_fault == FrameFault::kNone || fault_happened_ ||
      &pipe != &connection.pipes[0]) {
    return Push(connection, pipe, Mark::kBytes, std::move(bytes));
  }
  for (size_t at = 0; at < bytes.size();) {
    size_t wanted = pipe.frame_bytes;
    if (wanted == 0) {
      wanted = connection.is_lane        ? 4
               : connection.is_announced ? plan_.lane_proof_bytes
               : pipe.frame.size() < 8   ? 8
                                         : kLanePrefaceBytes;
    }
    const size_t take = std::min(wanted - pipe.frame.size(), bytes.size() - at);
    pipe.frame.append(bytes, at, take);
    at += take;
    if (pipe.frame.size() < wanted) continue;
    if (!connection.is_lane && !connection.is_announced && wanted == 8) {
      connection.is_control = ClassifyPreface(pipe.frame.data()).value_or(PrefaceKind::kControl) ==
                              PrefaceKind::kControl;
      if (!connection.is_control) continue;
      pipe.frame.append(bytes, at);
      return Push(connection, pipe, Mark::kBytes, std::exchange(pipe.frame, {}));
    }
    if (!connection.is_lane) {
      connection.is_lane = connection.is_announced || plan_.lane_proof_bytes == 0;
      connection.is_announced = true;
      Push(connection, pipe, Mark::kBytes, std::exchange(pipe.frame, {}));
      continue;
    }
    if (pipe.frame_bytes == 0) {  // that was the length
      uint32_t length = 0;
      std::memcpy(&length, pipe.frame.data(), sizeof(length));
      pipe.frame_bytes = sizeof(length) + be32toh(length);
      continue;
    }
    std::string frame = std::exchange(pipe.frame, {});
    pipe.frame_bytes = 0;
    const bool hit = frames_++ == plan_.faulty_frame;
    fault_happened_ |= hit;
    if (hit && plan_.frame_fault == FrameFault::kDamaged) {
      const uint64_t bit = scheduler_.random().Below(frame.size() * 8);
      frame[bit / 8] = static_cast<char>(frame[bit / 8] ^ (1 << (bit % 8)));
    }
    if (hit && plan_.frame_fault == FrameFault::kDuplicated) {
      Push(connection, pipe, Mark::kBytes, frame);
    }
    Push(connection, pipe, Mark::kBytes, std::move(frame));
  }
}

size_t Network::Room(const Endpoint& endpoint) const {
  const Pipe& pipe = endpoint.connection->pipes[endpoint.side];
  const size_t used = pipe.bytes + pipe.frame.size();
  return plan_.buffer_bytes - std::min(plan_.buffer_bytes, used);
}

ssize_t Network::Send(int fd, const void* bytes, size_t count) {
  Endpoint& endpoint = *Find(fd);
  if (endpoint.connection == nullptr || scheduler_.now() < endpoint.connected_at) {
    return Fail(ENOTCONN);
  }
  if (endpoint.writes_ended) return Fail(EPIPE);
  if (endpoint.reset_seen) return Fail(EPIPE);
  const Segment* const front = Front(endpoint);
  if (front != nullptr && front->mark == Mark::kReset) {
    endpoint.reset_seen = true;
    return Fail(ECONNRESET);
  }
  Connection& connection = *endpoint.connection;
  Pipe& pipe = connection.pipes[endpoint.side];
  size_t taken = std::min({count, Room(endpoint), plan_.segment_bytes_max});
  if (taken == 0) return Fail(EAGAIN);
  if (!plan_.hollow && scheduler_.random().OneIn(4)) taken = scheduler_.random().Between(1, taken);
  if (pipe.reader_gone) {  // a closed socket answers with a reset
    Push(connection, connection.pipes[1 - endpoint.side], Mark::kReset, {});
    return static_cast<ssize_t>(taken);
  }
  if (plan_.hollow) {
    const bool is_control = connection.number == 0;
    if (is_control) {
      control_[endpoint.side].Take(static_cast<const unsigned char*>(bytes), taken);
    }
    const size_t carried = is_control || taken <= kCarriedWholeBytes ? taken : kCarriedBytes;
    Push(connection, pipe, Mark::kBytes, std::string(static_cast<const char*>(bytes), carried),
         taken - carried);
    return static_cast<ssize_t>(taken);
  }
  PassThroughFaults(connection, pipe, std::string(static_cast<const char*>(bytes), taken));
  return static_cast<ssize_t>(taken);
}

void Network::Break(int number) {
  if (static_cast<size_t>(number) >= connections_.size()) return;
  const std::shared_ptr<Connection> connection = connections_[static_cast<size_t>(number)].lock();
  if (connection == nullptr || connection->broken || connection->silent) return;
  ++breaks_happened_;
  connection->broken = true;
  for (Pipe& pipe : connection->pipes) {
    while (!pipe.segments.empty() && pipe.segments.back().arrives > scheduler_.now() &&
           !scheduler_.random().OneIn(4)) {
      pipe.bytes -= pipe.segments.back().size();
      pipe.segments.pop_back();
    }
    Push(*connection, pipe, Mark::kReset, {});
  }
}

// What the socket reads next, if it has come.
const Network::Segment* Network::Front(const Endpoint& endpoint) const {
  if (endpoint.connection == nullptr) return nullptr;
  const Pipe& pipe = endpoint.connection->pipes[1 - endpoint.side];
  if (pipe.segments.empty() || pipe.segments.front().arrives > scheduler_.now()) return nullptr;
  return &pipe.segments.front();
}

ssize_t Network::Receive(int fd, void* bytes, size_t count, bool peek) {
  Endpoint& endpoint = *Find(fd);
  if (endpoint.connection == nullptr) return Fail(ENOTCONN);
  size_t got = 0;
  while (got < count) {
    const Segment* const front = Front(endpoint);
    if (front == nullptr) break;
    if (front->mark == Mark::kEnd) return static_cast<ssize_t>(got);
    if (front->mark == Mark::kReset) {
      if (got > 0) return static_cast<ssize_t>(got);
      if (std::exchange(endpoint.reset_seen, true)) return 0;
      return Fail(ECONNRESET);
    }
    Pipe& pipe = endpoint.connection->pipes[1 - endpoint.side];
    Segment& segment = pipe.segments.front();
    const size_t take = std::min(count - got, segment.bytes.size());
    std::memcpy(static_cast<char*>(bytes) + got, segment.bytes.data(), take);
    got += take;
    if (peek) break;
    segment.bytes.erase(0, take);
    const size_t skip = std::min(count - got, segment.hole_bytes);
    segment.hole_bytes -= skip;
    got += skip;
    pipe.bytes -= take + skip;
    if (segment.size() == 0) pipe.segments.pop_front();
  }
  if (got == 0 && count > 0 && !endpoint.reads_ended) return Fail(EAGAIN);
  return static_cast<ssize_t>(got);
}

int Network::Shutdown(int fd, bool reading, bool writing) {
  Endpoint& endpoint = *Find(fd);
  if (endpoint.connection == nullptr) return Fail(ENOTCONN);
  endpoint.reads_ended |= reading;
  if (writing && !std::exchange(endpoint.writes_ended, true)) {
    Push(*endpoint.connection, endpoint.connection->pipes[endpoint.side], Mark::kEnd, {});
  }
  return 0;
}

void Network::Leave(Endpoint& endpoint) {
  if (endpoint.connection == nullptr) return;
  Connection& connection = *endpoint.connection;
  Pipe& incoming = connection.pipes[1 - endpoint.side];
  const bool unread = Front(endpoint) != nullptr && Front(endpoint)->mark == Mark::kBytes;
  incoming.reader_gone = true;
  if (unread || endpoint.reset_on_close) {
    Push(connection, connection.pipes[endpoint.side], Mark::kReset, {});
  } else if (!endpoint.writes_ended) {
    Push(connection, connection.pipes[endpoint.side], Mark::kEnd, {});
  }
}

void Network::Close(int fd) {
  Endpoint& endpoint = *Find(fd);
  Leave(endpoint);
  for (const Endpoint::Caller& caller : endpoint.callers) {
    caller.connection->pipes[0].reader_gone = true;
    Push(*caller.connection, caller.connection->pipes[1], Mark::kReset, {});
  }
  sockets_.erase(fd);
}

void Network::ResetOnClose(int fd) { Find(fd)->reset_on_close = true; }

short Network::Poll(int fd, short events) const {
  const Endpoint& endpoint = *Find(fd);
  if (endpoint.listens) {
    const bool caller =
        !endpoint.callers.empty() && endpoint.callers.front().arrives <= scheduler_.now();
    if (!caller) return 0;
    return static_cast<short>(events & POLLIN);
  }
  if (endpoint.connection == nullptr && endpoint.error == 0) return POLLHUP;
  if (scheduler_.now() < endpoint.connected_at) return 0;
  if (endpoint.error != 0) return static_cast<short>(POLLERR | POLLHUP | (events & POLLOUT));
  int happened = 0;
  const Segment* const front = Front(endpoint);
  if (front != nullptr || endpoint.reads_ended) happened |= POLLIN;
  if (front != nullptr && front->mark == Mark::kReset) happened |= POLLERR | POLLHUP | POLLOUT;
  if (Room(endpoint) > 0) happened |= POLLOUT;
  return static_cast<short>(happened & (events | POLLERR | POLLHUP));
}

int Network::TakeError(int fd) { return std::exchange(Find(fd)->error, 0); }

Duration Network::RoundTrip(int fd) const {
  const Endpoint& endpoint = *Find(fd);
  return endpoint.connection == nullptr ? Duration(0) : 2 * endpoint.connection->latency;
}

sockaddr_in Network::Address(int fd, bool of_peer) const {
  const Endpoint& endpoint = *Find(fd);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(of_peer ? endpoint.peer_port : endpoint.port);
  const int host = of_peer ? endpoint.peer_host : endpoint.host;
  address.sin_addr.s_addr = htonl(0x0a000000U + static_cast<uint32_t>(host));
  return address;
}

void Network::KillProcesses(int host) {
  for (auto& [fd, endpoint] : sockets_) {
    if (endpoint.host == host) Leave(endpoint);
  }
}

void Network::KillHost(int host) {
  for (auto& [fd, endpoint] : sockets_) {
    if (endpoint.host != host) continue;
    endpoint.silent = true;
    if (endpoint.connection == nullptr) continue;
    endpoint.connection->silent = true;
    // What it had sent and what is on the way to it is lost as well.
    endpoint.connection->pipes[endpoint.side].segments.clear();
    endpoint.connection->pipes[endpoint.side].bytes = 0;
  }
}

Duration Network::NextArrival() const {
  Duration next = kNever;
  const Duration now = scheduler_.now();
  const auto consider = [&](Duration at) {
    if (at > now) next = std::min(next, at);
  };
  for (const auto& [fd, endpoint] : sockets_) {
    if (scheduler_.killed(endpoint.host)) continue;
    consider(endpoint.connected_at);
    for (const Endpoint::Caller& caller : endpoint.callers) consider(caller.arrives);
    if (endpoint.connection == nullptr) continue;
    const Pipe& incoming = endpoint.connection->pipes[1 - endpoint.side];
    if (!incoming.segments.empty()) consider(incoming.segments.front().arrives);
  }
  return next;
}

}  // namespace godwit::simulation
