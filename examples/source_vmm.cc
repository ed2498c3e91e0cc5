// The source host's side of a VMM: moves one device to where target_vmm listens.
//
//   source_vmm ADDR:PORT PATH    the file's bytes are the state of a device in software
//   source_vmm ADDR:PORT fd:N    a VFIO device that this process holds open as descriptor N
//
// Exit code: 0 it runs there, 1 it runs here (Ctrl-C cancels), 2 wrong usage, 3 in doubt.

#include <absl/strings/numbers.h>
#include <absl/strings/strip.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "godwit/session.h"
#include "godwit/vfio_device.h"
#include "memory_device.h"

namespace {

// Run() calls these on the thread that called it: the place for what a VMM does at each step.
class Observer final : public godwit::SessionObserver {
 public:
  void OnPhase(godwit::SessionPhase phase) override {
    std::cerr << "source: " << godwit::SessionPhaseName(phase) << '\n';
  }
  void OnNote(absl::string_view line) override { std::cerr << "source: " << line << '\n'; }
};

std::atomic<godwit::SourceSession*> running{nullptr};

// Cancel() is async-signal-safe, and Run() then ends like after any other failure.
void CancelOnSignal(int /*signal*/) {
  if (godwit::SourceSession* const session = running.load()) session->Cancel();
}

absl::StatusOr<std::unique_ptr<godwit::Device>> OpenDevice(absl::string_view spec) {
  absl::string_view number = spec;
  int fd = -1;
  if (absl::ConsumePrefix(&number, "fd:") && absl::SimpleAtoi(number, &fd)) {
    // The VMM goes on owning its descriptor. Its device keeps running until the session stops it.
    return godwit::VfioDevice::AdoptBorrowed(fd, std::string(spec));
  }
  std::ifstream file(std::string(spec), std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("can't read ", spec));
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return std::make_unique<MemoryDevice>(std::string(spec), std::move(content));
}

int Run(const std::string& to, const std::string& spec) {
  const auto device = OpenDevice(spec);
  if (!device.ok()) {
    std::cerr << "source: error: " << device.status().message() << '\n';
    return 2;
  }
  godwit::SourceOptions options;
  options.to = to;
  options.vm.stop_vcpus = [] {  // downtime begins, and the devices are stopped next
    std::cerr << "source: vCPUs stop\n";
    return absl::OkStatus();
  };
  options.vm.start_vcpus = [] {  // only after a rollback
    std::cerr << "source: vCPUs start again\n";
    return absl::OkStatus();
  };
  Observer observer;
  godwit::SourceSession session(options, {device->get()}, observer);
  running.store(&session);
  std::signal(SIGINT, CancelOnSignal);
  const godwit::SessionReport report = session.Run();
  std::signal(SIGINT, SIG_DFL);
  running.store(nullptr);

  if (!report.status.ok()) std::cerr << "source: error: " << report.status.message() << '\n';
  switch (report.outcome) {
    case godwit::SessionOutcome::kDone:
      std::cout << "moved " << report.bytes << " bytes\n";
      return 0;  // the VM runs there: this one may go
    case godwit::SessionOutcome::kRolledBack:
      return 1;  // the device runs again: so may the vCPUs
    case godwit::SessionOutcome::kInDoubt:
      return 3;  // it may run there: start nothing here before somebody has looked
  }
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3) return Run(argv[1], argv[2]);
  std::cerr << "usage: source_vmm ADDR:PORT PATH|fd:N\n";
  return 2;
}
