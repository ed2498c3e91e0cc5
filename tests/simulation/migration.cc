#include "tests/simulation/migration.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <utility>

#include "base/check.h"
#include "godwit/device.h"
#include "tests/simulation/libc.h"
#include "tests/simulation/seal_watch.h"
#include "vfio/soft_options.h"

namespace godwit::simulation {
namespace {

// No session takes longer, whatever its peer does: connecting, pre-copy, 60 s without progress,
// 60 s of asking, 90 s of holding.
constexpr Duration kTimeLimit = std::chrono::minutes(20);
constexpr Duration kTargetsLead = std::chrono::milliseconds(1);

// Who runs, and the first thing that must not be.
struct Ownership {
  bool source_vm_runs = true;
  bool target_vm_runs = false;
  std::vector<bool> source_runs;  // by device
  std::vector<bool> target_runs;  // started as the VM's, not just reset
  std::string violation;

  void Note(std::string what) {
    if (violation.empty()) violation = std::move(what);
  }
  void Check() {
    if (source_vm_runs && target_vm_runs) Note("two owners: the VM runs on both hosts");
    for (size_t i = 0; i < source_runs.size(); ++i) {
      if (source_runs[i] && target_runs[i]) {
        Note(absl::StrCat("two owners: device ", i, " runs on both hosts"));
      }
    }
  }
};

// A device whose comings and goings are watched.
class WatchedDevice final : public Device {
 public:
  WatchedDevice(std::unique_ptr<Device> device, Ownership& ownership, size_t number, int host)
      : device_(std::move(device)), ownership_(ownership), number_(number), host_(host) {}

  const std::string& name() const override { return device_->name(); }
  absl::string_view kind() const override { return device_->kind(); }
  MigrationFlags flags() const override { return device_->flags(); }
  absl::StatusOr<DeviceState> State() override { return device_->State(); }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override {
    absl::StatusOr<UniqueFd> stream = device_->SetState(wanted);
    Look(stream.ok() ? std::optional<DeviceState>(wanted) : std::nullopt);
    return stream;
  }
  absl::Status Reset() override {
    absl::Status reset = device_->Reset();
    if (reset.ok() && host_ == kTargetHost) ownership_.target_runs[number_] = false;
    Look(std::nullopt);
    return reset;
  }
  absl::StatusOr<uint64_t> StopCopyBytes() override { return device_->StopCopyBytes(); }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override {
    return device_->GetPrecopyInfo(data_fd);
  }
  absl::StatusOr<std::string> SaveConfig() override { return device_->SaveConfig(); }
  absl::Status LoadConfig(absl::string_view config) override { return device_->LoadConfig(config); }
  bool content_verified() const override { return device_->content_verified(); }

 private:
  static bool Runs(DeviceState state) {
    return state == DeviceState::kRunning || state == DeviceState::kRunningP2p ||
           state == DeviceState::kPreCopy || state == DeviceState::kPreCopyP2p;
  }
  // At the source a device that resets itself runs, too. At the target it is nobody's until it has
  // been told to run. RUNNING_P2P counts: such a device may still be written to, and changes.
  void Look(std::optional<DeviceState> reached) {
    if (host_ == kTargetHost) {
      if (reached.has_value()) ownership_.target_runs[number_] = Runs(*reached);
    } else {
      const absl::StatusOr<DeviceState> state = device_->State();
      ownership_.source_runs[number_] = state.ok() && Runs(*state);
    }
    ownership_.Check();
  }

  const std::unique_ptr<Device> device_;
  Ownership& ownership_;
  const size_t number_;
  const int host_;
};

// When each phase began; and tells all, if it is wanted.
class Chronicle final : public SessionObserver {
 public:
  Chronicle(const Scheduler& scheduler, const char* side, bool tell)
      : scheduler_(scheduler), side_(side), tell_(tell) {}

