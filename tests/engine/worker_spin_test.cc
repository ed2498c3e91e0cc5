// Goal: a worker sleeps when there is nothing to do, and looks on for as long as it is told to.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "engine/worker_base.h"

namespace godwit {
namespace {

// Has never anything to do, and counts how often it has looked.
class IdleWorker final : public WorkerBase {
 public:
  IdleWorker(Arena& arena, Notifier inbox, const Notifier& events)
      : WorkerBase(arena, std::move(inbox), events) {}
  ~IdleWorker() override { Stop(); }
  int rounds() const { return rounds_.load(); }

 private:
  absl::Status SetUp() override { return absl::OkStatus(); }
  absl::StatusOr<bool> Step() override {
    ++rounds_;
    return false;
  }
  void BeginTearDown() override {}
  bool Idle() override { return true; }
  void TearDown() override {}

  std::atomic<int> rounds_{0};
};

TEST(WorkerSpinTest, LooksOnForAsLongAsItIsToldAndSleepsOtherwise) {
  const auto arena = *Arena::Create(4, 4096);
  const Notifier events = *Notifier::Create();
  IdleWorker worker(*arena, *Notifier::Create(), events);
  ASSERT_EQ(worker.Start([](IoRing&) {
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::vector<std::unique_ptr<Lane>>());
  }),
            absl::OkStatus());
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

}  // namespace
}  // namespace godwit
