#include "engine/lane_maker.h"

#include <poll.h>

#include <algorithm>
#include <array>

#include "base/status_macros.h"
#include "base/thread_name.h"

namespace godwit {
namespace {

constexpr std::chrono::milliseconds kConnectTimeout{1000};
// Between two attempts for a lane: doubles from the first to the last.
constexpr std::chrono::milliseconds kPauseMin{50};
constexpr std::chrono::milliseconds kPauseMax{1600};

Clock::Duration PauseAfter(uint32_t attempts) {
  return std::min<Clock::Duration>(kPauseMax, kPauseMin * (1 << std::min(attempts, 5U)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LaneMaker>> LaneMaker::Make(TcpAddress address,
                                                           LaneGreeting greeting, Made made) {
  GODWIT_ASSIGN_OR_RETURN(Notifier wake, Notifier::Create());
  GODWIT_ASSIGN_OR_RETURN(Notifier stop, Notifier::Create());
  std::unique_ptr<LaneMaker> maker(new LaneMaker(
      std::move(address), std::move(greeting), std::move(made), std::move(wake), std::move(stop)));
  maker->thread_ = std::thread([&self = *maker] {
    NameThisThread("godwit-lanes");
    self.Run();
  });
  return maker;
}

LaneMaker::~LaneMaker() {
  {
    MutexLock lock(mutex_);
    stopped_ = true;
  }
  stop_.Notify();
  thread_.join();
}

void LaneMaker::Ask(size_t lane, uint16_t generation, Clock::Duration delay) {
  {
    MutexLock lock(mutex_);
    wanted_.push_back({lane, generation, Clock::Steady().Now() + delay, 0});
  }
  wake_.Notify();
}

bool LaneMaker::Next(Wanted& wanted, Clock::Duration& due) {
  MutexLock lock(mutex_);
  const auto first =
      std::min_element(wanted_.begin(), wanted_.end(),
                       [](const Wanted& a, const Wanted& b) { return a.due < b.due; });
  if (first == wanted_.end()) return false;
  due = first->due;
  if (due > Clock::Steady().Now()) return false;
  wanted = *first;
  wanted_.erase(first);
  return true;
}

void LaneMaker::Run() {
  while (true) {
    {
      MutexLock lock(mutex_);
      if (stopped_) return;
    }
    Wanted wanted;
    Clock::Duration due = Clock::Duration::max();
    if (!Next(wanted, due)) {
      Sleep(due);
      continue;
    }
    absl::StatusOr<UniqueFd> socket = Connect(wanted);
    if (socket.ok()) {
      made_(wanted.lane, wanted.generation, *std::move(socket));
      continue;
    }
    wanted.due = Clock::Steady().Now() + PauseAfter(wanted.attempts++);
    MutexLock lock(mutex_);
    wanted_.push_back(wanted);
  }
}

void LaneMaker::Sleep(Clock::Duration until) {
  int timeout_ms = -1;
  if (until != Clock::Duration::max()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - Clock::Steady().Now()).count();
    timeout_ms = static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
  }
  std::array<pollfd, 2> events = {{{wake_.fd(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}}};
  ::poll(events.data(), events.size(), timeout_ms);
  wake_.Clear();
}

absl::StatusOr<UniqueFd> LaneMaker::Connect(const Wanted& wanted) {
  GODWIT_ASSIGN_OR_RETURN(UniqueFd socket, ConnectTcp(address_, kConnectTimeout, stop_.fd()));
  TuneLaneSocket(socket.get());
  GODWIT_RETURN_IF_ERROR(Greet(socket.get(), wanted));
  return socket;
}

absl::Status LaneMaker::Greet(int socket, const Wanted& wanted) const {
  const auto lane = static_cast<uint16_t>(wanted.lane);
  const Deadline deadline = std::chrono::steady_clock::now() + kConnectTimeout;
  GODWIT_RETURN_IF_ERROR(greeting_.Announce(socket, lane, wanted.generation, deadline));
  if (!greeting_.proves()) return absl::OkStatus();
  return greeting_.Prove(socket, lane, wanted.generation, deadline, stop_.fd());
}

}  // namespace godwit
