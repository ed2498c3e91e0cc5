#include "engine/worker_base.h"

#include <algorithm>
#include <future>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "base/thread_name.h"

namespace godwit {
namespace {

constexpr unsigned kRingEntries = 256;
// How often a worker that is going down looks again at what the kernel or a NIC still holds.
constexpr std::chrono::milliseconds kTearDownPoll{5};
// How long a queue pair sleeps, or rests, at most. A receiver is woken up by the end of a burst and
// by failures; but not by soft-RoCE's flushes (rdma_rxe, Linux 6.12), by which it hears that its
// own end is dead. A sender at rest is woken up by nothing: this is how its failures are found.
constexpr std::chrono::milliseconds kSleepMax{100};
// And how many rounds are done at most before all lanes are looked at: a busy worker never sleeps.
constexpr uint32_t kRoundsMax = 256;

// Takes and frees what a closing lane gives back: a queue pair is quiescent once its flushed work
// requests have been polled.
void DrainLane(Lane& lane) {
  Buffer buffers[8];
  while (lane.PollSent(absl::MakeSpan(buffers)) + lane.PollReceived(absl::MakeSpan(buffers)) > 0) {
    for (Buffer& buffer : buffers) buffer = Buffer();
  }
}

}  // namespace

WorkerBase::~WorkerBase() { GODWIT_CHECK(!thread_.joinable()); }

absl::Status WorkerBase::SetSealing(Sealing sealing, const std::optional<TrafficKey>& key) {
  if (sealing == Sealing::kOff) return absl::OkStatus();
  GODWIT_ASSIGN_OR_RETURN(seal_, PacketSeal::Make(*key));
  sealing_ = sealing;
  return absl::OkStatus();
}

absl::Status WorkerBase::Start(LaneFactory factory) {
  auto started = std::make_shared<std::promise<absl::Status>>();
  std::future<absl::Status> result = started->get_future();
  thread_ = std::thread([this, factory = std::move(factory), started] {
    NameThisThread("godwit-worker");
    // The ring belongs to the thread that makes it (IORING_SETUP_SINGLE_ISSUER).
    absl::Status status = MakeLanes(factory);
    if (status.ok()) status = SetUp();
    started->set_value(status);
    if (status.ok()) Loop();
    ShutDown();
  });
  absl::Status status = result.get();
  if (!status.ok()) thread_.join();
  return status;
}

void WorkerBase::Stop() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_relaxed);  // the notifier orders it
  Wake();
  thread_.join();
}

absl::Status WorkerBase::MakeLanes(const LaneFactory& factory) {
  GODWIT_ASSIGN_OR_RETURN(ring_, IoRing::Create(kRingEntries));
  // Best effort: plain reads work as well, and on a character device registration gains nothing.
  (void)ring_->RegisterArena(arena_);
  inbox_watch_ = std::make_unique<FdWatch>(inbox_.fd(), *ring_);
  GODWIT_ASSIGN_OR_RETURN(lanes_, factory(*ring_));
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lane_watches_.push_back(WatchFor(*lanes_[i]));
    all_lanes_.Add(i);
    watched_.Set(i, lane_watches_[i] != nullptr);
  }
  return absl::OkStatus();
}

// Null if the lane needs none.
std::unique_ptr<FdWatch> WorkerBase::WatchFor(const Lane& lane) {
  const int fd = lane.wakeup_fd();
  return fd >= 0 ? std::make_unique<FdWatch>(fd, *ring_) : nullptr;
}

void WorkerBase::CloseLane(size_t at) {
  lanes_[at]->Close();
  if (lane_watches_[at] != nullptr) lane_watches_[at]->Cancel();
}

bool WorkerBase::LaneGone(size_t at) const {
  const bool watched = lane_watches_[at] != nullptr && lane_watches_[at]->armed();
  return !lanes_[at]->status().ok() && lanes_[at]->quiescent() && !watched;
}

void WorkerBase::ReplaceLane(size_t at, std::unique_ptr<Lane> lane) {
  GODWIT_CHECK(LaneGone(at));
  lane_watches_[at].reset();  // before its fd
  lanes_[at] = std::move(lane);
  lane_watches_[at] = WatchFor(*lanes_[at]);
  watched_.Set(at, lane_watches_[at] != nullptr);
  armed_.Remove(at);
  asleep_.Remove(at);
  resting_.Remove(at);
}

size_t WorkerBase::WaitForRing(std::chrono::nanoseconds timeout) {
  const size_t completions = ring_->Wait(timeout);
  if (completions == 0) return 0;
  for (const size_t i : asleep_) asleep_.Set(i, lane_watches_[i]->armed());
  return completions;
}

