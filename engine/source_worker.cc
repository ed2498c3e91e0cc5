// Orders, lanes that come and go, and tear-down. The hot path is in source_worker_datapath.cc.
#include "engine/source_worker.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/buffer_budget.h"
#include "transport/tcp/tcp_lane.h"

namespace godwit {

namespace {

// So that nothing that a driver says overflows.
constexpr uint64_t kBytesExpectedMax = uint64_t{1} << 56;
static_assert(kBytesExpectedMax <= (uint64_t{1} << 62) / kDevicesMax);

}  // namespace

absl::StatusOr<std::unique_ptr<SourceWorker>> SourceWorker::Make(std::vector<std::string> names,
                                                                 const Limits& limits, Arena& arena,
                                                                 const Notifier& events) {
  GODWIT_ASSIGN_OR_RETURN(Notifier inbox, Notifier::Create());
  return std::unique_ptr<SourceWorker>(
      new SourceWorker(std::move(names), limits, arena, std::move(inbox), events));
}

SourceWorker::SourceWorker(std::vector<std::string> names, const Limits& limits, Arena& arena,
                           Notifier inbox, const Notifier& events)
    : WorkerBase(arena, std::move(inbox), events),
      limits_(limits),
      window_part_(WindowPart(limits.window_packets)),
      names_(std::move(names)),
      devices_(names_.size()),
      schedule_(limits.lanes, limits.queue_packets),
      again_(size_t{limits.lanes} * limits.queue_packets),
      orders_(names_.size()),
      lane_receipts_(limits.lanes),
      device_loaded_(names_.size()),
      device_counters_(names_.size()),
      lane_counters_(limits.lanes),
      blocked_calls_(names_.size()) {
  for (LaneCounters& lane : lane_counters_) {
    lane.transport.store(limits.transport, std::memory_order_relaxed);
  }
}

absl::Status SourceWorker::SetUp() {
  lane_slots_.clear();
  for (size_t i = 0; i < lanes().size(); ++i) lane_slots_.emplace_back(limits_.queue_packets);
  return absl::OkStatus();
}

void SourceWorker::Order(size_t device, const std::function<void(Orders&)>& put) {
  {
    MutexLock lock(orders_mutex_);
    put(orders_[device]);
    orders_wait_.store(true, std::memory_order_relaxed);
  }
  Wake();
}

void SourceWorker::Open(size_t device, UniqueFd data_fd, DeviceState state,
                        const Notifier* when_dry, uint64_t bytes_expected) {
  Order(device, [&](Orders& orders) {
    orders.data_fd = std::move(data_fd);
    orders.state = state;
    orders.bytes_expected = bytes_expected;
    orders.when_dry = when_dry;
    orders.at = Clock::Steady().Now();
  });
}

void SourceWorker::ReadAgain(size_t device) {
  Order(device, [](Orders& orders) {
    orders.read_again = true;
    orders.at = Clock::Steady().Now();
  });
}

void SourceWorker::EnterStopCopy(size_t device, uint64_t bytes_expected) {
  GODWIT_DCHECK(reads_held());
  Order(device, [&](Orders& orders) {
    orders.enter_stop_copy = true;
    orders.bytes_expected = bytes_expected;
  });
}

void SourceWorker::SetConfig(size_t device, std::string config) {
  Order(device, [&](Orders& orders) { orders.config = std::move(config); });
}

void SourceWorker::RemakeLane(NewLane made) {
  {
    MutexLock lock(orders_mutex_);
    lane_orders_.push_back({std::move(made), {}});
    orders_wait_.store(true, std::memory_order_relaxed);
  }
  Wake();
}

void SourceWorker::DropLane(size_t lane, uint16_t generation, absl::Status why) {
  {
    MutexLock lock(orders_mutex_);
    lane_orders_.push_back({{lane, generation, UniqueFd(), nullptr, {}}, std::move(why)});
    orders_wait_.store(true, std::memory_order_relaxed);
  }
  Wake();
}

void SourceWorker::HoldReads() {
  hold_reads_.store(true, std::memory_order_relaxed);
  Wake();
}

void SourceWorker::TakeOrders() {
  if (!orders_wait_.load(std::memory_order_relaxed)) return;
  MutexLock lock(orders_mutex_);
  orders_wait_.store(false, std::memory_order_relaxed);
  for (size_t i = 0; i < orders_.size(); ++i) {
    Orders& orders = orders_[i];
    DeviceSlot& device = devices_[i];
    if (orders.data_fd.valid()) {
      device.when_dry = orders.when_dry;
      device.reader = std::make_unique<StateReader>(
          static_cast<uint16_t>(i), names_[i], std::move(orders.data_fd), limits_.packet_bytes,
          limits_.chain_packets, ring(), arena(), orders.state, limits_.crc);
      device.reader->SetTrace(trace());
      if (limits_.at_once_bytes > 0) device.reader->LetWorkerRead();
      reads_at_once_ |= device.reader->reads_at_once();
      device.trip_began = orders.at;
      device.end_expected = std::min(orders.bytes_expected, kBytesExpectedMax);
    }
    if (orders.config.has_value()) device.config = std::exchange(orders.config, std::nullopt);
    if (device.reader == nullptr) continue;
    if (std::exchange(orders.enter_stop_copy, false)) {
      device.reader->EnterStopCopy();
      if (orders.bytes_expected > 0) {
        device.end_expected =
            device.reader->stream_bytes() + std::min(orders.bytes_expected, kBytesExpectedMax);
      }
    }
    if (std::exchange(orders.read_again, false)) {
      device.reader->ReadAgain();
      device.trip_began = orders.at;
    }
  }
  TakeLaneOrders();
}

void SourceWorker::TakeLaneOrders() {
  for (LaneOrder& order : lane_orders_) {
    NewLane& made = order.made;
    if (made.socket.valid() || made.ready != nullptr) {
      new_lanes_.push_back(std::move(made));
    } else if (made.generation == lane_slots_[made.lane].generation) {
      LoseLane(made.lane, std::move(order.drop));
    } else if (ForgetNewLane(made.lane, made.generation)) {
      lane_events_.Add({static_cast<uint32_t>(made.lane), made.generation, /*up=*/false,
                        Annotate(order.drop, absl::StrCat("lane ", made.lane))});
      events().Notify();
    }
  }
  lane_orders_.clear();
}

// One that died before it was put in its place. False: there is none.
bool SourceWorker::ForgetNewLane(size_t lane, uint16_t generation) {
  return std::erase_if(new_lanes_, [&](const NewLane& made) {
           return made.lane == lane && made.generation == generation;
         }) > 0;
}

// A lane that is made again takes the old one's place when that has given back its buffers.
void SourceWorker::BringUpLanes() {
  for (auto made = new_lanes_.begin(); made != new_lanes_.end();) {
    LaneSlot& slot = lane_slots_[made->lane];
    if (made->generation <= slot.generation) {  // its successor has come before it
      made = new_lanes_.erase(made);
      continue;
    }
    GODWIT_DCHECK(slot.burst_packets == 0);
    if (slot.up) LoseLane(made->lane, absl::UnavailableError("it was made again"));
    if (!LaneGone(made->lane) || !slot.with_lane.empty()) {
      ++made;
      continue;
    }
    slot.receipted_packets = slot.freed_packets = 0;
    slot.generation = made->generation;
    slot.up = true;
    schedule_.Up(made->lane);
    lane_counters_[made->lane].waits_since.store(0, std::memory_order_relaxed);
    const bool tcp = made->ready == nullptr;
    lane_counters_[made->lane].transport.store(tcp ? TransportKind::kTcp : TransportKind::kVerbs,
                                               std::memory_order_relaxed);
    lane_events_.Add({static_cast<uint32_t>(made->lane), slot.generation, /*up=*/true, {}});
    ReplaceLane(made->lane,
                tcp ? TcpLane::Make(std::move(made->socket), ring(), limits_.lane_limits,
                                    LaneRole::kSender, std::move(made->name))
                    : std::move(made->ready));
    events().Notify();
    made = new_lanes_.erase(made);
  }
}

// What the target has not receipted goes out again; what the lane still holds follows as it comes
// back.
void SourceWorker::LoseLane(size_t lane, absl::Status why) {
  LaneSlot& slot = lane_slots_[lane];
  if (!slot.up) return;
  slot.up = false;
  SetResting(lane, false);
  look_again_ = true;
  schedule_.Down(lane);
  CloseLane(lane);
  while (!slot.unreceipted.empty()) {
    SendAgain(lane, slot.unreceipted.Pop());
    ++slot.freed_packets;
  }
  lane_counters_[lane].queue_depth.store(0, std::memory_order_relaxed);
  lane_counters_[lane].waits_since.store(0, std::memory_order_relaxed);
  lane_events_.Add({static_cast<uint32_t>(lane), slot.generation, /*up=*/false,
                    Annotate(why, absl::StrCat("lane ", lane))});
  events().Notify();
}

void SourceWorker::BeginTearDown() {
  for (size_t i = 0; i < devices_.size(); ++i) {
    const std::unique_ptr<StateReader>& reader = devices_[i].reader;
    if (reader == nullptr) continue;
    blocked_calls_[i].StopAsked();
    if (!reader->idle()) blocked_calls_[i].Enter();
    reader->Cancel();
  }
}

bool SourceWorker::Idle() {
  bool idle = true;
  for (size_t i = 0; i < devices_.size(); ++i) {
    const std::unique_ptr<StateReader>& reader = devices_[i].reader;
    if (reader == nullptr) continue;
    if (!reader->idle()) {
      reader->Cancel();  // a chain goes read by read
      idle = false;
    } else if (blocked_calls_[i].in_call()) {
      blocked_calls_[i].Return();
    }
  }
  return idle;
}

void SourceWorker::TearDown() {
  // A session may end on the target's word before a lane has said that it is done.
  for (size_t i = 0; i < lane_slots_.size(); ++i) {
    while (trace() != nullptr && !lane_slots_[i].with_lane.empty()) {
      TraceReturn(i, lane_slots_[i].with_lane.Pop());
    }
  }
  for (DeviceSlot& device : devices_) {
    device.reader.reset();  // closes the data_fd
    device.config_packet.reset();
  }
  while (!again_.empty()) (void)again_.Pop();
  lane_slots_.clear();
  // Queue pairs that were made too late: their device goes next.
  new_lanes_.clear();
  MutexLock lock(orders_mutex_);
  lane_orders_.clear();
}

}  // namespace godwit
