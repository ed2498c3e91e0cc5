// The source's side of a session. Its parts: source_connect.cc, source_precopy.cc,
// source_lanes.cc, source_queue_pairs.cc (those made again), source_session.cc (stop, stream,
// report), source_handover.cc.
#ifndef GODWIT_ENGINE_SOURCE_IMPL_H_
#define GODWIT_ENGINE_SOURCE_IMPL_H_

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "engine/buffer_budget.h"
#include "engine/lane_maker.h"
#include "engine/precopy_watch.h"
#include "engine/rdma_ports.h"
#include "engine/session_base.h"
#include "engine/session_offer.h"
#include "engine/source_worker.h"
#include "engine/switchover.h"
#include "engine/tcp_lane_opener.h"
#include "godwit/session.h"
#include "transport/tcp/tcp_socket.h"
#include "transport/tls/tls_context.h"

namespace godwit {

class SourceSession::Impl final : public SessionBase {
 public:
  Impl(SourceOptions options, std::vector<Device*> devices, SessionObserver& observer)
      : SessionBase(std::move(devices), observer), options_(std::move(options)) {
    SetTrace(options_.trace);
    SetAnswerTimeout(options_.answer_timeout);
  }

  SessionReport Run();
  SessionStatistics statistics() const;

 private:
  SessionOffer Offer() const;
  absl::Status Check() const;
  absl::Status Connect();
  absl::Status TakeSealing(control::Sealing sealing);
  absl::Status MakeChannel(std::chrono::milliseconds timeout);
  absl::Status Greet();
  absl::StatusOr<control::Welcome> AskForWelcome(control::Hello& hello);
  absl::Status ExchangeDeviceTables();
  absl::Status MakeArenaAndLanes();
  absl::Status MakeTcpLanes();
  absl::StatusOr<control::ControlMessage> AwaitLanes();
  absl::Status MakeVerbsLanes();
  size_t AtOnceBytes() const;
  absl::Status StartWorker();

  absl::Status PreCopy();
  absl::Status BeginPreCopy();
  absl::Status FollowPreCopy(SwitchoverVerdict& verdict);
  void NoteTrip(size_t device);
  // Fills `report` with the numbers that the facts are made of.
  SwitchoverFacts Facts(SwitchoverReport& report);
  absl::Status EndPreCopy();
  void PredictDowntime();
  absl::Status StopWatches(const std::function<void()>& meanwhile);

  absl::Status FollowLanes();
  absl::Status AskForLane(uint32_t lane);
  absl::Status AskForTcpLane(uint32_t lane, uint16_t generation, Clock::Duration pause);
  absl::Status OfferQueuePairs();
  absl::Status TakeRemade(const control::LaneRemade& remade);
  absl::Status TryQueuePairAgain(uint32_t lane, const absl::Status& why);
  void StopMakingLanes();
  absl::Status FallBackToTcp();
  void DropSilentLanes();
  absl::StatusOr<bool> TakeFlow(const control::ControlMessage& message);
  // What a target may say of lanes at any time, also when nobody cares any more.
  static bool OfLanes(const control::ControlMessage& message);

  absl::Status StopDevices();
  uint32_t PacketsWithoutReceipt() const;
  absl::Status ToStopCopy(size_t device);
  absl::StatusOr<std::string> SaveConfig(size_t device);
  absl::Status Stream();
  absl::Status CheckProgress();
  absl::Status TakeReceipts(const control::Receipts& receipts);
  // While devices change their states: what is on its way must not wait for the slowest of them.
  // The next Receive() has what goes wrong. A Loaded is kept for Stream().
  void MeanwhileTakeReceipts();
  void StopWorker();
  absl::Status TakeLoaded(const control::Loaded& loaded);
  absl::Status AwaitStreamsClosed();
  absl::Status CompareLoaded(const control::Loaded& loaded);

  absl::Status HandOver();
  absl::Status SendCommit();
  void SendForget();
  bool IsTargetsAnswer(const control::ControlMessage& answer) const;
  absl::Status AwaitOutcome(Clock::Duration deadline);
  absl::Status Resolve(absl::Status why, Clock::Duration deadline);
  void NoteLateCancel();
  void ResetChannel();
  void StopWorkerAndTell();
  Clock::Duration BlockedTime(size_t device) const;
  absl::Status RollBack();