// The event loop: work while there is some, else sleep until a completion, a lane or the session's
// thread wakes us.
void WorkerBase::Loop() {
  while (!stop_.load(std::memory_order_relaxed)) {
    const bool enough_rounds = ++rounds_ % kRoundsMax == 0;
    look_at_all_ |= enough_rounds;
    const absl::StatusOr<bool> worked = Step();
    // If there is more, then perhaps on a lane whose fd says nothing of it.
    look_at_all_ = look_at_all_ && !enough_rounds && worked.ok() && *worked;
    if (!worked.ok()) {
      Fail(worked.status());
      break;
    }
    if (*worked) {
      idle_since_ = Clock::Duration(0);
      WaitForRing(std::chrono::nanoseconds::zero());
    } else if (Spins()) {
      (void)OnIdle();
      if (WaitForRing(std::chrono::nanoseconds::zero()) > 0) NoteWork();
      look_at_all_ = true;  // to wait for an fd is what spinning is to save
    } else {
      Sleep();
      idle_since_ = Clock::Duration(0);
    }
  }
}

// Whether to look once more before a sleep.
bool WorkerBase::Spins() {
  const Clock::Duration time(spin_ns_.load(std::memory_order_relaxed));
  if (time.count() == 0) return false;
  const Clock::Duration now = Clock::Steady().Now();
  if (std::exchange(worked_, false) || idle_since_.count() == 0) idle_since_ = now;
  return now - idle_since_ < time;
}

// Those that are not armed yet. One that has failed is not worth waking up for.
void WorkerBase::ArmLanes() {
  armed_ = LaneSet();
  for (const size_t i : (awake_lanes() & watched_) - resting_) {
    if (!lanes_[i]->status().ok()) {
      lane_watches_[i]->Cancel();
    } else if (!lane_watches_[i]->armed()) {  // and looked at all the same
      lanes_[i]->ArmWakeup();
      armed_.Add(i);
    }
  }
}

// After another look: from here on they are asleep.
void WorkerBase::WatchLanes() {
  for (const size_t i : armed_ - resting_) {
    lane_watches_[i]->Arm();
    asleep_.Add(i);
  }
}

void WorkerBase::Sleep() {
  inbox_watch_->Arm();
  ArmLanes();
  if (!armed_.empty()) {
    // A completion may have come between the last poll and the arming.
    const absl::StatusOr<bool> found = LookAtArmed(armed_);
    if (!found.ok()) {
      Fail(found.status());
      stop_.store(true, std::memory_order_relaxed);
      return;
    }
    if (*found) {
      WaitForRing(std::chrono::nanoseconds::zero());
      return;
    }
    WatchLanes();
  }
  std::chrono::nanoseconds most = OnIdle();
  const auto no_longer_than = [&most](std::chrono::nanoseconds time) {
    most = most.count() < 0 ? time : std::min(most, time);
  };
  // A lane that goes down gives its buffers back by being polled.
  bool going_down = false;
  for (const size_t i : awake_lanes()) going_down |= !lanes_[i]->status().ok() && !LaneGone(i);
  if (!watched_.empty()) {
    // (As of the last sleep's end: what came after it is short, or many rounds.)
    GODWIT_DCHECK(woke_at_ - looked_at_all_ < kSleepMax);  // or all have just been looked at
    no_longer_than(kSleepMax - (woke_at_ - looked_at_all_));
  }
  if (going_down) no_longer_than(kTearDownPoll);
  WaitForRing(most);
  if (!watched_.empty()) {
    woke_at_ = Clock::Steady().Now();
    look_at_all_ = woke_at_ - looked_at_all_ >= kSleepMax;
    if (look_at_all_) looked_at_all_ = woke_at_;
  }
  // Cleared only now, when it has been seen: a Notify() in between makes one more round.
  if (!inbox_watch_->armed()) inbox_.Clear();
}

void WorkerBase::Fail(absl::Status status) {
  status_ = std::move(status);
  failed_.store(true, std::memory_order_release);
  events_.Notify();
}

void WorkerBase::ShutDown() {
  if (ring_ != nullptr) {
    BeginTearDown();
    for (const auto& lane : lanes_) lane->Close();
    if (inbox_watch_ != nullptr) inbox_watch_->Cancel();
    for (const auto& watch : lane_watches_) {
      if (watch != nullptr) watch->Cancel();
    }
    // Not bounded: a buffer that the kernel still reads into can't be freed. Sockets and queue
    // pairs let go at once; a driver's read that can't be cancelled lasts as long as it lasts.
    const auto all_quiescent = [this] {
      bool quiescent = Idle();
      for (const auto& lane : lanes_) quiescent = lane->quiescent() && quiescent;
      return quiescent && ring_->in_flight() == 0;
    };
    while (!all_quiescent()) {
      for (const auto& lane : lanes_) DrainLane(*lane);
      ring_->Wait(kTearDownPoll);
    }
  }
  TearDown();
  lane_watches_.clear();
  lanes_.clear();
  inbox_watch_.reset();
  ring_.reset();
}

}  // namespace godwit
