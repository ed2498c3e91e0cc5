// The target host's side of a VMM: waits for one source_vmm, and takes its device.
//
//   target_vmm ADDR:PORT PATH    a device in software; its state is written to the file in the end
//   target_vmm ADDR:PORT fd:N    a VFIO device that this process holds open as descriptor N
//
// Port 0 takes a free one. Exit code: 0 the device runs here, 1 it does not (Ctrl-C cancels),
// 2 wrong usage, 3 it should run here and does not.

#include <absl/strings/numbers.h>
#include <absl/strings/strip.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <iostream>
#include <memory>

#include "godwit/session.h"
#include "godwit/vfio_device.h"
#include "memory_device.h"

namespace {

class Observer final : public godwit::SessionObserver {
 public:
  // From here on a source can connect: what the target's management waits for.
  void OnListening(absl::string_view address, uint16_t port) override {
    std::cout << "listening on " << address << ':' << port << std::endl;
  }
  void OnPhase(godwit::SessionPhase phase) override {
    std::cerr << "target: " << godwit::SessionPhaseName(phase) << '\n';
  }
  void OnNote(absl::string_view line) override { std::cerr << "target: " << line << '\n'; }
};

std::atomic<godwit::TargetSession*> running{nullptr};

// Cancel() is async-signal-safe, and Run() then ends like after any other failure.
void CancelOnSignal(int /*signal*/) {
  if (godwit::TargetSession* const session = running.load()) session->Cancel();
}

absl::StatusOr<std::unique_ptr<godwit::Device>> OpenDevice(absl::string_view spec) {
  absl::string_view number = spec;
  int fd = -1;
  if (absl::ConsumePrefix(&number, "fd:") && absl::SimpleAtoi(number, &fd)) {
    // Opened by the VMM like for a VM that starts. No vCPU runs before the state is loaded.
    return godwit::VfioDevice::AdoptBorrowed(fd, std::string(spec));
  }
  return std::make_unique<MemoryDevice>(std::string(spec), "");
}

int Run(const std::string& listen, const std::string& spec) {
  const auto device = OpenDevice(spec);
  if (!device.ok()) {
    std::cerr << "target: error: " << device.status().message() << '\n';
    return 2;
  }
  godwit::TargetOptions options;
  options.listen = listen;
  options.vm.start_vcpus = [] {  // the device runs, and the source never will
    std::cerr << "target: vCPUs start\n";
    return absl::OkStatus();
  };
  Observer observer;
  godwit::TargetSession session(options, {device->get()}, observer);
  running.store(&session);
  std::signal(SIGINT, CancelOnSignal);
  const godwit::SessionReport report = session.Run();
  std::signal(SIGINT, SIG_DFL);
  running.store(nullptr);

  if (!report.status.ok()) std::cerr << "target: error: " << report.status.message() << '\n';
  if (report.outcome == godwit::SessionOutcome::kInDoubt) return 3;
  if (report.outcome == godwit::SessionOutcome::kRolledBack) return 1;
  std::cout << "loaded " << report.bytes << " bytes\n";
  if (const auto* const memory = dynamic_cast<const MemoryDevice*>(device->get())) {
    std::ofstream file(memory->name(), std::ios::binary);
    file << memory->content() << std::flush;
    if (!file) std::cerr << "target: can't write " << memory->name() << '\n';
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3) return Run(argv[1], argv[2]);
  std::cerr << "usage: target_vmm ADDR:PORT PATH|fd:N\n";
  return 2;
}