  absl::Status MoveAll();
  void PublishProgress();
  void TellWaits();
  void FillReport(SessionReport& report) const;

  const SourceOptions options_;
  std::unique_ptr<TlsContext> tls_;                // null: plain
  TransportKind transport_ = TransportKind::kTcp;  // as agreed
  uint32_t window_packets_ = 0;
  SourceBudget budget_;
  LaneLimits lane_limits_;

  std::unique_ptr<RdmaPorts> rdma_ports_;
  std::vector<std::unique_ptr<VerbsLane>> verbs_lanes_;  // until the worker has them
  std::optional<TcpLaneOpener> opener_;                  // likewise
  LaneFactory lane_factory_;
  std::unique_ptr<SourceWorker> worker_;

  struct LaneLife {
    bool up = true;
    uint16_t generation = 0;
    uint16_t asked = 0;            // the last generation that was asked for
    Clock::Duration handed_at{0};  // to the worker, which has not brought it up yet; 0: none
    uint32_t remade = 0;
    uint32_t troubles = 0;          // times asked for in a row, without being up for long between
    Clock::Duration up_since{0};    // 0: it was not made again, or has been asked for since
    Clock::Duration down_since{0};  // 0: it is up
    Clock::Duration down_time{0};   // until it was up again, all times together
    Clock::Duration down_longest{0};
  };
  std::vector<LaneLife> lane_lives_;
  bool fell_back_ = false;  // from queue pairs to TCP
  // A queue pair that is to be made again.
  struct QueuePairAttempt {
    uint16_t generation = 0;          // 0: none
    Clock::Duration due{0};           // when to make it; once it is made, to have an answer
    std::unique_ptr<VerbsLane> lane;  // the target was told of it
  };
  std::vector<QueuePairAttempt> queue_pair_attempts_;  // by lane
  absl::Status last_lane_error_;
  Clock::Duration no_lanes_since_{0};      // 0: there is one
  TcpAddress lane_address_;                // the control channel's, in numbers
  std::unique_ptr<LaneMaker> lane_maker_;  // once there was need; goes before the worker

  // Pre-copy. By position; null where the device has none.
  std::vector<std::unique_ptr<PrecopyWatch>> watches_;
  RateMeter rate_;
  std::optional<SwitchoverReport> switchover_;
  std::vector<uint64_t> loaded_bytes_;     // at the target, by device
  std::vector<uint32_t> loaded_packets_;   // the same
  std::vector<uint64_t> stop_copy_bytes_;  // by device, as it said before the session
  Clock::Duration source_step_{0};
  Clock::Duration target_step_{0};
  std::vector<Clock::Duration> packet_trips_;  // the shortest, by device; 0: none yet

  // worker_ and what it is made with stay as they are once this is true.
  mutable Mutex statistics_mutex_;
  bool statistics_ready_ ABSL_GUARDED_BY(statistics_mutex_) = false;
  Clock::Duration starved_told_{0};
  Clock::Duration stalled_told_{0};

  std::vector<DeviceReport> device_reports_;
  bool left_running_ = false;   // a device may have left RUNNING
  bool vcpus_stopped_ = false;  // stop_vcpus was called
  bool committed_ = false;
  bool cancel_was_late_ = false;     // after Commit, and so without effect
  bool target_rolled_back_ = false;  // it said so after Commit: it never will run the devices
  absl::Status meanwhile_error_;     // MeanwhileTakeReceipts()'s first
  std::optional<control::Loaded> early_loaded_;  // came before Stream()
  Clock::Duration progress_at_{0};  // when the target last said that it has loaded more
  Clock::Duration precopy_at_{0};
  Clock::Duration precopy_time_{0};
  Clock::Duration stopped_at_{0};
  Clock::Duration stop_copy_at_{0};
  Clock::Duration loaded_at_{0};
  Clock::Duration lane_finish_lag_{0};  // as the target says
  Clock::Duration done_at_{0};
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_SOURCE_IMPL_H_