  void OnPhase(SessionPhase phase) override {
    at_[phase] = scheduler_.now() - kClockStart;
    Tell(SessionPhaseName(phase));
  }
  void OnNote(absl::string_view line) override { Tell(line); }
  void OnLane(const LaneEvent& event) override {
    if (lanes_up_at_.count() == 0) lanes_up_at_ = scheduler_.now() - kClockStart;
    Tell(absl::StrCat("lane ", event.lane, event.up ? " up" : " down: ", event.why.message()));
  }
  void OnDeviceStep(const DeviceStep& step) override {
    Tell(absl::StrCat("device ", step.device, " to ", DeviceStateName(step.to), ": ",
                      step.status.ToString()));
  }
  void Tell(absl::string_view what) const {
    if (!tell_) return;
    std::printf("%12.3f ms  %s: %.*s\n",
                std::chrono::duration<double, std::milli>(scheduler_.now() - kClockStart).count(),
                side_, static_cast<int>(what.size()), what.data());
    std::fflush(stdout);
  }

  Duration lanes_up_at() const { return lanes_up_at_; }
  Duration at(SessionPhase phase) const {
    const auto found = at_.find(phase);
    return found == at_.end() ? Duration(0) : found->second;
  }

 private:
  const Scheduler& scheduler_;
  const char* const side_;
  const bool tell_;
  std::map<SessionPhase, Duration> at_;
  Duration lanes_up_at_{0};
};

// One host's devices and its session's end.
struct Side {
  std::vector<std::unique_ptr<WatchedDevice>> devices;
  std::optional<SessionReport> report;

  std::vector<Device*> Pointers() const {
    std::vector<Device*> pointers;
    for (const auto& device : devices) pointers.push_back(device.get());
    return pointers;
  }
};

struct Run {
  Run(const MigrationPlan& its_plan, uint64_t seed, bool tell)
      : plan(its_plan),
        scheduler(seed, kTimeLimit),
        network(scheduler, its_plan.network),
        source_tells(scheduler, "source", tell),
        target_tells(scheduler, "target", tell) {}

  MigrationPlan plan;
  Scheduler scheduler;
  Network network;
  Ownership ownership;
  Chronicle source_tells;
  Chronicle target_tells;
  Side source;
  Side target;
  std::unique_ptr<SourceSession> source_session;
  std::unique_ptr<TargetSession> target_session;
};

void MakeDevices(Run& run, Side& side, const std::vector<std::string>& options, int host) {
  for (size_t i = 0; i < options.size(); ++i) {
    const absl::StatusOr<SoftDeviceOptions> parsed = ParseSoftOptions(options[i]);
    GODWIT_CHECK(parsed.ok());
    side.devices.push_back(std::make_unique<WatchedDevice>(
        MakeSoftDevice(absl::StrCat(host == kSourceHost ? "source" : "target", i), *parsed),
        run.ownership, i, host));
  }
}

void SetCallbacks(Run& run, Mistake mistake) {
  Ownership& ownership = run.ownership;
  Scheduler& scheduler = run.scheduler;
  run.plan.source.vm.stop_vcpus = [&, mistake] {
    ownership.source_vm_runs = false;
    if (mistake == Mistake::kDeafVmm) scheduler.Wait("nothing", [] { return false; });
    if (mistake == Mistake::kTwoOwners) {
      scheduler.Spawn(kSourceHost, "an impatient VMM", [&] {
        scheduler.Wait(
            "time to pass", [] { return false; }, scheduler.now() + std::chrono::seconds(5));
        ownership.source_vm_runs = true;
        ownership.Check();
      });
    }
    return absl::OkStatus();
  };
  run.plan.source.vm.start_vcpus = [&] {
    if (ownership.source_vm_runs) ownership.Note("the source's VM was started twice");
    ownership.source_vm_runs = true;
    ownership.Check();
    return absl::OkStatus();
  };
  run.plan.target.vm.start_vcpus = [&] {
    if (ownership.target_vm_runs) ownership.Note("the target's VM was started twice");
    ownership.target_vm_runs = true;
    ownership.Check();
    return absl::OkStatus();
  };
}

void DoDeed(Run& run, const PlannedDeed& planned) {
  Scheduler& scheduler = run.scheduler;
  scheduler.Wait(
      "its moment", [] { return false; }, kClockStart + planned.at);
  if (planned.deed == Deed::kBreak) {
    // A session begins with all its lanes, or not at all.
    if (planned.connection > 0) {
      scheduler.Wait(
          "lanes", [&] { return run.source_tells.lanes_up_at().count() > 0; },
          scheduler.now() + std::chrono::seconds(10));
      if (run.source_tells.lanes_up_at().count() == 0) return;
    }
    return run.network.Break(planned.connection);
  }
  const bool at_source = planned.host == kSourceHost;
  if (planned.deed == Deed::kCancel) {
    at_source ? run.source_session->Cancel() : run.target_session->Cancel();
    return;
  }
  if (scheduler.killed(planned.host)) return;
  // A process that has ended by itself can't be killed; and what it decided stands.
  if ((at_source ? run.source : run.target).report.has_value()) return;
  scheduler.Kill(planned.host);
  // With its processes a VM is dead, too.
  if (at_source) {
    run.ownership.source_vm_runs = false;
    run.ownership.source_runs.assign(run.ownership.source_runs.size(), false);
  } else {
    run.ownership.target_vm_runs = false;
    run.ownership.target_runs.assign(run.ownership.target_runs.size(), false);
  }
  planned.deed == Deed::kKill ? run.network.KillProcesses(planned.host)
                              : run.network.KillHost(planned.host);
}

// What must hold when both have ended: docs/handover.md.
class Verdict {
 public:
  explicit Verdict(Run& run) : run_(run), ownership_(run.ownership) {}

