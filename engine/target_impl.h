// The target's side of a session. Its parts: target_connect.cc, target_session.cc (load, report),
// target_queue_pairs.cc (those made again), target_handover.cc.
#ifndef GODWIT_ENGINE_TARGET_IMPL_H_
#define GODWIT_ENGINE_TARGET_IMPL_H_

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "engine/buffer_budget.h"
#include "engine/loader.h"
#include "engine/ping_responder.h"
#include "engine/rdma_ports.h"
#include "engine/session_base.h"
#include "engine/stranger_notes.h"
#include "engine/target_callers.h"
#include "engine/target_worker.h"
#include "godwit/session.h"
#include "transport/rendezvous.h"
#include "transport/tls/tls_context.h"

namespace godwit {

class TargetSession::Impl final : public SessionBase {
 public:
  Impl(TargetOptions options, std::vector<Device*> devices, SessionObserver& observer)
      : SessionBase(std::move(devices), observer), options_(std::move(options)) {
    SetTrace(options_.trace);
    SetAnswerTimeout(options_.answer_timeout);
  }

  SessionReport Run();
  SessionStatistics statistics() const;

 private:
  absl::Status Listen();
  absl::Status WaitForPeer();
  void AnswerPing(TargetCallers::Call call);
  static absl::Status CheckHello(const control::ControlMessage& first);
  absl::Status Welcome(const control::Hello& hello);
  absl::Status ExchangeDeviceTables();
  absl::Status Resume();
  absl::Status MakeLanes();
  void MakeLoader(size_t device);
  absl::Status AcceptTcpLanes();
  absl::Status MakeVerbsLanes(const control::LaneSetup& theirs, control::LaneSetup& ours);
  absl::Status Load();
  bool AllLoaded() const;
  absl::Status FollowLanes();
  absl::StatusOr<bool> TakeRemakeLane(const control::ControlMessage& message);
  absl::StatusOr<std::unique_ptr<VerbsLane>> MakeQueuePair(uint32_t lane, uint16_t generation,
                                                           const control::LaneSetup::Verbs& theirs);
  absl::Status TellRemade(const LaneChange& change);
  absl::Status SendLaneDown(uint32_t lane, uint16_t generation, const absl::Status& why);
  absl::Status CheckProgress();
  // Whether it is the source's Stopping, which comes once.
  bool TakeStopping(const control::ControlMessage& message);
  absl::Status LoaderFailure() const;
  absl::Status SendDueReceipts();
  absl::Status SendReceipts();
  // As far as the source does without them: for so many packets.
  void HoldReceipts(uint32_t packets);
  // How long after the first lane the last one had its last packet, of those that had any since the
  // source's VM was stopped. REQUIRES: all is loaded
  Clock::Duration LaneFinishLag() const;
  absl::Status SendLoaded();

  absl::Status HandOver();
  absl::Status AwaitCommit();
  std::unique_ptr<ControlChannel> NextCommitter();
  absl::Status RunHere();
  void Answer(const control::ControlMessage& outcome);
  absl::Status EndWithoutDevices(absl::Status why);
  void StopLoaders();
  absl::Status RollBack();

  absl::Status MoveAll();
  void PublishProgress();
  void FillReport(SessionReport& report) const;

  const TargetOptions options_;
  StrangerNotes strangers_{[this](const std::string& line) { observer_.OnNote(Printable(line)); }};
  std::unique_ptr<TlsContext> tls_;  // null: plain
  std::unique_ptr<Rendezvous> rendezvous_;
  std::optional<TargetCallers> callers_;           // of rendezvous_
  std::unique_ptr<PingResponder> ping_;            // the last one that came before the source
  TransportKind transport_ = TransportKind::kTcp;  // as agreed
  uint32_t lane_count_ = 0;
  size_t packet_bytes_ = 0;
  TargetBudget budget_;
  LaneLimits lane_limits_;
  int lanes_up_ = 0;
  absl::Status last_lane_error_;
  std::vector<uint16_t> lane_generations_;  // the last that was taken, by lane
  // By lane: what the source is to hear once receives are posted; generation 0: nothing.
  std::vector<control::LaneRemade> remade_;

  std::unique_ptr<RdmaPorts> rdma_ports_;
  std::vector<std::unique_ptr<VerbsLane>> verbs_lanes_;  // until the worker has them
  LaneFactory lane_factory_;
  std::vector<UniqueFd> streams_;
  std::vector<std::unique_ptr<ReorderWindow>> windows_;
  std::vector<std::unique_ptr<Loader>> loaders_;
  std::unique_ptr<TargetWorker> worker_;

  std::vector<uint64_t> expected_bytes_;  // by device, as the source said
  // While true the workers, windows and loaders stay where they are.
  mutable Mutex statistics_mutex_;
  bool statistics_ready_ ABSL_GUARDED_BY(statistics_mutex_) = false;
  SessionStatistics last_statistics_ ABSL_GUARDED_BY(statistics_mutex_);  // then

  bool resuming_ = false;   // a device may have left RUNNING
  bool promised_ = false;   // Loaded was sent: the source may have committed
  bool committed_ = false;  // it has
  bool owner_ = false;      // the devices run here, and the VM is ours
  bool in_doubt_ = false;   // they should not run here, and one may
  bool holds_receipts_ = false;
  uint32_t receipts_due_ = 0;         // of the worker's, when they were last sent
  control::ControlMessage receipts_;  // the last that was sent, but for bytes: those are newer
  bool arrivals_ = true;              // who connects may have something for us
  std::vector<pollfd> arriving_fds_;  // of who connects
  Clock::Duration connected_at_{0};
  Clock::Duration ready_at_{0};
  uint64_t progress_bytes_seen_ = 0;
  Clock::Duration progress_at_{0};  // when more was last loaded
  Clock::Duration stopping_at_{0};  // the source said that its VM stands still
  Clock::Duration target_step_{0};  // how long the devices took to RESUMING
  Clock::Duration loaded_at_{0};
  Clock::Duration lane_finish_lag_{0};
  Clock::Duration done_at_{0};
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_TARGET_IMPL_H_
