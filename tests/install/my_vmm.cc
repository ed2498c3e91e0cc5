// An embedder's whole program, built outside of this tree from what is installed: moves a device of
// its own to another within this process, and through a file. Exits with 0 if every byte arrived;
// else its last line on stderr says what did not.

#include <godwit/capture.h>
#include <godwit/session.h>
#include <godwit/stream_check.h>
#include <godwit/vfio_device.h>

#include <cstdlib>
#include <future>
#include <iostream>
#include <string>
#include <thread>

#include "memory_device.h"  // of the installed examples

namespace {

void Require(bool fact, absl::string_view what) {
  if (fact) return;
  std::cerr << "my_vmm: not so: " << what << '\n';
  std::_Exit(1);
}

void RequireDone(const godwit::SessionReport& report, absl::string_view who, uint64_t bytes) {
  Require(report.status.ok(), absl::StrCat(who, ": ", report.status.message()));
  Require(report.outcome == godwit::SessionOutcome::kDone, absl::StrCat(who, " is done"));
  Require(report.bytes == bytes, absl::StrCat(who, " moved ", report.bytes, " bytes"));
}

// Several packets and some, and no two of them alike.
std::string Content() {
  std::string content((size_t{5} << 20) + 3, '\0');
  uint32_t x = 1;
  for (char& byte : content) {
    x = x * 1664525 + 1013904223;
    byte = static_cast<char>(x >> 24);
  }
  return content;
}

class PortObserver final : public godwit::SessionObserver {
 public:
  void OnListening(absl::string_view /*address*/, uint16_t port) override { port_.set_value(port); }
  uint16_t port() { return port_.get_future().get(); }

 private:
  std::promise<uint16_t> port_;
};

godwit::TargetOptions OnAnyPort() {
  godwit::TargetOptions options;
  options.listen = "127.0.0.1:0";
  options.transport = godwit::TransportKind::kTcp;
  options.stream_check = [](size_t /*device*/) { return *godwit::MakeStreamCheck("raw"); };
  return options;
}

// A cancelled attempt leaves the device as it was, and the next one can have it.
void CancelBeforeRun(MemoryDevice& target) {
  godwit::SessionObserver observer;
  godwit::TargetSession session(OnAnyPort(), {&target}, observer);
  session.Cancel();
  const godwit::SessionReport report = session.Run();
  Require(absl::IsCancelled(report.status), "Cancel() before Run() cancels");
  Require(report.outcome == godwit::SessionOutcome::kRolledBack, "a cancelled session rolls back");
}

void Move(MemoryDevice& source, MemoryDevice& target) {
  PortObserver target_observer;
  godwit::TargetSession target_session(OnAnyPort(), {&target}, target_observer);
  godwit::SessionReport loaded;
  std::thread host([&] { loaded = target_session.Run(); });

  godwit::SourceOptions options;
  options.to = absl::StrCat("127.0.0.1:", target_observer.port());
  godwit::SessionObserver observer;
  godwit::SourceSession source_session(options, {&source}, observer);
  const godwit::SessionReport sent = source_session.Run();
  if (!sent.status.ok()) target_session.Cancel();  // or it would wait for another source
  host.join();
  RequireDone(sent, "the source", source.content().size());
  RequireDone(loaded, "the target", source.content().size());
  Require(sent.devices[0].sent_crc32c == loaded.devices[0].loaded_crc32c, "digests are the same");
  Require(*source.State() == godwit::DeviceState::kStop, "the source's device stands");
  Require(*target.State() == godwit::DeviceState::kRunning, "the target's device runs");
}

void SaveAndLoad(MemoryDevice& source, MemoryDevice& target) {
  godwit::SessionObserver observer;
  godwit::SaveOptions save;
  save.out = "my_vmm.capture";
  save.replace = true;
  const uint64_t bytes = source.content().size();
  RequireDone(godwit::SaveSession(save, {&source}, observer).Run(), "saving", bytes);
  godwit::LoadOptions load;
  load.in = save.out;
  RequireDone(godwit::LoadSession(load, {&target}, observer).Run(), "loading", bytes);
}

}  // namespace

int main() {
  const std::string content = Content();
  MemoryDevice source("source", content);
  MemoryDevice target("target", "");
  CancelBeforeRun(target);
  Move(source, target);
  Require(source.content() == content, "the source keeps what it had");
  Require(target.content() == content, "what arrived is what was sent");

  MemoryDevice loaded("loaded", "");
  SaveAndLoad(target, loaded);
  Require(loaded.content() == content, "what was loaded is what was saved");

  const auto no_device = godwit::VfioDevice::AdoptBorrowed(0, "stdin");
  Require(absl::IsInvalidArgument(no_device.status()), "a pipe is no VFIO device");
  std::cout << "moved " << content.size() << " bytes, twice\n";
}