  std::string Give() {
    const auto& source = run_.source.report;
    const auto& target = run_.target.report;
    if (source.has_value()) CheckSource(*source);
    if (target.has_value()) CheckTarget(*target);
    if (source.has_value() && target.has_value()) CheckBoth(*source, *target);
    if (const std::string& repeated = SealsSoFar().repeated; !repeated.empty()) {
      ownership_.Note(repeated);
    }
    return ownership_.violation;
  }

 private:
  static bool All(const std::vector<bool>& values) {
    return std::find(values.begin(), values.end(), false) == values.end();
  }
  static bool None(const std::vector<bool>& values) {
    return std::find(values.begin(), values.end(), true) == values.end();
  }
  void Expect(bool fact, absl::string_view otherwise, const SessionReport& report) {
    if (!fact) ownership_.Note(absl::StrCat(otherwise, "; its status: ", report.status.ToString()));
  }

  void CheckSource(const SessionReport& report) {
    switch (report.outcome) {
      case SessionOutcome::kDone:
        Expect(!ownership_.source_vm_runs, "the source is done, and its VM runs", report);
        Expect(None(ownership_.source_runs), "the source is done, and a device of it runs", report);
        break;
      case SessionOutcome::kRolledBack:
        Expect(ownership_.source_vm_runs || DeviceLost(),
               "the source is rolled back, and its VM doesn't run", report);
        Expect(All(ownership_.source_runs) || DeviceLost(),
               "the source is rolled back, and a device of it doesn't run", report);
        Expect(!report.status.ok(), "the source is rolled back without a reason", report);
        break;
      case SessionOutcome::kInDoubt:
        Expect(!ownership_.source_vm_runs, "the source is in doubt, and its VM runs", report);
        Expect(!report.status.ok(), "the source is in doubt without a reason", report);
        break;
    }
  }

