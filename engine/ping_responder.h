// The target's side of a ping.
#ifndef GODWIT_ENGINE_PING_RESPONDER_H_
#define GODWIT_ENGINE_PING_RESPONDER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/arena.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/notifier.h"
#include "engine/buffer_budget.h"
#include "engine/ping_worker.h"
#include "engine/rdma_ports.h"
#include "godwit/session.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"
#include "transport/rendezvous.h"

namespace godwit {

// Answers one ping, within kTimeMax, with the smallest arena that its lanes can have.
//
// Ownership: owns the connection, its lanes and its arena.
// Threads:   two of its own. All calls from the session's thread.
// Blocking:  the destructor, until no kernel or NIC holds a buffer.
// Errors:    Start(): as Notifier's. All else the pinging side is told.
class PingResponder {
 public:
  static constexpr std::chrono::seconds kTimeMax{20};
  // What one takes at most, or as much as the session's arena where that is larger.
  static constexpr size_t kArenaBytes = size_t{256} << 20;

  static absl::StatusOr<std::unique_ptr<PingResponder>> Start(
      std::unique_ptr<ControlChannel> channel, const control::Hello& hello,
      const TargetOptions& options, control::DeviceTable devices);
  ~PingResponder();
  PingResponder(const PingResponder&) = delete;
  PingResponder& operator=(const PingResponder&) = delete;

  // Takes it if it is this ping's.
  bool TakeLane(Rendezvous::Arrival& lane);
  bool finished() const { return finished_.load(); }

 private:
  PingResponder(std::unique_ptr<ControlChannel> channel, control::Hello hello,
                TargetOptions options, control::DeviceTable devices, Notifier stop,
                Notifier events);
  void Run();
  absl::Status Answer();
  absl::Status Welcome();
  absl::Status MakeLanes(const control::LaneSetup& theirs);
  absl::Status AwaitTcpLanes();
  absl::Status MakeVerbsLanes(const control::LaneSetup& theirs, control::LaneSetup& ours);
  absl::Status CountPackets();
  absl::Status SendReceipts();
  bool Stopped() const;
  absl::Status CheckTime() const;

  const std::unique_ptr<ControlChannel> channel_;
  const control::Hello hello_;
  const TargetOptions options_;
  const control::DeviceTable devices_;
  const Clock::Duration deadline_;
  const Notifier stop_;
  const Notifier events_;

  TransportKind transport_ = TransportKind::kTcp;
  TargetBudget budget_;
  LaneLimits limits_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<RdmaPorts> rdma_ports_;
  std::vector<std::unique_ptr<VerbsLane>> verbs_lanes_;  // until the worker has them
  std::unique_ptr<PingWorker> worker_;
  std::vector<uint64_t> receipted_;  // by lane

  Mutex mutex_;
  std::vector<Rendezvous::Arrival> arrived_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> finished_{false};
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_PING_RESPONDER_H_
