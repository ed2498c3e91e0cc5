// Makes TCP lanes again, in the background.
#ifndef GODWIT_ENGINE_LANE_MAKER_H_
#define GODWIT_ENGINE_LANE_MAKER_H_

#include <absl/base/thread_annotations.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/notifier.h"
#include "godwit/unique_fd.h"
#include "transport/lane_proof.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {

// Connects to the target's port for each TCP lane that is asked for, as often as it takes, and says
// on the new connection which lane it is. Queue pairs are the session's to make.
//
// Ownership: owns the thread.
// Threads:   Ask() from any; `made` is called on the maker's thread.
// Blocking:  the destructor waits for an attempt to be given up, at once but for a name's look-up.
// Errors:    none: what fails is tried again until Ask()er or destructor end it.
class LaneMaker {
 public:
  using Made = std::function<void(size_t lane, uint16_t generation, UniqueFd socket)>;

  static absl::StatusOr<std::unique_ptr<LaneMaker>> Make(TcpAddress address, LaneGreeting greeting,
                                                         Made made);
  ~LaneMaker();
  LaneMaker(const LaneMaker&) = delete;
  LaneMaker& operator=(const LaneMaker&) = delete;

  // Not before `delay` is over. A lane is asked for once until it is made.
  void Ask(size_t lane, uint16_t generation, Clock::Duration delay);

 private:
  struct Wanted {
    size_t lane = 0;
    uint16_t generation = 0;
    Clock::Duration due{0};
    uint32_t attempts = 0;
  };

  LaneMaker(TcpAddress address, LaneGreeting greeting, Made made, Notifier wake, Notifier stop)
      : address_(std::move(address)),
        greeting_(std::move(greeting)),
        made_(std::move(made)),
        wake_(std::move(wake)),
        stop_(std::move(stop)) {}
  void Run();
  void Sleep(Clock::Duration until);
  // The one that is due first, by then at the latest; or nothing.
  bool Next(Wanted& wanted, Clock::Duration& due);
  absl::StatusOr<UniqueFd> Connect(const Wanted& wanted);
  // Says on a new connection which lane it is, and proves it where that is asked for.
  absl::Status Greet(int socket, const Wanted& wanted) const;

  const TcpAddress address_;
  const LaneGreeting greeting_;
  const Made made_;
  const Notifier wake_;
  const Notifier stop_;

  Mutex mutex_;
  std::vector<Wanted> wanted_ ABSL_GUARDED_BY(mutex_);  // at most one a lane
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_LANE_MAKER_H_