  void CheckTarget(const SessionReport& report) {
    switch (report.outcome) {
      case SessionOutcome::kDone:
        Expect(ownership_.target_vm_runs, "the target is done, and its VM doesn't run", report);
        Expect(All(ownership_.target_runs), "the target is done, and a device doesn't run", report);
        for (const DeviceReport& device : report.devices) {
          Expect(device.content_verified,
                 absl::StrCat(device.name, " runs at the target without its state"), report);
        }
        break;
      case SessionOutcome::kRolledBack:
        Expect(!ownership_.target_vm_runs, "the target is rolled back, and its VM runs", report);
        Expect(None(ownership_.target_runs), "the target is rolled back, and a device runs",
               report);
        break;
      case SessionOutcome::kInDoubt:
        Expect(!ownership_.target_vm_runs, "the target is in doubt, and its VM runs", report);
        break;
    }
  }

  void CheckBoth(const SessionReport& source, const SessionReport& target) {
    const bool source_done = source.outcome == SessionOutcome::kDone;
    const bool target_done = target.outcome == SessionOutcome::kDone;
    Expect(!source_done || target_done, "the source is done, the target is not", source);
    Expect(!target_done || source.outcome != SessionOutcome::kRolledBack,
           "the target is done, and the source rolled back", source);
    // Both live, and what was cut off is whole again within the time-outs: one of them has it.
    const bool someone = ownership_.source_vm_runs || ownership_.target_vm_runs;
    Expect(someone || target.outcome == SessionOutcome::kInDoubt || DeviceLost() || CutOffLong() ||
               ToldNotToAsk(),
           "both live, and the VM runs nowhere", source);
    if (!OnlyLanesSuffered() || run_.plan.source_devices != run_.plan.target_devices ||
        !run_.plan.network.partitions.empty() ||
        run_.plan.source.precopy_limits.on_no_convergence == OnNoConvergence::kAbort) {
      return;
    }
    Expect(source_done, "nothing but lanes broke, and the source is not done", source);
    Expect(target_done, "nothing but lanes broke, and the target is not done", target);
  }

  // A misfortune of a device's may keep it from running, for which its host is not to blame.
  bool DeviceLost() const { return run_.plan.source_devices != run_.plan.target_devices; }
  // Connection 0 is the control channel, and as long as that one lives all others are lanes.
  bool OnlyLanesSuffered() const {
    return std::all_of(run_.plan.deeds.begin(), run_.plan.deeds.end(), [](const auto& planned) {
      return planned.deed == Deed::kBreak && planned.connection > 0;
    });
  }
  // A second cancel while contact is lost ends the source's asking, in doubt.
  bool ToldNotToAsk() const {
    return std::count_if(run_.plan.deeds.begin(), run_.plan.deeds.end(), [](const auto& planned) {
             return planned.deed == Deed::kCancel && planned.host == kSourceHost;
           }) > 1;
  }
  bool CutOffLong() const {
    for (const NetworkPlan::Partition& partition : run_.plan.network.partitions) {
      if (partition.to - partition.from > std::chrono::seconds(20)) return true;
    }
    return false;
  }

