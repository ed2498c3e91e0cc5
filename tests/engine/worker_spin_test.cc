// Goal: a worker sleeps when there is nothing to do, and looks on for as long as it is told to; it
// never sleeps over a lane that would not wake it up.
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "engine/worker_base.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

// Has never anything more to do, and counts how often it has looked.
class IdleWorker final : public WorkerBase {
 public:
  IdleWorker(Arena& arena, Notifier inbox, const Notifier& events)
      : WorkerBase(arena, std::move(inbox), events) {}
  ~IdleWorker() override { Stop(); }
  int rounds() const { return rounds_.load(); }
  void WorkInEachRound(bool works) { works_ = works; }

 private:
  absl::Status SetUp() override { return absl::OkStatus(); }
  absl::StatusOr<bool> Step() override {
    ++rounds_;
    if (works_) NoteWork();
    return false;
  }
  absl::StatusOr<bool> LookAtArmed(LaneSet /*lanes*/) override { return false; }
  void BeginTearDown() override {}
  bool Idle() override { return true; }
  void TearDown() override {}

  std::atomic<int> rounds_{0};
  std::atomic<bool> works_{false};
};

absl::StatusOr<std::vector<std::unique_ptr<Lane>>> NoLanes(IoRing& /*ring*/) {
  return std::vector<std::unique_ptr<Lane>>();
}

TEST(WorkerSpinTest, LooksOnForAsLongAsItIsToldAndSleepsOtherwise) {
  const auto arena = *Arena::Create(4, 4096);
  const Notifier events = *Notifier::Create();
  IdleWorker worker(*arena, *Notifier::Create(), events);
  ASSERT_EQ(worker.Start(NoLanes), absl::OkStatus());
  // Nobody wakes it: it looks once, and perhaps once more.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LE(worker.rounds(), 4);

  worker.SpinFor(std::chrono::hours(1));
  while (worker.rounds() < 1000) std::this_thread::yield();

  worker.SpinFor(Clock::Duration(0));
  // One that spins on never leaves so many gaps in a row.
  int before = worker.rounds();
  for (int quiet = 0, looks = 0; quiet < 10; ++looks) {
    ASSERT_LT(looks, 1000) << "it never sleeps again";
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    quiet = worker.rounds() == before ? quiet + 1 : 0;
    before = worker.rounds();
  }
}

TEST(WorkerSpinTest, CountsFromTheLastWork) {
  const Watchdog watchdog("a worker that spins");
  const auto arena = *Arena::Create(4, 4096);
  const Notifier events = *Notifier::Create();
  IdleWorker worker(*arena, *Notifier::Create(), events);
  ASSERT_EQ(worker.Start(NoLanes), absl::OkStatus());
  worker.WorkInEachRound(true);
  worker.SpinFor(std::chrono::milliseconds(100));
  // Long past that it still spins: nobody wakes it.
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const int before = worker.rounds();
  while (worker.rounds() < before + 1000) std::this_thread::yield();
  worker.Stop();
}

// Carries nothing, and has an fd of its own.
class SleepyLane final : public Lane {
 public:
  explicit SleepyLane(std::atomic<int>& armed) : armed_(armed) {}

  size_t Send(absl::Span<Buffer> /*packets*/) override { return 0; }
  size_t PollSent(absl::Span<Buffer> /*sent*/) override { return 0; }
  size_t PostReceives(absl::Span<Buffer> /*buffers*/) override { return 0; }
  size_t receives_wanted() const override { return 0; }
  size_t PollReceived(absl::Span<Buffer> /*received*/) override { return 0; }
  void Close() override { status_ = absl::CancelledError("closed"); }
  bool quiescent() const override { return true; }
  bool peer_closed() const override { return false; }
  const absl::Status& status() const override { return status_; }
  const std::string& name() const override { return name_; }
  int wakeup_fd() const override { return fd_.get(); }
  void ArmWakeup() override { ++armed_; }

 private:
  std::atomic<int>& armed_;
  const UniqueFd fd_{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  const std::string name_ = "a sleepy lane";
  absl::Status status_;
};

// Puts another lane in its lane's place once that is armed.
class ReplacingWorker final : public WorkerBase {
 public:
  ReplacingWorker(Arena& arena, Notifier inbox, const Notifier& events)
      : WorkerBase(arena, std::move(inbox), events) {}
  ~ReplacingWorker() override { Stop(); }
  std::atomic<int> first_armed{0};
  std::atomic<int> second_armed{0};

 private:
  absl::Status SetUp() override { return absl::OkStatus(); }
  absl::StatusOr<bool> Step() override {
    if (first_armed == 0 || replaced_) return false;
    CloseLane(0);
    replaced_ = LaneGone(0);
    if (!replaced_) return true;
    SetResting(0, true);  // the one before, and so was watched: of neither is the new one's fd
    ReplaceLane(0, std::make_unique<SleepyLane>(second_armed));
    return true;
  }
  absl::StatusOr<bool> LookAtArmed(LaneSet /*lanes*/) override { return false; }
  void BeginTearDown() override {}
  bool Idle() override { return true; }
  void TearDown() override {}

  bool replaced_ = false;
};

TEST(WorkerSleepTest, DoesNotSleepOverALaneThatHasJustTakenAnothersPlace) {
  const Watchdog watchdog("a lane that nobody arms");
  const auto arena = *Arena::Create(4, 4096);
  const Notifier events = *Notifier::Create();
  ReplacingWorker worker(*arena, *Notifier::Create(), events);
  ASSERT_EQ(worker.Start([&](IoRing&) {
    std::vector<std::unique_ptr<Lane>> lanes;
    lanes.push_back(std::make_unique<SleepyLane>(worker.first_armed));
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  }),
            absl::OkStatus());
  while (worker.second_armed == 0) std::this_thread::yield();
  EXPECT_EQ(worker.first_armed, 1);
  worker.Stop();
}

}  // namespace
}  // namespace godwit
