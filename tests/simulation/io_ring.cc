// base/io_ring.h again, for simulated runs: io_uring as its manual pages describe it, with the time
// that an operation takes, where a chain stops and how much of a read comes left to the seed. A
// program that links this has no use for the one in base/.
#include "base/io_ring.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "tests/simulation/io_plan.h"
#include "tests/simulation/libc.h"
#include "tests/simulation/scheduler.h"

namespace godwit {
namespace simulation {
namespace {

IoPlan the_plan;

std::map<int, ArenaUse>& ArenaUses() {
  static auto* const uses = new std::map<int, ArenaUse>();
  return *uses;
}

}  // namespace

void UseIoPlan(const IoPlan& plan) { the_plan = plan; }

ArenaUse ArenaUseOf(int host) { return ArenaUses()[host]; }

}  // namespace simulation

namespace {

using simulation::Scheduler;

// An operation that was submitted. `earliest`: it takes that long at least.
struct InFlight {
  io_uring_sqe sqe{};
  uint64_t after = 0;  // hard-linked behind the operation with that number; 0: it may begin
  uint64_t number = 0;
  simulation::Duration earliest{0};
  size_t done_bytes = 0;  // MSG_WAITALL: so far
  bool cancelled = false;
};

struct Completion {
  uint64_t user_data = 0;
  int result = 0;
};

struct SimulatedRing {
  unsigned entries = 0;
  std::deque<io_uring_sqe> prepared;
  std::deque<InFlight> in_flight;
  std::deque<Completion> completed;
  uint64_t numbers = 0;
  const Arena* arena = nullptr;
};

std::map<const IoRing*, SimulatedRing>& Rings() {
  static auto* const rings = new std::map<const IoRing*, SimulatedRing>();
  return *rings;
}

// What one system call of that operation gives; nothing: io_uring would wait.
std::optional<int> Try(Scheduler& scheduler, InFlight& operation) {
  const io_uring_sqe& sqe = operation.sqe;
  auto* const bytes = reinterpret_cast<char*>(sqe.addr);
  switch (sqe.opcode) {
    case IORING_OP_POLL_ADD: {
      const short happened = simulation::PollNow(sqe.fd, POLLIN);
      return happened != 0 ? std::optional<int>(happened) : std::nullopt;
    }
    case IORING_OP_READ:
    case IORING_OP_READ_FIXED: {
      size_t count = sqe.len;
      // A read may bring less than there is. (What a message socket cuts off would be lost.)
      if (simulation::IsByteStream(sqe.fd) && scheduler.random().OneIn(8)) {
        count = scheduler.random().Between(1, count);
      }
      const ssize_t got = simulation::ReadNow(sqe.fd, bytes, count);
      if (got >= 0) return static_cast<int>(got);
      const bool waits = errno == EAGAIN && (sqe.rw_flags & RWF_NOWAIT) == 0 &&
                         ((sqe.flags & IOSQE_ASYNC) == 0 || !simulation::IsNonBlocking(sqe.fd));
      return waits ? std::nullopt : std::optional<int>(-errno);
    }
    case IORING_OP_RECV:
    case IORING_OP_SENDMSG: {
      ssize_t moved = 0;
      size_t wanted = 0;
      if (sqe.opcode == IORING_OP_RECV) {
        wanted = sqe.len;
        moved = simulation::ReceiveNow(sqe.fd, bytes + operation.done_bytes,
                                       wanted - operation.done_bytes);
      } else {
        const auto& message = *reinterpret_cast<const msghdr*>(sqe.addr);
        moved = simulation::SendNow(sqe.fd, message, operation.done_bytes, wanted);
      }
      const bool all = (sqe.msg_flags & MSG_WAITALL) != 0;
      // A socket's room is used up at once, and not a part of the message each time that it is
      // asked.
      while (simulation::the_plan.whole && moved > 0 && sqe.opcode == IORING_OP_SENDMSG) {
        operation.done_bytes += static_cast<size_t>(moved);
        if (operation.done_bytes == wanted) return static_cast<int>(operation.done_bytes);
        const auto& message = *reinterpret_cast<const msghdr*>(sqe.addr);
        moved = simulation::SendNow(sqe.fd, message, operation.done_bytes, wanted);
      }
      if (moved < 0) {
        if (errno == EAGAIN) return std::nullopt;
        return operation.done_bytes > 0 ? static_cast<int>(operation.done_bytes) : -errno;
      }
      operation.done_bytes += static_cast<size_t>(moved);
      const bool ended = sqe.opcode == IORING_OP_RECV && moved == 0;
      // A signal or a cancellation of another may end it early.
      const bool cut =
          !simulation::the_plan.whole && operation.done_bytes > 0 && scheduler.random().OneIn(32);
      if (ended || !all || cut || operation.done_bytes == wanted) {
        return static_cast<int>(operation.done_bytes);
      }
      return std::nullopt;
    }
    default:
      GODWIT_CHECK(sqe.opcode == IORING_OP_READ);  // it knows no others
      return -EINVAL;
  }
}

bool Chained(const SimulatedRing& ring, const InFlight& operation) {
  return operation.after != 0 &&
         std::any_of(ring.in_flight.begin(), ring.in_flight.end(),
                     [&](const InFlight& other) { return other.number == operation.after; });
}

// Lets the operations that may go on do so; whether there is a completion.
bool Progress(Scheduler& scheduler, SimulatedRing& ring) {
  for (size_t i = 0; i < ring.in_flight.size();) {
    InFlight& operation = ring.in_flight[i];
    std::optional<int> result;
    if (!Chained(ring, operation) && scheduler.now() >= operation.earliest) {
      result = operation.cancelled ? std::optional<int>(operation.done_bytes > 0
                                                            ? static_cast<int>(operation.done_bytes)
                                                            : -ECANCELED)
                                   : Try(scheduler, operation);
    }
    if (!result.has_value()) {
      ++i;
      continue;
    }
    ring.completed.push_back({operation.sqe.user_data, *result});
    ring.in_flight.erase(ring.in_flight.begin() + static_cast<ptrdiff_t>(i));
  }
  return !ring.completed.empty();
}

void CancelAll(Scheduler& scheduler, SimulatedRing& ring, uint64_t user_data) {
  for (InFlight& operation : ring.in_flight) {
    // It finds what is under way. What waits in a chain behind it starts then.
    if (operation.sqe.user_data != user_data || Chained(ring, operation)) continue;
    // It may come too late: then the operation ends as if nothing had been.
    operation.cancelled = !scheduler.random().OneIn(8) || operation.cancelled;
  }
}

void Submit(Scheduler& scheduler, SimulatedRing& ring) {
  uint64_t after = 0;
  for (; !ring.prepared.empty(); ring.prepared.pop_front()) {
    const io_uring_sqe& sqe = ring.prepared.front();
    if (sqe.opcode == IORING_OP_ASYNC_CANCEL) {
      CancelAll(scheduler, ring, sqe.addr);
      continue;
    }
    InFlight operation;
    operation.sqe = sqe;
    operation.after = after;
    operation.number = ++ring.numbers;
    operation.earliest =
        scheduler.now() + simulation::Duration(scheduler.random().Below(
                              static_cast<uint64_t>(simulation::the_plan.latency_max.count())));
    after = (sqe.flags & IOSQE_IO_HARDLINK) != 0 ? operation.number : 0;
    ring.in_flight.push_back(operation);
  }
}

simulation::Duration NextTime(const SimulatedRing& ring, simulation::Duration now) {
  simulation::Duration next = simulation::kNever;
  for (const InFlight& operation : ring.in_flight) {
    if (operation.earliest > now) next = std::min(next, operation.earliest);
  }
  return next;
}

}  // namespace

absl::StatusOr<std::unique_ptr<IoRing>> IoRing::Create(unsigned entries) {
  std::unique_ptr<IoRing> ring(new IoRing());
  ring->initialised_ = true;
  static_cast<void>(ring->ring_);  // the kernel's
  Rings()[ring.get()].entries = entries;
  return ring;
}

IoRing::~IoRing() {
  GODWIT_CHECK(Rings()[this].in_flight.empty());  // else the kernel would write into freed memory
  if (const Arena* const arena = Rings()[this].arena;
      simulation::the_plan.watch_arenas && arena != nullptr) {
    simulation::ArenaUses()[Scheduler::Current()->host()] = {arena->buffer_count(),
                                                             arena->used_high_water()};
  }
  Rings().erase(this);
}

absl::Status IoRing::RegisterArena(const Arena& arena) {
  Rings()[this].arena = &arena;
  if (Scheduler::Current()->random().OneIn(2)) return absl::UnavailableError("not this time");
  arena_registered_ = true;
  return absl::OkStatus();
}

void IoRing::Reserve(unsigned count) {
  SimulatedRing& ring = Rings()[this];
  GODWIT_CHECK(count <= ring.entries);
  if (ring.prepared.size() + count > ring.entries) Submit(*Scheduler::Current(), ring);
}

io_uring_sqe* IoRing::NextSqe() {
  Reserve(1);
  SimulatedRing& ring = Rings()[this];
  ring.prepared.emplace_back();
  return &ring.prepared.back();
}

void IoRing::Attach(io_uring_sqe* sqe, Op* op) {
  io_uring_sqe_set_data(sqe, op);
  ++in_flight_;
}

void IoRing::Cancel(Op* op) {
  io_uring_sqe* const sqe = NextSqe();
  io_uring_prep_cancel(sqe, op, IORING_ASYNC_CANCEL_ALL);
}

size_t IoRing::Wait(std::chrono::nanoseconds timeout) {
  Scheduler& scheduler = *Scheduler::Current();
  SimulatedRing& ring = Rings()[this];
  Submit(scheduler, ring);
  const simulation::Duration deadline =
      timeout < std::chrono::nanoseconds::zero() ? simulation::kNever : scheduler.now() + timeout;
  bool came = false;
  do {
    const simulation::Duration next = std::min(deadline, NextTime(ring, scheduler.now()));
    came = scheduler.Wait(
        "a completion of its ring", [&] { return Progress(scheduler, ring); }, next);
  } while (!came && scheduler.now() < deadline);
  return Dispatch();
}

size_t IoRing::Dispatch() {
  SimulatedRing& ring = Rings()[this];
  size_t dispatched = 0;
  // As with a kernel's queue, what completes meanwhile may be seen, too.
  while (!ring.completed.empty()) {
    const Completion completion = ring.completed.front();
    ring.completed.pop_front();
    --in_flight_;
    reinterpret_cast<Op*>(completion.user_data)->OnComplete(completion.result);
    ++dispatched;
  }
  return dispatched;
}

}  // namespace godwit
