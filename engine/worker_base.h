// What the workers of both sides share: the thread, its ring, its lanes, its bed.
#ifndef GODWIT_ENGINE_WORKER_BASE_H_
#define GODWIT_ENGINE_WORKER_BASE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/io_ring.h"
#include "base/notifier.h"
#include "engine/fd_watch.h"
#include "engine/lane_set.h"
#include "engine/packet.h"
#include "engine/packet_seal.h"
#include "godwit/statistics.h"
#include "godwit/trust.h"
#include "transport/lane.h"

namespace godwit {

// Makes the session's lanes on the worker's thread, in the order of their numbers.
using LaneFactory = std::function<absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(IoRing& ring)>;

// One thread with one io_uring that sleeps when there is nothing to do, or spins a while before.
//
// Ownership: owns thread, ring and lanes; borrows the arena and the notifier.
// Threads:   Start() and Stop() from the session's thread; Wake() from any; the virtual methods run
//            on the worker's thread.
// Blocking:  Start() until the lanes are made; Stop() until no kernel or NIC holds a buffer.
// Errors:    the first is final; status() gives it once failed() is true.
class WorkerBase {
 public:
  virtual ~WorkerBase();
  WorkerBase(const WorkerBase&) = delete;
  WorkerBase& operator=(const WorkerBase&) = delete;

  // Before Start(): where the spans of its work go; null: nowhere.
  void SetTrace(TraceSink* trace) { trace_ = trace; }
  // Before Start(): which lanes' packets are sealed, and with what key. REQUIRES: there is a key,
  // or `sealing` is kOff
  absl::Status SetSealing(Sealing sealing, const std::optional<TrafficKey>& key);
  absl::Status Start(LaneFactory factory);
  // REQUIRES: called before the derived class's members go.
  void Stop();
  void Wake() const { inbox_.Notify(); }
  // From now on, before each sleep: looks again and again for so long, in case something comes.
  void SpinFor(Clock::Duration time) {
    spin_ns_.store(time.count(), std::memory_order_relaxed);
    Wake();
  }

  bool failed() const { return failed_.load(std::memory_order_acquire); }
  const absl::Status& status() const { return status_; }

 protected:
  // `events` is notified when the session's thread has something to look at.
  WorkerBase(Arena& arena, Notifier inbox, const Notifier& events)
      : arena_(arena), inbox_(std::move(inbox)), events_(events) {}

  virtual absl::Status SetUp() = 0;
  // One round: does what can be done without waiting; returns whether another may find more,
  // although nothing has woken us up for it. A lane with an fd of its own is looked at once more
  // before a sleep in any case: LookAtArmed(). An error ends the work.
  virtual absl::StatusOr<bool> Step() = 0;
  // The last round has found nothing more to do, and these lanes' fds have just been armed: looks
  // at them once more, for what came before. Returns whether a round is worth it. Replaces none.
  virtual absl::StatusOr<bool> LookAtArmed(LaneSet lanes) = 0;
  // The last round has found nothing more to do: before a sleep, or while spinning. Returns how
  // long to sleep at most; less than 0: until woken.
  virtual std::chrono::nanoseconds OnIdle() { return std::chrono::nanoseconds(-1); }
  // In a round: something came, or went. Who spins begins to count anew.
  void NoteWork() { worked_ = true; }
  // Begins to let go of what Step() started; called once. Then Idle() is polled until it is true.
  virtual void BeginTearDown() = 0;
  virtual bool Idle() = 0;
  virtual void TearDown() = 0;

  // Whether a lane that has failed, and has given back all its buffers, is done with: neither
  // kernel nor NIC knows of it any more. Comes true by itself.
  bool LaneGone(size_t at) const;
  // Begins it.
  void CloseLane(size_t at);
  // Puts `lane` in its place. REQUIRES: LaneGone(at)
  void ReplaceLane(size_t at, std::unique_ptr<Lane> lane);

  // The lane has an fd of its own that wakes us up.
  bool HasWatch(size_t at) const { return watched_.Has(at); }
  // Whether such a lane has nothing to say that anyone waits for. One that has is looked at each
  // round, and wakes us up. REQUIRES: it is up, or resting is false
  void SetResting(size_t at, bool resting) { resting_.Set(at, resting); }
  // Those to look at in this round. The others have such an fd, and are at rest, or asleep: nothing
  // has come since they were last looked at, or it would have woken us up: no failure and, at a
  // receiver, no end of a burst. Now and then all are looked at, which is how one that fails at
  // rest is found: see kSleepMax.
  LaneSet awake_lanes() const {
    return look_at_all_ ? all_lanes_ : all_lanes_ - (watched_ & (asleep_ | resting_));
  }

  // What the packets on that lane are sealed with; null: nothing. Both sides have the same kind of
  // lane there.
  PacketSeal* SealOf(size_t lane) const {
    const bool sealed = sealing_ == Sealing::kAllLanes ||
                        (sealing_ == Sealing::kTcpLanes && lanes_[lane]->is_tcp());
    return sealed ? seal_.get() : nullptr;
  }
  // For packets that were sealed, whatever lane they are on now. REQUIRES: some lane is
  PacketSeal& seal() const { return *seal_; }

  IoRing& ring() { return *ring_; }
  std::vector<std::unique_ptr<Lane>>& lanes() { return lanes_; }
  Arena& arena() { return arena_; }
  const Notifier& events() const { return events_; }
  TraceSink* trace() const { return trace_; }

 private:
  absl::Status MakeLanes(const LaneFactory& factory);
  std::unique_ptr<FdWatch> WatchFor(const Lane& lane);
  void Loop();
  bool Spins();
  void Sleep();
  size_t WaitForRing(std::chrono::nanoseconds timeout);
  void ArmLanes();
  void WatchLanes();
  void ShutDown();
  void Fail(absl::Status status);

  Arena& arena_;
  const Notifier inbox_;
  const Notifier& events_;
  TraceSink* trace_ = nullptr;
  Sealing sealing_ = Sealing::kOff;
  std::unique_ptr<PacketSeal> seal_;  // the worker's thread only

  // The worker's thread only.
  std::unique_ptr<IoRing> ring_;
  std::unique_ptr<FdWatch> inbox_watch_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<std::unique_ptr<FdWatch>> lane_watches_;  // by lane; null where it needs none
  LaneSet all_lanes_;
  LaneSet watched_;  // lane_watches_ has one
  LaneSet armed_;    // by the last ArmLanes()
  LaneSet asleep_;   // their watches are armed too
  LaneSet resting_;  // as the derived class says

  Clock::Duration idle_since_{0};  // 0: it is not, or need not know
  bool worked_ = false;            // since idle_since_ was last looked at
  bool look_at_all_ = false;       // in the next round
  uint32_t rounds_ = 0;
  Clock::Duration looked_at_all_{0};
  Clock::Duration woke_at_{0};  // from the last sleep; where some lane has a watch

  std::atomic<bool> stop_{false};
  std::atomic<int64_t> spin_ns_{0};  // relaxed: an old value costs a sleep
  absl::Status status_;
  std::atomic<bool> failed_{false};  // release by Fail(), acquire by failed(): covers status_
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_WORKER_BASE_H_