  Run& run_;
  Ownership& ownership_;
};

}  // namespace

MigrationResult Simulate(const MigrationPlan& plan, uint64_t seed, Mistake mistake, bool tell) {
  auto owned = std::make_unique<Run>(plan, seed, tell);
  Run& run = *owned;
  if (mistake == Mistake::kShortStream) {
    run.plan.source_devices = {"profile=pds,size=9000,truncate=5000"};
    run.plan.target_devices = {"profile=pds,size=9000"};
  }
  run.ownership.source_runs.assign(run.plan.source_devices.size(), true);
  run.ownership.target_runs.assign(run.plan.source_devices.size(), false);
  SetCallbacks(run, mistake);
  UseNetwork(&run.network, run.plan.processors);
  run.scheduler.SetNextEvent([&] { return run.network.NextArrival(); });

  bool pre_copied = false;
  run.scheduler.Spawn(kTargetHost, "the target", [&] {
    MakeDevices(run, run.target, run.plan.target_devices, kTargetHost);
    run.target_session =
        std::make_unique<TargetSession>(run.plan.target, run.target.Pointers(), run.target_tells);
    run.target.report = run.target_session->Run();
    run.target_tells.Tell(run.target.report->status.ToString());
  });
  run.scheduler.Spawn(kSourceHost, "the source", [&] {
    MakeDevices(run, run.source, run.plan.source_devices, kSourceHost);
    run.source_session =
        std::make_unique<SourceSession>(run.plan.source, run.source.Pointers(), run.source_tells);
    run.scheduler.Wait(
        "time to pass", [] { return false; }, run.scheduler.now() + kTargetsLead);
    run.source.report = run.source_session->Run();
    run.source_tells.Tell(run.source.report->status.ToString());
    pre_copied = run.source.report->precopy_time.count() > 0;
  });
  // A target that nobody ever called would wait for ever, and rightly so.
  run.scheduler.Spawn(kNobodysHost, "the operator", [&] {
    run.scheduler.Wait("the source's end", [&] {
      return run.source.report.has_value() || run.scheduler.killed(kSourceHost);
    });
    run.scheduler.Wait(
        "the target's end", [&] { return run.target.report.has_value(); },
        run.scheduler.now() + std::chrono::minutes(4));
    if (!run.target.report.has_value() && run.target_session != nullptr) {
      run.target_session->Cancel();
    }
  });
  for (const PlannedDeed& planned : run.plan.deeds) {
    run.scheduler.Spawn(kNobodysHost, "a deed", [&run, planned] {
      run.scheduler.Wait("both sessions", [&] {
        return run.source_session != nullptr && run.target_session != nullptr;
      });
      DoDeed(run, planned);
    });
  }

  MigrationResult result;
  const uint64_t seals_before = SealsSoFar().seals;
  result.violation = run.scheduler.Run();
  result.seals = SealsSoFar().seals - seals_before;
  if (result.violation.empty()) result.violation = Verdict(run).Give();
  if (run.source.report.has_value()) {
    result.source = run.source.report->outcome;
    result.packets = run.source.report->packets;
    for (const LaneReport& lane : run.source.report->lanes) {
      result.lanes_remade += lane.remade;
      result.packets_sent_again += lane.sent_again;
      if (run.source.report->sealing != Sealing::kOff) result.sealed_again += lane.sent_again;
    }
  }
  if (run.target.report.has_value()) {
    result.target = run.target.report->outcome;
    for (const DeviceReport& device : run.target.report->devices) {
      result.out_of_order_packets += device.out_of_order_packets;
    }
    for (const LaneReport& lane : run.target.report->lanes) result.duplicates += lane.duplicates;
  }
  result.lanes_up_at = run.source_tells.lanes_up_at();
  result.stopped_at = run.source_tells.at(SessionPhase::kStopping);
  result.committed_at = run.source_tells.at(SessionPhase::kHandingOver);
  result.pre_copied = pre_copied;
  result.breaks = run.network.breaks_happened();
  result.frame_fault = run.network.fault_happened();
  result.time = run.scheduler.now() - kClockStart;
  result.turns = run.scheduler.turns();
  result.fingerprint = run.scheduler.fingerprint();
  const bool leaves = !result.violation.empty() || run.scheduler.killed(kSourceHost) ||
                      run.scheduler.killed(kTargetHost);
  if (leaves) {
    (void)owned.release();  // its fibers are still on their stacks
    UseNetwork(nullptr);
    return result;
  }
  // Devices and sessions have threads to join: they end where they lived.
  Scheduler* const scheduler = &run.scheduler;
  scheduler->Spawn(kNobodysHost, "the end", [&] {
    run.source_session.reset();
    run.target_session.reset();
    run.source.devices.clear();
    run.target.devices.clear();
  });
  result.violation = scheduler->Run();
  UseNetwork(nullptr);
  return result;
}

}  // namespace godwit::simulation
